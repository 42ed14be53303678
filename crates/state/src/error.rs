//! What can go wrong between memory and a section.

/// Why state could not be written or read back.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A key or value could not be turned into a column, or a column into a key or value.
    #[error("state `{state}`: {source}")]
    Codec {
        /// The state's name.
        state: String,
        /// What the codec says.
        source: highwater_codec::CodecError,
    },
    /// A key isn't where its hash says, so that it would never be found again.
    #[error(
        "state `{state}`: a key was stored in key group {stored} and hashes into group {hashed}: the type of the keys has \
         changed into one with other keys (widening an integer is fine, a field more or less isn't)"
    )]
    Moved {
        /// The state's name.
        state: String,
        /// The key group that it was stored in.
        stored: u32,
        /// The key group that its hash says today.
        hashed: u32,
    },
    /// Arrow refused a batch or a file.
    #[error("state `{state}`: Arrow: {source}")]
    Arrow {
        /// The state's name.
        state: String,
        /// What Arrow says.
        source: arrow_schema::ArrowError,
    },
    /// An object doesn't hold what its format promises.
    #[error("checkpoint object {object}: {why}")]
    Object {
        /// The object's name.
        object: String,
        /// What is wrong with it.
        why: String,
    },
}
