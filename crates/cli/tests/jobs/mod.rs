//! A job in a process of its own, and the program that is asked about it. Every test has a folder for both, also for the job's
//! socket, and so sees no other jobs.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use highwater::connectors::{Files, Generator};
use highwater::{Options, Runner};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;

/// The options of the job, with blanks between them.
const OPTIONS: &str = "HIGHWATER_TEST_OPTIONS";
/// How many numbers it reads, and how many in a second; 0 for no limit.
const LIMIT: &str = "HIGHWATER_TEST_LIMIT";
const RATE: &str = "HIGHWATER_TEST_RATE";

/// Where it writes the numbers, if not to the folder `out/numbers`: as lines of text to `.../lines`, and as rows, in partitions and each
/// file the output of several checkpoints, to `.../table` and `.../columns`.
pub const OUT: &str = "HIGHWATER_TEST_OUT";

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Serialize, Deserialize)]
struct Row {
    third: u64,
    number: u64,
}

/// Runs the job `numbers`: how many numbers of each class there are, and the numbers themselves. For a test that is one only in
/// order to be called by others.
pub fn run() {
    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }
    let options = std::env::var(OPTIONS).expect("run by another test");
    let words = std::iter::once("numbers").chain(options.split_whitespace());
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let job = Runner::new("numbers").options(Alone::parse_from(words).options);
    let outcome = job.run(|graph| {
        let mut numbers = Generator::new(|index| index).splits(2);
        if let Some(limit) = number(LIMIT).filter(|limit| *limit > 0) {
            numbers = numbers.limit(limit);
        }
        if let Some(rate) = number(RATE).filter(|rate| *rate > 0) {
            numbers = numbers.rate(rate);
        }
        let numbers = graph.read::<u64>("numbers", numbers);
        let classes = numbers.clone().key_by(|number| number % 100).count().uid("count");
        classes.map(|(class, _)| class).write("classes", Files::text("out/classes"));
        let Ok(out) = std::env::var(OUT) else {
            numbers.write("numbers-out", Files::text("out/numbers"));
            return;
        };
        numbers.clone().write("lines", Files::text(format!("{out}/lines")));
        let rows = numbers.map(|number| Row { third: number % 3, number });
        // Such names are trouble wherever they can be.
        let partition = |row: &Row| [format!("{}/ü +%", row.third)];
        let age = Duration::from_millis(150);
        let table = Files::csv(format!("{out}/table")).without_header().roll_age(age);
        rows.clone().write("table", table.partition_by(["third"], partition));
        let columns = Files::parquet(format!("{out}/columns")).roll_age(age);
        rows.write("columns", columns.partition_by(["third"], partition));
    });
    outcome.unwrap();
}

/// A folder with a job in it.
pub struct Place {
    folder: TempDir,
    /// More variables of the environment, for job and program.
    pub variables: Vec<(String, String)>,
}

impl Place {
    pub fn new() -> Self {
        Place::with(Vec::new())
    }

    /// With more variables of the environment, for job and program.
    pub fn with(variables: Vec<(String, String)>) -> Self {
        Place { folder: tempfile::tempdir().unwrap(), variables }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the job keeps its checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path().join(".highwater/numbers")
    }

    /// Starts the job with these options; it reads so many numbers, at that many a second. Unless they say otherwise, it is one
    /// process, which nobody starts again.
    pub fn start(&self, options: &str, limit: u64, rate: u64) -> Job {
        let mut command = self.command(std::env::current_exe().unwrap());
        command.args(["--exact", "job", "--include-ignored", "--nocapture"]);
        let alone = if options.contains("--restart") { "" } else { " --restart never" };
        command.env(OPTIONS, format!("{options}{alone}"));
        command.env(LIMIT, limit.to_string()).env(RATE, rate.to_string());
        let said = std::fs::File::create(self.path().join("said")).unwrap();
        Job(command.stdout(Stdio::null()).stderr(said).spawn().unwrap())
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).env("XDG_RUNTIME_DIR", self.path()).stdin(Stdio::null());
        for variable in
            ["HIGHWATER_CHECKPOINTS", "HIGHWATER_WORKERS", "HIGHWATER_METRICS", "RUST_LOG"]
        {
            command.env_remove(variable);
        }
        command.envs(self.variables.iter().cloned());
        command
    }

    /// What the job has written so far, in order.
    pub fn numbers(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(self.path().join("out/numbers")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let text = std::fs::read_to_string(path).unwrap();
                numbers.extend(text.lines().map(|line| line.parse::<u64>().unwrap()));
            }
        }
        numbers.sort_unstable();
        numbers
    }

    /// Calls the program with this command line.
    pub fn highwater(&self, line: &str) -> Said {
        let mut command = self.command(env!("CARGO_BIN_EXE_highwater"));
        let Output { status, stdout, stderr } =
            command.args(line.split_whitespace()).output().unwrap();
        let code = status.code().expect("it came to its end");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code, out: text(stdout), err: text(stderr) }
    }

    /// Waits until the job that was started last has said this.
    #[allow(clippy::disallowed_methods, reason = "tests run in the real world")]
    pub fn wait_until_said(&self, words: &str) {
        let begin = Instant::now();
        loop {
            let said = std::fs::read_to_string(self.path().join("said")).unwrap();
            if said.contains(words) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "it said only: {said}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The same with `--json`, once `condition` holds of what it says.
    #[allow(clippy::disallowed_methods, reason = "tests run in the real world")]
    pub fn wait(&self, line: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let said = self.highwater(&format!("{line} --json"));
            if said.code == 0 {
                let found = said.json();
                if condition(&found) {
                    return found;
                }
            }
            assert!(begin.elapsed() < PATIENCE, "{line} says {said:?} only");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What the program said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A process that doesn't outlive its test.
pub struct Job(pub Child);

impl Job {
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Kills the processes that it started, and not itself.
    pub fn kill_children(&self) {
        // Each is the child of a thread.
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        let children = threads.flatten().map(|thread| thread.path().join("children"));
        let children: String = children.flat_map(std::fs::read_to_string).collect();
        assert!(!children.is_empty(), "it has some");
        for child in children.split_whitespace() {
            assert!(Command::new("kill").args(["-KILL", child]).status().unwrap().success());
        }
    }

    pub fn finish(mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
