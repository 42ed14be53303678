//! Objects beside the log: writing, reading, deleting and finding what was left behind.
//!
//! Names of objects are never used for two contents, so that writing twice, reading again and deleting
//! twice are harmless.
//!
//! Invariants kept here:
//!
//! - **1**: if a retained log entry exists, every object that it names exists, whole: entries are deleted
//!   before the objects that they name, and no object is deleted while such an entry withstands.
//! - **3** of the protocol (*fence*): attempt entries are never deleted, whatever a list of garbage says.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use crate::decide::Holding;
use crate::entry::{FORMAT, Manifest, ObjectRef};
use crate::error::{Damage, Kind, LogError, Why};
use crate::facts::{Facts, Found};
use crate::log::{AT_ONCE, Log};
use crate::names::Name;
use crate::{names, record};

impl Log {
    /// Writes an object once. If its name holds the very same content already, that is as good.
    ///
    /// # Errors
    ///
    /// If the store can't be written, or the name is taken by another content.
    pub async fn put_object(&self, name: &str, content: PutPayload) -> Result<ObjectRef, LogError> {
        let path = self.path(name)?;
        let pieces: Vec<&[u8]> = content.iter().map(|piece| &**piece).collect();
        let object = ObjectRef::of_pieces(name, pieces.iter().copied());
        let mut tries = self.tries("write", content.content_length(), self.retry);
        loop {
            let why = match tries.answer(self.store.put_new(&path, content.clone())).await {
                Ok(()) => break,
                // Perhaps by this very call, if an answer was lost, so that it isn't known to be durable.
                Err(object_store::Error::AlreadyExists { .. }) => match self.fetch(name).await? {
                    Some(found) if found != *pieces.concat() => {
                        return Err(LogError::Conflict { path: self.shown(name) });
                    }
                    Some(_) if self.make_durable(name).await? => break,
                    _ => "it exists, and then it doesn't".to_owned(),
                },
                Err(error) => error.to_string(),
            };
            if !tries.again(name, &why).await {
                let (path, tries) = (self.shown(name), tries.made());
                return Err(LogError::Unavailable { doing: "write", path, tries, why });
            }
        }
        tries.done();
        Ok(object)
    }

    /// Reads an object and makes sure that it is whole.
    ///
    /// # Errors
    ///
    /// If the store can't be read, or the object isn't what was written.
    pub async fn get_object(&self, object: &ObjectRef) -> Result<Bytes, LogError> {
        let bytes = self.fetch(&object.name).await?;
        let why = match &bytes {
            None => Some(Why::Missing),
            Some(bytes) => {
                let (has, of) = (bytes.len() as u64, object.bytes);
                if has < of {
                    Some(Why::Truncated { has, of: Some(of) })
                } else if has > of {
                    Some(Why::TooLong { has, of })
                } else {
                    (record::checksum(bytes) != object.checksum).then_some(Why::Checksum)
                }
            }
        };
        match (bytes, why) {
            (Some(bytes), None) => Ok(bytes),
            (_, why) => Err(self.damaged(&object.name, why.unwrap_or(Why::Missing))),
        }
    }

    /// Writes the manifest of a checkpoint.
    ///
    /// # Errors
    ///
    /// As [`Log::put_object`].
    pub async fn put_manifest(
        &self,
        attempt: u64,
        interval: u64,
        manifest: &Manifest,
    ) -> Result<ObjectRef, LogError> {
        let name = names::manifest(attempt, interval);
        let bytes = self.encode(&name, manifest)?;
        self.put_object(&name, bytes.into()).await
    }

    /// Reads a manifest and makes sure that it is whole.
    ///
    /// # Errors
    ///
    /// As [`Log::get_object`], or if it is in a format that this build doesn't read.
    pub async fn get_manifest(&self, manifest: &ObjectRef) -> Result<Manifest, LogError> {
        let bytes = self.get_object(manifest).await?;
        record::decode(&bytes, FORMAT).map_err(|why| self.damaged(&manifest.name, why))
    }

    /// Deletes garbage that a committed entry lists, and gives back the names that could not be deleted.
    /// What isn't there counts as deleted; so does a checkpoint's entry whose number an attempt now holds.
    ///
    /// # Errors
    ///
    /// If a name is none that a store takes.
    pub async fn delete(&self, names: &[String]) -> Result<Vec<String>, LogError> {
        let mut paths = Vec::new();
        for name in names {
            paths.push((name.clone(), self.path(name)?));
        }
        let (entries, objects): (Vec<_>, Vec<_>) =
            paths.into_iter().partition(|(name, _)| names::entry_number(name).is_some());
        let mut left: Vec<String> = Vec::new();
        let deletes: Vec<_> = entries.iter().map(|(name, path)| self.remove(name, path)).collect();
        left.extend(stream::iter(deletes).buffer_unordered(AT_ONCE).concat().await);
        // Invariant 1: after a loss of power an entry must not be back without what it names.
        if !entries.is_empty() && !objects.is_empty() && left.is_empty() {
            let folder = self.path(names::LOG)?;
            if let Err(error) = self.store.make_names_durable(&folder).await {
                tracing::debug!(%error, "deletions aren't durable; garbage stays until a later checkpoint");
                left.extend(entries.iter().map(|(name, _)| name.clone()));
            }
        }
        if !left.is_empty() {
            // Invariant 1: an entry that stays keeps what it names.
            left.extend(objects.into_iter().map(|(name, _)| name));
            return Ok(left);
        }
        let deletes: Vec<_> = objects.iter().map(|(name, path)| self.remove(name, path)).collect();
        left.extend(stream::iter(deletes).buffer_unordered(AT_ONCE).concat().await);
        Ok(left)
    }

    /// Deletes one name, and gives it back if that could not be done.
    async fn remove(&self, name: &str, path: &Path) -> Vec<String> {
        let stays = |error: &dyn std::fmt::Display| {
            tracing::debug!(%name, %error, "garbage stays until a later checkpoint");
            vec![name.to_owned()]
        };
        if let Some(number) = names::entry_number(name) {
            if self.is_unanswered(number) {
                return stays(&"a call that writes it hasn't been answered");
            }
            match self.read_entry(number).await {
                Ok(None) => return Vec::new(),
                Ok(Some(found)) if is_attempt(&found) => return Vec::new(),
                Ok(Some(_)) => {}
                Err(error) => return stays(&error),
            }
        }
        let mut tries = self.tries("delete", 0, self.retry);
        match tries.answer(self.store.objects().delete(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                tries.done();
                Vec::new()
            }
            Err(error) => {
                tries.note(name, &error);
                stays(&error)
            }
        }
    }

    /// Objects that attempts older than `attempt` wrote and that `referenced` doesn't hold: what they
    /// uploaded or staged and never committed, and files that they left half written.
    ///
    /// `referenced` must hold what *every* entry of the log names, not only the retained ones, unless one
    /// that committed lists the others as garbage. If a manifest can't be read, don't sweep.
    ///
    /// # Errors
    ///
    /// If the store can't be listed.
    pub async fn leftovers(
        &self,
        attempt: u64,
        referenced: &BTreeSet<String>,
    ) -> Result<Vec<String>, LogError> {
        let mut left = Vec::new();
        for folder in [names::DATA, names::STAGE] {
            for name in self.list(folder).await? {
                let older = names::parse(&name).and_then(|parsed| parsed.attempt());
                if older.is_some_and(|older| older < attempt) && !referenced.contains(&name) {
                    left.push(name);
                }
            }
        }
        for folder in [names::LOG, names::DATA, names::STAGE] {
            let prefix = self.path(folder)?;
            let list = || self.store.temporaries(&prefix).boxed();
            let temporaries = self.retried("list", folder, &list).await?;
            let names = temporaries.iter().filter_map(|path| self.name(path));
            left.extend(names.filter(|name| temporary_older(name, attempt)));
        }
        left.sort();
        Ok(left)
    }

    /// What every checkpoint of the log holds on to, for [`collect`](crate::collect) and
    /// [`Log::leftovers`], and the manifests that couldn't be read because of damage.
    ///
    /// Of a damaged entry that is known to have been a checkpoint's, nothing but the number is known.
    ///
    /// # Errors
    ///
    /// If the store can't be read.
    pub async fn holdings(
        &self,
        facts: &Facts,
    ) -> Result<(BTreeMap<u64, Holding>, Vec<Damage>), LogError> {
        let (mut holdings, mut damages) = (BTreeMap::new(), Vec::new());
        for number in facts.entries.keys().copied() {
            let Some(checkpoint) = facts.checkpoint(number) else {
                if facts.kind(number) == Some(Kind::Checkpoint) {
                    holdings.insert(number, Holding::default());
                }
                continue;
            };
            let manifest = match self.get_manifest(&checkpoint.manifest).await {
                Ok(manifest) => Some(manifest),
                Err(LogError::Damaged(damage)) => {
                    damages.push(damage);
                    None
                }
                Err(error) => return Err(error),
            };
            holdings.insert(number, Holding::new(checkpoint, manifest.as_ref()));
        }
        Ok((holdings, damages))
    }

    fn damaged(&self, name: &str, why: Why) -> LogError {
        LogError::Damaged(Damage { path: self.shown(name), why, kind: None })
    }
}

fn is_attempt(found: &Found) -> bool {
    match found {
        Found::Sound(entry) => entry.started().is_some(),
        Found::Damaged(damage) => damage.kind == Some(Kind::Attempt),
    }
}

/// Whether a file half written (`{folder}/.tmp-{name}-{process}-{count}`) is of an attempt older than this.
///
/// If its writer still runs, its put fails, and is tried again or is fenced anyway.
fn temporary_older(name: &str, attempt: u64) -> bool {
    let parse = || {
        let (folder, file) = name.split_once('/')?;
        let (file, _count) = file.strip_prefix(".tmp-")?.rsplit_once('-')?;
        let (file, _process) = file.rsplit_once('-')?;
        names::parse(&format!("{folder}/{file}"))
    };
    parse().is_some_and(|name| match name {
        Name::Entry { number } => number < attempt,
        _ => name.attempt().is_some_and(|older| older < attempt),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_half_written_tell_their_attempt() {
        let object = "data/.tmp-a0000000003-i0000000012-w0001.hw-77-5";
        let staged = "stage/.tmp-a0000000003-i0000000012-w0001-my-sink-9-77-5";
        let entry = "log/.tmp-00000000000000000003.json-77-5";
        for name in [object, staged, entry] {
            assert!(temporary_older(name, 4) && !temporary_older(name, 3), "{name}");
        }
        assert!(!temporary_older("data/.tmp-probe-1-2", 4));
    }
}
