//! The store beneath a log: any object store with put-if-absent, and what makes it durable.
//!
//! Cloud stores answer a put when it is durable. A local directory needs more, which is [`LocalStore`]'s; [`Store`] is the
//! one thing that the log sees, and where they differ. A store must give by its name what was put before, and list it soon (all of S3, GCS and Azure do at once): a listing may
//! lag behind by up to seven entries of the log.

mod files;
mod local;
mod location;
mod read_only;
mod remote;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use crate::error::LogError;
use location::Location;
use read_only::ReadOnly;

pub use files::{FileSystem, NewFile};
pub use local::LocalStore;

/// An object store, and what its durability takes.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    place: Place,
    read_only: bool,
}

/// What is known about where the objects are.
#[derive(Clone, Debug)]
enum Place {
    /// Nothing; a put is durable when it is answered, or need not be.
    Somewhere,
    /// In a directory.
    Local(Arc<LocalStore>),
    /// At a server; all names are below this URL.
    Remote(Arc<str>),
}

impl Store {
    /// The store that `location` names: `memory:` for one that ends with the process, `s3://bucket/prefix` (with the feature
    /// `s3`), otherwise a local directory, which is created if it isn't there.
    ///
    /// Nothing is sent to a server yet. Credentials and settings for it come from the variables of the environment that its own
    /// tools read (`AWS_...`).
    ///
    /// # Errors
    ///
    /// If the location can't be used; says why.
    pub fn open(location: &str) -> Result<Self, LogError> {
        Self::open_with(location, std::env::vars())
    }

    /// The same, where an attempt of the job has begun before, so that a directory which isn't there isn't made: it will come back.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`LogError::Gone`] if the directory isn't there or holds no log.
    pub fn open_again(location: &str) -> Result<Self, LogError> {
        if let Ok(Location::Directory(directory)) = Location::parse(location)
            && !directory.join(crate::names::LOG).is_dir()
        {
            return Err(LogError::Gone { location: location.to_owned() });
        }
        Self::open(location)
    }

    /// [`open`](Self::open), with other variables than those of the environment.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(
        location: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, LogError> {
        Self::open_at(location, variables, LocalStore::open)
    }

    /// The store that `location` names, for somebody who only looks: nothing is created, and every attempt to write is refused.
    ///
    /// # Errors
    ///
    /// If the location can't be used, or nothing is there; says why.
    pub fn open_to_read(location: &str) -> Result<Self, LogError> {
        let store = Self::open_at(location, std::env::vars(), LocalStore::open_to_read)?;
        let objects = Arc::new(ReadOnly::over(store.objects));
        Ok(Store { objects, read_only: true, ..store })
    }

    fn open_at(
        location: &str,
        variables: impl IntoIterator<Item = (String, String)>,
        local: impl FnOnce(&std::path::Path) -> Result<LocalStore, String>,
    ) -> Result<Self, LogError> {
        let open = || match Location::parse(location)? {
            Location::Memory => Ok(Self::from_objects(Arc::new(InMemory::new()))),
            Location::Directory(directory) => Ok(Self::from_local(local(&directory)?)),
            Location::Remote { scheme, bucket, prefix } => {
                let objects = remote::open(&scheme, &bucket, &prefix, variables)?;
                let place = Place::Remote(location.trim_end_matches('/').into());
                Ok(Store { objects, place, read_only: false })
            }
        };
        open().map_err(|why| LogError::Location { location: location.to_owned(), why })
    }

    /// A local directory.
    pub fn from_local(local: LocalStore) -> Self {
        let local = Arc::new(local);
        Store { objects: local.clone(), place: Place::Local(local), read_only: false }
    }

    /// A store whose puts are durable when they are answered (or need not be).
    pub fn from_objects(objects: Arc<dyn ObjectStore>) -> Self {
        Store { objects, place: Place::Somewhere, read_only: false }
    }

    /// The same place, reached through another store, such as one that fails on purpose.
    #[must_use]
    pub fn wrap(self, wrapper: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        Store { objects: wrapper(self.objects), ..self }
    }

    /// The objects.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Whether there is a server that must be asked whether it keeps what a log needs; see
    /// [`Log::start`](crate::Log::start).
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.place, Place::Remote(_))
    }

    /// Writes an object that isn't there yet, whole or not at all. A large one goes to a server in several parts.
    ///
    /// Where it goes in parts, nothing keeps two writers of one name apart: the names of large objects must be their writer's
    /// alone, as those of [`names`](crate::names) are.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](object_store::Error::AlreadyExists) if the name is taken; and whatever the store says.
    pub async fn put_new(&self, path: &Path, content: PutPayload) -> object_store::Result<()> {
        if self.is_remote() && content.content_length() > remote::LARGE_BYTES {
            return remote::put_in_parts(&*self.objects, path, content.into_iter().map(Ok)).await;
        }
        self.objects.put_opts(path, content, PutMode::Create.into()).await.map(drop)
    }

    /// The same, with `bytes` of content that is read, perhaps from a disk, as it is needed: of a large object only some parts are in memory.
    ///
    /// # Errors
    ///
    /// As [`put_new`](Self::put_new), and if the content can't be read.
    pub async fn put_new_from(
        &self,
        path: &Path,
        bytes: u64,
        content: impl Iterator<Item = io::Result<Bytes>> + Send,
    ) -> object_store::Result<()> {
        if self.is_remote() && bytes > remote::LARGE_BYTES as u64 {
            return remote::put_in_parts(&*self.objects, path, content).await;
        }
        let content = content.collect::<io::Result<PutPayload>>().map_err(unreadable)?;
        self.put_new(path, content).await
    }

    /// Gives an object a second name that is free, within the store and in one step.
    ///
    /// Not every server heeds the condition that it be free. So it is looked at before; and of two who see it free at the
    /// same time, the second may overwrite what the first made. Names must be such that this is the same.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](object_store::Error::AlreadyExists) if the name is taken, [`NotFound`](object_store::Error::NotFound) if
    /// there is nothing to copy; and whatever the store says.
    pub async fn copy_new(&self, from: &Path, to: &Path) -> object_store::Result<()> {
        match self.objects.head(to).await {
            Err(object_store::Error::NotFound { .. }) => {
                self.objects.copy_if_not_exists(from, to).await
            }
            Err(error) => Err(error),
            Ok(_) => {
                let (path, source) = (to.to_string(), "it is there already".into());
                Err(object_store::Error::AlreadyExists { path, source })
            }
        }
    }

    /// The content of an object; none if it isn't there. A large one comes from a server in several parts.
    ///
    /// # Errors
    ///
    /// Whatever the store says.
    pub async fn get_whole(&self, path: &Path) -> object_store::Result<Option<Bytes>> {
        let got = match self.objects.get(path).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = got.meta.size;
        if self.is_remote() && size > remote::LARGE_BYTES as u64 {
            drop(got);
            return remote::get_in_parts(&*self.objects, path, size).await.map(Some);
        }
        got.bytes().await.map(Some)
    }

    /// Makes sure that `path`, which was merely found to be there, survives a loss of power: the process
    /// that wrote it may have died before that.
    ///
    /// # Errors
    ///
    /// If that can't be made sure of.
    pub async fn make_durable(&self, path: &Path) -> object_store::Result<()> {
        match &self.place {
            Place::Local(local) if !self.read_only => local.make_durable(path).await,
            // Who only looks builds nothing on what is there.
            _ => Ok(()),
        }
    }

    /// Makes sure that what was deleted in `folder` stays so after a loss of power.
    ///
    /// # Errors
    ///
    /// If that can't be made sure of.
    pub async fn make_names_durable(&self, folder: &Path) -> object_store::Result<()> {
        match &self.place {
            Place::Local(local) => local.make_names_durable(folder).await,
            _ => Ok(()),
        }
    }

    /// Files under `prefix` that a process left half written, or is writing at the moment. They are never
    /// listed as objects.
    ///
    /// # Errors
    ///
    /// If the store can't be listed.
    pub async fn temporaries(&self, prefix: &Path) -> object_store::Result<Vec<Path>> {
        match &self.place {
            Place::Local(local) => local.temporaries(prefix).try_collect().await,
            _ => Ok(Vec::new()),
        }
    }

    /// `path` as people know it.
    pub fn shown(&self, path: &Path) -> String {
        match &self.place {
            Place::Local(local) => local.shown(path),
            Place::Remote(url) => format!("{url}/{path}"),
            Place::Somewhere => path.to_string(),
        }
    }
}

/// What was to be written couldn't be read.
fn unreadable(error: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "content", source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_that_cannot_be_used_say_why() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let inside = file.join("x");
        for (location, why) in [
            ("", "empty"),
            ("ftp://bucket/x", "no store `ftp`"),
            ("s3:///x", "no bucket"),
            ("s3://bucket/x?y=1", "`?`"),
            (file.to_str().unwrap(), "not a directory"),
            (inside.to_str().unwrap(), "can't be created"),
        ] {
            let error = Store::open(location).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(location), "{error}");
        }
        assert!(Store::open("memory:").is_ok());
        let new = directory.path().join("a/b");
        assert!(Store::open(new.to_str().unwrap()).is_ok());
        assert!(new.is_dir());
        assert_eq!(std::fs::read_dir(&new).unwrap().count(), 0);
        let url = format!("file://{}", new.display());
        assert!(Store::open(&url).is_ok());
    }

    #[test]
    fn who_only_looks_creates_nothing_and_writes_nothing() {
        use object_store::ObjectStoreExt;
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        let error = Store::open_to_read(missing.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains("no directory") && !missing.exists(), "{error}");
        std::fs::write(directory.path().join("x"), "content").unwrap();
        let store = Store::open_to_read(directory.path().to_str().unwrap()).unwrap();
        let env = highwater_env::RealEnv::new().unwrap();
        highwater_env::block_on(&env, async move {
            let (path, other) = (Path::from("x"), Path::from("y"));
            let objects = store.objects();
            assert_eq!(objects.get(&path).await.unwrap().bytes().await.unwrap(), "content");
            assert!(objects.put(&other, "new".into()).await.is_err());
            assert!(objects.put_multipart(&other).await.is_err());
            assert!(objects.copy(&path, &other).await.is_err());
            assert!(objects.delete(&path).await.is_err());
            store.make_durable(&path).await.unwrap();
        });
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
