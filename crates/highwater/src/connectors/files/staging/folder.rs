//! Files in a folder: written where they are staged, under a name that says so, and renamed when their interval is known.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use highwater_log::StagedItem;

use super::{Answer, Stop, Tries};
use crate::connectors::files::discover::cannot;
use crate::connectors::files::layout::Staged;
use crate::connectors::files::partition;
use crate::connectors::files::place::sync_folder;

/// So many files of partitions are open at once on a worker.
const OPEN_MAX: usize = 64;

/// The folder of staged files.
pub(super) struct Stage {
    staged: PathBuf,
    attempt: u64,
    worker: u64,
    tries: Tries,
    /// Files that are open, by their number, and when each was last used.
    open: BTreeMap<u64, (u64, File)>,
    /// Counts what was written.
    used: u64,
}

/// A file that is being written, open or not.
pub(super) struct Written {
    path: PathBuf,
    number: u64,
    /// How much was surely written; what is behind it is cut off before it is written again.
    length: u64,
}

impl Stage {
    pub(super) fn new(staged: PathBuf, attempt: u64, worker: u64, tries: Tries) -> Self {
        Stage { staged, attempt, worker, tries, open: BTreeMap::new(), used: 0 }
    }

    /// Opens a file, at its begin or to go on, unless it is. If as many are open as may be, that which was used longest ago is
    /// closed. What was written to that is synced with the rest of it: a sync takes in what was written through other handles.
    fn open(&mut self, file: &Written) -> Result<&mut File, Stop> {
        let Written { path, number, length } = file;
        self.used += 1;
        if !self.open.contains_key(number) {
            if self.open.len() >= OPEN_MAX
                && let Some((&oldest, _)) = self.open.iter().min_by_key(|(_, (used, _))| *used)
            {
                self.open.remove(&oldest);
            }
            let opened = self.retried("open", path, || {
                if *length == 0 {
                    return File::create(path);
                }
                let mut file = OpenOptions::new().write(true).open(path)?;
                file.seek(SeekFrom::Start(*length))?;
                Ok(file)
            })?;
            self.open.insert(*number, (self.used, opened));
        }
        let (used, file) = self.open.get_mut(number).expect("it was opened");
        *used = self.used;
        Ok(file)
    }

    /// What can't get better by waiting is an error: that a file is gone while its folder is there.
    fn retried<R>(
        &self,
        what: &str,
        path: &Path,
        work: impl FnMut() -> io::Result<R>,
    ) -> Result<R, Stop> {
        let lasts = |error: &io::Error| {
            use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
            match error.kind() {
                NotFound | NotADirectory => self.staged.is_dir(),
                kind => kind == InvalidFilename,
            }
        };
        self.tries.until_done(|error| cannot(what, path, error), lasts, work)
    }

    fn name_all(&self, files: Vec<(StagedItem, Written)>) -> Result<Vec<StagedItem>, Stop> {
        let mut items = Vec::with_capacity(files.len());
        for (item, Written { path, .. }) in files {
            let named = self.staged.join(partition::split(&item.name).1);
            self.retried("name", &named, || match fs::rename(&path, &named) {
                // An earlier try may have done it without saying so, as network file systems do.
                Err(error) if error.kind() == io::ErrorKind::NotFound && named.exists() => Ok(()),
                other => other,
            })?;
            items.push(item);
        }
        if !items.is_empty() {
            self.retried("sync", &self.staged, || sync_folder(&self.staged))?;
        }
        Ok(items)
    }
}

impl super::Stage for Stage {
    type File = Written;

    fn begin(&mut self, number: u64) -> Written {
        let path = self.staged.join(Staged::open_name(self.attempt, self.worker, number));
        Written { path, number, length: 0 }
    }

    fn append(&mut self, file: &mut Written, bytes: &[u8]) -> Result<(), Stop> {
        self.open(file)?;
        let Written { path, number, length } = file;
        let mut first = true;
        let mut open = &self.open[number].1;
        self.retried("write", path, || {
            if !std::mem::take(&mut first) {
                open.set_len(*length)?;
                open.seek(SeekFrom::Start(*length))?;
            }
            open.write_all(bytes)
        })?;
        *length += bytes.len() as u64;
        Ok(())
    }

    fn close(&mut self, file: &mut Written) -> Result<(), Stop> {
        // After a failed sync nobody knows which bytes are on the disk, and a second one may succeed without them.
        let synced = self.open(file)?.sync_all();
        synced.map_err(|error| Stop::Failed(cannot("sync", &file.path, &error)))?;
        self.open.remove(&file.number);
        Ok(())
    }

    fn stage(&mut self, files: Vec<(StagedItem, Written)>, answer: Answer) {
        answer.give(self.name_all(files));
    }
}
