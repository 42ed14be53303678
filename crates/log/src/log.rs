//! Reading and writing a log: the edge where the decisions of [`crate::decide`] meet a store that fails.
//!
//! Everything is tried several times with growing delays, and a call that isn't answered in time counts as failed. An append is
//! the delicate one: its answer may be lost, so it is settled by reading back, and only ever repeated with the same bytes; and it is
//! repeated until its outcome is known, however long the store is away, because nothing else may be appended before.
//!
//! Invariants kept here:
//!
//! - **2**: entry N+1 is appended only over entry N, by the attempt that wrote N (or started at N); two
//!   attempts can't both append the same number. An attempt whose append ended without success appends no
//!   more.
//! - **3**: a [`Committed`] is made only for an entry that is known to exist and to be durable.
//! - **10**: entries of a format that this build doesn't know are not acted upon.

mod objects;
mod start;
mod tries;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use highwater_env::Env;
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::decide::{Appended, Committed, Outcome, ReadBack, after_append};
use crate::entry::{Body, Entry, FORMAT};
use crate::error::{AppendError, Damage, LogError, Why};
use crate::facts::{Facts, Found, examine};
use crate::health::Health;
use crate::retry::Retry;
use crate::store::Store;
use crate::{names, record};

pub use start::Started;

/// How many requests to the store are under way at once when many are needed.
const AT_ONCE: usize = 16;

/// What is done while the storage is in trouble, for people.
const REMEDY: &str = "this is repeated until it works, and nothing is lost: processing goes on meanwhile, and sources pause when \
                      nothing could be committed for long";

/// The commit log of one job.
#[derive(Debug)]
pub struct Log {
    store: Store,
    root: Path,
    env: Arc<dyn Env>,
    /// None for somebody who only looks.
    job: Option<String>,
    retry: Retry,
    health: Arc<Health>,
    own: Mutex<Own>,
    /// Entries that are known to be there while a call that writes them hasn't been answered: deleted, they might come back.
    unanswered: Arc<Mutex<BTreeSet<u64>>>,
}

/// A request to the store.
type Request<'a, T> = futures::future::BoxFuture<'a, object_store::Result<T>>;

/// What this process may append.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Own {
    /// Nothing: no attempt was started.
    Nothing,
    /// The entry after `tail`, as part of `attempt`.
    After { attempt: u64, tail: u64 },
    /// Nothing any more: an append is under way, or ended without success.
    Sent,
}

/// An append that succeeded.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sent {
    /// It was sent once.
    Once,
    /// It was sent again: an earlier one may have arrived unseen, and been collected by a successor.
    Repeated,
}

/// An append that came to no end.
#[derive(Debug)]
enum Failed {
    Fenced { by: String },
    Unavailable { tries: u32, why: String },
}

impl Log {
    /// The log of `job` under `root` in `store`.
    pub fn new(store: Store, root: Path, env: Arc<dyn Env>, job: &str) -> Self {
        Log { job: Some(job.to_owned()), ..Log::to_read(store, root, env) }
    }

    /// The log under `root` in `store`, whichever job's it is, for somebody who only looks: it starts no attempt.
    pub fn to_read(store: Store, root: Path, env: Arc<dyn Env>) -> Self {
        let place = format!("checkpoint storage {}", store.shown(&root).trim_end_matches('/'));
        let health = Health::new(env.clone(), place, REMEDY);
        let own = Mutex::new(Own::Nothing);
        let (retry, unanswered) = (Retry::default(), Arc::default());
        Log { store, root, env, job: None, retry, health, own, unanswered }
    }

    /// The same, with other delays.
    #[must_use]
    pub fn with_retry(self, retry: Retry) -> Self {
        Log { retry, ..self }
    }

    /// How the storage is.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Reads every entry, and makes sure that what was read is durable.
    ///
    /// # Errors
    ///
    /// If the store can't be read, or the log is another job's. Damage is no error but a fact.
    pub async fn read(&self) -> Result<Facts, LogError> {
        let facts = self.read_again(&Facts::default()).await?;
        self.settle(&facts).await?;
        Ok(facts)
    }

    /// Like [`Log::read`], but takes whole entries that are still there from `known`: entries never change.
    async fn read_again(&self, known: &Facts) -> Result<Facts, LogError> {
        let listed = self.list(names::LOG).await?;
        let mut numbers = Vec::new();
        for name in listed {
            match names::entry_number(&name) {
                Some(number) => numbers.push(number),
                None => tracing::warn!(%name, "a file in the log's folder is no entry; left alone"),
            }
        }
        let mut entries: BTreeMap<u64, Found> = BTreeMap::new();
        let (again, new): (Vec<u64>, Vec<u64>) =
            numbers.into_iter().partition(|number| known.sound(*number).is_some());
        for number in again {
            if let Some(entry) = known.sound(number) {
                entries.insert(number, Found::Sound(Box::new(entry.clone())));
            }
        }
        // Not a closure in the stream: it would keep this future from being `Send`.
        let reads: Vec<_> = new.into_iter().map(|number| self.read_numbered(number)).collect();
        let mut found = stream::iter(reads).buffer_unordered(AT_ONCE);
        while let Some((number, found)) = found.try_next().await? {
            // Nothing there: collected since it was listed.
            if let Some(found) = found {
                entries.insert(number, found);
            }
        }
        Ok(Facts { entries })
    }

    /// Makes sure that entries which were merely found to be there are durable. All are in one directory, and each was synced
    /// before it got its name, so that one of them does for all.
    async fn settle(&self, facts: &Facts) -> Result<(), LogError> {
        for number in facts.entries.keys().rev() {
            // One that is gone was collected since it was read.
            if self.make_durable(&names::entry(*number)).await? {
                break;
            }
        }
        Ok(())
    }

    /// What is at one number.
    async fn read_entry(&self, number: u64) -> Result<Option<Found>, LogError> {
        let name = names::entry(number);
        match self.fetch(&name).await? {
            Some(bytes) => self.judge(&bytes, number).map(Some),
            None => Ok(None),
        }
    }

    async fn read_numbered(&self, number: u64) -> Result<(u64, Option<Found>), LogError> {
        Ok((number, self.read_entry(number).await?))
    }

    /// What these bytes, found at `number`, are.
    fn judge(&self, bytes: &[u8], number: u64) -> Result<Found, LogError> {
        let path = self.shown(&names::entry(number));
        let found = examine(bytes, number, &path);
        match (&found, &self.job) {
            (Found::Sound(entry), Some(expected)) if entry.job != *expected => {
                let (found, expected) = (entry.job.clone(), expected.clone());
                Err(LogError::OtherJob { path, found, expected })
            }
            _ => Ok(found),
        }
    }

    /// Knowledge that the checkpoint at `number` is committed, from the store itself.
    ///
    /// # Errors
    ///
    /// If the store can't be read, or there is no such checkpoint.
    pub async fn committed(&self, number: u64) -> Result<Committed, LogError> {
        let name = names::entry(number);
        let damage = |why| LogError::Damaged(Damage { path: self.shown(&name), why, kind: None });
        match self.read_entry(number).await? {
            Some(Found::Sound(entry)) if entry.checkpoint().is_some() => {
                match self.make_durable(&name).await? {
                    true => Ok(Committed::new(number)),
                    false => Err(damage(Why::Missing)),
                }
            }
            Some(Found::Sound(entry)) => {
                Err(damage(Why::Malformed(format!("{}, not a checkpoint", entry.describe()))))
            }
            Some(Found::Damaged(damage)) => Err(LogError::Damaged(damage)),
            None => Err(damage(Why::Missing)),
        }
    }

    /// Whoever has taken over from `attempt`, in words: it may delete what `attempt` wants to read.
    ///
    /// # Errors
    ///
    /// If the store can't be read.
    pub async fn taken_over(&self, attempt: u64) -> Result<Option<String>, LogError> {
        let facts = self.look_again(&Facts::default(), attempt).await?;
        let newest = facts.all_sound().rev().find(|entry| entry.attempt > attempt);
        Ok(newest.map(|entry| {
            format!("{}, {}", self.shown(&names::entry(entry.number)), entry.describe())
        }))
    }

    /// The same, asked until there is an answer.
    async fn taken_over_at_last(&self, attempt: u64) -> Result<Option<String>, LogError> {
        loop {
            match self.taken_over(attempt).await {
                Err(LogError::Unavailable { .. }) => {}
                answer => return answer,
            }
        }
    }

    /// A checkpoint entry of this log's attempt, as far as the log knows what to fill in: format, number,
    /// nonce, attempt and job.
    ///
    /// # Panics
    ///
    /// If no attempt was started here, or its last append didn't succeed (invariant 2).
    pub fn next_entry(&self, checkpoint: crate::entry::CheckpointEntry) -> Entry {
        let Own::After { attempt, tail } = self.own() else {
            panic!("invariant 2: only an attempt that goes on has a next entry");
        };
        self.entry(tail + 1, attempt, Body::Checkpoint(Box::new(checkpoint)))
    }

    /// Appends a checkpoint: the commit point. Takes as long as it takes until the store says whether the entry is there. After an error
    /// the attempt must end.
    ///
    /// # Errors
    ///
    /// If another attempt has taken over.
    ///
    /// # Panics
    ///
    /// If the entry isn't a checkpoint of the attempt started here, or not the next one (invariant 2).
    pub async fn append(&self, entry: &Entry) -> Result<Committed, AppendError> {
        let name = names::entry(entry.number);
        let bytes = self.encode(&name, entry)?;
        // Taken before sending: if the caller drops this future, the outcome stays unknown.
        match std::mem::replace(&mut *self.lock(), Own::Sent) {
            Own::After { attempt, tail } => {
                let whose = entry.attempt == attempt && self.job.as_ref() == Some(&entry.job);
                let next = entry.number == tail + 1 && entry.format == FORMAT;
                assert!(
                    whose && next && entry.checkpoint().is_some() && entry.absurdity().is_none(),
                    "invariant 2: {} can't follow entry {tail} of attempt {attempt}",
                    entry.describe()
                );
            }
            Own::Nothing => panic!("invariant 2: only a started attempt appends"),
            Own::Sent => return Err(AppendError::Ended),
        }
        let fenced = |by| Err(AppendError::Fenced { path: self.shown(&name), by });
        let endless = Retry { tries: u32::MAX, ..self.retry };
        let sent = match self.send(entry, &bytes, endless).await? {
            Ok(sent) => sent,
            Err(Failed::Fenced { by }) => return fenced(by),
            Err(Failed::Unavailable { tries, why }) => {
                let (doing, path) = ("write", self.shown(&name));
                return Err(LogError::Unavailable { doing, path, tries, why }.into());
            }
        };
        // Whether a successor has collected it or goes on from it isn't known: it is left for the successor to collect.
        if sent == Sent::Repeated
            && let Some(by) = self.taken_over_at_last(entry.attempt).await?
        {
            return fenced(by);
        }
        let (attempt, tail) = (entry.attempt, entry.number);
        *self.lock() = Own::After { attempt, tail };
        Ok(Committed::new(entry.number))
    }

    /// Writes an entry, and settles whether it is there.
    async fn send(
        &self,
        entry: &Entry,
        bytes: &Bytes,
        retry: Retry,
    ) -> Result<Result<Sent, Failed>, LogError> {
        let name = names::entry(entry.number);
        let path = self.path(&name)?;
        let mut tries = self.tries("write", bytes.len(), retry);
        // A call that wasn't answered in time is listened to all the same: it may still have its effect.
        let mut calls = FuturesUnordered::new();
        let sent = loop {
            let (store, content, at) = (self.store.clone(), bytes.clone(), path.clone());
            calls.push(async move { store.put_new(&at, content.into()).await }.boxed());
            let put = tries.answer(calls.select_next_some()).await;
            let (outcome, mut why) = match put {
                Ok(()) => (Outcome::Written, String::new()),
                Err(error @ object_store::Error::AlreadyExists { .. }) => {
                    (Outcome::AlreadyExists, error.to_string())
                }
                Err(error) => (Outcome::Unknown, error.to_string()),
            };
            let read_back = match outcome {
                Outcome::Written => ReadBack::Nothing,
                _ => match tries.answer(self.store.get_whole(&path)).await {
                    Ok(Some(bytes)) => {
                        let path = self.shown(&name);
                        ReadBack::Something(examine(&bytes, entry.number, &path))
                    }
                    Ok(None) => ReadBack::Nothing,
                    Err(_) => ReadBack::Unreachable,
                },
            };
            let sent = if tries.made() == 0 { Sent::Once } else { Sent::Repeated };
            match after_append(outcome, &read_back, &entry.nonce) {
                Appended::Done if outcome == Outcome::Written => break Ok(sent),
                // It was read, not answered: it may have been named, but not yet synced.
                Appended::Done => match tries.answer(self.store.make_durable(&path)).await {
                    Ok(()) => break Ok(sent),
                    Err(error) => why = error.to_string(),
                },
                Appended::Fenced => {
                    let by = match read_back {
                        ReadBack::Something(Found::Sound(other)) => other.describe(),
                        ReadBack::Something(Found::Damaged(damage)) => {
                            format!("something else, which is {}", damage.why)
                        }
                        _ => "another entry".to_owned(),
                    };
                    break Err(Failed::Fenced { by });
                }
                Appended::RetrySameBytes => {}
            }
            if !tries.again(&name, &why).await {
                return Ok(Err(Failed::Unavailable { tries: tries.made(), why }));
            }
        };
        tries.done();
        if !calls.is_empty() && entry.checkpoint().is_some() {
            self.listen_on(entry.number, calls);
        }
        Ok(sent)
    }

    /// Keeps an entry from being deleted before calls that write it are answered: they might bring it back.
    fn listen_on(&self, number: u64, calls: FuturesUnordered<Request<'static, ()>>) {
        fn lock(numbers: &Mutex<BTreeSet<u64>>) -> MutexGuard<'_, BTreeSet<u64>> {
            numbers.lock().unwrap_or_else(PoisonError::into_inner)
        }
        lock(&self.unanswered).insert(number);
        let unanswered = self.unanswered.clone();
        let listen = async move {
            calls.for_each(|_| std::future::ready(())).await;
            lock(&unanswered).remove(&number);
        };
        self.env.spawn("late append", listen.boxed());
    }

    /// Whether a call that writes this entry, which is known to be there, may still have its effect.
    fn is_unanswered(&self, number: u64) -> bool {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).contains(&number)
    }

    fn entry(&self, number: u64, attempt: u64, body: Body) -> Entry {
        let job = self.job.clone().expect("who only looks writes no entry");
        let nonce = self.random_hex();
        Entry { format: FORMAT, number, nonce, attempt, job, body }
    }

    /// 128 random bits.
    fn random_hex(&self) -> String {
        format!("{:016x}{:016x}", self.env.random(), self.env.random())
    }

    fn encode<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<Bytes, LogError> {
        let error = |error: serde_json::Error| LogError::Encode {
            path: self.shown(name),
            why: error.to_string(),
        };
        Ok(record::encode(value).map_err(error)?.into())
    }

    fn lock(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self) -> Own {
        *self.lock()
    }

    /// Where `name` is in the store.
    fn path(&self, name: &str) -> Result<Path, LogError> {
        let full = if self.root.as_ref().is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.root)
        };
        Path::parse(full)
            .map_err(|error| LogError::Name { name: name.to_owned(), why: error.to_string() })
    }

    /// The object `name` as people know it: the path of a file, the key in a bucket.
    pub fn shown(&self, name: &str) -> String {
        self.path(name).map_or_else(|_| name.to_owned(), |path| self.store.shown(&path))
    }

    /// The names below the job's root in one folder.
    async fn list(&self, folder: &'static str) -> Result<Vec<String>, LogError> {
        let prefix = self.path(folder)?;
        let list =
            || self.store.objects().list(Some(&prefix)).try_collect::<Vec<ObjectMeta>>().boxed();
        let listed = self.retried("list", folder, &list).await?;
        Ok(listed.into_iter().filter_map(|meta| self.name(&meta.location)).collect())
    }

    /// The name below the job's root of what is at `path`.
    fn name(&self, path: &Path) -> Option<String> {
        let parts: Vec<_> = path.prefix_match(&self.root)?.collect();
        Some(parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/"))
    }

    /// Makes sure that what was found at `name` survives a loss of power; false if it isn't there any more.
    async fn make_durable(&self, name: &str) -> Result<bool, LogError> {
        let path = self.path(name)?;
        let there = || async {
            match self.store.make_durable(&path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                done => done.map(|()| true),
            }
        };
        self.retried("sync", name, &|| there().boxed()).await
    }

    /// The content of `name`; none if it isn't there.
    async fn fetch(&self, name: &str) -> Result<Option<Bytes>, LogError> {
        let path = self.path(name)?;
        self.retried("read", name, &|| self.store.get_whole(&path).boxed()).await
    }

    /// Tries `request`, which may be repeated, until it succeeds.
    async fn retried<'a, T>(
        &self,
        doing: &'static str,
        name: &str,
        request: &(dyn Fn() -> Request<'a, T> + Sync),
    ) -> Result<T, LogError> {
        let mut tries = self.tries(doing, 0, self.retry);
        loop {
            let error = match tries.answer(request()).await {
                Ok(answer) => {
                    tries.done();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if !tries.again(name, &error).await {
                let (path, why) = (self.shown(name), error.to_string());
                return Err(LogError::Unavailable { doing, path, tries: tries.made(), why });
            }
        }
    }
}
