//! The store beneath a log: any object store with put-if-absent, and what makes it durable.
//!
//! Cloud stores answer a put when it is durable. A local directory needs more, which is [`LocalStore`]'s;
//! [`Store`] is the one thing that the log sees, and [`Store::make_durable`] is where they differ. A store
//! must give by its name what was put before, and list it soon (all of S3, GCS and Azure do at once): a listing may
//! lag behind by up to seven entries of the log.

mod files;
mod local;
mod read_only;

use std::path::PathBuf;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;

use crate::error::LogError;

pub use files::{FileSystem, NewFile};
pub use local::LocalStore;
use read_only::ReadOnly;

/// An object store, and what its durability takes.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    local: Option<Arc<LocalStore>>,
    read_only: bool,
}

impl Store {
    /// The store that `location` names: `memory:` for one that ends with the process, otherwise a local
    /// directory, which is created if it isn't there.
    ///
    /// # Errors
    ///
    /// If the location can't be used; says why.
    pub fn open(location: &str) -> Result<Self, LogError> {
        match Place::parse(location)? {
            Place::Memory => Ok(Self::from_objects(Arc::new(InMemory::new()))),
            Place::Directory(directory) => {
                let local = LocalStore::open(&directory);
                Ok(Self::from_local(local.map_err(|why| refused(location, why))?))
            }
        }
    }

    /// The store that `location` names, for somebody who only looks: nothing is created, and every attempt to write is refused.
    ///
    /// # Errors
    ///
    /// If the location can't be used, or nothing is there; says why.
    pub fn open_to_read(location: &str) -> Result<Self, LogError> {
        let store = match Place::parse(location)? {
            Place::Memory => Self::from_objects(Arc::new(InMemory::new())),
            Place::Directory(directory) => {
                let local = LocalStore::open_to_read(&directory);
                Self::from_local(local.map_err(|why| refused(location, why))?)
            }
        };
        let objects = Arc::new(ReadOnly::over(store.objects));
        Ok(Store { objects, local: store.local, read_only: true })
    }

    /// A local directory.
    pub fn from_local(local: LocalStore) -> Self {
        let local = Arc::new(local);
        Store { objects: local.clone(), local: Some(local), read_only: false }
    }

    /// A store whose puts are durable when they are answered (or need not be).
    pub fn from_objects(objects: Arc<dyn ObjectStore>) -> Self {
        Store { objects, local: None, read_only: false }
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

    /// Makes sure that `path`, which was merely found to be there, survives a loss of power: the process
    /// that wrote it may have died before that.
    ///
    /// # Errors
    ///
    /// If that can't be made sure of.
    pub async fn make_durable(&self, path: &Path) -> object_store::Result<()> {
        match &self.local {
            Some(local) if !self.read_only => local.make_durable(path).await,
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
        match &self.local {
            Some(local) => local.make_names_durable(folder).await,
            None => Ok(()),
        }
    }

    /// Files under `prefix` that a process left half written, or is writing at the moment. They are never
    /// listed as objects.
    ///
    /// # Errors
    ///
    /// If the store can't be listed.
    pub async fn temporaries(&self, prefix: &Path) -> object_store::Result<Vec<Path>> {
        match &self.local {
            Some(local) => local.temporaries(prefix).try_collect().await,
            None => Ok(Vec::new()),
        }
    }

    /// `path` as people know it.
    pub fn shown(&self, path: &Path) -> String {
        match &self.local {
            Some(local) => local.shown(path),
            None => path.to_string(),
        }
    }
}

/// What a location names.
enum Place {
    Memory,
    Directory(PathBuf),
}

impl Place {
    fn parse(location: &str) -> Result<Self, LogError> {
        if location == "memory:" {
            return Ok(Place::Memory);
        }
        if location.is_empty() {
            let why = "it is empty; name a directory, or `memory:`";
            return Err(refused(location, why.to_owned()));
        }
        let directory = location.strip_prefix("file://").unwrap_or(location);
        if let Some((scheme, _)) = directory.split_once("://") {
            let why = format!("this program has no store `{scheme}`; name a local directory");
            return Err(refused(location, why));
        }
        Ok(Place::Directory(PathBuf::from(directory)))
    }
}

fn refused(location: &str, why: String) -> LogError {
    LogError::Location { location: location.to_owned(), why }
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
            ("s3://bucket/x", "no store `s3`"),
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
