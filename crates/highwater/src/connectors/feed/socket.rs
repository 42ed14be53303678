//! Lines from a TCP server.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use highwater_runtime::BoxError;
use highwater_runtime::connector::SplitOffset;
use socket2::{SockRef, TcpKeepalive};

use super::source::{FeedInput, Place};
use crate::connectors::records::frames::Block;
use crate::connectors::records::reader::Outbox;

/// Between tries to connect, at first and at the most.
const DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// So long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// While nothing comes, so often is looked whether anybody still waits for it.
const LOOK: Duration = Duration::from_millis(200);

/// A server that says nothing for so long is asked whether it is still there, so often, until it has been silent so many times.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// Whether this can be an address.
///
/// # Errors
///
/// If it can't.
pub(super) fn check(address: &str) -> Result<(), BoxError> {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
        _ => {
            Err(format!("`{address}` is no address of a server; it is written `host:port`").into())
        }
    }
}

pub(super) fn read(
    feed: &FeedInput,
    address: &str,
    once: bool,
    offset: &SplitOffset,
    out: &Outbox<'_, Block>,
) -> Result<(), BoxError> {
    feed.warn(&format!("the server at {address}"), "");
    let uid = &feed.uid;
    let mut place = Place { position: offset.position, line: None };
    let mut delay = DELAY.0;
    while out.is_wanted() {
        let what = match connect(address) {
            Err(error) => format!("can't connect to {address}: {error}; trying again"),
            Ok(stream) => {
                tracing::info!("{uid}: connected to {address}");
                let before = place.position;
                let input = feed.patient(stream, Duration::ZERO, out);
                let passed = feed.pass(input, &mut place, false, out);
                if let Ok(left_out @ 1..) = passed {
                    tracing::warn!(
                        "{uid}: {address} closed the connection within a record; the {left_out} bytes of it are left out"
                    );
                }
                if place.position > before {
                    delay = DELAY.0;
                }
                match passed {
                    Ok(_) if once => return Ok(()),
                    Ok(_) => format!(
                        "{address} has closed the connection; what it sends meanwhile is lost; connecting again"
                    ),
                    Err(error) => format!(
                        "the connection to {address} is lost, and what it sends meanwhile: {error}; connecting again"
                    ),
                }
            }
        };
        if out.is_wanted() {
            tracing::warn!("{uid}: {what} in {:.1} s", delay.as_secs_f64());
            feed.env.block_on(feed.env.sleep(delay));
            delay = (delay * 2).min(DELAY.1);
        }
    }
    Ok(())
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                let (idle, interval, retries) = KEEPALIVE;
                let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval);
                SockRef::from(&stream).set_tcp_keepalive(&keepalive.with_retries(retries))?;
                stream.set_read_timeout(Some(LOOK))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
