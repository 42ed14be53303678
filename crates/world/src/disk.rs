//! A disk that forgets: what wasn't synced may be gone after a loss of power, or there in part.
//!
//! Files and names are kept apart, as file systems do. The content of a file is safe once the file was synced, its name once the
//! directory was. At a loss of power each name and each content that wasn't safe stays, vanishes or (a content) stays in part, as the
//! seed has it. The file system keeps no order of its own, which is harsher than any real one.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use highwater_log::Store;
use highwater_log::store::{FileSystem, LocalStore, NewFile};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::random::Random;
use crate::store::meta;

/// A disk of the simulated machine.
#[derive(Clone, Debug)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    random: Random,
    /// What processes see: names of files and directories.
    names: BTreeMap<PathBuf, Node>,
    /// The names that are safe.
    safe: BTreeMap<PathBuf, Node>,
    contents: Vec<Content>,
    /// After so many operations all others fail: whoever asks for them is about to die, or the disk is broken.
    left: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    Directory,
    File(usize),
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// What is safe of it.
    safe: Vec<u8>,
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        let root = BTreeMap::from([(PathBuf::from("/"), Node::Directory)]);
        let inner = Inner {
            random: Random::new(seed, "disk"),
            names: root.clone(),
            safe: root,
            contents: Vec::new(),
            left: None,
        };
        SimDisk { inner: Arc::new(Mutex::new(inner)) }
    }

    /// The durable store on this disk, as one process opens it.
    pub(crate) fn open(&self) -> Store {
        Store::from_local(LocalStore::over(Arc::new(self.clone()), Arc::new(self.clone())))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails after so many operations on files, until it is told otherwise.
    pub(crate) fn break_after(&self, operations: Option<u64>) {
        self.lock().left = operations;
    }

    /// Locked for an operation that changes something, unless it is broken.
    fn operate(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.lock();
        match &mut inner.left {
            Some(0) => return Err(io::Error::other("the disk is broken, as simulated")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(inner)
    }

    /// Forgets what it may forget.
    pub(crate) fn lose_power(&self) {
        self.lock().lose_power();
    }
}

impl Inner {
    fn lose_power(&mut self) {
        let mut paths: Vec<PathBuf> = self.names.keys().chain(self.safe.keys()).cloned().collect();
        paths.sort();
        paths.dedup();
        let mut names: BTreeMap<PathBuf, Node> = BTreeMap::new();
        for path in paths {
            let (now, safe) = (self.names.get(&path), self.safe.get(&path));
            let left = match now == safe || self.random.chance(500) {
                true => now,
                false => safe,
            };
            // Parents come first; what was in a directory that is gone is gone.
            let kept = path.parent().is_none_or(|parent| names.contains_key(parent));
            if let Some(node) = left.filter(|_| kept) {
                names.insert(path, *node);
            }
        }
        self.names.clone_from(&names);
        self.safe = names;
        for content in &mut self.contents {
            if content.bytes != content.safe {
                let safe = content.safe.len();
                match self.random.below(4) {
                    0 => {}
                    1 => content.bytes.clone_from(&content.safe),
                    2 => {
                        let most = content.bytes.len().max(safe) as u64;
                        content.bytes.truncate(self.random.within(safe as u64..=most) as usize);
                    }
                    // The length is known, and the blocks were never written.
                    _ => content.bytes[safe..].fill(0),
                }
                content.safe.clone_from(&content.bytes);
            }
        }
    }

    fn file(&self, path: &FilePath) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(content)) => Ok(*content),
            Some(Node::Directory) => Err(io::Error::new(ErrorKind::IsADirectory, "a directory")),
            None => Err(io::Error::new(ErrorKind::NotFound, "nothing is there")),
        }
    }

    /// Adds a name to a directory.
    fn name(&mut self, path: &FilePath, node: Node, over: bool) -> io::Result<()> {
        let parent = path.parent().and_then(|parent| self.names.get(parent));
        if parent != Some(&Node::Directory) {
            return Err(io::Error::new(ErrorKind::NotFound, "the directory is gone"));
        }
        if !over && self.names.contains_key(path) {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "it exists"));
        }
        self.names.insert(path.to_owned(), node);
        Ok(())
    }
}

impl FileSystem for SimDisk {
    fn is_directory(&self, path: &FilePath) -> bool {
        self.lock().names.get(path) == Some(&Node::Directory)
    }

    fn create_directory(&self, path: &FilePath) -> io::Result<()> {
        self.operate()?.name(path, Node::Directory, false)
    }

    fn create(&self, path: &FilePath) -> io::Result<Box<dyn NewFile>> {
        let mut inner = self.operate()?;
        let content = inner.contents.len();
        inner.name(path, Node::File(content), false)?;
        inner.contents.push(Content::default());
        Ok(Box::new(Open { disk: self.clone(), content }))
    }

    fn link(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
        let mut inner = self.operate()?;
        let content = inner.file(from)?;
        inner.name(to, Node::File(content), false)
    }

    fn rename(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
        let mut inner = self.operate()?;
        let content = inner.file(from)?;
        inner.name(to, Node::File(content), true)?;
        inner.names.remove(from);
        Ok(())
    }

    fn remove(&self, path: &FilePath) -> io::Result<()> {
        let mut inner = self.operate()?;
        inner.file(path)?;
        inner.names.remove(path);
        Ok(())
    }

    fn sync(&self, path: &FilePath) -> io::Result<()> {
        let mut inner = self.operate()?;
        let content = inner.file(path)?;
        inner.contents[content].sync();
        Ok(())
    }

    fn sync_directory(&self, path: &FilePath) -> io::Result<()> {
        let mut inner = self.operate()?;
        let Inner { names, safe, .. } = &mut *inner;
        if names.get(path) != Some(&Node::Directory) {
            return Err(io::Error::new(ErrorKind::NotFound, "no such directory"));
        }
        let inside = |name: &PathBuf| name.parent() == Some(path);
        safe.retain(|name, _| !inside(name) || names.contains_key(name));
        safe.extend(
            names.iter().filter(|(name, _)| inside(name)).map(|(n, node)| (n.clone(), *node)),
        );
        Ok(())
    }
}

impl Content {
    fn sync(&mut self) {
        self.safe.clone_from(&self.bytes);
    }
}

struct Open {
    disk: SimDisk,
    content: usize,
}

impl NewFile for Open {
    fn write(&mut self, content: &PutPayload) -> io::Result<()> {
        let whole = content.content_length();
        let (length, result) = match self.disk.operate() {
            Ok(_) => (whole, Ok(())),
            // A write isn't atomic.
            Err(error) => (whole / 2, Err(error)),
        };
        let mut inner = self.disk.lock();
        let bytes = &mut inner.contents[self.content].bytes;
        content.iter().for_each(|piece| bytes.extend_from_slice(piece));
        bytes.truncate(length);
        result
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.operate()?.contents[self.content].sync();
        Ok(())
    }
}

impl std::fmt::Display for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimDisk")
    }
}

fn not_here<T>(what: &str) -> Result<T> {
    Err(object_store::Error::NotSupported { source: what.into() })
}

/// The files as objects: what a store reads, lists and deletes. It is the store above that puts.
#[async_trait]
impl ObjectStore for SimDisk {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        not_here("files are put by the store above")
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        not_here("files are put by the store above")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let bytes = {
            let inner = self.lock();
            match inner.file(&FilePath::new("/").join(location.as_ref())) {
                Ok(content) => Bytes::from(inner.contents[content].bytes.clone()),
                Err(error) => {
                    let (path, source) = (location.to_string(), Box::new(error));
                    return Err(object_store::Error::NotFound { path, source });
                }
            }
        };
        let meta = meta(location, bytes.len() as u64);
        options.check_preconditions(&meta)?;
        let payload = stream::once(std::future::ready(Ok(bytes))).boxed();
        Ok(GetResult {
            payload: GetResultPayload::Stream(payload),
            range: 0..meta.size,
            meta,
            attributes: object_store::Attributes::default(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let disk = self.clone();
        let delete = move |path: Result<Path>| {
            let path = path?;
            let removed = disk.remove(&FilePath::new("/").join(path.as_ref()));
            match removed {
                Ok(()) => Ok(path),
                Err(error) => {
                    let (missing, source) = (error.kind() == ErrorKind::NotFound, Box::new(error));
                    let path = path.to_string();
                    Err(match missing {
                        true => object_store::Error::NotFound { path, source },
                        false => object_store::Error::Generic { store: "disk", source },
                    })
                }
            }
        };
        locations.map(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let inner = self.lock();
        let mut found = Vec::new();
        for (name, node) in &inner.names {
            let Node::File(content) = node else { continue };
            let text = name.to_string_lossy();
            let Ok(path) = Path::parse(text.trim_start_matches('/')) else { continue };
            if prefix.is_none_or(|prefix| path.prefix_matches(prefix)) {
                found.push(Ok(meta(&path, inner.contents[*content].bytes.len() as u64)));
            }
        }
        stream::iter(found).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        not_here("nothing is listed by folder")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        not_here("nothing is copied")
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use object_store::ObjectStoreExt;

    use super::*;

    /// What is left of a file after a loss of power, under many seeds.
    fn left(prepare: impl Fn(&SimDisk)) -> Vec<Option<Vec<u8>>> {
        let path = FilePath::new("/d/file");
        let mut left = Vec::new();
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            disk.create_directory(FilePath::new("/d")).unwrap();
            disk.sync_directory(FilePath::new("/")).unwrap();
            prepare(&disk);
            disk.lose_power();
            let inner = disk.lock();
            left.push(inner.file(path).ok().map(|content| inner.contents[content].bytes.clone()));
        }
        left
    }

    fn write(disk: &SimDisk, sync: bool) {
        let mut file = disk.create(FilePath::new("/d/file")).unwrap();
        file.write(&PutPayload::from_static(b"whole")).unwrap();
        if sync {
            file.sync().unwrap();
        }
    }

    #[test]
    fn what_was_synced_stays() {
        let left = left(|disk| {
            write(disk, true);
            disk.sync_directory(FilePath::new("/d")).unwrap();
        });
        assert!(left.iter().all(|file| file.as_deref() == Some(b"whole")));
    }

    #[test]
    fn what_was_not_synced_may_be_gone_or_torn() {
        let no_name = left(|disk| write(disk, true));
        assert!(no_name.iter().any(Option::is_none) && no_name.iter().any(Option::is_some));
        assert!(no_name.iter().flatten().all(|bytes| bytes == b"whole"));
        let torn = left(|disk| {
            write(disk, false);
            disk.sync_directory(FilePath::new("/d")).unwrap();
        });
        assert!(torn.iter().flatten().any(|bytes| bytes != b"whole"));
    }

    /// What is deleted first must not come back without what is deleted after it.
    #[test]
    fn a_collected_entry_never_comes_back_without_its_objects() {
        let (entry, object) = (highwater_log::names::entry(1), "data/x".to_owned());
        let mut came_back = 0;
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            let world =
                crate::World::new(seed, Vec::new(), crate::Media::Remote(Arc::default()), 1, false);
            let log = highwater_log::Log::new(disk.open(), Path::default(), world.env(), "job");
            let objects = disk.open().objects().clone();
            for name in [&entry, &object] {
                let put = objects.put(&Path::from(name.as_str()), "whole".into()).now_or_never();
                put.unwrap().unwrap();
            }
            let left = log.delete(&[entry.clone(), object.clone()]).now_or_never().unwrap();
            assert_eq!(left.unwrap(), Vec::<String>::new());
            disk.lose_power();
            let there = |name: &str| disk.lock().file(&FilePath::new("/").join(name)).is_ok();
            assert!(!there(&entry), "it came back");
            came_back += u32::from(there(&object));
        }
        assert!(came_back > 0, "of an object nobody minds");
    }

    /// What the store above makes of a disk that breaks in the middle of a put.
    #[test]
    fn half_a_put_is_never_seen() {
        let path = Path::from("d/file");
        let after = |operations| {
            let disk = SimDisk::new(0);
            let store = disk.open();
            disk.break_after(Some(operations));
            let put = store.objects().put(&path, "whole".into()).now_or_never().unwrap();
            disk.break_after(None);
            let got = store.objects().get(&path).now_or_never().unwrap();
            let bytes = got.ok().map(|got| got.bytes().now_or_never().unwrap().unwrap());
            assert!(bytes.as_ref().is_none_or(|bytes| bytes == "whole"));
            (put.is_ok(), bytes.is_some())
        };
        let found: Vec<(bool, bool)> = (0..12).map(after).collect();
        assert_eq!(found.first(), Some(&(false, false)));
        assert!(found.contains(&(false, true)), "named, and the put failed: {found:?}");
        assert_eq!(found.last(), Some(&(true, true)));
    }
}
