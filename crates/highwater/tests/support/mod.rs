//! What the whole-engine tests share: a source that is told how far to go, sinks that fail or remember, a store that does what a test says.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use highwater::connectors::{Files, IntoSink, IntoSource, foreach_batch};
use highwater::env::BoxFuture;
use highwater::testing::{Run, Test};
use highwater::{Control, Job};
use highwater_log::{CheckpointEntry, Entry, StagedItem, Store, record};
use highwater_runtime::connector::{
    Delivery, Polled, Publisher, PublisherContext, Reader, ReaderContext, Sink, Source,
    SplitOffset, Writer, WriterContext,
};
use highwater_runtime::{Batch, BoxError, Epoch};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `condition` holds.
#[allow(clippy::disallowed_methods, reason = "tests run in the real world")]
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    assert!(wait_at_most(PATIENCE, condition), "waited in vain until {what}");
}

/// Waits until `condition` holds; false if it doesn't within `time`.
#[allow(clippy::disallowed_methods, reason = "tests run in the real world")]
pub fn wait_at_most(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while !condition() {
        if begin.elapsed() > time {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

// ---------------------------------------------------------------------------------------------------------------------
// The source

/// A source of numbers, and the handle by which a test steers it and the attempt that runs it.
///
/// Split *s* of *k* holds *s*, *s + k*, *s + 2k*, ...: row *i* of split *s* is *i k + s*.
#[derive(Clone)]
pub struct Numbers {
    splits: u64,
    /// So many rows has a split; the job ends behind them.
    rows: u64,
    /// So many rows are polled at once.
    at_once: u64,
    steering: Arc<Steering>,
}

struct Steering {
    /// So many rows of a split may be read for now.
    allowed: AtomicU64,
    fail: AtomicBool,
    /// The offsets that the latest attempt began with, by split.
    began: Mutex<BTreeMap<String, SplitOffset>>,
    control: Mutex<Option<Control>>,
    attempts: AtomicUsize,
}

impl Numbers {
    pub fn new(splits: u64, rows: u64) -> Self {
        let steering = Steering {
            allowed: AtomicU64::new(u64::MAX),
            fail: AtomicBool::new(false),
            began: Mutex::default(),
            control: Mutex::default(),
            attempts: AtomicUsize::new(0),
        };
        Numbers { splits, rows, at_once: 50, steering: Arc::new(steering) }
    }

    /// Rows without end.
    pub fn endless(splits: u64) -> Self {
        Numbers::new(splits, u64::MAX)
    }

    /// Every number of the source.
    pub fn all(&self) -> Vec<u64> {
        (0..self.rows * self.splits).collect()
    }

    /// So many rows of each split may be read for now.
    pub fn allow(&self, rows: u64) {
        self.steering.allowed.store(rows, SeqCst);
    }

    /// The attempt fails at the next poll, which a test takes for a crash that nobody restarts.
    pub fn fail(&self, fail: bool) {
        self.steering.fail.store(fail, SeqCst);
    }

    /// How many attempts have asked for splits.
    pub fn attempts(&self) -> usize {
        self.steering.attempts.load(SeqCst)
    }

    /// Whether attempt number `attempt`, counted from 1, has come so far as to read.
    pub fn reads(&self, attempt: usize) -> bool {
        self.attempts() >= attempt && lock(&self.steering.control).is_some()
    }

    /// The latest attempt, once it runs.
    pub fn control(&self) -> Control {
        wait_for("the attempt runs", || lock(&self.steering.control).is_some());
        lock(&self.steering.control).clone().unwrap()
    }

    /// The control of attempt number `attempt`, counted from 1.
    pub fn control_of(&self, attempt: usize) -> Control {
        wait_for("the attempt is the one asked for", || self.attempts() >= attempt);
        self.control()
    }

    /// Where the splits of the latest attempt began.
    pub fn began(&self) -> BTreeMap<String, SplitOffset> {
        lock(&self.steering.began).clone()
    }
}

impl IntoSource<u64> for Numbers {
    fn into_source(self) -> Arc<dyn Source> {
        Arc::new(self)
    }
}

impl Source for Numbers {
    fn splits(&self, _: &[(String, SplitOffset)]) -> Result<Vec<String>, BoxError> {
        *lock(&self.steering.control) = None;
        lock(&self.steering.began).clear();
        self.steering.attempts.fetch_add(1, SeqCst);
        Ok((0..self.splits).map(|split| format!("split-{split}")).collect())
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn Reader>, BoxError> {
        lock(&self.steering.began).extend(context.splits.iter().cloned());
        *lock(&self.steering.control) = Some(context.control);
        let splits = context.splits.into_iter().map(|(id, offset)| {
            let number = id.trim_start_matches("split-").parse().expect("a split of ours");
            NumbersSplit { id, number, offset, moved: false }
        });
        Ok(Box::new(NumbersReader { source: self.clone(), splits: splits.collect(), read: None }))
    }
}

struct NumbersReader {
    source: Numbers,
    splits: Vec<NumbersSplit>,
    /// The epoch of the last rows: one poll an epoch, so that nothing is ever far behind.
    read: Option<Epoch>,
}

struct NumbersSplit {
    id: String,
    number: u64,
    offset: SplitOffset,
    moved: bool,
}

impl Reader for NumbersReader {
    fn poll(&mut self, epoch: Epoch) -> Result<Polled, BoxError> {
        let Numbers { splits: of, rows: end, at_once, steering } = &self.source;
        if steering.fail.load(SeqCst) {
            return Err("the test ends this attempt".into());
        }
        let allowed = steering.allowed.load(SeqCst).min(*end);
        for split in self.splits.iter_mut().filter(|split| !split.offset.ended) {
            if split.offset.position >= *end {
                split.offset.ended = true;
                split.moved = true;
            }
        }
        let going = self.splits.iter_mut().filter(|split| !split.offset.ended);
        let Some(split) = going.min_by_key(|split| split.offset.position) else {
            return Ok(Polled::Ended);
        };
        let count = allowed.saturating_sub(split.offset.position).min(*at_once);
        if count == 0 {
            return Ok(Polled::Waiting);
        }
        if self.read.replace(epoch) == Some(epoch) {
            return Ok(Polled::EpochOver);
        }
        let first = split.offset.position;
        let rows: Vec<u64> = (first..first + count).map(|row| row * of + split.number).collect();
        split.offset.position += count;
        split.offset.records += count;
        split.moved = true;
        Ok(Polled::Rows(Batch::new(rows), count as usize * 8))
    }

    fn offsets(&mut self) -> Vec<(String, SplitOffset)> {
        let moved = self.splits.iter_mut().filter_map(|split| {
            std::mem::take(&mut split.moved).then(|| (split.id.clone(), split.offset.clone()))
        });
        moved.collect()
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Sinks

/// A sink that was made already, as something to write to.
pub struct Raw(pub Arc<dyn Sink>);

impl<T> IntoSink<T> for Raw {
    fn into_sink(self) -> Arc<dyn Sink> {
        self.0
    }
}

/// What a destination in memory was given, call by call.
#[derive(Clone, Default)]
pub struct Recorded(Arc<Mutex<Vec<Call>>>);

/// A checkpoint's number, and its rows.
type Call = (u64, Vec<u64>);

impl Recorded {
    /// A sink that promises exactly once and keeps the promise, as a function that knows the checkpoint's number can.
    pub fn sink(&self) -> Arc<dyn Sink> {
        let calls = self.0.clone();
        let sink = foreach_batch(move |checkpoint, rows: Vec<u64>| {
            lock(&calls).push((checkpoint, rows));
            Ok(())
        });
        sink.into_sink()
    }

    /// The same, promising less.
    pub fn at_least_once(&self) -> Arc<dyn Sink> {
        Arc::new(AtLeastOnce(self.sink()))
    }

    /// Every call, as it came.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.0).clone()
    }

    /// A destination that was given the same, and goes on by itself.
    pub fn fork(&self) -> Self {
        Recorded(Arc::new(Mutex::new(self.calls())))
    }

    /// The rows of every checkpoint once; a checkpoint that was given again must have had the same rows.
    pub fn once(&self) -> Vec<u64> {
        let mut checkpoints: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (checkpoint, rows) in self.calls() {
            if let Some(before) = checkpoints.insert(checkpoint, rows.clone()) {
                assert_eq!(
                    before, rows,
                    "checkpoint {checkpoint} brought other rows when it was repeated"
                );
            }
        }
        sorted(checkpoints.into_values().flatten().collect())
    }
}

pub fn sorted(mut rows: Vec<u64>) -> Vec<u64> {
    rows.sort_unstable();
    rows
}

struct AtLeastOnce(Arc<dyn Sink>);

impl Sink for AtLeastOnce {
    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }
    fn writer(&self, context: WriterContext) -> Result<Box<dyn Writer>, BoxError> {
        self.0.writer(context)
    }
    fn publisher(&self, context: PublisherContext) -> Result<Box<dyn Publisher>, BoxError> {
        self.0.publisher(context)
    }
}

/// A destination that can be down, or can hold whoever prepares it.
#[derive(Clone)]
pub struct Faulty {
    inner: Arc<dyn Sink>,
    state: Arc<FaultyState>,
}

#[derive(Default)]
struct FaultyState {
    down: AtomicBool,
    refused: AtomicUsize,
    published: Mutex<Vec<(u64, Vec<StagedItem>)>>,
    hold_prepare: Mutex<Option<Arc<Gate>>>,
}

impl Faulty {
    pub fn over(inner: Arc<dyn Sink>) -> Self {
        Faulty { inner, state: Arc::default() }
    }

    pub fn set_down(&self, down: bool) {
        self.state.down.store(down, SeqCst);
    }

    /// How often something was to be published and couldn't.
    pub fn refused(&self) -> usize {
        self.state.refused.load(SeqCst)
    }

    /// What was published, call by call.
    pub fn published(&self) -> Vec<(u64, Vec<StagedItem>)> {
        lock(&self.state.published).clone()
    }

    /// Whoever prepares the destination next waits at the gate, before anything is done.
    pub fn hold_prepare(&self, gate: Arc<Gate>) {
        *lock(&self.state.hold_prepare) = Some(gate);
    }

    pub fn sink(&self) -> Raw {
        Raw(Arc::new(self.clone()))
    }
}

impl Sink for Faulty {
    fn delivery(&self) -> Delivery {
        self.inner.delivery()
    }
    fn writer(&self, context: WriterContext) -> Result<Box<dyn Writer>, BoxError> {
        self.inner.writer(context)
    }
    fn publisher(&self, context: PublisherContext) -> Result<Box<dyn Publisher>, BoxError> {
        let inner = Arc::from(self.inner.publisher(context)?);
        Ok(Box::new(FaultyPublisher { inner, state: self.state.clone() }))
    }
}

struct FaultyPublisher {
    inner: Arc<dyn Publisher>,
    state: Arc<FaultyState>,
}

impl Publisher for FaultyPublisher {
    fn prepare(&self) -> BoxFuture<Result<(), BoxError>> {
        let (inner, gate) = (self.inner.clone(), lock(&self.state.hold_prepare).take());
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.pass().await;
            }
            inner.prepare().await
        })
    }

    fn plan(&self, items: &mut [StagedItem], clock_ms: u64, last: bool) {
        self.inner.plan(items, clock_ms, last);
    }

    fn publish(&self, checkpoint: u64, items: Vec<StagedItem>) -> BoxFuture<Result<(), BoxError>> {
        let (inner, state) = (self.inner.clone(), self.state.clone());
        Box::pin(async move {
            if state.down.load(SeqCst) {
                state.refused.fetch_add(1, SeqCst);
                return Err("the destination is down".into());
            }
            inner.publish(checkpoint, items.clone()).await?;
            lock(&state.published).push((checkpoint, items));
            Ok(())
        })
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The store

/// Holds whoever comes, until it is opened.
#[derive(Debug)]
pub struct Gate {
    arrived: AtomicUsize,
    open: tokio::sync::watch::Sender<bool>,
}

impl Gate {
    pub fn new() -> Arc<Self> {
        Arc::new(Gate {
            arrived: AtomicUsize::new(0),
            open: tokio::sync::watch::Sender::new(false),
        })
    }

    /// Waits, from a test, until somebody stands before the gate.
    pub fn wait_for_arrival(&self) {
        wait_for("somebody comes to the gate", || self.arrived.load(SeqCst) > 0);
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    async fn pass(&self) {
        self.arrived.fetch_add(1, SeqCst);
        self.open
            .subscribe()
            .wait_for(|open| *open)
            .await
            .expect("the gate outlives who stands before it");
    }
}

/// What becomes of a request.
pub enum Fate {
    /// It is done.
    Done,
    /// It is done, and its answer is lost.
    AnswerLost,
    /// Other bytes are written, and the answer is lost.
    Other(Vec<u8>),
    /// It isn't done, and nobody says so.
    Lost,
    /// It waits, and so does every later request.
    Held(Arc<Gate>),
}

type Rule = dyn Fn(&'static str, &str, &[u8]) -> Fate + Send + Sync;

/// A store that does what a rule says with `put`, `get`, `list` and `delete` of a path.
pub struct Ruled {
    inner: Arc<dyn ObjectStore>,
    rule: Box<Rule>,
    held: Mutex<Option<Arc<Gate>>>,
}

impl Ruled {
    /// `store`, as somebody sees it who meets `rule`.
    pub fn over(
        store: &Store,
        rule: impl Fn(&'static str, &str, &[u8]) -> Fate + Send + Sync + 'static,
    ) -> Store {
        let rule = Box::new(rule);
        store.clone().wrap(|inner| Arc::new(Ruled { inner, rule, held: Mutex::default() }))
    }

    async fn meet(&self, what: &'static str, path: &str, bytes: &[u8]) -> Fate {
        let held = lock(&self.held).clone();
        if let Some(gate) = held {
            gate.pass().await;
            return Fate::Done;
        }
        match (self.rule)(what, path, bytes) {
            Fate::Held(gate) => {
                *lock(&self.held) = Some(gate.clone());
                gate.pass().await;
                Fate::Done
            }
            fate => fate,
        }
    }
}

impl fmt::Debug for Ruled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ruled({:?})", self.inner)
    }
}

impl fmt::Display for Ruled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ruled({})", self.inner)
    }
}

fn lost() -> object_store::Error {
    object_store::Error::Generic { store: "Ruled", source: "the answer is lost".into() }
}

#[async_trait::async_trait]
impl ObjectStore for Ruled {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let bytes: Vec<u8> = payload.iter().flat_map(|bytes| bytes.to_vec()).collect();
        match self.meet("put", location.as_ref(), &bytes).await {
            Fate::Lost => Err(lost()),
            Fate::AnswerLost => {
                self.inner.put_opts(location, payload, options).await?;
                Err(lost())
            }
            Fate::Other(bytes) => {
                self.inner.put_opts(location, bytes.into(), options).await?;
                Err(lost())
            }
            _ => self.inner.put_opts(location, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        if let Fate::Lost = self.meet("get", location.as_ref(), &[]).await {
            return Err(lost());
        }
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Runs a task of a store outside of any attempt.
pub fn block_on<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(task)
}

pub fn memory() -> Store {
    Store::open("memory:").unwrap()
}

/// A copy of a store, in memory.
pub fn copy(contents: &BTreeMap<String, Bytes>) -> Store {
    let store = memory();
    block_on(async {
        for (name, bytes) in contents {
            store.objects().put(&Path::from(name.as_str()), bytes.clone().into()).await.unwrap();
        }
    });
    store
}

/// A copy of a folder with all that is in it.
pub fn copy_folder(from: &FilePath, to: &FilePath) {
    try_copy_folder(from, to).unwrap();
}

fn try_copy_folder(from: &FilePath, to: &FilePath) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in from.read_dir()? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            try_copy_folder(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// A copy of the folder of a job that has crashed, as it was at one instant: what the attempt left under way may still go on in it.
pub fn freeze(folder: &FilePath) -> tempfile::TempDir {
    loop {
        let copy = tempfile::tempdir().unwrap();
        let before = all_files(folder);
        // A file may go between being seen and being copied.
        if try_copy_folder(folder, copy.path()).is_ok() && all_files(folder) == before {
            return copy;
        }
    }
}

/// All files in a folder and below.
pub fn all_files(folder: &FilePath) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(all_files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Everything in the store.
pub fn contents(store: &Store) -> BTreeMap<String, Bytes> {
    block_on(async {
        let listed: Vec<ObjectMeta> = store.objects().list(None).try_collect().await.unwrap();
        let mut contents = BTreeMap::new();
        for meta in listed {
            // Collected in between, if it isn't there.
            if let Ok(got) = store.objects().get(&meta.location).await {
                contents.insert(meta.location.to_string(), got.bytes().await.unwrap());
            }
        }
        contents
    })
}

/// The entries of the log, by number, but those that were damaged.
pub fn entries(store: &Store) -> BTreeMap<u64, Entry> {
    let contents = contents(store);
    let log = contents.iter().filter(|(name, _)| name.starts_with("log/"));
    log.filter_map(|(_, bytes)| {
        let entry: Entry = record::decode(bytes, 1).ok()?;
        Some((entry.number, entry))
    })
    .collect()
}

/// The checkpoints of the log, by number.
pub fn checkpoints(store: &Store) -> BTreeMap<u64, CheckpointEntry> {
    entries(store)
        .into_iter()
        .filter_map(|(number, entry)| Some((number, entry.checkpoint()?.clone())))
        .collect()
}

/// The number of the newest checkpoint; 0 if there is none.
pub fn newest(store: &Store) -> u64 {
    checkpoints(store).keys().next_back().copied().unwrap_or_default()
}

// ---------------------------------------------------------------------------------------------------------------------
// The job

/// The job of most tests: the numbers themselves to `sink`, and how many there are of each class to `counts`.
pub fn job(job: &Job, numbers: &Numbers, sink: Raw) {
    let numbers = job.read("numbers", numbers.clone());
    numbers.clone().write("numbers-out", sink);
    numbers
        .key_by(|number| number % CLASSES)
        .count()
        .uid("count")
        .write("counts", highwater::testing::Collect);
}

pub const CLASSES: u64 = 13;

/// What the counts of [`job`] come to for the numbers up to `end`.
pub fn expected_counts(end: u64) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for number in 0..end {
        *counts.entry(number % CLASSES).or_default() += 1;
    }
    counts
}

pub fn counts(run: &Run) -> BTreeMap<u64, u64> {
    run.last_per_key::<u64, u64>("counts").into_iter().collect()
}

/// The same, as something that can be built on another thread, with a file sink.
pub fn file_job(numbers: &Numbers, out: &FilePath) -> impl FnOnce(&Job) + Send + 'static + use<> {
    let (numbers, out) = (numbers.clone(), out.to_owned());
    move |graph| job(graph, &numbers, Raw(files(&out)))
}

/// The same, with a sink that fails.
pub fn faulty_job(numbers: &Numbers, sink: &Faulty) -> impl FnOnce(&Job) + Send + 'static + use<> {
    let (numbers, sink) = (numbers.clone(), sink.clone());
    move |graph| job(graph, &numbers, sink.sink())
}

/// Runs a job beside the test. Nobody waits for it if the test fails.
pub fn start(
    test: Test,
    job: impl FnOnce(&Job) + Send + 'static,
) -> JoinHandle<highwater::Result<Run>> {
    let thread = std::thread::Builder::new().name("a job".to_owned());
    thread.spawn(|| test.run(job)).unwrap()
}

/// A test whose attempts see `store`.
pub fn test(workers: usize, store: &Store) -> Test {
    Test::new(workers).store(store.clone())
}

/// Files with a line a row.
pub fn files(folder: &FilePath) -> Arc<dyn Sink> {
    IntoSink::<u64>::into_sink(Files::text(folder))
}

/// What is visible in a folder of a file sink.
pub fn parts(folder: &FilePath) -> BTreeMap<PathBuf, Vec<u64>> {
    let mut parts = BTreeMap::new();
    for entry in folder.read_dir().into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = std::fs::read_to_string(&path).unwrap();
            parts.insert(path, text.lines().map(|line| line.parse().unwrap()).collect());
        }
    }
    parts
}

pub fn rows(folder: &FilePath) -> Vec<u64> {
    sorted(parts(folder).into_values().flatten().collect())
}
