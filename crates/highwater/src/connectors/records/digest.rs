//! By what is seen that the bytes that were read of a split are still what they were: a CRC-32, since it can be gone on with from its value alone.

use highwater_runtime::connector::SplitOffset;

/// Beside the 32 bits of the sum: there is one.
const KNOWN: u64 = 1 << 32;

/// Of no bytes: where a split begins.
pub(crate) const BEGIN: u64 = KNOWN;

/// Goes on over the bytes that follow; what isn't known stays so.
pub(crate) fn add(digest: &mut u64, bytes: &[u8]) {
    if *digest & KNOWN != 0 {
        let mut sum = crc32fast::Hasher::new_with_initial(*digest as u32);
        sum.update(bytes);
        *digest = KNOWN | u64::from(sum.finalize());
    }
}

/// Bytes were passed over that nobody has seen whole: from here on it isn't known.
pub(crate) fn lose(digest: &mut u64) {
    *digest = 0;
}

/// What has been read of a split is to be seen again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Where it begins.
    pub(crate) begin: u64,
    digest: u64,
    found: u64,
}

impl Expected {
    /// What was read up to an offset, of a split that begins there; none if it isn't known.
    pub(crate) fn of(offset: &SplitOffset, begin: u64) -> Option<Self> {
        (offset.digest & KNOWN != 0).then_some(Expected {
            begin,
            digest: offset.digest,
            found: BEGIN,
        })
    }

    /// Takes bytes that come next, the first of them from this position on.
    pub(crate) fn see(&mut self, position: u64, bytes: &[u8]) {
        let before = usize::try_from(self.begin.saturating_sub(position)).unwrap_or(usize::MAX);
        if let Some(bytes) = bytes.get(before..) {
            add(&mut self.found, bytes);
        }
    }

    /// Whether it is what was expected.
    pub(crate) fn is_met(&self) -> bool {
        self.found == self.digest
    }
}
