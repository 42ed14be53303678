//! What a table tells of an entry that it found or made.

/// An entry that is about to be changed.
#[derive(Debug)]
pub struct Upserted<'a, K, V> {
    /// Its key.
    pub key: &'a K,
    /// Its value.
    pub value: &'a mut V,
    /// A number that the table's owner may leave with the entry; 0 at the entry's first change in each interval.
    pub mark: &'a mut u32,
    /// Where it is.
    pub spot: Spot,
}

/// Where an entry of a table is, until any is removed from the table or the interval ends: it can be read again without being
/// looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    pub(super) group: u32,
    pub(super) number: u32,
}
