//! The mixing function under the stable hash: how a sequence of words and strings becomes 64 bits.
//!
//! Nothing here may ever change under the same [`HASH_VERSION`](crate::HASH_VERSION): checkpoints are sorted by what it returns.

use xxhash_rust::xxh3::xxh3_64;

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const STEP: u64 = 0xd6e8_feb8_6659_fd93;
const LAST: u64 = 0xa076_1d64_78bd_642f;
const NONE: u64 = 0xe703_7ed1_a0b4_28db;
const UNIT: u64 = 0x8ebc_6af0_9c88_c6e3;

/// The state of one hash under way.
#[derive(Clone, Copy)]
pub(crate) struct Mixer(u64);

/// A full multiplication, both halves folded into one word: every input bit reaches high and low output bits.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

impl Mixer {
    #[inline]
    pub(crate) fn new() -> Self {
        Self(SEED)
    }

    #[inline]
    pub(crate) fn word(&mut self, word: u64) {
        self.0 = fold(self.0 ^ word, STEP);
    }

    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.word(xxh3_64(bytes));
        self.word(bytes.len() as u64);
    }

    /// All floats are hashed as `f64`, so that widening one keeps its hash.
    #[inline]
    pub(crate) fn f64(&mut self, value: f64) {
        self.word(value.to_bits());
    }

    #[inline]
    pub(crate) fn f32(&mut self, value: f32) {
        self.word(widened_bits(value));
    }

    #[inline]
    pub(crate) fn none(&mut self) {
        self.word(NONE);
    }

    #[inline]
    pub(crate) fn unit(&mut self) {
        self.word(UNIT);
    }

    #[inline]
    pub(crate) fn finish(self) -> u64 {
        fold(self.0, LAST)
    }
}

/// The bits of an `f32` as `f64`. A NaN is widened by hand: what a cast does to its payload differs between processors.
#[inline]
pub(crate) fn widened_bits(value: f32) -> u64 {
    if value.is_nan() {
        let bits = u64::from(value.to_bits());
        ((bits >> 31) << 63) | (0x7ff << 52) | ((bits & 0x007f_ffff) << 29)
    } else {
        f64::from(value).to_bits()
    }
}
