//! Which files there are, and into which splits they are cut.
//!
//! A split is a file, named by its path, or a piece of a large one, named `path#start-end` by the bytes in which its lines begin.
//! Once named it stays as it is, across attempts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use encoding_rs::Encoding;
use highwater_runtime::BoxError;
use highwater_runtime::connector::SplitOffset;

use super::content::{Content, is_compressed};
use super::watch::{Verdict, Watch};
use crate::connectors::records::digest;

/// A file or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    /// The file.
    pub(crate) path: PathBuf,
    /// The piece: lines that begin in these bytes; none if it is the whole file.
    pub(crate) piece: Option<(u64, u64)>,
}

impl Split {
    /// What a split's id says.
    pub(crate) fn parse(id: &str) -> Self {
        let piece = id.rsplit_once('#').and_then(|(path, piece)| {
            let (start, end) = piece.split_once('-')?;
            Some((path, (number(start)?, number(end)?)))
        });
        match piece {
            Some((path, piece)) => Split { path: path.into(), piece: Some(piece) },
            None => Split { path: id.into(), piece: None },
        }
    }

    /// About how many bytes of the file are to be read from a position on, for people: all of a compressed one, which is read
    /// again from its begin.
    pub(crate) fn bytes_left(&self, position: u64) -> u64 {
        // Whatever is wrong with the file is for those to say who read it.
        let length = self.path.metadata().map_or(0, |file| file.len());
        let (start, end) = self.piece.unwrap_or((0, length));
        match is_compressed(&self.path) {
            true => length,
            false => end.min(length).saturating_sub(position.max(start)),
        }
    }
}

fn number(digits: &str) -> Option<u64> {
    // `parse` alone would take a sign as well.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Where a source's files are, and how they are cut.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// A path, a pattern or a folder.
    pub(crate) pattern: String,
    /// Larger files are cut into pieces of about this size.
    pub(crate) split_bytes: Option<u64>,
    /// What they are written in, if they don't say so.
    pub(crate) encoding: Option<&'static Encoding>,
    /// New ones may come.
    pub(crate) watch: Option<Watch>,
    /// Where they may be cut.
    pub(crate) cut: Cut,
}

/// Where files may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// At any line end.
    Lines,
    /// Between row groups.
    #[cfg(feature = "parquet")]
    RowGroups,
}

/// The files whose splits are known.
#[derive(Debug, Default)]
pub(crate) struct KnownFiles {
    paths: BTreeSet<PathBuf>,
    /// The last one by its name, as it was spelled.
    pub(crate) last: Option<PathBuf>,
}

impl KnownFiles {
    /// Those of the splits that a checkpoint knows.
    pub(crate) fn of<'i>(ids: impl IntoIterator<Item = &'i String>) -> Self {
        let mut known = KnownFiles::default();
        ids.into_iter().for_each(|id| known.add(Split::parse(id).path));
        known
    }

    fn add(&mut self, path: PathBuf) {
        self.paths.insert(real(&path));
        self.paths.insert(path.clone());
        self.last = self.last.take().max(Some(path));
    }

    /// However its path is spelled this time.
    fn contains(&self, path: &Path) -> bool {
        self.paths.contains(path) || self.paths.contains(&real(path))
    }
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

impl Place {
    /// The splits of the files that are there now and not `known`.
    ///
    /// # Errors
    ///
    /// If there are no such files and nobody waits for any, or a known one that isn't read to its end is gone.
    pub(crate) fn splits(
        &self,
        known: &[(String, SplitOffset)],
    ) -> Result<Vec<(String, SplitOffset)>, BoxError> {
        for (id, offset) in known.iter().filter(|(_, offset)| !offset.ended) {
            let path = Split::parse(id).path;
            if !path.is_file() {
                return Err(format!(
                    "{} is gone, of which {} records have been read and the rest has not; put it back, or start over with \
                     --fresh",
                    path.display(),
                    offset.records
                )
                .into());
            }
        }
        let mut known_files = KnownFiles::of(known.iter().map(|(id, _)| id));
        match self.new_splits(&mut known_files) {
            // What was there has been read, and may have been tidied away since; or it is still to come.
            Err(NotFound::Nothing(_)) if !known.is_empty() => Ok(Vec::new()),
            Err(NotFound::Nothing(what)) if self.watch.is_some() => {
                tracing::warn!("waiting for files: {what}");
                Ok(Vec::new())
            }
            found => Ok(found?),
        }
    }

    /// The splits of files that aren't known, which then are.
    pub(crate) fn new_splits(
        &self,
        known: &mut KnownFiles,
    ) -> Result<Vec<(String, SplitOffset)>, NotFound> {
        let mut splits = Vec::new();
        for path in files(&self.pattern)? {
            if known.contains(&path) {
                continue;
            }
            let Some(watch) = &self.watch else {
                splits.extend(self.cut(&path)?);
                continue;
            };
            let taken = match watch.judge(&path, known.last.as_deref()) {
                Ok(Verdict::Take) => self.cut(&path).map(Some),
                Ok(Verdict::Wait) => Ok(None),
                Ok(Verdict::TooLate) => {
                    let last = known.last.as_deref().unwrap_or(Path::new(""));
                    tracing::warn!(
                        "{} is left out: files are read in the order of their names, and {} was already taken",
                        path.display(),
                        last.display()
                    );
                    // Said once is enough.
                    known.paths.insert(path);
                    continue;
                }
                Err(error) => Err(error),
            };
            match taken {
                Ok(Some(new)) => {
                    splits.extend(new);
                    known.add(path);
                    continue;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "a new file is left for later"),
            }
            // Those behind one that isn't taken yet would shut it out.
            if watch.in_order {
                break;
            }
        }
        Ok(splits)
    }

    /// The splits of one file.
    fn cut(&self, path: &Path) -> Result<Vec<(String, SplitOffset)>, BoxError> {
        let Some(name) = path.to_str() else {
            return Err(format!(
                "the name of {path:?} isn't UTF-8, so that a checkpoint can't name it; rename it"
            )
            .into());
        };
        if Split::parse(name).piece.is_some() {
            return Err(format!(
                "the name of {name} ends as that of a piece of a file does; rename it"
            )
            .into());
        }
        let content = Content::open(path, self.encoding, &SplitOffset::default())?;
        let (check, time_ms) = (content.check, content.changed_ms());
        let at_begin =
            SplitOffset { check, time_ms, digest: digest::BEGIN, ..SplitOffset::default() };
        let pieces = match self.cut {
            Cut::Lines => self.pieces(&content)?,
            #[cfg(feature = "parquet")]
            Cut::RowGroups => {
                super::parquet::pieces(&content, path, self.split_bytes.unwrap_or(u64::MAX))?
            }
        };
        if pieces.len() < 2 {
            return Ok(vec![(name.to_owned(), at_begin)]);
        }
        let id = |(start, end): (u64, u64)| format!("{name}#{start}-{end}");
        Ok(pieces.into_iter().map(|piece| (id(piece), at_begin.clone())).collect())
    }

    /// Pieces of a file of lines; none if it isn't cut.
    fn pieces(&self, content: &Content<'_>) -> Result<Vec<(u64, u64)>, BoxError> {
        let length = content.stored_length();
        let piece = self.split_bytes.unwrap_or(u64::MAX).max(1);
        if length <= piece || !content.is_plain()? {
            return Ok(Vec::new());
        }
        let starts = (0..length).step_by(usize::try_from(piece).unwrap_or(usize::MAX));
        Ok(starts.map(|start| (start, length.min(start.saturating_add(piece)))).collect())
    }
}

/// Why files weren't found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotFound {
    /// There are none.
    #[error("{0}")]
    Nothing(String),
    /// Looking for them failed.
    #[error(transparent)]
    Failed(#[from] BoxError),
}

/// The regular files that a path, a pattern or a folder names, sorted.
fn files(pattern: &str) -> Result<Vec<PathBuf>, NotFound> {
    let path = Path::new(pattern);
    let mut files = Vec::new();
    if path.is_dir() {
        for entry in path.read_dir().map_err(|error| cannot("read", path, &error))? {
            let entry = entry.map_err(|error| cannot("read", path, &error))?;
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            let path = entry.path();
            if !hidden && path.is_file() {
                files.push(path);
            }
        }
        if files.is_empty() {
            return Err(NotFound::Nothing(format!(
                "the folder {pattern} holds no files to read (hidden files and folders don't count)"
            )));
        }
    } else if path.exists() {
        files.push(path.to_owned());
    } else {
        let options =
            glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
        let found = glob::glob_with(pattern, options).map_err(|error| {
            BoxError::from(format!("`{pattern}` is no pattern of file names: {error}"))
        })?;
        for path in found {
            let path = path.map_err(|error| cannot("read", error.path(), error.error()))?;
            if path.is_file() {
                files.push(path);
            }
        }
        if files.is_empty() {
            let here = std::env::current_dir().unwrap_or_default();
            return Err(NotFound::Nothing(format!(
                "no file matches `{pattern}` (seen from {})",
                here.display()
            )));
        }
    }
    files.sort();
    Ok(files)
}

/// An error of the system, with what was tried.
pub(crate) fn cannot(what: &str, path: &Path, error: &dyn std::fmt::Display) -> BoxError {
    format!("can't {what} {}: {error}", path.display()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, content: &str) -> String {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn place(pattern: &str, split_bytes: Option<u64>) -> Place {
        Place {
            pattern: pattern.to_owned(),
            split_bytes,
            encoding: None,
            watch: None,
            cut: Cut::Lines,
        }
    }

    fn ids(splits: Vec<(String, SplitOffset)>) -> Vec<String> {
        splits.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn paths_patterns_and_folders_name_files() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        let b = write(folder.path(), "b.csv", "x");
        let a = write(folder.path(), "a.csv", "x");
        let odd = write(folder.path(), "c[1].txt", "x");
        write(folder.path(), ".hidden.csv", "x");
        std::fs::create_dir(folder.path().join("d.csv")).unwrap();
        let found = |pattern: &str| ids(place(pattern, None).splits(&[]).unwrap());
        assert_eq!(found(root), [a.clone(), b.clone(), odd.clone()]);
        assert_eq!(found(&format!("{root}/*.csv")), [a.clone(), b]);
        assert_eq!(found(&odd), [odd.as_str()]);
        assert_eq!(found(&a), [a]);
        for pattern in
            [format!("{root}/*.json"), format!("{root}/missing"), format!("{root}/d.csv")]
        {
            let error = place(&pattern, None).splits(&[]).unwrap_err().to_string();
            assert!(error.contains(&pattern), "{error}");
        }
    }

    /// A file that was read under one spelling of its path isn't read again under another.
    #[test]
    fn a_file_is_known_however_its_path_is_spelled() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap().to_owned();
        let a = write(folder.path(), "a.csv", "x");
        let known = [(a.clone(), SplitOffset { position: 1, ..SplitOffset::default() })];
        let spelled = format!("{root}/./../{}", folder.path().file_name().unwrap().display());
        assert_eq!(place(&spelled, None).splits(&known).unwrap(), []);
    }

    #[test]
    fn large_files_are_cut_and_stay_cut_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap().to_owned();
        let a = write(folder.path(), "a.txt", "0123456789");
        let zipped = write(folder.path(), "b.txt.gz", "0123456789");
        let cut = ids(place(&root, Some(4)).splits(&[]).unwrap());
        let expected =
            [format!("{a}#0-4"), format!("{a}#4-8"), format!("{a}#8-10"), zipped.clone()];
        assert_eq!(cut, expected);
        assert_eq!(Split::parse(&cut[1]), Split { path: a.clone().into(), piece: Some((4, 8)) });
        assert_eq!(Split::parse(&a), Split { path: a.clone().into(), piece: None });

        let known: Vec<_> = cut.iter().map(|id| (id.clone(), SplitOffset::default())).collect();
        let c = write(folder.path(), "c.txt", "0");
        assert_eq!(ids(place(&root, None).splits(&known).unwrap()), [c]);

        std::fs::remove_file(&a).unwrap();
        let error = place(&root, None).splits(&known).unwrap_err().to_string();
        assert!(error.contains(&format!("{a} is gone")), "{error}");
        let ended = |(id, offset): &(String, SplitOffset)| {
            (id.clone(), SplitOffset { ended: true, ..offset.clone() })
        };
        let known: Vec<_> = known.iter().map(ended).collect();
        assert_eq!(place(&root, None).splits(&known).unwrap().len(), 1);
    }
}
