//! What is acted upon is durable first, as the operating system sees it: the job runs under `strace`, and the order of its calls is
//! held against the order that durability takes.

#[path = "support/program.rs"]
mod program;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use highwater_log::{CheckpointEntry, Entry, Manifest, record};
use program::{describe, said, this_program};

fn main() -> highwater::Result<()> {
    program::main(&[("everything_is_durable_before_it_is_acted_upon", everything_is_durable)])
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Sync,
    Link,
    Rename,
    Remove,
}

/// A call that succeeded, with the lines of the trace at which it began and ended.
#[derive(Debug)]
struct Call {
    what: What,
    /// What was synced or removed; what got another name.
    from: String,
    /// The other name.
    to: String,
    begin: usize,
    end: usize,
}

/// The calls in a trace of `strace -f -y`.
fn calls(trace: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    // By thread: a call that another thread's line interrupts.
    let mut under_way: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    for (line, text) in trace.lines().enumerate() {
        let Some((thread, text)) = text.trim_start().split_once(' ') else { continue };
        let text = text.trim_start();
        let (begin, text) = if let Some(head) = text.strip_suffix(" <unfinished ...>") {
            under_way.insert(thread, (line, head.to_owned()));
            continue;
        } else if text.starts_with("<... ") {
            let Some((begin, head)) = under_way.remove(thread) else { continue };
            let tail = text.split_once(" resumed>").expect("a call that goes on").1;
            (begin, format!("{head}{tail}"))
        } else {
            (line, text.to_owned())
        };
        // `name(arguments) = 0`
        if !text.ends_with("= 0") {
            continue;
        }
        let Some((name, arguments)) = text.split_once('(') else { continue };
        let what = match name {
            "fsync" | "fdatasync" => What::Sync,
            "link" | "linkat" => What::Link,
            "rename" | "renameat" | "renameat2" => What::Rename,
            "unlink" | "unlinkat" => What::Remove,
            _ => continue,
        };
        let mut paths = match what {
            // `-y` shows the path behind a descriptor: `7</tmp/x>`.
            What::Sync => arguments
                .split(['<', '>'])
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>(),
            _ => arguments.split('"').skip(1).step_by(2).map(str::to_owned).collect(),
        }
        .into_iter();
        let (from, to) = (paths.next().unwrap_or_default(), paths.next().unwrap_or_default());
        calls.push(Call { what, from, to, begin, end: line });
    }
    calls
}

/// What happened, by what it happened to.
struct Trace {
    calls: Vec<Call>,
}

impl Trace {
    fn of(&self, what: What, matches: impl Fn(&Call) -> bool) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| call.what == what && matches(call))
    }

    /// The call by which `path` got its name.
    fn named(&self, path: &str) -> Option<&Call> {
        self.calls
            .iter()
            .find(|call| matches!(call.what, What::Link | What::Rename) && call.to == path)
    }

    /// Whether `path` was synced between two lines.
    fn synced(&self, path: &str, after: usize, before: usize) -> bool {
        self.of(What::Sync, |call| call.from == path)
            .any(|call| call.begin > after && call.end < before)
    }

    /// Why `path` isn't durable at this line, if it isn't: its bytes are synced, then it gets its name, then its folder is synced.
    fn not_durable(&self, path: &str, line: usize) -> Option<String> {
        let Some(named) = self.named(path) else {
            return Some(format!("{path} never got its name"));
        };
        if named.end >= line {
            return Some(format!("{path} got its name too late"));
        }
        // From its creation on: a temporary name may be used again, but not before it was removed.
        if !self.of(What::Sync, |call| call.from == named.from).any(|call| call.end < named.begin) {
            return Some(format!("{} wasn't synced before it became {path}", named.from));
        }
        let folder = parent(path);
        (!self.synced(&folder, named.end, line))
            .then(|| format!("{folder} wasn't synced after {path} got its name"))
    }
}

fn parent(path: &str) -> String {
    Path::new(path).parent().unwrap().to_str().unwrap().to_owned()
}

/// Whether `strace` can trace here.
fn can_trace() -> bool {
    let mut probe = Command::new("strace");
    probe.args(["-f", "-o", "/dev/null", "true"]).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// Runs the job under `strace`, up to so many rows, or until `enough` holds.
fn traced(folder: &Path, limit: Option<u64>, enough: impl FnMut() -> bool) -> Trace {
    let trace = folder.join("trace");
    let traced = "trace=fsync,fdatasync,link,linkat,rename,renameat,renameat2,unlink,unlinkat";
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "4096", "-e", traced, "-o"]).arg(&trace).arg(this_program());
    // All entries stay, so that they can be read afterwards.
    strace.args(["--checkpoints", "state", "--checkpoint-interval", "20ms", "--keep", "10000"]);
    strace.args(["--workers", "2", "--quiet"]);
    describe(&mut strace, folder, limit, 20_000);
    let child =
        strace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    if limit.is_none() {
        support::wait_for("enough is traced", enough);
        // It passes the signal on to nobody, so the job gets it.
        let id = child.id();
        let job = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        let sent = Command::new("kill").arg("-INT").args(job.split_whitespace()).status().unwrap();
        assert!(sent.success(), "{job}");
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    Trace { calls: calls(&fs::read_to_string(trace).unwrap()) }
}

fn checkpoints(log: &Path) -> BTreeMap<u64, CheckpointEntry> {
    let files = log.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let entries = files.map(|path| record::decode::<Entry>(&fs::read(path).unwrap(), 1).unwrap());
    entries.filter_map(|entry| Some((entry.number, entry.checkpoint()?.clone()))).collect()
}

fn shown(path: PathBuf) -> String {
    path.to_str().unwrap().to_owned()
}

fn everything_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let state = folder.join("state");
    let out = [folder.join("out/numbers"), folder.join("out/counts")];
    if !can_trace() {
        println!("strace can't trace here; what is synced when isn't looked at");
        return;
    }
    let entries = || state.join("log").read_dir().map_or(0, Iterator::count);
    let trace = traced(&folder, None, || entries() > 12);
    assert!(!support::rows(&out[0]).is_empty());
    let log = shown(state.join("log"));
    let checkpoints = checkpoints(&state.join("log"));
    assert!(checkpoints.len() > 10, "{}", checkpoints.len());
    let entry_path = |number: u64| format!("{log}/{number:020}.json");
    let mut wrong = Vec::new();

    let mut last_end = 0;
    for number in 0..=*checkpoints.last_key_value().unwrap().0 {
        let path = entry_path(number);
        let appended = trace.named(&path).unwrap_or_else(|| panic!("{path} wasn't linked"));
        assert_eq!(appended.what, What::Link, "an entry must not replace another");
        // The next entry is only sent when this one is durable, with all that it says.
        let next = trace.named(&entry_path(number + 1)).map_or(usize::MAX, |next| next.begin);
        wrong.extend(trace.not_durable(&path, next));
        assert!(appended.begin > last_end, "entries are appended one after the other");
        last_end = appended.end;
    }
    let (mut objects, mut staged, mut published) = (0, 0, 0);
    let mut covered_by: BTreeMap<String, u64> = BTreeMap::new();
    for (number, checkpoint) in &checkpoints {
        let appended = trace.named(&entry_path(*number)).unwrap().begin;
        // Every object that it names.
        let manifest_path = state.join(&checkpoint.manifest.name);
        let manifest: Manifest = record::decode(&fs::read(&manifest_path).unwrap(), 1).unwrap();
        let names = manifest.objects.iter().map(|object| shown(state.join(&object.name)));
        for name in names.chain([shown(manifest_path)]) {
            objects += 1;
            wrong.extend(trace.not_durable(&name, appended));
        }
        for output in &checkpoint.staged {
            let folder = if output.sink == "counts" { &out[1] } else { &out[0] };
            for item in &output.items {
                if output.checkpoint == *number {
                    staged += 1;
                    let path = shown(folder.join(".highwater/staged").join(&item.name));
                    wrong.extend(trace.not_durable(&path, appended));
                }
                let part =
                    shown(folder.join(item.part.as_ref().expect("every checkpoint publishes")));
                covered_by.entry(part).or_insert(*number);
            }
        }
    }
    for folder in &out {
        for part in support::parts(folder).into_keys().map(shown) {
            published += 1;
            let linked = trace.named(&part).unwrap_or_else(|| panic!("{part} wasn't linked"));
            assert_eq!(linked.what, What::Link, "a part must not replace another");
            // The entry that covers it is there, and durable.
            let entry = entry_path(covered_by[&part]);
            wrong.extend(trace.not_durable(&entry, linked.begin));
            // What was staged is kept until the part is durable.
            let removed = trace
                .of(What::Remove, |call| call.from == linked.from)
                .map(|call| call.begin)
                .min();
            if !trace.synced(&shown(folder.clone()), linked.end, removed.unwrap_or(usize::MAX)) {
                wrong.push(format!("{} was removed before {part} was durable", linked.from));
            }
        }
    }
    assert!(objects > 10 && staged > 10 && published > 10, "{objects} {staged} {published}");

    // A restart acts on an entry that it merely read: that is made durable first.
    let tail = entry_path(*checkpoints.last_key_value().unwrap().0);
    let attempt = entry_path(checkpoints.last_key_value().unwrap().0 + 1);
    let again = traced(&folder, Some(1), || true);
    let started = again.named(&attempt).expect("a new attempt").begin;
    for path in [&tail, &log] {
        if !again.of(What::Sync, |call| call.from == **path).any(|call| call.end < started) {
            wrong.push(format!("{path} was read, and not synced before a new attempt began"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} calls:\n{}",
        wrong.len(),
        trace.calls.len(),
        wrong.join("\n")
    );
}
