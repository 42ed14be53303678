//! Key groups: the fixed shares of the key space that are dealt to workers.
//!
//! A key's group depends on its stable hash and on the number of groups alone, so state that was written
//! by three workers is found by two. Every worker owns a contiguous range of groups.

use std::ops::Range;

/// How many key groups a job has unless it says otherwise.
pub const DEFAULT_KEY_GROUPS: u32 = 256;

/// The number of key groups of a job, fixed for the life of its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyGroups(u32);

impl KeyGroups {
    /// A key space of `count` groups.
    ///
    /// # Panics
    ///
    /// Panics if `count` is 0.
    pub fn new(count: u32) -> Self {
        assert!(count > 0, "there is at least one key group");
        KeyGroups(count)
    }

    /// How many groups there are.
    pub fn count(self) -> u32 {
        self.0
    }

    /// The group of a key, from the *upper* bits of its hash: the lower ones find it in a hash table.
    ///
    /// ```
    /// use highwater_state::KeyGroups;
    /// assert_eq!(KeyGroups::new(256).of(u64::MAX), 255);
    /// ```
    #[inline]
    pub fn of(self, hash: u64) -> u32 {
        ((u128::from(hash) * u128::from(self.0)) >> 64) as u32
    }

    /// The groups that `worker` of `workers` owns; the ranges of all workers cover every group once.
    ///
    /// # Panics
    ///
    /// Panics if `worker` is not below `workers`.
    pub fn range(self, worker: usize, workers: usize) -> Range<u32> {
        assert!(worker < workers, "worker {worker} of {workers}");
        let bound = |worker: usize| (u64::from(self.0) * worker as u64 / workers as u64) as u32;
        bound(worker)..bound(worker + 1)
    }

    /// Which worker owns each group, indexed by group.
    pub fn owners(self, workers: usize) -> Vec<u32> {
        let mut owners = vec![0; self.0 as usize];
        for worker in 0..workers {
            for group in self.range(worker, workers) {
                owners[group as usize] = worker as u32;
            }
        }
        owners
    }
}

impl Default for KeyGroups {
    fn default() -> Self {
        KeyGroups(DEFAULT_KEY_GROUPS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_group_once() {
        for count in [1, 3, 7, 256] {
            for workers in 1..20 {
                let groups = KeyGroups::new(count);
                let all: Vec<u32> = (0..workers).flat_map(|w| groups.range(w, workers)).collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
                let owners = groups.owners(workers);
                for worker in 0..workers {
                    assert!(
                        groups.range(worker, workers).all(|g| owners[g as usize] == worker as u32)
                    );
                }
            }
        }
    }
}
