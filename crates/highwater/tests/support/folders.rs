//! What folders hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::sorted;

/// A copy of a folder with all that is in it.
pub fn copy_folder(from: &Path, to: &Path) {
    try_copy_folder(from, to).unwrap();
}

fn try_copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in from.read_dir()? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            try_copy_folder(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// A copy of the folder of a job that has crashed, as it was at one instant: what the attempt left under way may still go on in it.
pub fn freeze(folder: &Path) -> tempfile::TempDir {
    loop {
        let copy = tempfile::tempdir().unwrap();
        let before = all_files(folder);
        // A file may go between being seen and being copied.
        if try_copy_folder(folder, copy.path()).is_ok() && all_files(folder) == before {
            return copy;
        }
    }
}

/// All files in a folder and below.
pub fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(all_files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// What is visible in a folder of a file sink.
pub fn parts(folder: &Path) -> BTreeMap<PathBuf, Vec<u64>> {
    let mut parts = BTreeMap::new();
    for entry in folder.read_dir().into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = std::fs::read_to_string(&path).unwrap();
            parts.insert(path, text.lines().map(|line| line.parse().unwrap()).collect());
        }
    }
    parts
}

pub fn rows(folder: &Path) -> Vec<u64> {
    sorted(parts(folder).into_values().flatten().collect())
}
