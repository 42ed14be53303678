//! The store as a process sees it: some way off, and not always well.
//!
//! Every call goes over the network to the media behind: it takes time, it may fail before or after its effect, and when the
//! process that made it dies, the call may still arrive (if the store is another machine) or not (if it is a disk).

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use highwater_log::Store;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::oneshot;

use crate::disk::SimDisk;
use crate::env::sleep;
use crate::fault::{Fault, What, When};
use crate::scheduler::{NETWORK, ProcessId, Shared, State};

const NAME: &str = "simulated store";

/// Old listings hide no more than so many entries of a log: the engine counts on that.
const LAG_MAX: u64 = 7;

/// What lasts: where the store's bytes are.
#[derive(Clone, Debug)]
pub enum Media {
    /// Another machine, whose puts are whole and durable when answered.
    Remote(Arc<InMemory>),
    /// A disk of this machine, which forgets at a loss of power what it wasn't told to keep.
    Disk(SimDisk),
}

impl Media {
    /// An empty store on another machine.
    pub fn remote() -> Self {
        Media::Remote(Arc::new(InMemory::new()))
    }

    /// An empty disk.
    pub fn disk(seed: u64) -> Self {
        Media::Disk(SimDisk::new(seed))
    }

    pub(crate) fn open(&self) -> Store {
        match self {
            Media::Remote(objects) => Store::from_objects(objects.clone()),
            Media::Disk(disk) => disk.open(),
        }
    }

    pub(crate) fn lose_power(&self) {
        if let Media::Disk(disk) = self {
            disk.lose_power();
        }
    }

    /// A disk fails after so many operations on files, or works again.
    fn break_after(&self, operations: Option<u64>) {
        if let Media::Disk(disk) = self {
            disk.break_after(operations);
        }
    }
}

/// How the store is.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    calls: u64,
    puts: u64,
    /// Listings are so many milliseconds old, up to this call.
    old_listings: Option<(u64, u64)>,
    /// Nothing can be put, up to this call.
    full_until: u64,
    /// Nothing can be reached, up to this time.
    away_until_us: u64,
    /// These can't be put, up to a time.
    refused_until_us: BTreeMap<Path, u64>,
    /// The numbers of all checkpoints whose entry was there at some time.
    pub(crate) committed: BTreeSet<u64>,
    /// When objects were put and deleted, by the clock.
    ages: BTreeMap<Path, Age>,
    newest: Option<Path>,
    /// A bit of the newest object is about to flip.
    flip_pending: bool,
}

#[derive(Debug, Default)]
struct Age {
    put_us: u64,
    deleted_us: Option<u64>,
    size: u64,
}

impl Condition {
    pub(crate) fn heal(&mut self) {
        self.old_listings = None;
        self.full_until = 0;
        self.away_until_us = 0;
        self.refused_until_us.clear();
    }
}

/// What is in store for a call.
#[derive(Clone, Copy, Debug)]
struct Fate {
    fault: Option<What>,
    /// Before the effect, and after it.
    latency_us: (u64, u64),
    full: bool,
    away: bool,
    refused: bool,
}

/// The way of one process to the media.
#[derive(Clone)]
pub(crate) struct NetworkStore {
    shared: Arc<Shared>,
    process: ProcessId,
    media: Arc<Media>,
    inner: Arc<dyn ObjectStore>,
}

impl std::fmt::Debug for NetworkStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NetworkStore(process {})", self.process)
    }
}

impl std::fmt::Display for NetworkStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(NAME)
    }
}

impl NetworkStore {
    pub(crate) fn new(shared: Arc<Shared>, process: ProcessId, media: Arc<Media>) -> Self {
        NetworkStore { shared, process, media, inner: Arc::new(InMemory::new()) }
    }

    pub(crate) fn over(self, inner: Arc<dyn ObjectStore>) -> Self {
        NetworkStore { inner, ..self }
    }

    /// Makes one call: `effect` is what it does once it has arrived.
    async fn call<T: Send + 'static>(
        &self,
        doing: &'static str,
        path: Path,
        effect: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let fate = self.shared.lock().fate(self.process, doing, &path);
        let (sender, receiver) = oneshot::channel();
        // What is under way to another machine arrives although its sender is dead.
        let owner = match &*self.media {
            Media::Remote(_) => NETWORK,
            Media::Disk(_) => self.process,
        };
        let (shared, inner) = (self.shared.clone(), self.inner.clone());
        let (media, name, process) = (self.media.clone(), path.clone(), self.process);
        let call = async move {
            sleep(&shared, Duration::from_micros(fate.latency_us.0)).await;
            let failed =
                |why: &str| Err(object_store::Error::Generic { store: NAME, source: why.into() });
            let answer = match fate.fault {
                Some(What::Fail) => failed("it failed, as simulated"),
                Some(What::DiskFails(_)) if matches!(&*media, Media::Remote(_)) => {
                    failed("it failed, as simulated")
                }
                _ if fate.away => failed("it is away, as simulated"),
                _ if fate.full && doing == "put" => failed("the disk is full, as simulated"),
                _ if fate.refused => failed("this name is refused, as simulated"),
                _ => {
                    media.break_after(fate.fault.and_then(What::within));
                    let answer = effect.await;
                    media.break_after(None);
                    let committed = committed(&inner, doing, &name).await;
                    let flip = {
                        let mut state = shared.lock();
                        state.strike_within(fate.fault);
                        if let Some(number) = committed
                            && state.store.committed.insert(number)
                        {
                            state.commits(process, number);
                        }
                        state.arrived(doing, &name, answer.is_ok());
                        state.next_flip()
                    };
                    if let Some((path, draw)) = flip {
                        flip_bit(inner, path, draw).await.ok();
                    }
                    answer
                }
            };
            sleep(&shared, Duration::from_micros(fate.latency_us.1)).await;
            let answer = match fate.fault {
                Some(What::LoseAnswer | What::TimeOut(_)) => failed("no answer, as simulated"),
                _ => answer,
            };
            sender.send(answer).ok();
        };
        self.shared.spawn(owner, Box::pin(call));
        match receiver.await {
            Ok(answer) => answer,
            Err(_) => {
                Err(object_store::Error::Generic { store: NAME, source: "it is gone".into() })
            }
        }
    }

    async fn delete_one(&self, path: Path) -> Result<Path> {
        let (inner, deleted) = (self.inner.clone(), path.clone());
        self.call("delete", path.clone(), async move { inner.delete(&deleted).await }).await?;
        Ok(path)
    }

    async fn listed(&self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        let (inner, shared) = (self.inner.clone(), self.shared.clone());
        let name = prefix.clone().unwrap_or_default();
        let effect = async move {
            let listed: Vec<ObjectMeta> = inner.list(prefix.as_ref()).try_collect().await?;
            Ok(shared.lock().as_it_was(prefix.as_ref(), listed))
        };
        self.call("list", name, effect).await
    }
}

impl State {
    /// Decides what becomes of the next call.
    fn fate(&mut self, process: ProcessId, doing: &'static str, path: &Path) -> Fate {
        self.store.calls += 1;
        self.counts.calls += 1;
        let number = self.store.calls;
        self.store.puts += u64::from(doing == "put");
        let puts = (doing == "put").then_some(self.store.puts);
        let (mut latency_us, mut fault) = ((self.random.below(300), self.random.below(300)), None);
        let mut at = 0;
        while at < self.faults.len() {
            let Fault { when, what } = self.faults[at];
            let now = when == When::Call(number) || puts.is_some_and(|nth| when == When::Put(nth));
            if !now || !what.is_of_the_store() {
                at += 1;
                continue;
            }
            let struck = self.faults.remove(at);
            self.counts.store_faults += 1;
            self.note(|| struck.to_string());
            match struck.what {
                What::Slow(ms) => latency_us.0 += ms * 1_000,
                What::TimeOut(ms) => {
                    // Some arrive at once and some late.
                    let early = self.random.chance(500);
                    let place = if early { &mut latency_us.1 } else { &mut latency_us.0 };
                    *place += ms * 1_000;
                    fault = Some(struck.what);
                }
                What::OldListings(ms, calls) => {
                    self.store.old_listings = Some((ms, number + calls));
                }
                What::DiskFull(calls) => self.store.full_until = number + calls,
                What::Away(ms) => self.store.away_until_us = self.clock_us + ms * 1_000,
                What::Refuse(ms) => {
                    let until_us = self.clock_us + ms * 1_000;
                    self.store.refused_until_us.insert(path.clone(), until_us);
                }
                What::BitFlip => self.store.flip_pending = true,
                other => fault = Some(other),
            }
        }
        let full = number < self.store.full_until;
        let away = self.clock_us < self.store.away_until_us;
        let refused = doing == "put"
            && self.store.refused_until_us.get(path).is_some_and(|until| self.clock_us < *until);
        let fails = !matches!(fault, None | Some(What::KillWithin(_) | What::PowerLossWithin(_)));
        self.processes[process].store_failed |=
            fails || away || refused || (full && doing == "put");
        self.trace.add(number);
        path.as_ref().bytes().for_each(|byte| self.trace.add(u64::from(byte)));
        self.note(|| format!("process {process}: {doing} {path}, call {number}"));
        Fate { fault, latency_us, full, away, refused }
    }

    /// A call has had its effect.
    fn arrived(&mut self, doing: &'static str, path: &Path, well: bool) {
        self.trace.add(u64::from(well));
        let clock_us = self.clock_us;
        self.note(|| {
            format!("          {doing} {path}: {}", if well { "done" } else { "refused" })
        });
        let age = Age { put_us: clock_us, deleted_us: None, size: 0 };
        match doing {
            "put" if well => {
                self.store.newest = Some(path.clone());
                self.store.ages.insert(path.clone(), age);
            }
            // A put that failed half way may have given it its name.
            "put" => {
                self.store.ages.entry(path.clone()).or_insert(age);
            }
            "delete" if well => {
                if let Some(age) = self.store.ages.get_mut(path) {
                    age.deleted_us = Some(clock_us);
                }
            }
            _ => {}
        }
    }

    /// The object of which a bit flips now.
    fn next_flip(&mut self) -> Option<(Path, u64)> {
        let path = self.store.newest.clone()?;
        std::mem::take(&mut self.store.flip_pending).then(|| {
            self.counts.bit_flips += 1;
            self.note(|| format!("          a bit of {path} flips"));
            (path, self.random.next())
        })
    }

    /// What a listing shows, if it is an old one.
    fn as_it_was(&mut self, prefix: Option<&Path>, listed: Vec<ObjectMeta>) -> Vec<ObjectMeta> {
        let Some((ms, until)) = self.store.old_listings else { return listed };
        if self.store.calls > until {
            return listed;
        }
        let then = self.clock_us.saturating_sub(ms * 1_000);
        let number = |path: &Path| highwater_log::names::entry_number(path.as_ref());
        let tail = listed.iter().filter_map(|meta| number(&meta.location)).max().unwrap_or(0);
        let hidden = |meta: &ObjectMeta| {
            let young = self.store.ages.get(&meta.location).is_some_and(|age| age.put_us > then);
            young && number(&meta.location).is_none_or(|number| number + LAG_MAX > tail)
        };
        let mut old: Vec<ObjectMeta> = listed.into_iter().filter(|meta| !hidden(meta)).collect();
        let inside = |path: &Path| prefix.is_none_or(|prefix| path.prefix_matches(prefix));
        let gone = self.store.ages.iter().filter(|(path, age)| {
            inside(path) && age.put_us <= then && age.deleted_us.is_some_and(|gone| gone > then)
        });
        old.extend(gone.map(|(path, age)| meta(path, age.size)));
        old.sort_by(|a, b| a.location.cmp(&b.location));
        old.dedup_by(|a, b| a.location == b.location);
        old
    }
}

pub(crate) fn meta(path: &Path, size: u64) -> ObjectMeta {
    ObjectMeta {
        location: path.clone(),
        last_modified: chrono::DateTime::UNIX_EPOCH,
        size,
        e_tag: None,
        version: None,
    }
}

#[async_trait]
impl ObjectStore for NetworkStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let (inner, path) = (self.inner.clone(), location.clone());
        let effect = async move { inner.put_opts(&path, payload, options).await };
        self.call("put", location.clone(), effect).await
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(object_store::Error::NotSupported { source: "objects are put whole".into() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (inner, path) = (self.inner.clone(), location.clone());
        let effect = async move { inner.get_opts(&path, options).await };
        self.call("get", location.clone(), effect).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |path: Result<Path>| {
            let store = store.clone();
            async move { store.delete_one(path?).await }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            match store.listed(prefix).await {
                Ok(listed) => stream::iter(listed.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            }
        };
        stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (inner, path) = (self.inner.clone(), prefix.cloned());
        let name = path.clone().unwrap_or_default();
        let effect = async move { inner.list_with_delimiter(path.as_ref()).await };
        self.call("list", name, effect).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(object_store::Error::NotSupported { source: "nothing is copied here".into() })
    }
}

/// What only entries of attempts have in them.
const ATTEMPT: &[u8] = b"\"body\":{\"attempt\"";

/// Whether these bytes are a checkpoint's entry. A damaged one isn't taken for an attempt's.
pub(crate) fn is_checkpoint(entry: &[u8]) -> bool {
    !entry.windows(ATTEMPT.len()).any(|part| part == ATTEMPT)
}

/// The number of the checkpoint that stands after this call, if it put one, answered or not.
async fn committed(objects: &Arc<dyn ObjectStore>, doing: &str, name: &Path) -> Option<u64> {
    let number = highwater_log::names::entry_number(name.as_ref()).filter(|_| doing == "put")?;
    let entry = objects.get(name).await.ok()?.bytes().await.ok()?;
    is_checkpoint(&entry).then_some(number)
}

/// Flips a bit of an object, behind the engine's back.
async fn flip_bit(objects: Arc<dyn ObjectStore>, path: Path, draw: u64) -> Result<()> {
    let mut bytes = objects.get(&path).await?.bytes().await?.to_vec();
    if !bytes.is_empty() {
        let at = (draw % bytes.len() as u64) as usize;
        bytes[at] ^= 1 << (draw >> 61);
    }
    let overwrite = PutOptions::from(PutMode::Overwrite);
    objects.put_opts(&path, bytes.into(), overwrite).await?;
    Ok(())
}
