//! The data connection to another process, as timely reads and writes it.
//!
//! Timely's communication threads know only how to panic when a connection breaks, which unwinds what the workers still use. So a
//! conduit never reports an error: it makes the attempt fail with the reason, and keeps the thread that found it.

#![allow(clippy::disallowed_methods, reason = "a conduit is used by threads of real sockets")]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use timely::communication::allocator::zero_copy::stream::Stream;

use crate::Error;
use crate::attempt::Attempt;

/// The control connection usually says why a process has gone; so long it is waited for that.
pub(super) const REASON: Duration = Duration::from_millis(300);

/// The bytes of timely's message header, and where in it the length of what follows is (`MessageHeader`: six numbers, big endian).
const HEADER: usize = 48;
const LENGTH: std::ops::Range<usize> = 32..40;

pub(crate) struct Conduit {
    stream: TcpStream,
    /// The other process, for people.
    peer: String,
    attempt: Arc<Attempt>,
    frames: Frames,
}

impl Conduit {
    pub(super) fn new(stream: TcpStream, peer: String, attempt: Arc<Attempt>) -> Self {
        Conduit { stream, peer, attempt, frames: Frames::default() }
    }

    /// Does `what` again when it was interrupted; doesn't return when the connection is broken.
    fn insist<T>(
        &mut self,
        mut what: impl FnMut(&mut TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match what(&mut self.stream) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.broken(&error.to_string()),
                done => return done,
            }
        }
    }

    fn broken(&self, why: &str) -> ! {
        std::thread::sleep(REASON);
        let why = format!("the data connection is broken: {why}");
        self.attempt.fail(Error::Peer { process: self.peer.clone(), why });
        loop {
            std::thread::park();
        }
    }
}

impl Read for Conduit {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.insist(|stream| stream.read(into))?;
        self.frames.pass(&into[..read]);
        if read == 0 && !into.is_empty() && !self.frames.ended {
            self.broken("it ends in the middle");
        }
        Ok(read)
    }
}

impl Write for Conduit {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.insist(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.insist(TcpStream::flush)
    }
}

impl Stream for Conduit {
    fn try_clone(&self) -> io::Result<Self> {
        let stream = self.stream.try_clone()?;
        Ok(Conduit::new(stream, self.peer.clone(), self.attempt.clone()))
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        // Everything is on its way. If nobody is there any more who takes it, the control connection says so.
        self.stream.shutdown(how).ok();
        Ok(())
    }
}

/// Follows timely's messages, to tell an end from a break: the last message has no content.
#[derive(Default)]
struct Frames {
    header: Vec<u8>,
    /// So much of the present message's content is still to come.
    content: u64,
    ended: bool,
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = usize::try_from(self.content).map_or(bytes.len(), |c| c.min(bytes.len()));
            self.content -= skipped as u64;
            bytes = &bytes[skipped..];
            let (more, rest) = bytes.split_at(bytes.len().min(HEADER - self.header.len()));
            self.header.extend_from_slice(more);
            bytes = rest;
            if let Some(length) = self.header.get(LENGTH).filter(|_| self.header.len() == HEADER) {
                self.content = length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                self.ended = self.content == 0;
                self.header.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use timely::communication::networking::MessageHeader;

    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let header = MessageHeader {
            channel: 1,
            source: 0,
            target_lower: 1,
            target_upper: 2,
            length,
            seqno: 7,
        };
        let mut bytes = Vec::new();
        header.write_to(&mut bytes).unwrap();
        bytes.resize(bytes.len() + length, 0);
        bytes
    }

    #[test]
    fn an_end_is_told_from_a_break_wherever_reads_are_cut() {
        let going_on = [message(100), message(48), message(1)].concat();
        let ended = [going_on.clone(), message(0)].concat();
        for cut in 1..60 {
            let mut frames = Frames::default();
            for part in ended.chunks(cut) {
                assert!(!frames.ended, "cut into {cut}");
                frames.pass(part);
            }
            assert!(frames.ended, "cut into {cut}");
            let mut frames = Frames::default();
            going_on.chunks(cut).for_each(|part| frames.pass(part));
            assert!(!frames.ended, "zeros are no end, cut into {cut}");
        }
    }
}
