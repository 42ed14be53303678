//! Where a file sink puts its output: a folder, or a prefix in a bucket. What the publisher does is the same in both.
//!
//! ```text
//!                  staged                        a part gets its name                durable
//!  Folder   written beside the parts, synced     hard link                           once folders are synced
//!  Bucket   put when an interval is over         copied within the bucket            when it is answered
//! ```
//!
//! Names are below the place, with `/` between folders (see [`layout`](super::layout)). All of this may block: it runs on threads of its
//! own.

mod bucket;
mod folder;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_env::Env;
use highwater_log::{Retry, StagedItem};
use highwater_runtime::BoxError;

use super::layout::Owner;

pub(super) use bucket::Bucket;
pub(super) use folder::{Folder, sync_folder};

/// What is wrong with a file whose checksum is another than the entry's.
pub(super) const OTHER_CONTENT: &str = "doesn't have the content that was written";

/// Writes the content of a file.
pub(super) type WriteContent<'w> = &'w mut dyn FnMut(&mut File) -> Result<(), BoxError>;

/// Where the output of a file sink lies.
pub(super) trait Place: fmt::Debug + Send + Sync {
    /// A name as people know it.
    fn shown(&self, name: &str) -> PathBuf;

    /// So many parts are made at once.
    fn parts_at_once(&self) -> usize;

    /// How often a start tries to reach it.
    fn retry(&self) -> Retry;

    /// Makes sure that the place, which this sink has claimed, is there: in one that is away nothing is missing, and nothing may be made
    /// in its stead.
    ///
    /// # Errors
    ///
    /// [`Away`](highwater_runtime::connector::Away) if it isn't there at the moment.
    fn check_there(&self) -> Result<(), BoxError>;

    /// Makes the place this sink's, or makes sure that it is. Nothing is touched that isn't.
    ///
    /// # Errors
    ///
    /// If it is another's, or holds what no sink wrote.
    fn claim(&self, me: &Owner) -> Result<(), BoxError>;

    /// Makes sure that nothing is visible that the log doesn't know of: the loss of its last entry shows nowhere else.
    ///
    /// # Errors
    ///
    /// If an earlier attempt has published what no checkpoint up to the interval `covered` does.
    fn check_covered(&self, attempt: u64, covered: u32) -> Result<(), BoxError>;

    /// Removes everything that attempts before this one staged and published here, first what is staged, so that one that was fenced
    /// and doesn't know yet has nothing left to publish. What a later one did stays, should it be this one that was fenced.
    fn clear(&self, attempt: u64) -> Result<(), BoxError>;

    /// Removes what attempts before this one staged.
    fn clear_staged(&self, attempt: u64) -> Result<(), BoxError>;

    /// Whether there is something of this name.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// The whole content of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// How a file differs from what was written as `item`; none if it doesn't, as far as can be told without much ado.
    fn difference(&self, name: &str, item: &StagedItem) -> io::Result<Option<String>>;

    /// Whether two files have the same content, as far as can be told without much ado.
    fn same(&self, one: &str, other: &str) -> io::Result<bool>;

    /// Writes a hidden file, in place of one of that name.
    fn write(&self, name: &str, content: WriteContent<'_>) -> Result<(), BoxError>;

    /// Makes sure that there is a folder for each of these partitions.
    fn make_folders(&self, partitions: &BTreeSet<&str>) -> Result<(), BoxError>;

    /// Gives a hidden file a second, visible name: in one step, and with the whole content.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if something has that name.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes the names of parts durable, and those of the folders that they are in.
    fn make_durable(&self, partitions: &BTreeSet<&str>) -> Result<(), BoxError>;

    /// Removes a file, unless it is gone.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// The place that `path` names: `s3://bucket/prefix`, otherwise a folder. Nothing is sent to a server yet.
///
/// # Errors
///
/// If it can't be used; says why.
pub(super) fn open(path: &Path, env: &Arc<dyn Env>) -> Result<Arc<dyn Place>, BoxError> {
    Ok(match location(path) {
        Some(location) => Arc::new(Bucket::open(location, env)?),
        None => Arc::new(Folder::new(path)),
    })
}

/// The URL that a path is, if it is no folder of this machine.
pub(super) fn location(path: &Path) -> Option<&str> {
    path.to_str().filter(|path| path.contains("://"))
}

/// A part in a bucket is copied in one request, and may have as many bytes. What is put together may be twice as large as what it
/// begins a new file at.
const COPY_MAX: u64 = 5 << 30;

/// Whether files of about so many bytes can be put at `path`.
///
/// # Errors
///
/// What is in the way, for people.
pub(super) fn check(path: &Path, roll_bytes: u64) -> Result<(), String> {
    let Some(location) = location(path) else { return Ok(()) };
    if let Some(folder) = location.strip_prefix("file://") {
        return Err(format!("`{location}` is a folder of this machine; write `{folder}`"));
    }
    bucket::store(location).map_err(|error| error.to_string())?;
    if roll_bytes > COPY_MAX / 2 {
        return Err(format!(
            "files in a bucket can be of 2.5 GB at the most, and `roll_bytes` says {roll_bytes} bytes"
        ));
    }
    Ok(())
}
