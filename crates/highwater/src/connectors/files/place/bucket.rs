//! A prefix in a bucket as the place of a file sink.
//!
//! ```text
//!  writer:    rows ─▶ temporary file of the machine ─cut: put─▶ .highwater/staged/a..-i..-w..
//!  publisher: .highwater/staged/a..-i..-w.. ─copied within the bucket, unless it is there─▶ part-a..-i..-w.. ; then what is staged is deleted
//! ```
//!
//! # Invariants
//!
//! - Every name has one content: what is staged is named by attempt, interval, worker and number, and what a part is made of
//!   stands in the log. So it does no harm to write a name twice, as whoever was fenced and doesn't know yet may do.
//! - A part is made from what is staged, never from what somebody remembers: with that deleted, as a start with `--fresh` does first, one
//!   that was fenced has nothing to publish.
//! - Names appear with their whole content, and are there once that is answered. Nothing is renamed.
//! - An object is held against its length only: its content was signed with the request that wrote it, and is the store's to keep.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use highwater_env::Env;
use highwater_log::{Bytes, LogError, Retry, StagedItem, Store};
use highwater_runtime::BoxError;
use highwater_runtime::connector::Away;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStoreExt};

use super::{Place, WriteContent};
use crate::connectors::files::layout::{self, Owner, Staged, attempt_of_staged, part_of};
use crate::connectors::files::partition;

/// So many requests are under way at once.
const AT_ONCE: usize = 8;

/// So much of a file is read at once.
const PIECE_BYTES: usize = 8 << 20;

/// A prefix in a bucket.
#[derive(Clone, Debug)]
pub(in crate::connectors::files) struct Bucket {
    store: Store,
    location: String,
    env: Arc<dyn Env>,
}

impl Bucket {
    /// The place that `location` names. Nothing is sent to it yet.
    ///
    /// # Errors
    ///
    /// If the location can't be used; says why.
    pub(in crate::connectors::files) fn open(
        location: &str,
        env: &Arc<dyn Env>,
    ) -> Result<Self, BoxError> {
        Ok(Bucket::over(store(location)?, location, env))
    }

    pub(in crate::connectors::files) fn over(
        store: Store,
        location: &str,
        env: &Arc<dyn Env>,
    ) -> Self {
        let location = location.trim_end_matches('/').to_owned();
        Bucket { store, location, env: env.clone() }
    }

    /// Puts what is staged by this name, perhaps again, after an answer that was lost.
    pub(in crate::connectors::files) async fn stage(
        &self,
        name: &str,
        bytes: u64,
        content: impl Iterator<Item = io::Result<Bytes>> + Send,
    ) -> io::Result<()> {
        match self.store.put_new_from(&object(name)?, bytes, content).await {
            // The name is this writer's alone.
            Ok(()) | Err(Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(of_store(error)),
        }
    }

    /// Waits for what a request is answered.
    fn wait<T: Send + 'static>(
        &self,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        highwater_env::block_on(self.env.as_ref(), request).map_err(of_store)
    }

    /// The length of an object.
    fn length(&self, name: &str) -> io::Result<u64> {
        let (objects, path) = (self.store.objects().clone(), object(name)?);
        self.wait(async move { Ok(objects.head(&path).await?.size) })
    }

    fn get(&self, name: &str) -> io::Result<Option<Bytes>> {
        let (store, path) = (self.store.clone(), object(name)?);
        self.wait(async move { store.get_whole(&path).await })
    }

    /// All names, or those in a folder.
    fn names(&self, folder: Option<&str>) -> Result<Vec<String>, BoxError> {
        let prefix = folder.map(object).transpose()?;
        let objects = self.store.objects().clone();
        let listed = self.wait(async move {
            objects.list(prefix.as_ref()).try_collect::<Vec<ObjectMeta>>().await
        });
        let listed = listed.map_err(|error| self.away("list", folder.unwrap_or(""), &error))?;
        Ok(listed.into_iter().map(|meta| meta.location.into()).collect())
    }

    fn delete(&self, names: Vec<String>) -> Result<(), BoxError> {
        let mut deletes = Vec::new();
        for name in names {
            let (objects, path) = (self.store.objects().clone(), object(&name)?);
            deletes.push(async move {
                match objects.delete(&path).await {
                    Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            });
        }
        let all = stream::iter(deletes).buffer_unordered(AT_ONCE).try_collect::<()>();
        self.wait(all).map_err(|error| self.away("delete from", "", &error))
    }

    /// What is staged or published by attempts before this one, of those names.
    fn staged_before(&self, attempt: u64) -> Result<Vec<String>, BoxError> {
        let mut names = self.names(Some(layout::STAGED))?;
        let older = |name: &str| attempt_of_staged(name).is_some_and(|of| of < attempt);
        names.retain(|name| older(partition::split(name).1));
        Ok(names)
    }

    /// What couldn't be done, for people.
    pub(in crate::connectors::files) fn cannot(
        &self,
        what: &str,
        name: &str,
        error: &io::Error,
    ) -> String {
        format!("can't {what} {}: {error}", self.shown(name).display())
    }

    /// A request failed while the place is claimed: it may be answered later, unless it is the store that refuses it.
    fn away(&self, what: &str, name: &str, error: &io::Error) -> BoxError {
        let text = self.cannot(what, name, error);
        let refuses = [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied];
        if refuses.contains(&error.kind()) {
            return format!(
                "{text}; the bucket must be there, and the credentials must allow to read, write, list and delete in it"
            )
            .into();
        }
        Away(text).into()
    }
}

impl Place for Bucket {
    fn shown(&self, name: &str) -> PathBuf {
        FilePath::new(&self.location).join(name)
    }

    fn parts_at_once(&self) -> usize {
        AT_ONCE
    }

    fn retry(&self) -> Retry {
        Retry::default()
    }

    fn check_there(&self) -> Result<(), BoxError> {
        match self.exists(layout::OWNER) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let owner = self.shown(layout::OWNER);
                Err(Away(format!("{} was there and is gone; put it back", owner.display())).into())
            }
            Err(error) => Err(self.away("read", layout::OWNER, &error)),
        }
    }

    fn claim(&self, me: &Owner) -> Result<(), BoxError> {
        let shown = self.shown(layout::OWNER).display().to_string();
        let read = || self.get(layout::OWNER);
        let unreadable = |error: io::Error| self.away("read", layout::OWNER, &error);
        if let Some(content) = read().map_err(unreadable)? {
            return me.check(&content, &shown, &self.location);
        }
        let hidden = format!("{}/", layout::HIDDEN);
        if let Some(name) = self.names(None)?.iter().find(|name| !name.starts_with(&hidden)) {
            return Err(layout::foreign(&self.location, name));
        }
        let (store, path, content) = (self.store.clone(), object(layout::OWNER)?, me.content()?);
        let written = self.wait(async move { store.put_new(&path, content.into()).await });
        match written {
            Ok(()) => Ok(()),
            // Somebody else was faster: perhaps another attempt of this job, or this very one, whose answer was lost.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                match read().map_err(unreadable)? {
                    Some(content) => me.check(&content, &shown, &self.location),
                    None => Err(Away(format!("{shown} was there and is gone")).into()),
                }
            }
            Err(error) => Err(self.away("write", layout::OWNER, &error)),
        }
    }

    fn check_covered(&self, attempt: u64, covered: u32) -> Result<(), BoxError> {
        for name in self.names(None)? {
            if part_in(&name).is_some_and(|part| part.is_beyond(attempt, covered)) {
                return Err(layout::not_covered(&self.shown(&name).display().to_string()));
            }
        }
        Ok(())
    }

    fn clear(&self, attempt: u64) -> Result<(), BoxError> {
        self.clear_staged(attempt)?;
        let mut names = self.names(None)?;
        names.retain(|name| part_in(name).is_some_and(|part| part.attempt < attempt));
        self.delete(names)
    }

    fn clear_staged(&self, attempt: u64) -> Result<(), BoxError> {
        self.delete(self.staged_before(attempt)?)
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        match self.length(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            length => length.map(|_| true),
        }
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.get(name)?.map(Vec::from).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// By its length.
    fn difference(&self, name: &str, item: &StagedItem) -> io::Result<Option<String>> {
        let length = self.length(name)?;
        let differs = length != item.bytes;
        Ok(differs.then(|| format!("has {length} bytes instead of {}", item.bytes)))
    }

    /// By their lengths.
    fn same(&self, one: &str, other: &str) -> io::Result<bool> {
        Ok(self.length(one)? == self.length(other)?)
    }

    fn write(&self, name: &str, content: WriteContent<'_>) -> Result<(), BoxError> {
        let mut file = tempfile::tempfile()?;
        content(&mut file)?;
        let bytes = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(0))?;
        let (bucket, to) = (self.clone(), name.to_owned());
        let put = async move { bucket.stage(&to, bytes, Pieces { file, left: bytes }).await };
        // An earlier try of this attempt wrote the same.
        highwater_env::block_on(self.env.as_ref(), put)
            .map_err(|error| self.away("write", name, &error))
    }

    /// There are no folders in a bucket.
    fn make_folders(&self, _: &BTreeSet<&str>) -> Result<(), BoxError> {
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let (store, from, to) = (self.store.clone(), object(from)?, object(to)?);
        self.wait(async move { store.copy_new(&from, &to).await })
    }

    /// A name is when the request that makes it is answered.
    fn make_durable(&self, _: &BTreeSet<&str>) -> Result<(), BoxError> {
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (objects, path) = (self.store.objects().clone(), object(name)?);
        match self.wait(async move { objects.delete(&path).await }) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The store at `location`, or why there is none.
pub(in crate::connectors::files) fn store(location: &str) -> Result<Store, BoxError> {
    Store::open(location).map_err(|error| match error {
        LogError::Location { location, why } => {
            format!("output location `{location}`: {why}").into()
        }
        other => other.into(),
    })
}

/// The rest of a file, in pieces.
struct Pieces {
    file: File,
    left: u64,
}

impl Iterator for Pieces {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        use io::Read;
        let length = self.left.min(PIECE_BYTES as u64);
        if length == 0 {
            return None;
        }
        let mut piece = vec![0; length as usize];
        self.left -= length;
        Some(self.file.read_exact(&mut piece).map(|()| piece.into()))
    }
}

/// A name as it is: those of partitions are escaped already.
fn object(name: &str) -> io::Result<Path> {
    Path::parse(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidFilename, error))
}

/// The part that a name is, in whichever partition.
fn part_in(name: &str) -> Option<Staged> {
    if name.starts_with(layout::HIDDEN) { None } else { part_of(partition::split(name).1) }
}

fn of_store(error: Error) -> io::Error {
    let kind = match &error {
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        Error::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
#[path = "bucket_tests.rs"]
mod tests;
