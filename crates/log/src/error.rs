//! What can go wrong with a log: what it is, where, and what to do about it.

use std::fmt;

/// Which sort of entry a damaged file still shows itself to have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An attempt started.
    Attempt,
    /// A checkpoint committed.
    Checkpoint,
}

/// What is wrong with something that should be whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It isn't there.
    Missing,
    /// Its end is missing.
    Truncated {
        /// How many bytes are there.
        has: u64,
        /// How many there should be, where that is known.
        of: Option<u64>,
    },
    /// It has more bytes than were written.
    TooLong {
        /// How many bytes are there.
        has: u64,
        /// How many there should be.
        of: u64,
    },
    /// Its content isn't what was written.
    Checksum,
    /// It was written so, but makes no sense.
    Malformed(String),
    /// It has a format version that this build doesn't read.
    Format {
        /// Its version.
        found: u32,
        /// The newest version that this build reads.
        known: u32,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Missing => write!(f, "missing"),
            Why::Truncated { has, of: Some(of) } => {
                write!(f, "truncated (has {has} of {of} bytes)")
            }
            Why::Truncated { has, of: None } => write!(f, "truncated (has {has} bytes)"),
            Why::TooLong { has, of } => write!(f, "too long (has {has} bytes instead of {of})"),
            Why::Checksum => write!(f, "damaged (its checksum does not match its content)"),
            Why::Malformed(why) => write!(f, "malformed ({why})"),
            Why::Format { found, known } => write!(
                f,
                "in format version {found}, and this program reads versions up to {known}"
            ),
        }
    }
}

/// Something in the store that should be whole and isn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it is, or should be.
    pub path: String,
    /// What is wrong with it.
    pub why: Why,
    /// For an entry: which sort of entry its remains show it to have been.
    pub kind: Option<Kind>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.path, self.why)
    }
}

/// A failure to read or write a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A store can't be opened.
    #[error("checkpoint location `{location}`: {why}")]
    Location {
        /// The location as it was given.
        location: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A store that was there isn't.
    #[error(
        "checkpoint location `{location}`: the job's log was there and is gone; put the folder back, or mount its volume again"
    )]
    Gone {
        /// The location as it was given.
        location: String,
    },
    /// A store that would let two attempts commit the same checkpoint.
    #[error(
        "{path}: this store doesn't refuse to create an object that is there already ({why}), so two attempts of the job could overwrite \
         each other's checkpoints; use one that has conditional puts (the header If-None-Match), and leave them switched on"
    )]
    NotExclusive {
        /// The object that was to be created a second time.
        path: String,
        /// What the store answered.
        why: String,
    },
    /// Something that should be whole isn't.
    #[error(
        "{0}; restore it from a backup, start from another checkpoint or savepoint, or start over with --fresh"
    )]
    Damaged(Damage),
    /// The store doesn't answer, or not as it should.
    #[error(
        "could not {doing} {path} in {tries} tries: {why}; check that the store can be reached and written, then start again"
    )]
    Unavailable {
        /// What was to be done.
        doing: &'static str,
        /// To what.
        path: String,
        /// How often it was tried.
        tries: u32,
        /// The last error.
        why: String,
    },
    /// An object's name is taken by another content.
    #[error(
        "{path} exists already with other content, though its name holds this attempt and interval; is another log's data in this place? Use a place of its own for each job"
    )]
    Conflict {
        /// The object.
        path: String,
    },
    /// The log belongs to another job.
    #[error(
        "{path} belongs to the job `{found}`, not `{expected}`; use a place of its own for each job"
    )]
    OtherJob {
        /// The entry that shows it.
        path: String,
        /// The job that it names.
        found: String,
        /// The job whose log was expected.
        expected: String,
    },
    /// Attempt entries of one log name different identities.
    #[error(
        "{first} and {second} come from two different logs (identities {first_id} and {second_id}); were two places copied into one? Restore one of them from a backup, or start over with --fresh"
    )]
    TwoIdentities {
        /// An attempt entry.
        first: String,
        /// Its identity.
        first_id: String,
        /// A later one.
        second: String,
        /// Its identity.
        second_id: String,
    },
    /// A name that no store takes.
    #[error("`{name}` can't be the name of an object: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A value that JSON can't express.
    #[error("{path} can't be written as JSON: {why}")]
    Encode {
        /// What was to be written.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// A checkpoint entry could not be appended. The attempt must end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Another attempt has taken over.
    #[error(
        "{path} is taken by {by}: another attempt of this job has taken over, and this one must end"
    )]
    Fenced {
        /// The entry that was to be written.
        path: String,
        /// What is there instead.
        by: String,
    },
    /// An earlier append of this attempt is under way, or ended without success.
    #[error("an earlier append of this attempt has no known outcome; this attempt must end")]
    Ended,
    /// The entry could not even be sent.
    #[error(transparent)]
    Log(#[from] LogError),
}
