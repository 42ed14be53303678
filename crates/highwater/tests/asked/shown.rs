//! What a job shows without being asked for more: metrics, lines of its log, a bar.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use highwater::Tumbling;
use highwater::connectors::{Discard, Files, Script};
use highwater::time::{Watermark, secs};

use super::{Job, asked, numbers, place, start};
use crate::program::this_program;
use crate::support::wait_for;

/// Makes this program a job that reads these files.
const FILES: &str = "HIGHWATER_TEST_FILES";

/// Makes this program a job of which a record is late.
const LATE: &str = "HIGHWATER_TEST_LATE";

pub fn job() -> Option<highwater::Result<()>> {
    if std::env::var(LATE).is_ok() {
        let times = Script::new().record(1_000i64).epoch().record(20_000).epoch().record(2_000);
        let outcome = highwater::run("late", |job| {
            let times = job.read("in", times).event_time(|time| *time, Watermark::monotonous());
            let tens = times.window_all(Tumbling::of(secs(10))).count().uid("tens");
            tens.write("nowhere", Discard::new());
        });
        return Some(outcome.map(|_| ()));
    }
    let files = std::env::var(FILES).ok()?;
    let outcome = highwater::run("files", |job| {
        let lines = Files::text(files).rate(20_000);
        job.read::<String>("lines", lines).write("nowhere", Discard::new());
    });
    Some(outcome.map(|_| ()))
}

/// The address after `metrics at http://` in what the job says.
fn address(job: &mut Job) -> String {
    let mut lines = BufReader::new(job.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("metrics at")).unwrap();
    // Somebody goes on reading, or the job would write into a closed pipe.
    std::thread::Builder::new().spawn(move || lines.for_each(drop)).unwrap();
    line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned()
}

fn get(address: &str, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The value of a sample, by name and labels as they are written.
fn value(text: &str, sample: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(&format!("{sample} ")))?;
    line.rsplit(' ').next()?.parse().ok()
}

pub fn metrics_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut command = numbers(folder, None, 20_000);
    let mut job = start(command.args(["--metrics", "127.0.0.1:0", "--workers", "2"]));
    let address = address(&mut job);
    asked(&place(folder), "it commits", |status| status.leader.checkpoints.committed > 1);
    let (head, text) = get(&address, "GET /metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    for (sample, least) in [
        (r#"highwater_records_in_total{job="numbers",operator="numbers",worker="0"}"#, 1.0),
        (r#"highwater_records_in_total{job="numbers",operator="count",worker="1"}"#, 1.0),
        (r#"highwater_records_out_total{job="numbers",operator="numbers-out",worker="0"}"#, 1.0),
        (r#"highwater_checkpoints_total{job="numbers",result="committed"}"#, 2.0),
        (r#"highwater_last_checkpoint_duration_seconds{job="numbers"}"#, 0.0),
        (r#"highwater_last_checkpoint_phase_seconds{job="numbers",phase="commit"}"#, 0.0),
        (r#"highwater_epochs_total{job="numbers"}"#, 5.0),
        (r#"highwater_in_flight_bytes{job="numbers",worker="1"}"#, 0.0),
        (r#"highwater_sink_failing{job="numbers",sink="counts"}"#, 0.0),
    ] {
        assert!(value(&text, sample).is_some_and(|value| value >= least), "{sample}: {text}");
    }
    // Every line is a comment, or a sample of the metric that was announced.
    let mut announced = "";
    for line in text.lines() {
        if let Some(metric) = line.strip_prefix("# TYPE ") {
            announced = metric.split(' ').next().unwrap();
        } else if !line.starts_with("# HELP ") {
            assert!(line.starts_with(&format!("{announced}{{job=\"numbers\"")), "{line}");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
    let reads = |text: &str| {
        value(text, r#"highwater_records_in_total{job="numbers",operator="numbers",worker="0"}"#)
    };
    wait_for("counters grow", || reads(&get(&address, "GET /metrics").1) > reads(&text));
    for (request, status) in [("GET /", "404"), ("POST /metrics", "405"), ("rubbish", "400")] {
        let (head, _) = get(&address, request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {head}");
    }
}

/// Somebody asked for it, so it is no mere warning.
pub fn a_metrics_address_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for address in [port.as_str(), "nonsense"] {
        let mut job = start(numbers(folder.path(), Some(10), 0).args(["--metrics", address]));
        let mut said = String::new();
        job.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(job.0.wait().unwrap().code(), Some(1), "{said}");
        assert!(said.contains(&format!("can't be served at `{address}` (--metrics)")), "{said}");
    }
    assert!(!folder.path().join("out").exists(), "nothing was touched");
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

pub fn a_line_for_every_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let said = said(&mut numbers(folder.path(), Some(5_000), 20_000));
    let lines = said.lines().filter(|line| line.contains("highwater::checkpoint: committed"));
    let summary = said.lines().last().unwrap();
    let checkpoints =
        summary.split_once(" checkpoint").and_then(|(before, _)| before.rsplit(' ').next());
    let checkpoints: usize = checkpoints.unwrap().parse().unwrap();
    assert!(checkpoints > 1 && lines.clone().count() == checkpoints, "{said}");
    for field in ["checkpoint=", "bytes=", "records_in=", "duration_ms=", "wait_ms=", "upload_ms="]
    {
        assert!(lines.clone().all(|line| line.contains(field)), "{field}: {said}");
    }
    // 5000 numbers, and a count for each of them at the most.
    assert!(summary.starts_with("numbers: finished: 5000 records in "), "{said}");
    assert!(summary.contains("/s), ") && summary.contains(" rows out, "), "{said}");
}

/// Records in are records used and records late, of each operator.
pub fn late_records_are_accounted_for() {
    let mut late = Command::new(this_program());
    let said = said(late.env(LATE, "").args(["--checkpoints", "memory:"]));
    let summary = said.lines().last().unwrap();
    assert!(summary.starts_with("late: finished: 3 records in "), "{said}");
    assert!(summary.ends_with(", 1 of 3 records too late for `tens`"), "{said}");
}

pub fn logs_are_json_if_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let said = said(numbers(folder.path(), Some(5_000), 20_000).arg("--json-logs"));
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let message = |text: &'static str| lines.iter().filter(move |line| line["message"] == text);
    let committed: Vec<_> = message("committed").collect();
    assert!(committed.iter().all(|line| line["checkpoint"].is_u64()), "{said}");
    let ended = message("ended").next().unwrap();
    assert_eq!((&ended["job"], &ended["finished"]), (&"numbers".into(), &true.into()));
    assert_eq!(ended["records_in"], 5_000);
    assert_eq!(ended["checkpoints"], committed.len());
    let place = "checkpoints in .highwater/numbers";
    assert_eq!(message(place).next().unwrap()["target"], "highwater::job");
}

/// A job over files knows how much there is to read. `script` gives it a terminal.
pub fn a_bar_on_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let on_terminal = |command: &Command| {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<String> =
            words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let mut script = Command::new("script");
        script.args(["-qec", &words.join(" "), "/dev/null"]).current_dir(folder);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        script.env("TERM", "xterm");
        let output = script.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = on_terminal(&numbers(folder, Some(20_000), 10_000));
    assert!(shown.contains("numbers: ") && shown.contains(" records, "), "{shown}");
    assert!(!shown.contains("highwater::checkpoint"), "the bar says enough: {shown}");
    let last = shown.lines().last().unwrap();
    assert!(last.contains("finished: 20000 records"), "{shown}");

    // The numbers that were written, read slowly.
    let parts = fs::read_dir(folder.join("out/numbers")).unwrap();
    assert!(parts.count() > 1);
    let mut files = Command::new(this_program());
    files.env(FILES, folder.join("out/numbers/*.txt"));
    let shown = on_terminal(files.args(["--checkpoints", "memory:"]));
    assert!(shown.contains(" %, ") && shown.contains(" left, "), "{shown}");
    assert!(shown.contains("finished: 20000 records"), "{shown}");
}
