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
