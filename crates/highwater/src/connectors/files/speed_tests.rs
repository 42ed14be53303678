//! How fast CSV is read and written: `cargo test --release -p highwater speed -- --ignored --nocapture`.

use highwater_log::StagedItem;
use highwater_runtime::Batch;
use highwater_runtime::connector::Sink;
use memchr::memchr;
use serde::{Deserialize, Serialize};

use super::blocks::Block;
use super::format::{Parser, ReadFormat, WriteFormat};
use super::source::FileReader;
use super::*;
use crate::connectors::testing::{Place, at_begin, cut, nap, no_waker, poll};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Bid {
    auction: u64,
    bidder: u64,
    price: u64,
    time: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Total {
    bidder: u64,
    count: u64,
    total: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Named {
    auction: u64,
    channel: String,
    url: String,
    price: f64,
}

const ROWS: usize = 2_000_000;

fn timed<T>(place: &Place, what: &str, rows: usize, work: impl FnOnce() -> T) -> T {
    let start = place.env.monotonic();
    let done = work();
    let seconds = (place.env.monotonic() - start).as_secs_f64();
    println!("{what}: {:.1} M rows/s", rows as f64 / seconds / 1e6);
    done
}

fn bids() -> Vec<u8> {
    let mut text = b"auction,bidder,price,time\n".to_vec();
    for n in 0..ROWS as u64 {
        let bid = Bid {
            auction: 1000 + n / 7,
            bidder: n.wrapping_mul(0x9E37_79B9) % 6_000_000,
            price: n * 31 % 1_000_000,
            time: 1_700_000_000_000 + n as i64,
        };
        super::csv::ser::write_row(&bid, b',', &mut text).unwrap();
    }
    text
}

#[test]
#[ignore = "a measurement"]
fn reading() {
    let place = Place::new();
    let text = bids();
    println!("{} bytes a row", text.len() / ROWS);
    let format = Files::csv("").format;
    let header = ["auction", "bidder", "price", "time"].map(String::from).into();
    let begin = memchr(b'\n', &text).unwrap() + 1;
    let data = text[begin..].to_vec();
    let block = Block { data, position: 0, line: None, header: Some(header) };
    for _ in 0..5 {
        timed(&place, "parsing alone, 4 numbers", ROWS, || {
            let mut parser = ReadFormat::<Bid>::parser(&format);
            Parser::<Bid>::begin(&mut parser, &block);
            let mut at = 0;
            let mut sum = 0;
            while at < block.data.len() {
                let (length, row): (usize, Result<Option<Bid>, _>) = parser.next(&block.data[at..]);
                sum += row.unwrap().unwrap().price;
                at += length;
            }
            sum
        });
    }
    timed(&place, "crate csv, 4 numbers", ROWS, || {
        let mut reader = ::csv::Reader::from_reader(text.as_slice());
        let headers = reader.byte_headers().unwrap().clone();
        let mut record = ::csv::ByteRecord::new();
        let mut sum = 0;
        while reader.read_byte_record(&mut record).unwrap() {
            sum += record.deserialize::<Bid>(Some(&headers)).unwrap().price;
        }
        sum
    });
    let path = place.folder.path().join("bids.csv");
    std::fs::write(&path, &text).unwrap();
    for _ in 0..3 {
        let ids = [path.to_str().unwrap().to_owned()];
        let mut reader =
            FileReader::<Bid, _>::new(at_begin(&ids), &format, place.env.as_ref(), no_waker());
        let rows = timed(&place, "source, 4 numbers (one thread reads, one parses)", ROWS, || {
            let mut count = 0;
            while let Some(rows) = poll::<Bid>(&mut reader, place.env.as_ref()).unwrap() {
                count += rows.len();
            }
            count
        });
        assert_eq!(rows, ROWS);
    }
}

#[test]
#[ignore = "a measurement"]
fn writing() {
    let place = Place::new();
    let rows: Vec<Total> = (0..ROWS as u64)
        .map(|n| Total { bidder: n * 2_654_435_761 % 6_000_000, count: n % 100, total: n * 977 })
        .collect();
    let named: Vec<Named> = (0..ROWS as u64 / 4)
        .map(|n| Named {
            auction: n,
            channel: format!("channel-{n}"),
            url: "https://x.test/a?b=1".into(),
            price: n as f64 / 8.0,
        })
        .collect();
    let format = Files::csv("").format;
    for _ in 0..3 {
        timed(&place, "formatting alone, 3 numbers", ROWS, || {
            let mut out = Vec::with_capacity(ROWS * 32);
            for row in &rows {
                WriteFormat::write(&format, row, &mut out).unwrap();
            }
            out.len()
        });
    }
    timed(&place, "formatting alone, number, 2 strings, float", named.len(), || {
        let mut out = Vec::with_capacity(named.len() * 64);
        for row in &named {
            WriteFormat::write(&format, row, &mut out).unwrap();
        }
        out.len()
    });
    timed(&place, "crate csv, 3 numbers", ROWS, || {
        let mut writer = ::csv::Writer::from_writer(Vec::with_capacity(ROWS * 32));
        for row in &rows {
            writer.serialize(row).unwrap();
        }
        writer.into_inner().unwrap().len()
    });
    for attempt in 1..4 {
        let sink = IntoSink::<Total>::into_sink(Files::csv(place.folder.path().join("out")));
        let sink: &dyn Sink = sink.as_ref();
        let mut writer = sink.writer(place.writer(attempt, 0)).unwrap();
        let batches: Vec<Batch> = rows.chunks(4096).map(|rows| Batch::new(rows.to_vec())).collect();
        let items: Vec<StagedItem> = timed(&place, "sink, 3 numbers, with fsync", ROWS, || {
            for batch in batches {
                while writer.queued_bytes() > 4 << 20 {
                    nap(place.env.as_ref());
                }
                writer.write(batch).unwrap();
            }
            cut(writer.as_mut(), 1, place.env.as_ref())
        });
        assert_eq!(items.iter().map(|item| item.rows).sum::<u64>(), ROWS as u64);
    }
}
