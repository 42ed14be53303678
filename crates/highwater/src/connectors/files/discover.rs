//! Which files there are, and into which splits they are cut.
//!
//! A split is a file, named by its path, or a piece of a large one, named `path#start-end` by the bytes in which its lines begin.
//! Once named it stays as it is, across attempts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use highwater_runtime::BoxError;
use highwater_runtime::connector::SplitOffset;

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
        match is_gzip(&self.path) {
            true => length,
            false => end.min(length).saturating_sub(position.max(start)),
        }
    }
}

fn number(digits: &str) -> Option<u64> {
    // `parse` alone would take a sign as well.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Whether a file is compressed, by its name.
pub(crate) fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"))
}

/// The splits of all files that `pattern` names, those in `known` as they are. Files larger than `split_bytes` are cut.
///
/// # Errors
///
/// If there are no such files, or a known one that isn't read to its end is gone.
pub(crate) fn splits(
    pattern: &str,
    split_bytes: Option<u64>,
    known: &[(String, SplitOffset)],
) -> Result<Vec<String>, BoxError> {
    let mut ids: BTreeMap<(PathBuf, u64), String> = BTreeMap::new();
    let mut known_files = BTreeSet::new();
    for (id, offset) in known {
        let split = Split::parse(id);
        if !offset.ended && !split.path.is_file() {
            let path = split.path.display();
            return Err(format!(
                "{path} is gone, of which {} records have been read and the rest has not; put it back, or start over with \
                 --fresh",
                offset.records
            )
            .into());
        }
        ids.insert((split.path.clone(), split.piece.map_or(0, |(start, _)| start)), id.clone());
        known_files.insert(real(&split.path));
    }
    let files = match files(pattern) {
        Ok(files) => files,
        // What was there has been read, and may have been tidied away since.
        Err(_) if !known.is_empty() => Vec::new(),
        Err(error) => return Err(error),
    };
    for path in files.into_iter().filter(|path| !known_files.contains(&real(path))) {
        for (start, id) in cut(&path, split_bytes)? {
            ids.insert((path.clone(), start), id);
        }
    }
    Ok(ids.into_values().collect())
}

/// A path by which a file is known again, however it is spelled this time.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The splits of one file, with where each begins.
fn cut(path: &Path, split_bytes: Option<u64>) -> Result<Vec<(u64, String)>, BoxError> {
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
    let whole = || vec![(0, name.to_owned())];
    let Some(piece) = split_bytes.filter(|_| !is_gzip(path)) else { return Ok(whole()) };
    let piece = piece.max(1);
    let length = path.metadata().map_err(|error| cannot("read", path, &error))?.len();
    if length <= piece {
        return Ok(whole());
    }
    let starts = (0..length).step_by(usize::try_from(piece).unwrap_or(usize::MAX));
    Ok(starts
        .map(|start| (start, format!("{name}#{start}-{}", length.min(start.saturating_add(piece)))))
        .collect())
}

/// The regular files that a path, a pattern or a folder names, sorted.
fn files(pattern: &str) -> Result<Vec<PathBuf>, BoxError> {
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
            return Err(format!(
                "the folder {pattern} holds no files to read (hidden files and folders don't count)"
            )
            .into());
        }
    } else if path.exists() {
        files.push(path.to_owned());
    } else {
        let options =
            glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
        let found = glob::glob_with(pattern, options)
            .map_err(|error| format!("`{pattern}` is no pattern of file names: {error}"))?;
        for path in found {
            let path = path.map_err(|error| cannot("read", error.path(), error.error()))?;
            if path.is_file() {
                files.push(path);
            }
        }
        if files.is_empty() {
            let here = std::env::current_dir().unwrap_or_default();
            return Err(
                format!("no file matches `{pattern}` (seen from {})", here.display()).into()
            );
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

    #[test]
    fn paths_patterns_and_folders_name_files() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        let b = write(folder.path(), "b.csv", "x");
        let a = write(folder.path(), "a.csv", "x");
        let odd = write(folder.path(), "c[1].txt", "x");
        write(folder.path(), ".hidden.csv", "x");
        std::fs::create_dir(folder.path().join("d.csv")).unwrap();
        let found = |pattern: &str| splits(pattern, None, &[]).unwrap();
        assert_eq!(found(root), [a.clone(), b.clone(), odd.clone()]);
        assert_eq!(found(&format!("{root}/*.csv")), [a.clone(), b]);
        assert_eq!(found(&odd), [odd.as_str()]);
        assert_eq!(found(&a), [a]);
        for pattern in
            [format!("{root}/*.json"), format!("{root}/missing"), format!("{root}/d.csv")]
        {
            let error = splits(&pattern, None, &[]).unwrap_err().to_string();
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
        assert_eq!(splits(&spelled, None, &known).unwrap(), [a]);
    }

    #[test]
    fn large_files_are_cut_and_stay_cut_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap().to_owned();
        let a = write(folder.path(), "a.txt", "0123456789");
        let zipped = write(folder.path(), "b.txt.gz", "0123456789");
        let cut = splits(&root, Some(4), &[]).unwrap();
        let expected =
            [format!("{a}#0-4"), format!("{a}#4-8"), format!("{a}#8-10"), zipped.clone()];
        assert_eq!(cut, expected);
        assert_eq!(Split::parse(&cut[1]), Split { path: a.clone().into(), piece: Some((4, 8)) });
        assert_eq!(Split::parse(&a), Split { path: a.clone().into(), piece: None });

        let known: Vec<_> = cut.iter().map(|id| (id.clone(), SplitOffset::default())).collect();
        let c = write(folder.path(), "c.txt", "0");
        assert_eq!(splits(&root, None, &known).unwrap(), [&cut[..], &[c]].concat());

        std::fs::remove_file(&a).unwrap();
        let error = splits(&root, None, &known).unwrap_err().to_string();
        assert!(error.contains(&format!("{a} is gone")), "{error}");
        let ended = |(id, offset): &(String, SplitOffset)| {
            (id.clone(), SplitOffset { ended: true, ..offset.clone() })
        };
        let known: Vec<_> = known.iter().map(ended).collect();
        assert_eq!(splits(&root, None, &known).unwrap().len(), 5);
    }
}
