//! A server's process.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that isn't ready after so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with the thread that started it.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts `program`, of those that `scripts/test-servers.sh` installs.
    ///
    /// # Panics
    ///
    /// If it isn't there.
    pub fn start(program: &str, arguments: &[String]) -> Self {
        let path = installed(program);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&path).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Process(command.spawn().unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// Ends it at once, as a crash does.
    ///
    /// # Panics
    ///
    /// If the system doesn't let it be killed.
    pub fn kill(&mut self) {
        self.0.kill().expect("one's own child can be killed");
        self.0.wait().expect("one's own child can be waited for");
    }

    /// Sends a signal by its name, such as `STOP` or `CONT`.
    ///
    /// # Panics
    ///
    /// If there is no such signal.
    pub fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().expect("kill is there");
        assert!(status.success(), "kill -s {name} {id}");
    }

    /// Waits until `ready` is.
    ///
    /// # Panics
    ///
    /// If it never is, or the process ends.
    pub fn wait_until(&mut self, what: &str, ready: impl Fn() -> io::Result<bool>) {
        let begin = Instant::now();
        loop {
            let last = ready();
            if matches!(last, Ok(true)) {
                return;
            }
            if let Ok(Some(status)) = self.0.try_wait() {
                panic!("the server ended by itself ({status}) before {what}");
            }
            assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}: {last:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A loopback address whose port is free, and stays so unless somebody else happens to be given it.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("a listener has an address")
}

/// Where a program is installed.
fn installed(program: &str) -> PathBuf {
    let folder = match std::env::var_os("HIGHWATER_TEST_SERVERS") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let home = std::env::var_os("HOME").expect("HOME is set");
            PathBuf::from(home).join(".cache/highwater-test-servers")
        }
    };
    let path = folder.join("bin").join(program);
    assert!(path.exists(), "{} isn't there; run scripts/test-servers.sh", path.display());
    path
}
