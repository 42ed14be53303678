//! What the tests share: an environment that doesn't wait, and a store that fails on purpose.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::mem::discriminant;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use highwater_env::{BoxFuture, Env, Phase, RealEnv, Seat};
use highwater_log::{
    CheckpointEntry, Committed, Configuration, Log, Manifest, ObjectRef, StagedItem, StagedOutput,
    Started, Store, names,
};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Runs a test's body.
pub fn run<T: Send + 'static>(body: impl Future<Output = T> + Send + 'static) -> T {
    highwater_env::block_on(&RealEnv::new().unwrap(), body)
}

/// An environment in which delays take no time, but are added up.
pub struct TestEnv {
    random: AtomicU64,
    slept_ms: AtomicU64,
    impatient: AtomicBool,
    spawned: Mutex<Vec<BoxFuture<()>>>,
}

impl fmt::Debug for TestEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestEnv({} ms)", self.slept_ms())
    }
}

impl TestEnv {
    /// One whose random numbers follow from `seed`.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(TestEnv {
            random: AtomicU64::new(seed << 32),
            slept_ms: AtomicU64::new(0),
            impatient: AtomicBool::new(false),
            spawned: Mutex::default(),
        })
    }

    /// From now on no call is waited for that isn't answered at once. Only for stores in memory.
    pub fn be_impatient(&self) {
        self.impatient.store(true, Ordering::SeqCst);
    }

    /// What the log has spawned since the last call.
    pub fn spawned(&self) -> Vec<BoxFuture<()>> {
        std::mem::take(&mut self.spawned.lock().unwrap())
    }

    pub fn slept_ms(&self) -> u64 {
        self.slept_ms.load(Ordering::SeqCst)
    }
}

impl Env for TestEnv {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.slept_ms())
    }

    fn wall_clock_ms(&self) -> u64 {
        1_700_000_000_000
    }

    fn random(&self) -> u64 {
        self.random.fetch_add(1, Ordering::SeqCst)
    }

    fn spawn(&self, _: &str, task: BoxFuture<()>) {
        self.spawned.lock().unwrap().push(task);
    }

    fn spawn_thread(&self, _: &str, _: Box<dyn FnOnce() + Send>) {
        panic!("the log starts no threads");
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        // What the log waits for an answer.
        if duration > Duration::from_secs(4) && !self.impatient.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        self.slept_ms.fetch_add(duration.as_millis() as u64, Ordering::SeqCst);
        Box::pin(std::future::ready(()))
    }

    fn seat(&self, _: usize) -> Box<dyn Seat> {
        panic!("the log has no workers");
    }

    fn block_on(&self, _: BoxFuture<()>) {
        panic!("the log blocks on nothing");
    }

    fn network(&self) -> std::io::Result<Arc<dyn highwater_env::Network>> {
        panic!("the log has no peers");
    }

    fn phase(&self, _: Phase, _: bool) {}
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Request {
    Put,
    Get,
    List,
    Delete,
}

/// What goes wrong with it.
pub enum Fault {
    /// It fails, and nothing happened.
    Before,
    /// It happens, and its answer is lost.
    Answer,
    /// A list doesn't show the path yet.
    Hidden,
    /// Something else happens first.
    First(BoxFuture<()>),
    /// The request hangs forever, before its effect.
    Hang,
    /// It waits for this, and then has its effect.
    Late(tokio::sync::oneshot::Receiver<()>),
    /// A put is done whatever is there, though it was to create.
    Overwrites,
}

/// A store that fails on purpose.
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    faults: Mutex<Vec<(Request, String, Fault)>>,
    /// Every put that was sent, and its bytes.
    pub puts: Mutex<Vec<(String, Bytes)>>,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({:?})", self.inner)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

impl Faulty {
    pub fn over(store: &Store) -> Arc<Self> {
        let (faults, puts) = (Mutex::default(), Mutex::default());
        Arc::new(Faulty { inner: store.objects().clone(), faults, puts })
    }

    /// The next `request` whose path contains `path` meets `fault`.
    pub fn next(&self, request: Request, path: &str, fault: Fault) {
        self.faults.lock().unwrap().push((request, path.to_owned(), fault));
    }

    /// How many faults are still to come.
    pub fn left(&self) -> usize {
        self.faults.lock().unwrap().len()
    }

    pub fn sent(&self, path: &str) -> Vec<Bytes> {
        let puts = self.puts.lock().unwrap();
        puts.iter().filter(|(to, _)| to.contains(path)).map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Whether the next fault of this request is of the kind of `fault`.
    fn is_next(&self, request: Request, path: &str, fault: &Fault) -> bool {
        let faults = self.faults.lock().unwrap();
        let next = faults.iter().find(|(what, part, _)| *what == request && path.contains(part));
        next.is_some_and(|(_, _, next)| discriminant(next) == discriminant(fault))
    }

    fn take(&self, request: Request, path: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let at =
            faults.iter().position(|(what, part, _)| *what == request && path.contains(part))?;
        Some(faults.remove(at).2)
    }

    /// The fault that a request meets before its effect; true if its answer is to be lost.
    async fn meet(&self, request: Request, path: &str) -> Result<bool> {
        match self.take(request, path) {
            Some(Fault::Before) => Err(lost("it failed before its effect")),
            Some(Fault::Answer) => Ok(true),
            Some(Fault::First(first)) => {
                first.await;
                Ok(false)
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Late(moment)) => {
                moment.await.ok();
                Ok(false)
            }
            Some(Fault::Hidden | Fault::Overwrites) | None => Ok(false),
        }
    }
}

fn lost(what: &str) -> Error {
    Error::Generic { store: "Faulty", source: what.to_owned().into() }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let bytes = Bytes::from(payload.iter().flat_map(|b| b.to_vec()).collect::<Vec<u8>>());
        self.puts.lock().unwrap().push((location.to_string(), bytes));
        let mut options = options;
        if self.is_next(Request::Put, location.as_ref(), &Fault::Overwrites) {
            options.mode = PutMode::Overwrite;
        }
        let lose = self.meet(Request::Put, location.as_ref()).await?;
        let answer = self.inner.put_opts(location, payload, options).await;
        if lose { Err(lost("its answer is lost")) } else { answer }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.meet(Request::Get, location.as_ref()).await?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        // Deletes come one path at a time, so that the one fault that is next is theirs.
        let fault = self.take(Request::Delete, "");
        match fault {
            Some(Fault::Before) => futures::stream::iter([Err(lost("not deleted"))]).boxed(),
            _ => self.inner.delete_stream(locations),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix_text = prefix.map(ToString::to_string).unwrap_or_default();
        let mut hidden = Vec::new();
        self.faults.lock().unwrap().retain(|(request, path, fault)| {
            let hide = *request == Request::List && matches!(fault, Fault::Hidden);
            if hide {
                hidden.push(path.clone());
            }
            !hide
        });
        if let Some(Fault::Before) = self.take(Request::List, &prefix_text) {
            return futures::stream::iter([Err(lost("not listed"))]).boxed();
        }
        let shown = move |meta: &ObjectMeta| {
            !hidden.iter().any(|path| meta.location.as_ref().contains(path.as_str()))
        };
        self.inner.list(prefix).try_filter(move |meta| std::future::ready(shown(meta))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A place in memory that several logs share.
pub fn memory() -> Store {
    Store::open("memory:").unwrap()
}

/// A log of the job `flights` in `store`; `seed` tells its random numbers from those of others.
pub fn open(store: &Store, seed: u64) -> Log {
    Log::new(store.clone(), Path::from("jobs/flights"), TestEnv::new(seed), "flights")
}

/// The same through a store that fails.
pub fn open_faulty(store: &Store, seed: u64) -> (Log, Arc<Faulty>) {
    let faulty = Faulty::over(store);
    let (wrapped, through) = (store.clone(), faulty.clone());
    (open(&wrapped.wrap(move |_| through), seed), faulty)
}

pub fn body(previous: Option<u64>, manifest: ObjectRef) -> CheckpointEntry {
    CheckpointEntry {
        previous,
        interval: 1,
        epoch: 2,
        clock_ms: 3,
        trigger: 4,
        configuration: Configuration { workers: 2, key_groups: 256, hash_version: 1 },
        graph: Vec::new(),
        manifest,
        staged: Vec::new(),
        garbage: Vec::new(),
        finished: false,
    }
}

/// Output that a checkpoint staged, to be published as a part of that name or held back.
pub fn staged(checkpoint: u64, part: Option<&str>) -> StagedOutput {
    let name = names::staged(0, checkpoint, 0, "out", 0);
    let (checksum, part) = ("0".repeat(16), part.map(str::to_owned));
    let items = vec![StagedItem { name, bytes: 1, rows: 1, checksum, part }];
    StagedOutput { sink: "out".to_owned(), checkpoint, items }
}

/// Commits a checkpoint with one object of its own, after `change` to its entry.
pub async fn commit(
    log: &Log,
    attempt: u64,
    previous: Option<u64>,
    change: impl FnOnce(&mut CheckpointEntry),
) -> std::result::Result<Committed, highwater_log::AppendError> {
    let interval = previous.map_or(1, |previous| previous + 1);
    let name = names::object(attempt, interval, 0);
    let object = log.put_object(&name, format!("state {attempt} {interval}").into()).await?;
    let manifest = Manifest { format: 1, objects: vec![object] };
    let manifest = log.put_manifest(attempt, interval, &manifest).await?;
    let mut checkpoint = body(previous, manifest);
    checkpoint.interval = interval;
    change(&mut checkpoint);
    log.append(&log.next_entry(checkpoint)).await
}

/// Starts an attempt and commits this many checkpoints.
pub async fn history(log: &Log, checkpoints: u64) -> Started {
    let started = log.start(2, false).await.unwrap();
    let mut previous = None;
    for _ in 0..checkpoints {
        let committed = commit(log, started.attempt, previous, |_| {}).await.unwrap();
        previous = Some(committed.number());
    }
    started
}

/// No chain is broken.
pub fn whole() -> BTreeMap<u64, String> {
    BTreeMap::new()
}
