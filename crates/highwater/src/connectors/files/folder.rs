//! The folder that a file sink writes to: names within it, and whose it is.
//!
//! ```text
//!  out/worst/part-a0000000000-i0000000007-w0000-n0000.csv   published: whole, never changed
//!            day=2026-11-25/part-...                  the same, in the folder of a partition
//!            .highwater/owner.json                    which sink of which job the folder belongs to
//!            .highwater/staged/a..-i..-w..-n..-t..    staged, named by attempt, interval, worker, number, time, perhaps columns
//!            .highwater/staged/open-...               being written
//!            .highwater/staged/open-a..-joined        a part that is put together from several staged files
//! ```
//!
//! Hidden folders are what no reader of a folder of data files looks into, this engine's included.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use highwater_log::StagedItem;
use highwater_runtime::BoxError;
use highwater_runtime::connector::Away;
use serde::{Deserialize, Serialize};

use super::discover::cannot;
use super::partition;

/// The version of the layout.
const FORMAT: u32 = 1;

/// The folder of a file sink.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
}

impl Folder {
    pub(crate) fn new(path: &Path) -> Self {
        Folder { path: path.to_owned() }
    }

    fn hidden(&self) -> PathBuf {
        self.path.join(".highwater")
    }

    /// Where staged files are.
    pub(crate) fn staged(&self) -> PathBuf {
        self.hidden().join("staged")
    }

    /// Where the file of an item is.
    pub(crate) fn staged_file(&self, item: &StagedItem) -> PathBuf {
        self.staged().join(partition::split(&item.name).1)
    }

    /// Where this attempt puts a part together. One that was fenced and doesn't know yet may still write to its own.
    pub(crate) fn joined(&self, attempt: u64) -> PathBuf {
        self.staged().join(format!("open-a{attempt:010}-joined"))
    }

    fn owner(&self) -> PathBuf {
        self.hidden().join("owner.json")
    }
}

/// Whose a folder is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) format: u32,
    /// The job's name, for people.
    pub(crate) job: String,
    /// The identity of the job's log.
    pub(crate) job_id: String,
    /// The uid of the sink.
    pub(crate) sink: String,
}

impl Owner {
    pub(crate) fn new(job: &str, job_id: &str, sink: &str) -> Self {
        let (job, job_id, sink) = (job.to_owned(), job_id.to_owned(), sink.to_owned());
        Owner { format: FORMAT, job, job_id, sink }
    }
}

impl Folder {
    /// Makes sure that the folder, which this sink has claimed, is there: in one that is renamed, or on a volume that isn't mounted,
    /// nothing is missing, and nothing may be made in its place.
    ///
    /// # Errors
    ///
    /// If it isn't there at the moment.
    pub(crate) fn check_there(&self) -> Result<(), BoxError> {
        if self.owner().is_file() {
            return Ok(());
        }
        Err(Away(format!(
            "the output folder {} was there and is gone; put it back, or mount its volume again",
            self.path.display()
        ))
        .into())
    }

    /// Makes the folder this sink's, or makes sure that it is. Nothing is touched that isn't.
    ///
    /// # Errors
    ///
    /// If it is another's, or holds files that no sink wrote.
    pub(crate) fn claim(&self, me: &Owner) -> Result<(), BoxError> {
        let folder = &self.path;
        let shown = folder.display();
        match fs::read(self.owner()) {
            Ok(bytes) => {
                let owner: Owner = serde_json::from_slice(&bytes).map_err(|error| {
                    let owner = self.owner();
                    format!(
                        "{} can't be understood ({error}); choose an empty output folder",
                        owner.display()
                    )
                })?;
                if owner.format != FORMAT {
                    let found = owner.format;
                    return Err(format!("the output folder {shown} is in format {found}, and this program writes {FORMAT}; \
                                        use the newer program, or choose an empty folder").into());
                }
                if (&owner.job_id, &owner.sink) != (&me.job_id, &me.sink) {
                    let Owner { job, job_id, sink, .. } = owner;
                    return Err(format!(
                        "the output folder {shown} belongs to the sink `{sink}` of the job `{job}` with the log {job_id}, \
                         and this is the sink `{}` of the job `{}` with the log {}; choose an empty folder, or delete this one \
                         if its output is not needed any more",
                        me.sink, me.job, me.job_id
                    )
                    .into());
                }
                self.create()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let entries = match folder.read_dir() {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    entries => Some(entries.map_err(|error| cannot("read", folder, &error))?),
                };
                for entry in entries.into_iter().flatten() {
                    let name = entry.map_err(|error| cannot("read", folder, &error))?.file_name();
                    if name != ".highwater" {
                        return Err(format!(
                            "the output folder {shown} holds files that Highwater didn't write, such as {}; choose an \
                             empty folder",
                            Path::new(&name).display()
                        )
                        .into());
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

    fn create(&self) -> Result<(), BoxError> {
        let staged = self.staged();
        fs::create_dir_all(&staged).map_err(|error| cannot("create", &staged, &error))
    }

    fn write_owner(&self, me: &Owner) -> io::Result<()> {
        // A name of one's own, and a link, which fails if somebody else has claimed the folder in between.
        let new = self.hidden().join(format!("owner.json.new-{}-{}", std::process::id(), unique()));
        let mut file = File::create(&new)?;
        serde_json::to_writer_pretty(&mut file, me)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        let linked = link(&new, &self.owner());
        remove(&new)?;
        linked?;
        sync_folder(&self.hidden())?;
        sync_folder(&self.path)?;
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
            _ => sync_folder(Path::new(".")),
        }
    }

    /// Removes everything that attempts before this one staged and published here. What a later one did stays, should this one
    /// have been fenced without knowing it yet.
    pub(crate) fn clear(&self, attempt: u64) -> io::Result<()> {
        self.clear_before(attempt)?;
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

    /// Makes sure that nothing is visible that the log doesn't know of: the loss of its last entry shows nowhere else.
    ///
    /// # Errors
    ///
    /// If an earlier attempt has published what no checkpoint up to the interval `covered` does.
    pub(crate) fn check_covered(&self, attempt: u64, covered: u32) -> Result<(), BoxError> {
        let unreadable = |error| cannot("read", &self.path, &error);
        let folders = self.partitions().map_err(unreadable)?;
        let entries = folders.iter().map(|folder| folder.read_dir());
        let entries = entries.collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
        for entry in entries.into_iter().flatten() {
            let entry = entry.map_err(unreadable)?;
            let part = entry.file_name().to_str().and_then(part_of);
            if part.is_some_and(|part| part.attempt < attempt && part.interval > u64::from(covered))
            {
                return Err(format!(
                    "{} was published by a checkpoint that the log doesn't have: its last entry is missing, and going on from \
                     the one before would repeat its output; restore the entry from a backup, or start over with --fresh",
                    entry.path().display()
                )
                .into());
            }
        }
        Ok(())
    }

    /// Removes staged files of attempts before this one.
    pub(crate) fn clear_before(&self, attempt: u64) -> io::Result<()> {
        remove_files(&self.staged(), |name| {
            let name = name.strip_prefix("open-").unwrap_or(name);
            let of = name.strip_prefix('a').and_then(|name| name.split_once('-')?.0.parse().ok());
            of.is_some_and(|of: u64| of < attempt)
        })
    }
}

/// A number that nobody else in this process gets.
fn unique() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// Gives a file a second name, which must be free.
pub(crate) fn link(from: &Path, to: &Path) -> io::Result<()> {
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
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes what was created, renamed and removed in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// What the name of a staged file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Staged {
    pub(crate) attempt: u64,
    pub(crate) interval: u64,
    pub(crate) worker: u64,
    pub(crate) number: u64,
    /// When its first row came, in milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// By what its columns are known; only files of the same can be put together.
    pub(crate) columns: Option<u32>,
}

impl Staged {
    pub(crate) fn name(&self) -> String {
        let Staged { attempt, interval, worker, number, time_ms, columns } = self;
        let columns = columns.map_or(String::new(), |columns| format!("-c{columns}"));
        format!("a{attempt:010}-i{interval:010}-w{worker:04}-n{number:04}-t{time_ms}{columns}")
    }

    /// The name that the file has while it is written, when its interval isn't known yet.
    pub(crate) fn open_name(attempt: u64, worker: u64, number: u64) -> String {
        format!("open-a{attempt:010}-w{worker:04}-n{number:04}")
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut fields = name.split('-');
        let mut field = |letter| fields.next()?.strip_prefix(letter)?.parse().ok();
        let staged = Staged {
            attempt: field('a')?,
            interval: field('i')?,
            worker: field('w')?,
            number: field('n')?,
            time_ms: field('t')?,
            columns: field('c').and_then(|columns| u32::try_from(columns).ok()),
        };
        (staged.name() == name).then_some(staged)
    }

    /// What an item's name says, whatever its partition.
    pub(crate) fn of(item: &StagedItem) -> Option<Self> {
        Staged::parse(partition::split(&item.name).1)
    }

    /// The name of the part that it becomes, or the first file of it.
    pub(crate) fn part(&self, extension: &str) -> String {
        let Staged { attempt, interval, worker, number, .. } = self;
        format!("part-a{attempt:010}-i{interval:010}-w{worker:04}-n{number:04}.{extension}")
    }
}

/// The staged file that became the part of this name, or the first of it; none if no file sink made it.
fn part_of(name: &str) -> Option<Staged> {
    let (staged, extension) = name.strip_prefix("part-")?.split_once('.')?;
    let of = Staged::parse(&format!("{staged}-t0"))?;
    matches!(extension, "csv" | "ndjson" | "txt" | "parquet").then_some(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        let staged =
            Staged { attempt: 3, interval: 7, worker: 1, number: 2, time_ms: 5, columns: None };
        assert_eq!(staged.name(), "a0000000003-i0000000007-w0001-n0002-t5");
        assert_eq!(staged.part("csv"), "part-a0000000003-i0000000007-w0001-n0002.csv");
        assert_eq!(part_of(&staged.part("csv")), Some(Staged { time_ms: 0, ..staged }));
        assert_eq!(Staged::parse(&staged.name()), Some(staged));
        let with_columns = Staged { columns: Some(9), ..staged };
        assert_eq!(with_columns.name(), staged.name() + "-c9");
        assert_eq!(Staged::parse(&with_columns.name()), Some(with_columns));
        assert_eq!(with_columns.part("csv"), staged.part("csv"));
        for name in ["open-a0000000003-w0001-n0002", "a3-i7-w1-n2-t5", "part-1.csv", ""] {
            assert_eq!(Staged::parse(name), None, "{name}");
        }
        for name in
            ["part-x-w0-0.csv", "part-1.csv", "part-0000000001-w0001-0001.parquet", "mine.csv"]
        {
            assert_eq!(part_of(name), None, "{name}");
        }
    }
}
