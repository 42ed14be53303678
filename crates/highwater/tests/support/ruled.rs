//! A store that does what a test says.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::BoxStream;
use highwater_log::Store;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::{lock, wait_for};

/// Holds whoever comes while it is shut, as it is at first.
#[derive(Debug)]
pub struct Gate {
    arrived: AtomicUsize,
    waiting: AtomicUsize,
    open: tokio::sync::watch::Sender<bool>,
}

impl Gate {
    pub fn new() -> Arc<Self> {
        Arc::new(Gate {
            arrived: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            open: tokio::sync::watch::Sender::new(false),
        })
    }

    /// Waits, from a test, until somebody stands before the gate.
    pub fn wait_for_arrival(&self) {
        wait_for("somebody comes to the gate", || self.arrived.load(SeqCst) > 0);
    }

    /// How many stand before the gate at the moment.
    pub fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    pub fn shut(&self) {
        self.open.send_replace(false);
    }

    pub async fn pass(&self) {
        self.arrived.fetch_add(1, SeqCst);
        self.waiting.fetch_add(1, SeqCst);
        self.open
            .subscribe()
            .wait_for(|open| *open)
            .await
            .expect("the gate outlives who stands before it");
        self.waiting.fetch_sub(1, SeqCst);
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
        let bytes = payload.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>().concat();
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
