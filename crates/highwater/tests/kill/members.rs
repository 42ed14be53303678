//! The processes of one attempt: started together, and one of them struck. The others must end by themselves.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::job;
use crate::trace::Trace;

/// So soon at the latest a process ends that lost another one, or was replaced. Silence is noticed after 2 s; the rest is for a machine
/// under load.
const NOTICED: Duration = Duration::from_secs(20);

const LOOK: Duration = Duration::from_millis(1);

/// One process, which doesn't outlive a test that fails.
pub struct Process {
    child: Child,
    trace: PathBuf,
}

impl Process {
    fn start(command: &mut Command, trace: PathBuf) -> Self {
        fs::remove_file(&trace).ok();
        command.env(highwater_env::TRACE_VARIABLE, &trace);
        Process { child: command.spawn().unwrap(), trace }
    }

    pub fn trace(&self) -> Trace {
        Trace::read(&self.trace)
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    pub fn kill(&mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }

    pub fn pause(&self) {
        self.signal("-STOP");
        let stat = format!("/proc/{}/stat", self.child.id());
        let stopped = || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "));
        while !stopped() {
            std::thread::park_timeout(LOOK);
        }
    }

    pub fn wake(&self) {
        self.signal("-CONT");
    }

    /// Waits until it has ended by itself, and not well.
    pub fn must_fail(&mut self, why: &str, said: impl Fn() -> String) {
        let deadline = Instant::now() + NOTICED;
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            if Instant::now() > deadline {
                let doing = fs::read_to_string(&self.trace).unwrap_or_default();
                panic!("{why}, and a process runs on, with the trace {doing}\n{}", said());
            }
            std::thread::park_timeout(LOOK);
        };
        assert!(!status.success() && status.signal() != Some(9), "{why}: {status}\n{}", said());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// How an attempt is started.
pub struct Start<'a> {
    pub folder: &'a Path,
    pub log: &'a Path,
    pub processes: usize,
    pub workers: usize,
    pub limits: &'a [(&'static str, String)],
}

/// Starts all processes of an attempt.
pub fn start(how: &Start<'_>) -> Vec<Process> {
    // All are held until all are known, so that no two are the same.
    let doors: Vec<TcpListener> =
        (0..how.processes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let hosts: Vec<String> =
        doors.iter().map(|door| door.local_addr().unwrap().to_string()).collect();
    drop(doors);
    let process = |number: usize| {
        let log = File::options().create(true).append(true).open(how.log).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "job_process", "--nocapture", "--test-threads=1"])
            .env(job::FOLDER_VARIABLE, how.folder)
            .env(job::WORKERS_VARIABLE, how.workers.to_string())
            .env("NO_COLOR", "1")
            .envs(how.limits.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if how.processes > 1 {
            command.env(job::HOSTS_VARIABLE, hosts.join(","));
            command.env(job::PROCESS_VARIABLE, number.to_string());
        }
        Process::start(&mut command, how.folder.join(format!("trace-{number}")))
    };
    (0..how.processes).map(process).collect()
}
