//! A store in memory that can be slow, can refuse what it is told to, and remembers what was put.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use highwater_log::Store;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::watch;

/// Shared by a test and the store that it gives to a job.
#[derive(Clone)]
pub struct TestStore {
    inner: Arc<InMemory>,
    latency: Arc<watch::Sender<Duration>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What was put, with its size.
    puts: Vec<(String, usize)>,
    /// What was refused.
    refused: BTreeSet<String>,
    /// How many calls wait at the moment, and how many have waited for the whole time.
    waiting: usize,
    waited: usize,
    refuses: Option<Refuses>,
}

/// Whether a put of this name is refused, when these names have been refused before.
type Refuses = Box<dyn FnMut(&str, &BTreeSet<String>) -> bool + Send>;

impl TestStore {
    pub fn new() -> Self {
        let latency = Arc::new(watch::channel(Duration::ZERO).0);
        TestStore { inner: Arc::default(), latency, state: Arc::default() }
    }

    /// As a job takes it.
    pub fn store(&self) -> Store {
        Store::from_objects(Arc::new(self.clone()))
    }

    /// Every call takes so long from now on; zero lets those that wait go on at once.
    pub fn set_latency(&self, latency: Duration) {
        self.latency.send_replace(latency);
    }

    /// Refuses puts, told their names and which names were refused before.
    pub fn refuse(&self, refuses: impl FnMut(&str, &BTreeSet<String>) -> bool + Send + 'static) {
        self.state.lock().unwrap().refuses = Some(Box::new(refuses));
    }

    /// The names that were put, in order, with their sizes.
    pub fn puts(&self) -> Vec<(String, usize)> {
        self.state.lock().unwrap().puts.clone()
    }

    /// The names that were refused.
    pub fn refused(&self) -> BTreeSet<String> {
        self.state.lock().unwrap().refused.clone()
    }

    /// How many calls wait at the moment.
    pub fn waiting(&self) -> usize {
        self.state.lock().unwrap().waiting
    }

    /// How many calls have waited for the whole latency.
    pub fn waited(&self) -> usize {
        self.state.lock().unwrap().waited
    }

    async fn wait(&self) {
        let mut latency = self.latency.subscribe();
        let time = *latency.borrow_and_update();
        if time.is_zero() {
            return;
        }
        self.state.lock().unwrap().waiting += 1;
        let off = latency.wait_for(Duration::is_zero);
        let waited = tokio::time::timeout(time, off).await.is_err();
        let mut state = self.state.lock().unwrap();
        state.waiting -= 1;
        state.waited += usize::from(waited);
    }
}

impl fmt::Debug for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestStore")
    }
}

impl fmt::Display for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store of a test")
    }
}

#[async_trait::async_trait]
impl ObjectStore for TestStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.wait().await;
        let name = location.to_string();
        {
            let mut state = self.state.lock().unwrap();
            let State { refuses, refused, .. } = &mut *state;
            if refuses.as_mut().is_some_and(|refuses| refuses(&name, refused)) {
                refused.insert(name);
                let source = "refused by the test".into();
                return Err(object_store::Error::Generic { store: "test", source });
            }
            state.puts.push((name, payload.content_length()));
        }
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.wait().await;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.wait().await;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = async move {
            this.wait().await;
            this.inner.delete_stream(locations)
        };
        stream::once(deleted).flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            this.wait().await;
            this.inner.list(prefix.as_ref())
        };
        stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.wait().await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.wait().await;
        self.inner.copy_opts(from, to, options).await
    }
}
