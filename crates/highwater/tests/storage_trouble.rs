//! The checkpoints' folder doesn't work for a while, for reasons of real life: jobs go on until a bound, pause, and are well again by
//! themselves, with exact results.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::Control;
use highwater::testing::{Run, Test};
use highwater_log::Store;
use support::*;

const ROWS: u64 = 3_000;

/// A job whose checkpoints are in a folder that comes into trouble.
struct Place {
    _folder: tempfile::TempDir,
    checkpoints: PathBuf,
    out: PathBuf,
    numbers: Numbers,
}

impl Place {
    /// Checkpoints are below `disk`, if there is one.
    fn new(disk: Option<&SmallDisk>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = disk.map_or(folder.path(), SmallDisk::path).join("checkpoints");
        let (out, numbers) = (folder.path().join("out"), Numbers::new(3, ROWS));
        numbers.allow(300);
        Place { _folder: folder, checkpoints, out, numbers }
    }

    fn test(&self) -> Test {
        let store = Store::open(self.checkpoints.to_str().unwrap()).unwrap();
        test(2, &store)
    }

    fn is_exact(&self, run: &Run) {
        assert_eq!(run.attempts(), 1);
        assert!(run.outcome().finished);
        assert_eq!(rows(&self.out), self.numbers.all());
        assert_eq!(counts(run), expected_counts(3 * ROWS));
    }
}

fn read(control: &Control) -> u64 {
    control.observed().records_in()
}

fn committed(control: &Control) -> u64 {
    control.observed().checkpoints()
}

fn pauses(control: &Control) -> bool {
    control.status().workers.iter().all(|worker| worker.paused)
}

/// Waits until the trouble with `checkpoints` shows.
fn trouble_shows(control: &Control, checkpoints: &Path) {
    wait_for("the trouble shows", || {
        let trouble = control.status().storage.trouble;
        trouble.is_some_and(|trouble| trouble.why.contains(checkpoints.to_str().unwrap()))
    });
}

fn all_is_well(control: &Control) {
    wait_for("all is well", || control.status().storage.trouble.is_none() && !pauses(control));
}

/// A running job: processing goes on at first, then sources pause; when it is mended, everything goes on.
fn goes_on(place: &Place, trouble: Trouble) {
    let soon = Duration::from_secs(3);
    let test = place.test().settings(|settings| settings.uncommitted = soon);
    let run = start(test, file_job(&place.numbers, &place.out));
    let control = place.numbers.control();
    wait_for("checkpoints are committed", || committed(&control) > 2);
    trouble.begin(&place.checkpoints);
    let (before, checkpoints) = (read(&control), committed(&control));
    place.numbers.allow(600);
    wait_for("processing goes on", || read(&control) >= 3 * 600);
    trouble_shows(&control, &place.checkpoints);
    wait_for("sources pause", || pauses(&control));
    place.numbers.allow(u64::MAX);
    wait_for("calls fail", || control.status().storage.failed_calls > 3);
    assert!(pauses(&control), "{trouble:?}");
    assert!(read(&control) > before && read(&control) < 3 * ROWS, "{trouble:?}");
    assert!(committed(&control) <= checkpoints + 2, "{trouble:?}");
    trouble.end(&place.checkpoints);
    all_is_well(&control);
    place.is_exact(&run.join().unwrap().unwrap());
}

/// A job that comes to its end meanwhile: the last checkpoint waits.
fn ends(place: &Place, trouble: Trouble) {
    let run = start(place.test(), file_job(&place.numbers, &place.out));
    let control = place.numbers.control();
    wait_for("checkpoints are committed", || committed(&control) > 2);
    trouble.begin(&place.checkpoints);
    place.numbers.allow(u64::MAX);
    wait_for("everything is read", || read(&control) == 3 * ROWS);
    trouble_shows(&control, &place.checkpoints);
    // Longer than an object is tried for.
    wait_for("calls fail", || control.status().storage.failed_calls > 12);
    assert!(!run.is_finished(), "{trouble:?}");
    trouble.end(&place.checkpoints);
    place.is_exact(&run.join().unwrap().unwrap());
}

#[test]
fn a_folder_is_away() {
    std::thread::scope(|scope| {
        for trouble in Trouble::OF_ANY {
            scope.spawn(move || goes_on(&Place::new(None), trouble));
        }
    });
}

#[test]
fn a_folder_is_away_at_the_end() {
    ends(&Place::new(None), Trouble::Renamed);
}

#[test]
fn a_disk_is_full() {
    let Some(disk) = SmallDisk::mount(2048) else { return };
    goes_on(&Place::new(Some(&disk)), Trouble::Full);
}

#[test]
fn a_disk_is_full_at_the_end() {
    let Some(disk) = SmallDisk::mount(2048) else { return };
    ends(&Place::new(Some(&disk)), Trouble::Full);
}

/// An attempt whose storage is in trouble learns that another one has taken over.
#[test]
fn a_zombie_in_trouble_is_fenced() {
    let inner = memory();
    let place = Place::new(None);
    // It can read, but neither its objects nor its entries can be written any more.
    let full = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_full = full.clone();
    let store = Ruled::over(&inner, move |what, _, _| {
        let full = what == "put" && is_full.load(std::sync::atomic::Ordering::SeqCst);
        if full { Fate::Lost } else { Fate::Done }
    });
    let zombies = Numbers::endless(3);
    zombies.allow(100);
    let zombie = start(test(1, &store), file_job(&zombies, &place.out));
    let control = zombies.control();
    wait_for("checkpoints are committed", || committed(&control) > 2);
    full.store(true, std::sync::atomic::Ordering::SeqCst);
    zombies.allow(200);
    wait_for("it is in trouble", || control.status().storage.trouble.is_some());
    place.numbers.allow(u64::MAX);
    let run = test(2, &inner).run(file_job(&place.numbers, &place.out)).unwrap();
    let error = zombie.join().unwrap().unwrap_err();
    assert!(matches!(error.engine(), Some(highwater_runtime::Error::Fenced(_))), "{error}");
    place.is_exact(&run);
}
