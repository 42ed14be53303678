//! A control connection to another process: signals both ways, and beats, by which a process that is lost, paused or silent is
//! noticed.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use highwater_env::Env;
use socket2::{SockRef, TcpKeepalive};

use super::messages::{self, Greeting, Signal};
use super::{BEAT, SILENCE};

/// What happens at this process' connections.
#[derive(Debug)]
pub(crate) enum Event {
    /// Another process says something (beats aside).
    Said(usize, Signal),
    /// Another process is gone, or silent; nothing more will come from it.
    Lost(usize, String),
    /// Somebody has come in and introduced himself.
    Knocked(Greeting, TcpStream),
}

/// A control connection.
pub(crate) struct Link {
    stream: TcpStream,
    outgoing: Sender<Outgoing>,
}

enum Outgoing {
    Signal(Signal),
    /// Everything before this has been written.
    Flush(SyncSender<()>),
}

impl Link {
    /// Speaks with `process` over `stream`; what it says goes to `events`.
    pub(super) fn new(
        env: &Arc<dyn Env>,
        stream: TcpStream,
        process: usize,
        events: Sender<Event>,
    ) -> io::Result<Self> {
        prepare(&stream)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let (outgoing, queue) = channel();
        let mut writer = stream.try_clone()?;
        let write = move || {
            loop {
                let signal = match queue.recv_timeout(BEAT) {
                    Ok(Outgoing::Signal(signal)) => signal,
                    Ok(Outgoing::Flush(done)) => {
                        done.send(()).ok();
                        continue;
                    }
                    Err(RecvTimeoutError::Timeout) => Signal::Beat,
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                // The reader notices a broken connection, too, and is the one that reports it.
                if messages::write(&mut writer, &signal).is_err() {
                    writer.shutdown(Shutdown::Both).ok();
                    return;
                }
            }
        };
        let mut reader = stream.try_clone()?;
        let read = move || {
            loop {
                let event = match messages::read(&mut reader) {
                    Ok(Signal::Beat) => continue,
                    Ok(signal) => Event::Said(process, signal),
                    Err(error) => Event::Lost(process, reason(&error)),
                };
                let lost = matches!(event, Event::Lost(..));
                if events.send(event).is_err() || lost {
                    reader.shutdown(Shutdown::Both).ok();
                    return;
                }
            }
        };
        env.spawn_thread("link-write", Box::new(write));
        env.spawn_thread("link-read", Box::new(read));
        Ok(Link { stream, outgoing })
    }

    /// Sends a signal, soon. Nothing happens if the other process is gone: that is reported as an event.
    pub(crate) fn send(&self, signal: Signal) {
        self.outgoing.send(Outgoing::Signal(signal)).ok();
    }

    /// Waits until everything sent so far is written, or can't be.
    pub(crate) fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.outgoing.send(Outgoing::Flush(done)).is_ok() {
            written.recv_timeout(SILENCE).ok();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Both threads end; what was flushed is on its way already.
        self.stream.shutdown(Shutdown::Both).ok();
    }
}

fn reason(error: &io::Error) -> String {
    use io::ErrorKind::{TimedOut, UnexpectedEof, WouldBlock};
    match error.kind() {
        UnexpectedEof => "it has closed the connection".to_owned(),
        WouldBlock | TimedOut => {
            format!("it has been silent for {:.1} s", SILENCE.as_secs_f64())
        }
        _ => format!("the connection is broken: {error}"),
    }
}

/// Settings of every connection: small messages leave at once, and a machine that vanishes is noticed.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    let second = Duration::from_secs(1);
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(SILENCE))?;
    Ok(())
}
