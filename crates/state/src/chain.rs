//! How long the chain of a key group may become.
//!
//! What a key group wrote at successive checkpoints is a chain: one whole copy, then changes. Recovery reads all
//! of it, so it is bounded, both in bytes and in length, by [`plan`], a pure function:
//!
//! - **Bytes.** When the changes since the whole copy have grown as large as that copy, the group is written whole.
//!   So recovery reads at most about twice the state, and a group writes at most about twice what changed.
//! - **Length.** New changes swallow the youngest links that are not at least twice their size (the logarithmic
//!   method of Bentley and Saxe, 1980). So every link is more than twice the one after it, a chain is no longer than the
//!   logarithm of its size, and a change is rewritten a logarithmic number of times.
//!
//! Nothing is read for this: memory holds the present value of every key that a swallowed link names.
//!
//! # Invariants
//!
//! 1. The first link of a chain that isn't empty is a whole copy (`since` 0).
//! 2. Links are in the order of their intervals, and each replaces exactly the links with an interval at or above
//!    its `since` that came before it.

/// What a link costs apart from its rows, about: a batch's headers, an index, a place in a manifest. Counted in, so
/// that many tiny links are worth being merged.
pub const LINK_BYTES_MIN: u64 = 1024;

/// Which stored object holds a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The object of this number in the list that this attempt was restored from.
    Restored(u32),
    /// The object into which this worker put the sections of this interval.
    Own(u32),
}

/// One stored piece of a key group.
#[derive(Clone, Debug)]
pub struct Link<K> {
    /// Where it is.
    pub place: Place,
    /// The interval of the youngest change in it.
    pub interval: u32,
    /// It stands for all changes from this interval on; 0 for a whole copy.
    pub since: u32,
    /// About how large it is.
    pub bytes: u64,
    /// The lookup hashes of the keys in it; empty for a whole copy, which holds every key.
    pub hashes: Vec<u64>,
    /// The keys that it deletes.
    pub deleted: Vec<K>,
}

/// What to write of one key group at a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// So many of the oldest links stay; those after them are swallowed by what is written now.
    pub keep: usize,
}

/// Decides how much of a group's chain is written again together with its new changes.
///
/// `links` are the sizes of the present links in bytes, oldest first, `fresh` the size of the new changes, and
/// `retire` a link that is to be written again whatever its size, because its object is mostly dead.
/// `keep` 0 in the answer means a whole copy.
pub fn plan(links: &[u64], fresh: u64, retire: Option<usize>) -> Plan {
    let Some((whole, changes)) = links.split_first() else {
        return Plan { keep: 0 };
    };
    let mut keep = links.len();
    let mut written = fresh;
    while keep > 1
        && (links[keep - 1] <= written.saturating_mul(2) || retire.is_some_and(|r| r < keep))
    {
        written = written.saturating_add(links[keep - 1]);
        keep -= 1;
    }
    let kept: u64 = changes[..keep - 1].iter().sum();
    if kept.saturating_add(written) >= *whole || retire == Some(0) {
        keep = 0;
    }
    Plan { keep }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_write_is_whole() {
        assert_eq!(plan(&[], 5, None), Plan { keep: 0 });
    }

    #[test]
    fn changes_as_large_as_the_whole_copy_replace_it() {
        assert_eq!(plan(&[100], 99, None), Plan { keep: 1 });
        assert_eq!(plan(&[100], 100, None), Plan { keep: 0 });
        assert_eq!(plan(&[100, 60], 20, None), Plan { keep: 2 });
        assert_eq!(plan(&[100, 60, 20], 20, None), Plan { keep: 0 });
    }

    #[test]
    fn a_retired_link_and_all_after_it_are_written_again() {
        assert_eq!(plan(&[1000, 300, 100, 30], 0, Some(2)), Plan { keep: 2 });
        assert_eq!(plan(&[1000, 300], 0, Some(0)), Plan { keep: 0 });
    }

    /// Over any run of small changes: at most twice the state is read, and chains are short.
    #[test]
    fn chains_stay_bounded() {
        for step in [1, 3, 10, 50] {
            let mut links: Vec<u64> = vec![10_000];
            let mut written = 0;
            for _ in 0..20_000 {
                let Plan { keep } = plan(&links, step, None);
                let size =
                    if keep == 0 { 10_000 } else { step + links[keep..].iter().sum::<u64>() };
                links.truncate(keep);
                links.push(size);
                written += size;
                assert!(links.iter().sum::<u64>() <= 2 * 10_000, "{links:?}");
                assert!(links.len() <= 15, "{links:?}");
            }
            // A change is written about once a level, and once more with the whole copy.
            assert!(written <= 20_000 * step * 12, "step {step}: {written}");
        }
    }
}
