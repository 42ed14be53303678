//! Every file under a checkpoint folder in turn missing, cut off, or with one bit flipped: a restart comes to the exact result or
//! refuses with an error that names the file. Never a wrong result, a panic, or a silent start from nothing.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::{Control, Job};
use highwater_log::Store;
use support::*;

const SPLITS: u64 = 3;
const ROWS: u64 = 700;

fn local(folder: &Path) -> Store {
    Store::open(folder.to_str().unwrap()).unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Missing,
    Truncated,
    Flipped,
}

impl Kind {
    fn damage(self, file: &Path) {
        let mut bytes = fs::read(file).unwrap();
        match self {
            Kind::Missing => return fs::remove_file(file).unwrap(),
            Kind::Truncated => bytes.truncate(bytes.len() / 2),
            Kind::Flipped => {
                let at = bytes.len() / 3;
                bytes[at] ^= 4;
            }
        }
        fs::write(file, bytes).unwrap();
    }
}

/// What came of a restart.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    /// The newest checkpoint was good enough.
    ToTheEnd,
    /// An older one was.
    Back,
    Refused,
}

/// A job that stands in the middle, with its checkpoints in `state`.
trait Half {
    /// Builds the job's graph on a copy of its world in `folder`.
    fn restart(&self, folder: &Path) -> Box<dyn World>;
}

trait World {
    fn job(&self) -> Box<dyn FnOnce(&Job) + Send>;
    /// What is wrong with the results, now that the job is at its end.
    fn wrong(&self) -> Option<String>;
    /// What can be seen from outside.
    fn visible(&self) -> Vec<u64>;
}

/// Damages one file after the other in copies of `folder`; gives what came of which damage.
fn damage_all(folder: &Path, half: &dyn Half) -> BTreeMap<Came, Vec<(PathBuf, Kind)>> {
    let files = all_files(&folder.join("state"));
    assert!(files.len() > 12, "there is something to damage: {files:?}");
    let newest = newest(&local(&folder.join("state")));
    let (mut came, mut wrong) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
    for file in files {
        let file = file.strip_prefix(folder).unwrap();
        for kind in [Kind::Missing, Kind::Truncated, Kind::Flipped] {
            match damage_one(folder, half, file, kind, newest) {
                Ok(what) => came.entry(what).or_default().push((file.to_owned(), kind)),
                Err(why) => wrong.push(format!("{kind:?} {}: {why}", file.display())),
            }
            // Each of these takes long, because some hang.
            assert!(wrong.len() < 5, "{came:?} and these went wrong:\n{}", wrong.join("\n"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {came:?} and these went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    came
}

fn damage_one(
    folder: &Path,
    half: &dyn Half,
    file: &Path,
    kind: Kind,
    newest: u64,
) -> Result<Came, String> {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(folder, copy.path());
    kind.damage(&copy.path().join(file));
    let world = half.restart(copy.path());
    let before = world.visible();
    match restart(copy.path(), &*world)? {
        Ok(recovered_from) => {
            if let Some(wrong) = world.wrong() {
                return Err(format!("silently wrong: {wrong}"));
            }
            match recovered_from {
                None => Err("it started from nothing".to_owned()),
                Some(from) if from == newest => Ok(Came::ToTheEnd),
                Some(_) => Ok(Came::Back),
            }
        }
        Err(error) => {
            let name = file.file_name().unwrap().to_str().unwrap();
            // That the last entry of a log was once there shows in nothing but the output that it published.
            let unknown =
                name == format!("{newest:020}.json") && error.contains("its last entry is missing");
            if !error.contains(name) && !unknown {
                return Err(format!("the error doesn't name it: {error}"));
            }
            // What was published while it came to that is nothing wrong; what was there before stays.
            let after = world.visible();
            if !before.iter().all(|row| after.binary_search(row).is_ok()) {
                return Err("something was taken back".to_owned());
            }
            // Refusing has destroyed nothing: with the file restored, it goes on.
            let target = copy.path().join(file);
            fs::remove_file(&target).ok();
            fs::copy(folder.join(file), target).unwrap();
            match restart(copy.path(), &*world)? {
                Ok(Some(from)) if from >= newest => {}
                other => {
                    return Err(format!("restored, it doesn't go on: {other:?} after {error}"));
                }
            }
            match world.wrong() {
                Some(wrong) => Err(format!("wrong once it was restored: {wrong}")),
                None => Ok(Came::Refused),
            }
        }
    }
}

/// Restarts the job; gives the checkpoint from which it went on, or its error.
fn restart(folder: &Path, world: &dyn World) -> Result<Result<Option<u64>, String>, String> {
    let run = start(test(2, &local(&folder.join("state"))), world.job());
    if !wait_at_most(Duration::from_secs(20), || run.is_finished()) {
        return Err("it hangs".to_owned());
    }
    match run.join() {
        Ok(Ok(run)) => Ok(Ok(run.outcome().recovered_from)),
        Ok(Err(error)) => Ok(Err(error.to_string())),
        Err(_) => Err("it panicked".to_owned()),
    }
}

/// Runs a job over two attempts to its middle.
fn run_half(numbers: &Numbers, store: &Store, job: impl FnOnce(&Job) + Send + 'static) -> Control {
    numbers.allow(0);
    let run = start(test(2, store).then(3), job);
    let control = numbers.control();
    for rows in [100, 200] {
        step(numbers, store, rows);
    }
    let attempts = numbers.attempts();
    control.crash();
    let control = numbers.control_of(attempts + 1);
    for rows in [300, 400, 500] {
        step(numbers, store, rows);
    }
    numbers.fail(true);
    run.join().unwrap().unwrap_err();
    control
}

fn step(numbers: &Numbers, store: &Store, rows: u64) {
    let before = newest(store);
    numbers.allow(rows);
    wait_for("a checkpoint is committed", || newest(store) > before + 1);
}

// ---------------------------------------------------------------------------------------------------------------------

/// Files that are published, and rows that are committed and not yet published.
struct ExactlyOnce;

struct ExactlyOnceWorld {
    numbers: Numbers,
    out: PathBuf,
    recorded: Recorded,
}

fn exactly_once_job(
    numbers: &Numbers,
    out: &Path,
    rows: &Faulty,
) -> impl FnOnce(&Job) + Send + 'static + use<> {
    let (numbers, out, rows) = (numbers.clone(), out.to_owned(), rows.clone());
    move |graph: &Job| {
        let numbers = graph.read("numbers", numbers);
        numbers.clone().write("files", Raw(files(&out)));
        let counts =
            numbers.clone().key_by(|number| number % CLASSES).count().every_record().uid("count");
        counts.map(|(class, count)| class + CLASSES * count).write("rows", rows.sink());
    }
}

impl Half for ExactlyOnce {
    fn restart(&self, folder: &Path) -> Box<dyn World> {
        let out = folder.join("out");
        Box::new(ExactlyOnceWorld {
            numbers: Numbers::new(SPLITS, ROWS),
            out,
            recorded: Recorded::default(),
        })
    }
}

impl World for ExactlyOnceWorld {
    fn job(&self) -> Box<dyn FnOnce(&Job) + Send> {
        let rows = Faulty::over(self.recorded.sink());
        Box::new(exactly_once_job(&self.numbers, &self.out, &rows))
    }

    fn wrong(&self) -> Option<String> {
        let found = rows(&self.out);
        if found != self.numbers.all() {
            return Some(format!(
                "{} rows in files instead of {}",
                found.len(),
                self.numbers.all().len()
            ));
        }
        wrong_counts(&self.recorded.once())
    }

    fn visible(&self) -> Vec<u64> {
        rows(&self.out)
    }
}

/// The counts of a class are 1 to its last one, each once.
fn wrong_counts(rows: &[u64]) -> Option<String> {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for row in rows {
        let (class, count) = (row % CLASSES, row / CLASSES);
        if last.insert(class, count).unwrap_or_default() + 1 != count {
            return Some(format!("the count {count} of {class} isn't there or came twice"));
        }
    }
    (last != expected_counts(SPLITS * ROWS)).then(|| format!("counts {last:?}"))
}

/// With output that was promised exactly once nothing that may have been seen is repeated: what damages the newest checkpoint is refused.
#[test]
fn damage_behind_exactly_once_sinks() {
    let folder = tempfile::tempdir().unwrap();
    let store = local(&folder.path().join("state"));
    let numbers = Numbers::new(SPLITS, ROWS);
    let sink = Faulty::over(Recorded::default().sink());
    sink.set_down(true);
    let out = folder.path().join("out");
    run_half(&numbers, &store, exactly_once_job(&numbers, &out, &sink));
    assert!(!rows(&out).is_empty());
    let frozen = freeze(folder.path());
    let came = damage_all(frozen.path(), &ExactlyOnce);
    assert!(came[&Came::ToTheEnd].len() >= 6 && came[&Came::Refused].len() >= 12, "{came:?}");
    // That the newest entry is missing shows in nothing but output that it published. If there is none, going back is right.
    let store = local(&frozen.path().join("state"));
    let (newest, checkpoint) = checkpoints(&store).pop_last().unwrap();
    let entry = Path::new("state").join(format!("log/{newest:020}.json"));
    let published = parts(&frozen.path().join("out"));
    let shows =
        checkpoint.staged.iter().filter(|output| output.checkpoint == newest).any(|output| {
            let mut parts = output.items.iter().filter_map(|item| item.part.as_ref());
            parts.any(|part| published.contains_key(&frozen.path().join("out").join(part)))
        });
    let back = came.get(&Came::Back).cloned().unwrap_or_default();
    let expected = if shows { vec![] } else { vec![(entry, Kind::Missing)] };
    assert_eq!(back, expected, "{came:?}");
}

// ---------------------------------------------------------------------------------------------------------------------

/// A sink that promises each row at least once, and gets what was committed.
struct AtLeastOnce(Recorded);

struct AtLeastOnceWorld {
    numbers: Numbers,
    recorded: Recorded,
}

fn at_least_once_job(
    numbers: &Numbers,
    recorded: &Recorded,
) -> impl FnOnce(&Job) + Send + 'static + use<> {
    let (numbers, recorded) = (numbers.clone(), recorded.clone());
    move |graph: &Job| {
        let counts = graph
            .read("numbers", numbers)
            .key_by(|number| number % CLASSES)
            .count()
            .every_record()
            .uid("count");
        counts
            .map(|(class, count)| class + CLASSES * count)
            .write("rows", Raw(recorded.at_least_once()));
    }
}

impl Half for AtLeastOnce {
    fn restart(&self, _: &Path) -> Box<dyn World> {
        Box::new(AtLeastOnceWorld { numbers: Numbers::new(SPLITS, ROWS), recorded: self.0.fork() })
    }
}

impl World for AtLeastOnceWorld {
    fn job(&self) -> Box<dyn FnOnce(&Job) + Send> {
        Box::new(at_least_once_job(&self.numbers, &self.recorded))
    }

    fn wrong(&self) -> Option<String> {
        // Every count once, however often it came.
        let mut rows =
            sorted(self.recorded.calls().into_iter().flat_map(|(_, rows)| rows).collect());
        rows.dedup();
        wrong_counts(&rows)
    }

    fn visible(&self) -> Vec<u64> {
        sorted(self.recorded.calls().into_iter().flat_map(|(_, rows)| rows).collect())
    }
}

/// Without such output a restart falls back to an older checkpoint.
#[test]
fn damage_behind_at_least_once_sinks() {
    let folder = tempfile::tempdir().unwrap();
    let store = local(&folder.path().join("state"));
    let numbers = Numbers::new(SPLITS, ROWS);
    let recorded = Recorded::default();
    run_half(&numbers, &store, at_least_once_job(&numbers, &recorded));
    let came = damage_all(freeze(folder.path()).path(), &AtLeastOnce(recorded));
    assert!(came[&Came::ToTheEnd].len() >= 6 && came[&Came::Back].len() >= 3, "{came:?}");
}

// ---------------------------------------------------------------------------------------------------------------------

/// A job that has finished, and whose output is recorded as published, isn't run again from before its end either.
#[test]
fn damage_to_a_finished_job() {
    let folder = tempfile::tempdir().unwrap();
    let (state, out) = (folder.path().join("state"), folder.path().join("out"));
    let numbers = Numbers::new(SPLITS, ROWS);
    let run = test(2, &local(&state)).run(file_job(&numbers, &out)).unwrap();
    assert!(run.outcome().finished && numbers.control().observed().checkpoints() > 1);
    let (mut refused, folder) = (0, freeze(folder.path()));
    let state = folder.path().join("state");
    for file in all_files(&state) {
        for kind in [Kind::Missing, Kind::Truncated, Kind::Flipped] {
            let copy = tempfile::tempdir().unwrap();
            copy_folder(folder.path(), copy.path());
            kind.damage(&copy.path().join(file.strip_prefix(folder.path()).unwrap()));
            let out = copy.path().join("out");
            let (visible, name) = (rows(&out), file.file_name().unwrap().to_str().unwrap());
            match test(1, &local(&copy.path().join("state")))
                .run(file_job(&Numbers::new(SPLITS, ROWS), &out))
            {
                Ok(run) => assert!(run.outcome().already_finished, "{kind:?} {name}: {run:?}"),
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains(name), "{kind:?} {name}: {error}");
                }
            }
            assert_eq!(rows(&out), visible, "{kind:?} {name}");
        }
    }
    assert!(refused >= 6, "{refused}");
}
