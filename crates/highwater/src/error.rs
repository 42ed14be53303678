//! The one error of the library, made to be read by people when `main` returns it.

use std::fmt;

use highwater_runtime::BoxError;

/// What a fallible function of this library returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a job couldn't start, or how it failed.
///
/// Its `Debug` form is its message, so that a `main` that returns it prints something readable.
pub struct Error(Repr);

enum Repr {
    Engine(highwater_runtime::Error),
    Other(BoxError),
}

impl Error {
    /// What the engine says, if the error is the engine's.
    pub fn engine(&self) -> Option<&highwater_runtime::Error> {
        match &self.0 {
            Repr::Engine(error) => Some(error),
            Repr::Other(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Engine(error) => error.fmt(f),
            Repr::Other(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

impl From<highwater_runtime::Error> for Error {
    fn from(error: highwater_runtime::Error) -> Self {
        Error(Repr::Engine(error))
    }
}

impl From<highwater_log::LogError> for Error {
    fn from(error: highwater_log::LogError) -> Self {
        Error(Repr::Engine(error.into()))
    }
}

impl From<BoxError> for Error {
    fn from(error: BoxError) -> Self {
        Error(Repr::Other(error))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error(Repr::Other(error.into()))
    }
}
