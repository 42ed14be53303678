//! The destination of a sink doesn't work for a while, for reasons of real life: processing goes on until a bound, sources pause, and all is
//! well again by itself, with every row once.

#![allow(clippy::disallowed_methods, reason = "the service is real, and so are its threads")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater::Control;
use highwater::connectors::Http;
use highwater::testing::Test;
use support::*;

const ROWS: u64 = 4_000;

fn read(control: &Control) -> u64 {
    control.observed().records_in()
}

/// Whether sources pause that haven't come to their end.
fn pauses(control: &Control) -> bool {
    control.status().workers.iter().any(|worker| worker.paused)
}

/// Whether something is said of the sink that its destination takes nothing.
fn in_trouble(control: &Control, sink: &str) -> bool {
    let status = control.status();
    let hosts = || status.workers.iter().flat_map(|worker| &worker.hosts);
    status.leader.sinks.iter().any(|of| of.sink == sink && of.failing.is_some())
        || hosts().any(|host| host.operator == sink && host.trouble.is_some())
}

fn impatient(test: Test) -> Test {
    test.settings(|settings| {
        settings.uncommitted = Duration::from_secs(2);
        settings.unpublished = 5;
    })
}

fn a_folder(out: PathBuf, trouble: Trouble) {
    let store = memory();
    let numbers = Numbers::new(3, ROWS);
    numbers.allow(300);
    let run = start(impatient(test(2, &store)), file_job(&numbers, &out));
    let control = numbers.control();
    wait_for("something is published", || out.is_dir() && !parts(&out).is_empty());
    trouble.begin(&out);
    numbers.allow(u64::MAX);
    wait_for("the trouble shows", || in_trouble(&control, "numbers-out"));
    wait_for("sources pause", || {
        pauses(&control) || read(&control) == 3 * ROWS || run.is_finished()
    });
    trouble.end(&out);
    let run = run.join().unwrap().unwrap();
    assert_eq!(run.attempts(), 1);
    assert_eq!(rows(&out), numbers.all(), "{trouble:?}");
    assert_eq!(counts(&run), expected_counts(3 * ROWS));
}

#[test]
fn a_folder_is_away() {
    std::thread::scope(|scope| {
        for trouble in Trouble::OF_ANY {
            scope.spawn(move || {
                let folder = tempfile::tempdir().unwrap();
                a_folder(folder.path().join("out"), trouble);
            });
        }
    });
}

#[test]
fn a_disk_is_full() {
    let Some(disk) = SmallDisk::mount(1024) else { return };
    a_folder(disk.path().join("out"), Trouble::Full);
}

/// A web service at a fixed address that can be ended and started again.
struct Service {
    address: std::net::SocketAddr,
    taken: Arc<Mutex<Vec<u64>>>,
    listener: Option<std::thread::JoinHandle<()>>,
    open: Arc<std::sync::atomic::AtomicBool>,
}

impl Service {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (taken, open) = (Arc::default(), Arc::default());
        let mut service = Service { address, taken, listener: None, open };
        service.serve(listener);
        service
    }

    fn serve(&mut self, listener: TcpListener) {
        use std::sync::atomic::Ordering::SeqCst;
        self.open.store(true, SeqCst);
        let (taken, open) = (self.taken.clone(), self.open.clone());
        self.listener = Some(std::thread::spawn(move || {
            for connection in listener.incoming() {
                if !open.load(SeqCst) {
                    return;
                }
                take(connection.unwrap(), &taken);
            }
        }));
    }

    /// Nobody listens any more.
    fn stop(&mut self) {
        self.open.store(false, std::sync::atomic::Ordering::SeqCst);
        TcpStream::connect(self.address).ok();
        self.listener.take().unwrap().join().unwrap();
    }

    fn start_again(&mut self) {
        let mut listener = None;
        wait_for("the address is free", || {
            listener = TcpListener::bind(self.address).ok();
            listener.is_some()
        });
        self.serve(listener.unwrap());
    }

    fn http(&self) -> Http {
        Http::post(format!("http://{}/rows", self.address)).timeout(Duration::from_secs(5))
    }
}

/// Answers one request, and closes the connection.
fn take(mut connection: TcpStream, taken: &Mutex<Vec<u64>>) {
    let mut from = BufReader::new(connection.try_clone().unwrap());
    let (mut length, mut line) = (0, String::new());
    while from.read_line(&mut line).unwrap_or(0) > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    if from.read_exact(&mut body).is_err() {
        return;
    }
    let rows = body.split(|byte| *byte == b'\n').filter(|row| !row.is_empty());
    lock(taken).extend(rows.map(|row| serde_json::from_slice::<u64>(row).unwrap()));
    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    connection.write_all(answer).ok();
}

/// A web service that nobody answers for at its address.
#[test]
fn a_service_is_away() {
    let mut service = Service::new();
    let numbers = Numbers::new(3, ROWS);
    numbers.allow(300);
    let (source, http) = (numbers.clone(), service.http());
    let run = start(impatient(test(2, &memory())), move |job| {
        job.read("numbers", source).write("posted", http);
    });
    let control = numbers.control();
    wait_for("rows arrive", || !lock(&service.taken).is_empty());
    service.stop();
    numbers.allow(600);
    wait_for("the trouble shows", || in_trouble(&control, "posted"));
    numbers.allow(u64::MAX);
    wait_for("sources pause", || pauses(&control) || read(&control) == 3 * ROWS);
    service.start_again();
    let run = run.join().unwrap().unwrap();
    assert_eq!(run.attempts(), 1);
    // Every body was answered: nothing was posted twice.
    assert_eq!(sorted(lock(&service.taken).clone()), numbers.all());
}

/// Sources that paused go on when the destination is back, and don't wait for the next checkpoint: there is none in an hour.
#[test]
fn sources_go_on_as_soon_as_a_destination_is_back() {
    let sink = Faulty::over(Recorded::default().sink());
    sink.set_down(true);
    let numbers = Numbers::new(2, 1_000);
    numbers.allow(100);
    let test = test(1, &memory()).settings(|settings| {
        settings.checkpoint_interval = Some(Duration::from_secs(3600));
        settings.unpublished = 0;
    });
    let run = start(test, faulty_job(&numbers, &sink));
    let control = numbers.control();
    wait_for("what is allowed is read", || read(&control) == 200);
    control.request_checkpoint();
    wait_for("sources pause", || pauses(&control));
    numbers.allow(u64::MAX);
    assert_eq!(read(&control), 200);
    sink.set_down(false);
    wait_for("sources go on", || read(&control) == 2_000);
    assert!(run.join().unwrap().unwrap().outcome().finished);
}
