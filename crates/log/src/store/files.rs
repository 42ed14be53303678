//! The calls to a file system on which durability depends, so that a simulated disk can stand in for a real one.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use object_store::PutPayload;

/// A file system, as far as a store writes to it.
pub trait FileSystem: Debug + Send + Sync {
    /// Whether there is a directory at `path`.
    fn is_directory(&self, path: &Path) -> bool;

    /// Makes a directory in one that is there.
    ///
    /// # Errors
    ///
    /// Also if something is there already.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes an empty file.
    ///
    /// # Errors
    ///
    /// Also if something is there already.
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;

    /// Gives the file `from` the second name `to`.
    ///
    /// # Errors
    ///
    /// Also if something is there already.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives the file `from` the name `to`, whatever was there.
    ///
    /// # Errors
    ///
    /// If that can't be done.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file's name away.
    ///
    /// # Errors
    ///
    /// If that can't be done.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the content of a file durable.
    ///
    /// # Errors
    ///
    /// If that can't be done.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    ///
    /// If that can't be done.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// A file that is being written.
pub trait NewFile: Send {
    /// Writes all that is ever in it.
    ///
    /// # Errors
    ///
    /// If that can't be done; part of it may be there.
    fn write(&mut self, content: &PutPayload) -> io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    ///
    /// If that can't be done.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Debug)]
pub(super) struct MachineFiles;

impl FileSystem for MachineFiles {
    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(File::options().write(true).create_new(true).open(path)?))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        // Elsewhere a directory can't be opened as a file, and its entries are durable with the file.
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }
}

impl NewFile for File {
    fn write(&mut self, content: &PutPayload) -> io::Result<()> {
        content.iter().try_for_each(|piece| self.write_all(piece))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
