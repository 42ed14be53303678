//! The folder that a file sink writes to: names within it, and whose it is.
//!
//! ```text
//!  out/worst/part-0000000007-w0000-0000.csv           published: whole, never changed
//!            .highwater/owner.json                    which sink of which job the folder belongs to
//!            .highwater/staged/a..-i..-w..-n..-t..    staged, named by attempt, interval, worker, number, time
//!            .highwater/staged/open-...               being written
//!            .highwater/joined                        a part that is put together from several staged files
//! ```
//!
//! Hidden folders are what no reader of a folder of data files looks into, this engine's included.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use highwater_runtime::BoxError;
use serde::{Deserialize, Serialize};

use super::discover::cannot;

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

    /// Where a part is put together.
    pub(crate) fn joined(&self) -> PathBuf {
        self.hidden().join("joined")
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
    /// Makes the folder this sink's, or makes sure that it is.
    ///
    /// # Errors
    ///
    /// If it is another's, or holds files that no sink wrote.
    pub(crate) fn claim(&self, me: &Owner) -> Result<(), BoxError> {
        let folder = &self.path;
        fs::create_dir_all(self.staged())
            .map_err(|error| cannot("create", &self.staged(), &error))?;
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
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let entries = folder.read_dir().map_err(|error| cannot("read", folder, &error))?;
                for entry in entries {
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
                self.write_owner(me).map_err(|error| cannot("write", &self.owner(), &error))
            }
            Err(error) => Err(cannot("read", &self.owner(), &error)),
        }
    }

    fn write_owner(&self, me: &Owner) -> io::Result<()> {
        let new = self.hidden().join("owner.json.new");
        let mut file = File::create(&new)?;
        serde_json::to_writer_pretty(&mut file, me)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, self.owner())?;
        sync_folder(&self.hidden())?;
        sync_folder(&self.path)?;
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
            _ => sync_folder(Path::new(".")),
        }
    }

    /// Removes everything that was staged and published here.
    pub(crate) fn clear(&self) -> io::Result<()> {
        remove_files(&self.staged(), |name| Staged::parse(name).is_some() || is_open(name))?;
        remove_files(&self.path, is_part)?;
        sync_folder(&self.path)
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
}

impl Staged {
    pub(crate) fn name(&self) -> String {
        let Staged { attempt, interval, worker, number, time_ms } = self;
        format!("a{attempt:010}-i{interval:010}-w{worker:04}-n{number:04}-t{time_ms}")
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
        };
        (staged.name() == name).then_some(staged)
    }

    /// The name of the part that it becomes, or the first file of it.
    pub(crate) fn part(&self, extension: &str) -> String {
        let Staged { interval, worker, number, .. } = self;
        format!("part-{interval:010}-w{worker:04}-{number:04}.{extension}")
    }
}

fn is_open(name: &str) -> bool {
    name.starts_with("open-a")
}

/// Whether a file was published by a file sink, by its name.
fn is_part(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parse = || {
        let (interval, rest) = name.strip_prefix("part-")?.split_once("-w")?;
        let (worker, rest) = rest.split_once('-')?;
        let (number, extension) = rest.split_once('.')?;
        let ours = digits(interval) && digits(worker) && digits(number);
        (ours && matches!(extension, "csv" | "ndjson" | "txt")).then_some(())
    };
    parse().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        let staged = Staged { attempt: 3, interval: 7, worker: 1, number: 2, time_ms: 5 };
        assert_eq!(staged.name(), "a0000000003-i0000000007-w0001-n0002-t5");
        assert_eq!(staged.part("csv"), "part-0000000007-w0001-0002.csv");
        assert!(is_part(&staged.part("csv")));
        assert_eq!(Staged::parse(&staged.name()), Some(staged));
        for name in ["open-a0000000003-w0001-n0002", "a3-i7-w1-n2-t5", "part-1.csv", ""] {
            assert_eq!(Staged::parse(name), None, "{name}");
        }
        for name in
            ["part-x-w0-0.csv", "part-1.csv", "part-0000000001-w0001-0001.parquet", "mine.csv"]
        {
            assert!(!is_part(name), "{name}");
        }
    }
}
