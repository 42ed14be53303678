#![allow(clippy::disallowed_methods, reason = "the servers are real")]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use highwater_runtime::connector::{Malformed, MalformedRecords, Polled};
use highwater_runtime::observe::ReaderProgress;
use serde::{Deserialize, Serialize};

use super::super::{Feed, Socket};
use super::*;
use crate::connectors::testing::{at_begin, drain, drain_with_rejects, env, nap, no_waker, poll};

type FeedReader<T, F> = ThreadedReader<T, Records<<F as ReadFormat<T>>::Parser>>;

fn reader<T: Data, F: ReadFormat<T>>(feed: Feed<F>, env: &Arc<dyn Env>) -> FeedReader<T, F> {
    let input = FeedInput {
        origin: feed.origin,
        framing: feed.format.framing(),
        columns: feed.columns,
        longest_record: feed.longest_record,
        uid: "in".to_owned(),
        is_restart: false,
        env: env.clone(),
    };
    let (records, progress) = (Records::new(feed.format.parser()), ReaderProgress::default());
    let mut reader =
        ThreadedReader::start("feed", input, records, &**env, no_waker(), progress.clone());
    reader.add(at_begin(&["socket".to_owned()]), 1).unwrap();
    reader.with(MalformedRecords::new("in", Malformed::Reject, progress), usize::MAX)
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// A server that says each of these in a connection of its own.
fn server(connections: &'static [&'static [u8]]) -> String {
    let (listener, address) = listen();
    std::thread::spawn(move || {
        for said in connections {
            listener.accept().unwrap().0.write_all(said).unwrap();
        }
        // Nothing more comes, and nobody is refused.
        std::thread::park();
    });
    address
}

fn next<T: Data>(reader: &mut dyn Reader, env: &dyn Env) -> Vec<T> {
    poll(reader, env).unwrap().expect("the feed goes on")
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flight {
    carrier: String,
    delay: i32,
}

fn flight(carrier: &str, delay: i32) -> Flight {
    Flight { carrier: carrier.to_owned(), delay }
}

#[test]
fn records_come_as_they_are_sent() {
    let env = env();
    let (listener, address) = listen();
    let mut one = reader(Socket::text(address).once(), &env);
    let mut stream = listener.accept().unwrap().0;
    for (said, rows) in [("a\nb", vec!["a"]), ("c\n", vec!["bc"]), ("\nd\r\ne", vec!["", "d"])] {
        stream.write_all(said.as_bytes()).unwrap();
        assert_eq!(next::<String>(&mut one, &*env), rows);
    }
    let (_, offset) = one.offsets().remove(0);
    assert_eq!((offset.position, offset.records, offset.ended), (9, 4, false));
    drop(stream);
    assert_eq!(drain::<String>(&mut one, &*env).unwrap(), Vec::<String>::new());
    assert!(one.offsets().remove(0).1.ended);
}

#[test]
fn a_server_may_close_and_come_back() {
    let env = env();
    // What a connection leaves unfinished is no record, not even together with what the next one begins with.
    let address = server(&[b"one\ntw", b"", b"o\nthree\n", b"\xEF\xBB\xBFfour\n"]);
    let mut one = reader(Socket::text(address), &env);
    let mut rows = Vec::new();
    while rows.len() < 4 {
        rows.extend(next::<String>(&mut one, &*env));
    }
    assert_eq!(rows, ["one", "o", "three", "four"]);
    assert_eq!(one.offsets().remove(0).1.records, 4);
}

#[test]
fn a_server_may_be_late_and_break_off() {
    let env = env();
    let (listener, address) = listen();
    drop(listener);
    let mut one = reader(Socket::text(&address), &env);
    assert!(matches!(one.poll(highwater_runtime::Epoch::new(1, 0)), Ok(Polled::Waiting)));
    let listener = TcpListener::bind(&address).unwrap();
    let mut stream = listener.accept().unwrap().0;
    stream.write_all(b"one\n").unwrap();
    assert_eq!(next::<String>(&mut one, &*env), ["one"]);
    // Closed without a word of farewell.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    listener.accept().unwrap().0.write_all(b"two\n").unwrap();
    assert_eq!(next::<String>(&mut one, &*env), ["two"]);
}

#[test]
fn columns_have_names_and_may_say_them() {
    let env = env();
    let rows = [flight("AA", 1), flight("B\nB", 2), flight("CC", 3), flight("DD", 4)];
    let address = server(&[
        b"\xEF\xBB\xBFdelay,carrier\r\n1,AA\n2,\"B\nB\"\n",
        b"3,CC\n4,DD\n\"5,EE\n6,FF\n",
    ]);
    let mut one = reader::<Flight, _>(Socket::csv(address).columns(["delay", "carrier"]), &env);
    let mut found = Vec::new();
    while found.len() < rows.len() {
        found.extend(next::<Flight>(&mut one, &*env));
    }
    assert_eq!(found, rows);
    // Without names it goes by position, and nothing is a header.
    let address = server(&[b"AA;1\n"]);
    let mut one = reader::<Flight, _>(Socket::csv(address).delimiter(b';').once(), &env);
    assert_eq!(drain::<Flight>(&mut one, &*env).unwrap(), rows[..1]);
}

#[test]
fn bad_records_are_rejected_and_hold_nothing_up() {
    let env = env();
    let (listener, address) = listen();
    let feed = Socket::csv(address).longest_record(10_000).once();
    let mut one = reader::<Flight, _>(feed, &env);
    let long = "x".repeat(200_000);
    let mut stream = listener.accept().unwrap().0;
    // It comes in many pieces.
    let said = format!("AA,1\n{long}\nBB,x\nCC,3\n\"DD,4\n{}EE,5\n", "FF,6\n".repeat(3000));
    stream.write_all(said.as_bytes()).unwrap();
    drop(stream);
    let (rows, rejects) = drain_with_rejects::<Flight>(&mut one, &*env).unwrap();
    let good = [flight("AA", 1), flight("CC", 3)].into_iter();
    let expected = good.chain((0..3000).map(|_| flight("FF", 6))).chain([flight("EE", 5)]);
    assert_eq!(rows, expected.collect::<Vec<_>>());
    let told: Vec<_> =
        rejects.iter().map(|one| (one.record, one.position, &one.error[..12])).collect();
    let expected =
        [(2, 5, "longer than "), (3, 200_006, "column 2: ex"), (5, 200_016, "a quote is n")];
    assert_eq!(told, expected);
    assert!(rejects[1].to_string().starts_with("socket, at 200006 (record 3): "), "{}", rejects[1]);
}

/// A reader that isn't polled makes the server wait.
#[test]
fn what_is_not_wanted_yet_is_not_read() {
    let env = env();
    let (listener, address) = listen();
    let mut one = reader(Socket::text(address).once(), &env);
    let mut stream = listener.accept().unwrap().0;
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let line = [b'x'; 999].as_slice();
    let mut sent = 0;
    let said = [line, b"\n"].concat();
    // What fits into the buffers of the system, and into four blocks.
    let left = loop {
        assert!(sent < 100_000, "the server never has to wait");
        match stream.write(&said) {
            Ok(1000) => sent += 1,
            Ok(part) => break 1000 - part,
            Err(_) => break 1000,
        }
    };
    let rest =
        std::thread::spawn(move || stream.write_all(&said[1000 - left..]).map(|()| drop(stream)));
    let rows = drain::<String>(&mut one, &*env).unwrap();
    rest.join().unwrap().unwrap();
    assert_eq!(rows.len(), sent + 1);
    assert!(rows.iter().all(|row| row.as_bytes() == line));
}

/// A reader that is gone doesn't keep the connection.
#[test]
fn a_connection_ends_with_its_reader() {
    let env = env();
    let (listener, address) = listen();
    let one = reader::<String, _>(Socket::text(address), &env);
    let mut stream: TcpStream = listener.accept().unwrap().0;
    drop(one);
    let mut buffer = [0; 1];
    assert_eq!(std::io::Read::read(&mut stream, &mut buffer).unwrap(), 0);
    nap(&*env);
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    for address in ["localhost", "localhost:", ":80", "localhost:http", "http://localhost"] {
        let source = crate::connectors::IntoSource::<String>::into_source(Socket::text(address));
        let error = source.splits(&[]).unwrap_err().to_string();
        assert!(error.contains(address) && error.contains("host:port"), "{error}");
    }
}
