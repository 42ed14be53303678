//! A local directory as a store whose puts survive a loss of power.
//!
//! [`LocalFileSystem`] reads, lists and deletes. Its puts aren't durable, so they are done here: the bytes
//! go to a temporary file beside the final name and are synced; then it is linked to the final name (which
//! fails if that exists) or renamed over it; then the directory is synced. A reader therefore sees a whole
//! file or none, and an answered put is there after a crash of the machine.
//!
//! Invariants kept here (of this module):
//!
//! - **L1**: a name appears only with all of its bytes, already synced.
//! - **L2**: when a put is answered, the directory that holds the name is synced, and so is every directory
//!   above, up to the store's own.
//! - **L3**: a directory that was there is never made anew. If one is gone (the store was renamed, its volume isn't mounted), nothing is
//!   written in its stead, and nothing counts as missing: every call fails until it is back.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};

use super::files::{FileSystem, MachineFiles};

/// What the name of a temporary file begins with. Such files are never listed.
const TEMPORARY: &str = ".tmp-";

const STORE: &str = "LocalStore";

/// A local directory as a durable store.
#[derive(Clone, Debug)]
pub struct LocalStore {
    /// Reads, lists and deletes.
    objects: Arc<dyn ObjectStore>,
    disk: Arc<Disk>,
}

/// The part that writes.
#[derive(Debug)]
struct Disk {
    files: Arc<dyn FileSystem>,
    root: PathBuf,
    /// Directories that this process knows to be durable in their parents (L2).
    durable: Mutex<HashSet<PathBuf>>,
    /// Makes the names of temporary files differ.
    count: AtomicU64,
}

impl std::fmt::Display for LocalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{STORE}({})", self.disk.root.display())
    }
}

impl LocalStore {
    /// The store in `directory`, which is created if need be.
    ///
    /// # Errors
    ///
    /// Why the directory can't be used, in words.
    pub fn open(directory: &FilePath) -> std::result::Result<Self, String> {
        if directory.exists() && !directory.is_dir() {
            return Err("it is not a directory; name one, or a place where one can be made".into());
        }
        let root = std::path::absolute(directory).map_err(|error| error.to_string())?;
        let disk = Disk::new(Arc::new(MachineFiles), root);
        disk.make_directories(&disk.root, FilePath::new("/")).map_err(|error| {
            format!("the directory can't be created: {error}; create it, or check the permissions")
        })?;
        // Whoever made the directory may have died before that was durable. Who may not read its parent
        // didn't make it.
        if let Some(parent) = disk.root.parent() {
            disk.files.sync_directory(parent).ok();
        }
        // Resolved only now: what doesn't exist can't be.
        let root = disk.root.canonicalize().map_err(|error| error.to_string())?;
        let disk = Disk { root, ..disk };
        disk.write_temporary("probe", &PutPayload::from_static(b"")).map_err(|error| {
            format!("it can't be written: {error}; check its permissions and the space left")
        })?;
        let objects = LocalFileSystem::new_with_prefix(&disk.root).map_err(|e| e.to_string())?;
        Ok(LocalStore { objects: Arc::new(objects), disk: Arc::new(disk) })
    }

    /// The store in `directory`, for somebody who only looks.
    ///
    /// # Errors
    ///
    /// Why the directory can't be used, in words.
    pub fn open_to_read(directory: &FilePath) -> std::result::Result<Self, String> {
        let root = directory.canonicalize().ok().filter(|root| root.is_dir());
        let root = root.ok_or("there is no directory of that name, or it can't be looked into")?;
        let objects = LocalFileSystem::new_with_prefix(&root).map_err(|e| e.to_string())?;
        let disk = Disk::new(Arc::new(MachineFiles), root);
        Ok(LocalStore { objects: Arc::new(objects), disk: Arc::new(disk) })
    }

    /// A store in the root of a file system of another kind, of which `objects` reads, lists and deletes the files.
    pub fn over(files: Arc<dyn FileSystem>, objects: Arc<dyn ObjectStore>) -> Self {
        LocalStore { objects, disk: Arc::new(Disk::new(files, PathBuf::from("/"))) }
    }

    /// See [`Store::make_durable`](super::Store::make_durable).
    pub(super) async fn make_durable(&self, path: &Path) -> Result<()> {
        let file = self.disk.file(path);
        let disk = self.disk.clone();
        blocking(path, move || {
            disk.files.sync(&file).map_err(|error| disk.unless_gone(error))?;
            let directory = disk.parent(&file)?;
            disk.make_directories(directory, &disk.root)?;
            disk.files.sync_directory(directory)
        })
        .await
    }

    /// See [`Store::make_names_durable`](super::Store::make_names_durable).
    pub(super) async fn make_names_durable(&self, folder: &Path) -> Result<()> {
        let (directory, disk) = (self.disk.file(folder), self.disk.clone());
        blocking(folder, move || disk.files.sync_directory(&directory)).await
    }

    /// See [`Store::temporaries`](super::Store::temporaries).
    pub(super) fn temporaries(&self, prefix: &Path) -> BoxStream<'static, Result<Path>> {
        let all = self.listed(Some(prefix)).map_ok(|meta| meta.location);
        all.try_filter(|path| std::future::ready(is_temporary(path))).boxed()
    }

    /// Everything below `prefix`. What isn't there has nothing below it, unless it was there and is gone (L3).
    fn listed(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let disk = self.disk.clone();
        let there = stream::once(async move { disk.check_there().map_err(of_the_store) });
        let end = there.filter_map(|there| std::future::ready(there.err().map(Err)));
        self.objects.list(prefix).chain(end).boxed()
    }

    fn unless_gone(&self, error: object_store::Error) -> object_store::Error {
        match &error {
            object_store::Error::NotFound { .. } => {
                self.disk.check_there().map_err(of_the_store).err().unwrap_or(error)
            }
            _ => error,
        }
    }

    /// The file that `path` is.
    pub(super) fn shown(&self, path: &Path) -> String {
        self.disk.file(path).display().to_string()
    }
}

impl Disk {
    fn new(files: Arc<dyn FileSystem>, root: PathBuf) -> Self {
        Disk { files, root, durable: Mutex::default(), count: AtomicU64::new(0) }
    }

    /// Where `path` is. A store's path never leads out of its root.
    fn file(&self, path: &Path) -> PathBuf {
        self.root.join(path.as_ref())
    }

    fn parent<'a>(&self, file: &'a FilePath) -> io::Result<&'a FilePath> {
        let inside = |parent: &&FilePath| parent.starts_with(&self.root);
        let outside = || io::Error::new(ErrorKind::InvalidInput, "it is outside of the store");
        file.parent().filter(inside).ok_or_else(outside)
    }

    /// Fails if a directory is gone that was there (L3).
    fn check_there(&self) -> io::Result<()> {
        let known = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = |path: &&PathBuf| path.starts_with(&self.root) && !self.files.is_directory(path);
        match std::iter::once(&self.root).chain(&*known).find(gone) {
            Some(path) => Err(io::Error::other(format!(
                "the folder {} was there and is gone; put it back, or mount its volume again",
                path.display()
            ))),
            None => Ok(()),
        }
    }

    /// The error of a call, which isn't that something is missing if the store itself is (L3).
    fn unless_gone(&self, error: io::Error) -> io::Error {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                self.check_there().err().unwrap_or(error)
            }
            _ => error,
        }
    }

    /// Makes `directory` exist and be durable, with all above it down from `top` (L2).
    fn make_directories(&self, directory: &FilePath, top: &FilePath) -> io::Result<()> {
        let known = self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(directory);
        if directory == top || (known && self.files.is_directory(directory)) {
            return Ok(());
        }
        if top == self.root {
            self.check_there()?;
        }
        let Some(parent) = directory.parent() else { return Ok(()) };
        // What was there before the store is the business of whoever made it.
        let before = top != self.root && self.files.is_directory(directory);
        if before {
            return Ok(());
        }
        self.make_directories(parent, top)?;
        match self.files.create_directory(directory) {
            Ok(()) => {}
            Err(error)
                if error.kind() == ErrorKind::AlreadyExists
                    && self.files.is_directory(directory) => {}
            Err(error) => return Err(error),
        }
        // Also if it was there: whoever made it may have died before syncing it.
        self.files.sync_directory(parent)?;
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        durable.insert(directory.to_owned());
        Ok(())
    }

    /// Writes and removes a temporary file in the root, to see whether that can be done.
    fn write_temporary(&self, name: &str, payload: &PutPayload) -> io::Result<()> {
        let path = self.temporary(&self.root, name, payload)?;
        self.files.remove(&path)
    }

    /// A synced temporary file with these bytes.
    fn temporary(
        &self,
        directory: &FilePath,
        name: &str,
        payload: &PutPayload,
    ) -> io::Result<PathBuf> {
        loop {
            let count = self.count.fetch_add(1, Ordering::Relaxed);
            let process = std::process::id();
            let path = directory.join(format!("{TEMPORARY}{name}-{process}-{count}"));
            let mut file = match self.files.create(&path) {
                Ok(file) => file,
                // Left by an earlier process with the same number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            };
            let written = file.write(payload);
            return match written.and_then(|()| file.sync()) {
                Ok(()) => Ok(path),
                Err(error) => {
                    self.files.remove(&path).ok();
                    Err(error)
                }
            };
        }
    }

    fn put(&self, file: &FilePath, payload: &PutPayload, create: bool) -> io::Result<()> {
        let directory = self.parent(file)?;
        self.make_directories(directory, &self.root)?;
        self.write(directory, file, payload, create).map_err(|error| self.unless_gone(error))
    }

    fn write(
        &self,
        directory: &FilePath,
        file: &FilePath,
        payload: &PutPayload,
        create: bool,
    ) -> io::Result<()> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let temporary = self.temporary(directory, &name, payload)?;
        // L1: from here on the bytes are on the disk.
        let named = if create {
            self.files.link(&temporary, file).map_err(explain_link)
        } else {
            self.files.rename(&temporary, file)
        };
        if create || named.is_err() {
            // If that fails, it stays behind, unlisted.
            self.files.remove(&temporary).ok();
        }
        named?;
        // L2
        self.files.sync_directory(directory)
    }
}

fn explain_link(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::Unsupported | ErrorKind::PermissionDenied => io::Error::new(
            error.kind(),
            format!("{error} (the file system must have hard links; use another one if it hasn't)"),
        ),
        _ => error,
    }
}

fn is_temporary(path: &Path) -> bool {
    path.filename().is_some_and(|name| name.starts_with(TEMPORARY))
}

/// Runs what waits for the disk off the threads that run tasks, if there are such.
///
/// This is what [`LocalFileSystem`] does for reads. It can't go through the environment, which a store
/// doesn't have; a simulated world has no tokio runtime.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = match tokio::runtime::Handle::try_current() {
        #[allow(clippy::disallowed_methods, reason = "see above")]
        Ok(_) => tokio::task::spawn_blocking(work).await?,
        Err(_) => work(),
    };
    done.map_err(|source| {
        let (path, kind) = (path.to_string(), source.kind());
        let source = Box::new(source);
        match kind {
            ErrorKind::AlreadyExists => object_store::Error::AlreadyExists { path, source },
            ErrorKind::NotFound => object_store::Error::NotFound { path, source },
            ErrorKind::PermissionDenied => object_store::Error::PermissionDenied { path, source },
            _ => object_store::Error::Generic { store: STORE, source },
        }
    })
}

fn of_the_store(error: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: STORE, source: Box::new(error) }
}

fn not_implemented(operation: &str) -> object_store::Error {
    object_store::Error::NotImplemented { operation: operation.into(), implementer: STORE.into() }
}

#[async_trait::async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(not_implemented("a put with `PutMode::Update`")),
        };
        if !options.attributes.is_empty() {
            return Err(not_implemented("a put with attributes"));
        }
        let file = self.disk.file(location);
        let disk = self.disk.clone();
        blocking(location, move || disk.put(&file, &payload, create)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    /// Refused: objects are written whole, and nothing here is so large that it can't be.
    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let source = "a put in several parts; put the whole object at once".into();
        Err(object_store::Error::NotSupported { source })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let got = self.objects.get_opts(location, options).await;
        got.map_err(|error| self.unless_gone(error))
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<bytes::Bytes>> {
        self.objects.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let deleted = self.objects.delete_stream(locations);
        deleted.map_err(move |error| store.unless_gone(error)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let all = self.listed(prefix);
        all.try_filter(|meta| std::future::ready(!is_temporary(&meta.location))).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let all = self.objects.list_with_offset(prefix, offset);
        all.try_filter(|meta| std::future::ready(!is_temporary(&meta.location))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.objects.list_with_delimiter(prefix).await?;
        listed.objects.retain(|meta| !is_temporary(&meta.location));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let bytes = self.get(from).await?.bytes().await?;
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        self.put_opts(to, bytes.into(), mode.into()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bytes::Bytes;

    use super::*;

    fn run<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> T {
        let env = highwater_env::RealEnv::new().unwrap();
        highwater_env::block_on(&env, task)
    }

    #[test]
    fn puts_are_whole_listed_and_leave_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::open(directory.path()).unwrap();
        let root = directory.path().to_owned();
        run(async move {
            let path = Path::from("a/b/c");
            let create = || PutOptions::from(PutMode::Create);
            store.put_opts(&path, "one".into(), create()).await.unwrap();
            let again = store.put_opts(&path, "two".into(), create()).await;
            assert!(matches!(again, Err(object_store::Error::AlreadyExists { .. })), "{again:?}");
            assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "one");
            store.put(&path, "three".into()).await.unwrap();
            assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "three");
            store.make_durable(&path).await.unwrap();
            let gone = store.make_durable(&Path::from("a/x")).await;
            assert!(matches!(gone, Err(object_store::Error::NotFound { .. })), "{gone:?}");
            store.copy_if_not_exists(&path, &Path::from("d")).await.unwrap();
            let copied = store.copy_if_not_exists(&path, &Path::from("d")).await;
            assert!(matches!(copied, Err(object_store::Error::AlreadyExists { .. })));
            let files: Vec<_> = fs::read_dir(root.join("a/b")).unwrap().collect();
            assert_eq!(files.len(), 1);
            assert!(store.put_multipart(&path).await.is_err());
        });
    }

    #[test]
    fn a_store_that_is_gone_is_not_empty() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        let store = LocalStore::open(&root).unwrap();
        run(async move {
            let [path, missing, new] = ["log/1", "log/2", "data/1"].map(Path::from);
            let gone = |error: object_store::Error| {
                assert!(error.to_string().contains("is gone"), "{error}");
            };
            let nothing = |error: object_store::Error| {
                assert!(matches!(error, object_store::Error::NotFound { .. }), "{error}");
            };
            store.put(&path, "one".into()).await.unwrap();
            // The whole store, as if it were renamed; then what a volume that isn't mounted leaves of it.
            let away = directory.path().join("away");
            for empty in [false, true] {
                fs::rename(&root, &away).unwrap();
                if empty {
                    fs::create_dir(&root).unwrap();
                }
                for put in [&path, &new] {
                    gone(store.put(put, "two".into()).await.unwrap_err());
                }
                gone(store.get(&path).await.unwrap_err());
                gone(store.delete(&path).await.unwrap_err());
                gone(store.make_durable(&path).await.unwrap_err());
                let folder = Path::from("log");
                gone(store.list(Some(&folder)).try_collect::<Vec<_>>().await.unwrap_err());
                gone(store.temporaries(&folder).try_collect::<Vec<_>>().await.unwrap_err());
                if empty {
                    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
                    fs::remove_dir(&root).unwrap();
                }
                fs::rename(&away, &root).unwrap();
                nothing(store.get(&missing).await.unwrap_err());
                nothing(store.delete(&missing).await.unwrap_err());
                assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "one");
            }
            store.put(&new, "two".into()).await.unwrap();
        });
    }

    #[test]
    fn temporary_files_are_not_listed() {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::open(directory.path()).unwrap();
        fs::create_dir(directory.path().join("a")).unwrap();
        fs::write(directory.path().join("a/.tmp-x-1-1"), "half").unwrap();
        run(async move {
            store.put(&Path::from("a/x"), "whole".into()).await.unwrap();
            let prefix = Path::from("a");
            let listed: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
            assert_eq!(listed.len(), 1);
            let after = store.list_with_offset(Some(&prefix), &Path::from("a/"));
            assert_eq!(after.try_collect::<Vec<_>>().await.unwrap().len(), 1);
            let shallow = store.list_with_delimiter(Some(&prefix)).await.unwrap();
            assert_eq!(shallow.objects.len(), 1);
            let temporaries: Vec<_> = store.temporaries(&prefix).try_collect().await.unwrap();
            assert_eq!(temporaries, [Path::from("a/.tmp-x-1-1")]);
        });
    }

    #[test]
    fn large_files_of_any_length_are_whole() {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::open(directory.path()).unwrap();
        run(async move {
            let path = Path::from("x");
            for pieces in [[1 << 20, 0, 0], [4096 << 10, 1, 4095], [77, 3 << 20, 1234567]] {
                let piece = |length: &usize| (0..*length).map(|i| ((i * 7) >> 3) as u8).collect();
                let payload: PutPayload =
                    pieces.iter().map(piece).map(Bytes::from_owner::<Vec<u8>>).collect();
                store.put(&path, payload.clone()).await.unwrap();
                let found = store.get(&path).await.unwrap().bytes().await.unwrap();
                assert!(found == Bytes::from(payload), "{pieces:?}");
            }
        });
    }

    #[test]
    fn works_without_a_runtime() {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::open(directory.path()).unwrap();
        let path = Path::from("x");
        let mut put = std::pin::pin!(store.put(&path, "one".into()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(put.as_mut().poll(&mut context).is_ready());
    }
}
