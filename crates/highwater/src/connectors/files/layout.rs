//! What lies where in the place of a file sink, by name, and whose the place is. A place is a [folder](super::place::Folder), or a prefix in a
//! [bucket](super::place::Bucket).
//!
//! ```text
//!  out/worst/part-a0000000000-i0000000007-w0000-n0000.csv   published: whole, never changed
//!            day=2026-11-25/part-...                  the same, in the folder of a partition
//!            .highwater/owner.json                    which sink of which job the place belongs to
//!            .highwater/staged/a..-i..-w..-n..-t..    staged, named by attempt, interval, worker, number, time, perhaps columns
//!            .highwater/staged/open-...               being written (in folders only)
//!            .highwater/staged/joined-a..-..          a part that is put together from several staged files
//! ```
//!
//! Hidden folders are what no reader of a folder of data files looks into, this engine's included.

use highwater_log::StagedItem;
use highwater_runtime::BoxError;
use serde::{Deserialize, Serialize};

use super::partition;

/// The version of the layout.
const FORMAT: u32 = 1;

/// What isn't for readers.
pub(super) const HIDDEN: &str = ".highwater";

/// Whose the place is.
pub(super) const OWNER: &str = ".highwater/owner.json";

/// Where everything is that isn't published.
pub(super) const STAGED: &str = ".highwater/staged";

/// The name below the place of the staged file of an item.
pub(super) fn staged_name(item: &StagedItem) -> String {
    format!("{STAGED}/{}", partition::split(&item.name).1)
}

/// Where this attempt puts a part together. One that was fenced and doesn't know yet may still write to its own.
pub(super) fn joined_name(attempt: u64, part: &str) -> String {
    format!("{STAGED}/joined-a{attempt:010}-{}", partition::split(part).1)
}

/// The attempt that left this in the folder of staged files.
pub(super) fn attempt_of_staged(name: &str) -> Option<u64> {
    let prefixes = ["open-", "joined-"];
    let name = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    name.strip_prefix('a')?.split_once('-')?.0.parse().ok()
}

/// Whose a place is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) format: u32,
    /// The job's name, for people.
    pub(super) job: String,
    /// The identity of the job's log.
    pub(super) job_id: String,
    /// The uid of the sink.
    pub(super) sink: String,
}

impl Owner {
    pub(super) fn new(job: &str, job_id: &str, sink: &str) -> Self {
        let (job, job_id, sink) = (job.to_owned(), job_id.to_owned(), sink.to_owned());
        Owner { format: FORMAT, job, job_id, sink }
    }

    /// What the owner's file holds.
    pub(super) fn content(&self) -> serde_json::Result<Vec<u8>> {
        let mut content = serde_json::to_vec_pretty(self)?;
        content.push(b'\n');
        Ok(content)
    }

    /// Makes sure that this is the owner of `place` whose `file` has this content.
    pub(super) fn check(&self, content: &[u8], file: &str, place: &str) -> Result<(), BoxError> {
        let owner: Owner = serde_json::from_slice(content).map_err(|error| {
            format!("{file} can't be understood ({error}); choose an empty output folder")
        })?;
        if owner.format != FORMAT {
            let found = owner.format;
            return Err(format!(
                "the output folder {place} is in format {found}, and this program writes {FORMAT}; use the newer program, or \
                 choose an empty folder"
            )
            .into());
        }
        if (&owner.job_id, &owner.sink) != (&self.job_id, &self.sink) {
            let Owner { job, job_id, sink, .. } = owner;
            return Err(format!(
                "the output folder {place} belongs to the sink `{sink}` of the job `{job}` with the log {job_id}, and this is \
                 the sink `{}` of the job `{}` with the log {}; choose an empty folder, or delete this one if its output is not \
                 needed any more",
                self.sink, self.job, self.job_id
            )
            .into());
        }
        Ok(())
    }
}

/// The place has no owner, and isn't empty.
pub(super) fn foreign(place: &str, name: &str) -> BoxError {
    format!(
        "the output folder {place} holds files that Highwater didn't write, such as {name}; choose an empty folder"
    )
    .into()
}

/// Something was published that the log doesn't know of.
pub(super) fn not_covered(part: &str) -> BoxError {
    format!(
        "{part} was published by a checkpoint that the log doesn't have: its last entry is missing, and going on from the one \
         before would repeat its output; restore the entry from a backup, or start over with --fresh"
    )
    .into()
}

/// What the name of a staged file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Staged {
    pub(super) attempt: u64,
    pub(super) interval: u64,
    pub(super) worker: u64,
    pub(super) number: u64,
    /// When its first row came, in milliseconds since 1970.
    pub(super) time_ms: u64,
    /// By what its columns are known; only files of the same can be put together.
    pub(super) columns: Option<u32>,
}

impl Staged {
    pub(super) fn name(&self) -> String {
        let Staged { attempt, interval, worker, number, time_ms, columns } = self;
        let columns = columns.map_or(String::new(), |columns| format!("-c{columns}"));
        format!("a{attempt:010}-i{interval:010}-w{worker:04}-n{number:04}-t{time_ms}{columns}")
    }

    /// The name that the file has while it is written, when its interval isn't known yet.
    pub(super) fn open_name(attempt: u64, worker: u64, number: u64) -> String {
        format!("open-a{attempt:010}-w{worker:04}-n{number:04}")
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
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

    /// Whether it is of an earlier attempt, and of an interval that is later than what a checkpoint covers.
    pub(super) fn is_beyond(&self, attempt: u64, covered: u32) -> bool {
        self.attempt < attempt && self.interval > u64::from(covered)
    }

    /// What an item's name says, whatever its partition.
    pub(super) fn of(item: &StagedItem) -> Option<Self> {
        Staged::parse(partition::split(&item.name).1)
    }

    /// The name of the part that it becomes, or the first file of it.
    pub(super) fn part(&self, extension: &str) -> String {
        let Staged { attempt, interval, worker, number, .. } = self;
        format!("part-a{attempt:010}-i{interval:010}-w{worker:04}-n{number:04}.{extension}")
    }
}

/// The staged file that became the part of this name, or the first of it; none if no file sink made it.
pub(super) fn part_of(name: &str) -> Option<Staged> {
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
