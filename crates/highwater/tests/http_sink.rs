//! Rows posted to a real server on loopback, which fails, hangs, drops answers and asks to be left alone.

#![allow(
    clippy::disallowed_methods,
    reason = "the server is real, and so is the time that it takes"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use highwater::connectors::{Http, at_least_once};
use highwater::testing::{Script, Test};

/// What the server does with a request.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Status(u16),
    /// A status, and `Retry-After` with so many seconds.
    Later(u16, u64),
    /// Takes the rows and closes the connection without an answer.
    Drops,
    /// Takes the rows and never answers.
    Hangs,
}

struct Request {
    at: Instant,
    key: Option<String>,
    rows: Vec<u64>,
    taken: bool,
}

/// A server that answers requests by a script, and everything behind its end with 200.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(script: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/rows", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (seen, script) = (requests.clone(), script.to_vec());
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (seen, script) = (seen.clone(), script.clone());
                std::thread::spawn(move || serve(connection.unwrap(), &seen, &script));
            }
        });
        Server { address, requests }
    }

    fn http(&self) -> Http {
        Http::post(&self.address).header("X-Test", "yes").timeout(Duration::from_millis(500))
    }

    /// What a service that keeps keys has in the end, by key; the rows of a key must never change.
    fn by_key(&self) -> BTreeMap<String, Vec<u64>> {
        let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for request in self.requests.lock().unwrap().iter() {
            let key = request.key.clone().expect("every request has a key");
            if let Some(before) = found.insert(key.clone(), request.rows.clone()) {
                assert_eq!(before, request.rows, "{key} brought other rows");
            }
        }
        found
    }
}

fn serve(connection: TcpStream, seen: &Mutex<Vec<Request>>, script: &[Answer]) {
    let mut from = BufReader::new(connection.try_clone().unwrap());
    let mut to = connection;
    loop {
        let (mut key, mut length, mut test, mut line) = (None, 0, false, String::new());
        loop {
            line.clear();
            if from.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                if line == "\r\n" {
                    break;
                } else {
                    continue;
                };
            };
            match name.to_ascii_lowercase().as_str() {
                "idempotency-key" => key = Some(value.to_owned()),
                "content-length" => length = value.parse().unwrap(),
                "x-test" => test = value == "yes",
                _ => {}
            }
        }
        assert!(test, "the header is sent");
        let mut body = vec![0; length];
        from.read_exact(&mut body).unwrap();
        let rows = body.split_inclusive(|byte| *byte == b'\n');
        let rows = rows.map(|row| serde_json::from_slice(row).unwrap()).collect();
        let answer = {
            let mut seen = seen.lock().unwrap();
            let answer = script.get(seen.len()).copied().unwrap_or(Answer::Status(200));
            let taken = !matches!(answer, Answer::Status(300..) | Answer::Later(..));
            seen.push(Request { at: Instant::now(), key, rows, taken });
            answer
        };
        let written = match answer {
            Answer::Status(status) => {
                write!(to, "HTTP/1.1 {status} Said\r\nContent-Length: 4\r\n\r\nsaid")
            }
            Answer::Later(status, seconds) => write!(
                to,
                "HTTP/1.1 {status} Said\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n"
            ),
            Answer::Drops => return,
            Answer::Hangs => {
                // Until the client gives up.
                from.read_to_end(&mut Vec::new()).ok();
                return;
            }
        };
        if written.is_err() {
            return;
        }
    }
}

#[test]
fn every_row_arrives_under_a_key_that_always_brings_the_same() {
    use Answer::{Drops, Hangs, Later, Status};
    let script =
        [Status(200), Status(503), Drops, Hangs, Later(429, 1), Status(500), Status(409), Drops];
    let server = Server::start(&script);
    let rows = Script::new().records(0..500).checkpoint().records(500..600);
    let run = Test::new(2).run(|job| {
        job.read("in", rows).rebalance().write("out", server.http().body_bytes(400));
    });
    run.unwrap();
    let found = server.by_key();
    let mut rows: Vec<u64> = found.values().flatten().copied().collect();
    rows.sort_unstable();
    assert_eq!(rows, (0..600).collect::<Vec<_>>());
    assert!(found.len() > 4, "bodies are bounded: {} of them", found.len());
    for key in found.keys() {
        let parts: Vec<&str> = key.rsplitn(3, '-').collect();
        assert!(parts[2].ends_with("-out") && parts[0].parse::<u64>().is_ok(), "{key}");
    }
    let requests = server.requests.lock().unwrap();
    let waited = requests[5].at - requests[4].at;
    assert!(waited >= Duration::from_secs(1), "it was asked again after {waited:?}");
    // What was accepted in an attempt isn't posted again, unless the answer was lost.
    let again = |answer: usize| requests.iter().filter(|r| r.key == requests[answer].key).count();
    assert_eq!((again(0), again(1)), (1, 8));
}

#[test]
fn nothing_is_lost_in_a_crash() {
    let server = Server::start(&[Answer::Status(503), Answer::Drops]);
    let rows =
        Script::new().records(0..100).checkpoint().records(100..200).crash().records(200..300);
    let run = Test::new(1).then(2).run(|job| {
        job.read("in", rows).rebalance().write("out", server.http().body_bytes(100));
    });
    assert_eq!(run.unwrap().attempts(), 2);
    let mut rows: Vec<u64> = server.by_key().into_values().flatten().collect();
    rows.sort_unstable();
    assert_eq!(rows, (0..300).collect::<Vec<_>>());
}

#[test]
fn a_refusal_ends_the_job_with_what_the_service_says() {
    for (status, expected) in [(400, "400"), (401, "401"), (301, "301")] {
        let server = Server::start(&[Answer::Status(status)]);
        let run = Test::new(1).run(|job| {
            job.read("in", Script::new().records(0..10)).write("out", server.http());
        });
        let error = run.unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("says: said"), "{error}");
        assert_eq!(server.requests.lock().unwrap().len(), 1, "{status}");
    }
}

#[test]
fn rows_are_posted_as_they_come_if_asked_for() {
    let server = Server::start(&[Answer::Status(503), Answer::Drops]);
    let hour = Some(Duration::from_secs(3600));
    let test = Test::new(1).settings(|settings| settings.checkpoint_interval = hour);
    let run = test.run(|job| {
        let rows = Script::new().records(0..100);
        job.read("in", rows).write("out", at_least_once(server.http()));
    });
    run.unwrap();
    let requests = server.requests.lock().unwrap();
    let taken = requests.iter().filter(|request| request.taken);
    let mut rows: Vec<u64> = taken.flat_map(|request| request.rows.clone()).collect();
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(rows, (0..100).collect::<Vec<_>>());
    assert!(requests.iter().all(|request| request.key.is_none()));
}

#[test]
fn what_can_not_be_posted_to_is_refused_before_anything_runs() {
    for (http, expected) in [
        (Http::post("https://localhost/rows"), "TLS"),
        (Http::post("localhost:80"), "no URL"),
        (Http::post("http://localhost/ x"), "malformed"),
        (Http::post("http://localhost/").header("a b", "c"), "malformed"),
    ] {
        let run = Test::new(1).run(|job| {
            job.read("in", Script::new().record(1_u64).crash()).write("out", http);
        });
        let error = run.unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("http_sink.rs:"), "{error}");
    }
}
