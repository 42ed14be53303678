//! Trouble with a folder, as it comes in real life.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is wrong with a folder for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Somebody has renamed it.
    Renamed,
    /// It was a volume that isn't mounted: an empty folder is in its place.
    NotMounted,
    /// A file is in its place, so that nothing below can be reached or made.
    FileInPlace,
    /// The disk is full; for a folder on a [`SmallDisk`].
    Full,
}

impl Trouble {
    /// Those that come over any folder.
    pub const OF_ANY: [Trouble; 3] = [Trouble::Renamed, Trouble::NotMounted, Trouble::FileInPlace];

    /// The trouble comes over `folder`.
    pub fn begin(self, folder: &Path) {
        match self {
            Trouble::Full => {
                let mut ballast = fs::File::create(ballast(folder)).unwrap();
                // Down to the last byte.
                for block in [vec![0; 4096], vec![0; 1]] {
                    while ballast.write_all(&block).is_ok() {}
                }
                return;
            }
            _ => fs::rename(folder, away(folder)).unwrap(),
        }
        match self {
            Trouble::NotMounted => fs::create_dir(folder).unwrap(),
            Trouble::FileInPlace => fs::write(folder, "in the way").unwrap(),
            Trouble::Renamed | Trouble::Full => {}
        }
    }

    /// It is mended. Nothing has been put in the place of what was away.
    pub fn end(self, folder: &Path) {
        match self {
            Trouble::Full => return fs::remove_file(ballast(folder)).unwrap(),
            Trouble::NotMounted => fs::remove_dir(folder).unwrap(),
            Trouble::FileInPlace => fs::remove_file(folder).unwrap(),
            Trouble::Renamed => assert!(!folder.exists(), "{} was made anew", folder.display()),
        }
        fs::rename(away(folder), folder).unwrap();
    }
}

fn away(folder: &Path) -> PathBuf {
    folder.with_extension("away")
}

fn ballast(folder: &Path) -> PathBuf {
    folder.with_extension("ballast")
}

/// A file system in memory that is soon full.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// One of so many kB; none where nothing may be mounted, which is said loudly.
    pub fn mount(kb: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={kb}k");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "highwater-test"]).arg(folder.path());
        match mount.output() {
            Ok(output) if output.status.success() => Some(SmallDisk(folder)),
            failed => {
                eprintln!(
                    "SKIPPED: no small disk can be mounted, for which it takes root: {failed:?}"
                );
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what an attempt left behind may still be at it.
        Command::new("umount").arg("--lazy").arg(self.0.path()).status().ok();
    }
}
