//! A reader of the output that looks at it all the time: every file that it sees is whole, and stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::job;

/// It looks so often.
const LOOK: Duration = Duration::from_millis(3);

/// What was seen.
#[derive(Default)]
pub struct Seen {
    files: BTreeMap<PathBuf, Vec<u8>>,
    wrong: Vec<String>,
}

pub struct Observer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Observer {
    pub fn start(folder: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (folder, asked) = (folder.to_owned(), stop.clone());
        let watch = move || {
            let mut seen = Seen::default();
            while !asked.load(Ordering::SeqCst) {
                seen.look(&folder, false);
                std::thread::park_timeout(LOOK);
            }
            seen.look(&folder, true);
            seen
        };
        Observer { stop, thread: std::thread::spawn(watch) }
    }

    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.thread().unpark();
        self.thread.join().unwrap()
    }
}

impl Seen {
    /// Reads what is new; and, in the end, everything again.
    fn look(&mut self, folder: &Path, again: bool) {
        let found: BTreeSet<PathBuf> = visible_files(folder).into_iter().collect();
        for path in self.files.keys().filter(|path| !found.contains(*path)) {
            self.wrong.push(format!("{} was there, and is gone", path.display()));
        }
        for path in found {
            if !again && self.files.contains_key(&path) {
                continue;
            }
            let Some(content) = fs::read(&path).ok() else {
                self.wrong.push(format!("{} was there, and can't be read", path.display()));
                continue;
            };
            match self.files.get(&path) {
                Some(before) if *before == content => {}
                Some(_) => self.wrong.push(format!("{} has changed", path.display())),
                None if content.last() != Some(&b'\n') => {
                    self.wrong
                        .push(format!("{} was seen when it was half written", path.display()));
                }
                None => drop(self.files.insert(path, content)),
            }
        }
    }
}

/// What a reader of the output finds: all files that aren't hidden, in order.
pub fn visible_files(folder: &Path) -> Vec<PathBuf> {
    let mut folders = children(&folder.join("out"));
    folders.push(folder.join(job::BATCHES));
    folders.iter().flat_map(|folder| children(folder)).collect()
}

/// What is in a folder and isn't hidden, in order; nothing if the folder isn't there yet.
pub fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| !path.file_name().unwrap().as_encoded_bytes().starts_with(b"."));
    paths.sort();
    paths
}

/// Everything that was seen was right, and is all that there is.
pub fn check(seen: &Seen, folder: &Path) {
    assert_eq!(seen.wrong, Vec::<String>::new());
    let now: BTreeSet<PathBuf> = visible_files(folder).into_iter().collect();
    assert!(seen.files.keys().eq(&now), "the last look saw everything");
}
