//! A folder of this machine as the place of a file sink.
//!
//! # Invariants
//!
//! - A part is never overwritten: it gets its name by a hard link, which fails where something is.
//! - What is built upon is synced first: files, and the folders that hold their names.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use highwater_log::{Retry, StagedItem};
use highwater_runtime::BoxError;
use highwater_runtime::connector::Away;
use xxhash_rust::xxh3::Xxh3Default;

use super::{OTHER_CONTENT, Place, WriteContent};
use crate::connectors::files::discover::cannot;
use crate::connectors::files::layout::{self, Owner, attempt_of_staged, part_of};

/// So much of a file is read at once.
const BUFFER: usize = 256 << 10;

/// The folder of a file sink.
#[derive(Clone, Debug)]
pub(in crate::connectors::files) struct Folder {
    pub(in crate::connectors::files) path: PathBuf,
}

impl Folder {
    pub(in crate::connectors::files) fn new(path: &Path) -> Self {
        Folder { path: path.to_owned() }
    }

    /// Where staged files are.
    pub(in crate::connectors::files) fn staged(&self) -> PathBuf {
        self.path.join(layout::STAGED)
    }

    fn owner(&self) -> PathBuf {
        self.path.join(layout::OWNER)
    }

    fn create(&self) -> Result<(), BoxError> {
        let staged = self.staged();
        fs::create_dir_all(&staged).map_err(|error| cannot("create", &staged, &error))
    }

    fn write_owner(&self, me: &Owner) -> io::Result<()> {
        // A name of one's own, and a link, which fails if somebody else has claimed the folder in between.
        let hidden = self.path.join(layout::HIDDEN);
        let new = hidden.join(format!("owner.json.new-{}-{}", std::process::id(), unique()));
        let mut file = File::create(&new)?;
        file.write_all(&me.content()?)?;
        file.sync_all()?;
        let linked = link(&new, &self.owner());
        remove(&new)?;
        linked?;
        sync_folder(&hidden)?;
        sync_folder(&self.path)?;
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
            _ => sync_folder(Path::new(".")),
        }
    }

    fn clear_parts(&self, attempt: u64) -> io::Result<()> {
        for folder in self.partitions()? {
            remove_files(&folder, |name| part_of(name).is_some_and(|part| part.attempt < attempt))?;
            sync_folder(&folder)?;
            if folder != self.path {
                // Others than the last of a path hold folders, and so does one that somebody put something into.
                fs::remove_dir(&folder).ok();
            }
        }
        sync_folder(&self.path)
    }

    /// The folder itself, and all folders of partitions in it, the deepest first.
    fn partitions(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = vec![self.path.clone()];
        let mut looked_into = 0;
        while let Some(folder) = found.get(looked_into) {
            for entry in folder.clone().read_dir()? {
                let entry = entry?;
                let is_partition =
                    entry.file_name().to_str().is_some_and(|name| name.contains('='));
                if is_partition && entry.file_type()?.is_dir() {
                    found.push(entry.path());
                }
            }
            looked_into += 1;
        }
        found.reverse();
        Ok(found)
    }
}

impl Place for Folder {
    fn shown(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A part is a link, and reading what was written a moment ago: one after the other is as fast.
    fn parts_at_once(&self) -> usize {
        1
    }

    fn retry(&self) -> Retry {
        Retry { tries: 1, ..Retry::default() }
    }

    fn check_there(&self) -> Result<(), BoxError> {
        if self.owner().is_file() {
            return Ok(());
        }
        Err(Away(format!(
            "the output folder {} was there and is gone; put it back, or mount its volume again",
            self.path.display()
        ))
        .into())
    }

    fn claim(&self, me: &Owner) -> Result<(), BoxError> {
        let folder = &self.path;
        let shown = folder.display().to_string();
        match fs::read(self.owner()) {
            Ok(content) => {
                me.check(&content, &self.owner().display().to_string(), &shown)?;
                self.create()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let entries = match folder.read_dir() {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    entries => Some(entries.map_err(|error| cannot("read", folder, &error))?),
                };
                for entry in entries.into_iter().flatten() {
                    let name = entry.map_err(|error| cannot("read", folder, &error))?.file_name();
                    if name != layout::HIDDEN {
                        return Err(layout::foreign(&shown, &name.to_string_lossy()));
                    }
                }
                self.create()?;
                match self.write_owner(me) {
                    // Somebody else was faster: perhaps another attempt of this job.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.claim(me),
                    written => written.map_err(|error| cannot("write", &self.owner(), &error)),
                }
            }
            Err(error) => Err(cannot("read", &self.owner(), &error)),
        }
    }

    fn check_covered(&self, attempt: u64, covered: u32) -> Result<(), BoxError> {
        let unreadable = |error| cannot("read", &self.path, &error);
        let folders = self.partitions().map_err(unreadable)?;
        let entries = folders.iter().map(|folder| folder.read_dir());
        let entries = entries.collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
        for entry in entries.into_iter().flatten() {
            let entry = entry.map_err(unreadable)?;
            let part = entry.file_name().to_str().and_then(part_of);
            if part.is_some_and(|part| part.is_beyond(attempt, covered)) {
                return Err(layout::not_covered(&entry.path().display().to_string()));
            }
        }
        Ok(())
    }

    fn clear(&self, attempt: u64) -> Result<(), BoxError> {
        self.clear_staged(attempt)?;
        self.clear_parts(attempt).map_err(|error| cannot("clear", &self.path, &error))
    }

    fn clear_staged(&self, attempt: u64) -> Result<(), BoxError> {
        let older = |name: &str| attempt_of_staged(name).is_some_and(|of| of < attempt);
        remove_files(&self.staged(), older).map_err(|error| cannot("clear", &self.staged(), &error))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.path.join(name).try_exists()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }

    /// By its checksum.
    fn difference(&self, name: &str, item: &StagedItem) -> io::Result<Option<String>> {
        let mut file = File::open(self.path.join(name))?;
        let length = file.metadata()?.len();
        if length != item.bytes {
            return Ok(Some(format!("has {length} bytes instead of {}", item.bytes)));
        }
        let (mut checksum, mut buffer) = (Xxh3Default::new(), vec![0; BUFFER]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => checksum.update(&buffer[..read]),
            }
        }
        let same = format!("{:016x}", checksum.digest()) == item.checksum;
        Ok((!same).then(|| OTHER_CONTENT.to_owned()))
    }

    /// Byte by byte.
    fn same(&self, one: &str, other: &str) -> io::Result<bool> {
        let mut one = File::open(self.path.join(one))?;
        let mut other = File::open(self.path.join(other))?;
        if one.metadata()?.len() != other.metadata()?.len() {
            return Ok(false);
        }
        let (mut ours, mut theirs) = (vec![0; BUFFER], vec![0; BUFFER]);
        loop {
            let read = one.read(&mut ours)?;
            if read == 0 {
                return Ok(true);
            }
            other.read_exact(&mut theirs[..read])?;
            if ours[..read] != theirs[..read] {
                return Ok(false);
            }
        }
    }

    fn write(&self, name: &str, content: WriteContent<'_>) -> Result<(), BoxError> {
        let path = self.path.join(name);
        let cannot_write = |error| cannot("write", &path, &error);
        // What is there may be a published part by another name.
        remove(&path).map_err(cannot_write)?;
        let mut file = File::create_new(&path).map_err(cannot_write)?;
        content(&mut file).map_err(|error| match error.downcast::<io::Error>() {
            Ok(error) => cannot_write(*error),
            Err(error) => error,
        })?;
        file.sync_all().map_err(cannot_write)
    }

    fn make_folders(&self, partitions: &BTreeSet<&str>) -> Result<(), BoxError> {
        for partition in partitions {
            let path = self.path.join(partition);
            fs::create_dir_all(&path).map_err(|error| cannot("create", &path, &error))?;
        }
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        link(&self.path.join(from), &self.path.join(to))
    }

    fn make_durable(&self, partitions: &BTreeSet<&str>) -> Result<(), BoxError> {
        let mut folders = BTreeSet::from([self.path.as_path()]);
        let partitions: Vec<PathBuf> = partitions.iter().map(|name| self.path.join(name)).collect();
        for partition in &partitions {
            folders.extend(partition.ancestors().take_while(|above| *above != self.path));
        }
        for path in folders {
            sync_folder(path).map_err(|error| cannot("sync", path, &error))?;
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        remove(&self.path.join(name))
    }
}

/// A number that nobody else in this process gets.
fn unique() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// Gives a file a second name, which must be free.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        // A file system without hard links. There is one publisher, so that nobody takes the name in between.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
            ) =>
        {
            if to.exists() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        linked => linked,
    }
}

fn remove_files(folder: &Path, which: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in folder.read_dir()? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&which) && entry.file_type()?.is_file() {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file, unless it is gone.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes what was created, renamed and removed in a folder durable.
pub(in crate::connectors::files) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
