//! A control connection to another process: signals both ways, and beats, by which a process that is lost, paused or silent is
//! noticed.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use futures::future::{Either, select};
use highwater_env::{Connection, Network};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::messages::{self, Greeting, Signal};
use super::{BEAT, SILENCE, within};

/// What happens at this process' connections.
#[derive(Debug)]
pub(crate) enum Event {
    /// Another process says something (beats aside).
    Said(usize, Signal),
    /// Another process is gone, or silent; nothing more will come from it.
    Lost(usize, String),
    /// Somebody has come in and introduced himself.
    Knocked(Greeting, Box<dyn Connection>),
}

/// A control connection. Dropped, it is closed.
pub(crate) struct Link {
    network: Arc<dyn Network>,
    outgoing: UnboundedSender<Outgoing>,
    /// Dropped with the link.
    _open: oneshot::Sender<()>,
}

enum Outgoing {
    Signal(Signal),
    /// Everything before this has been written.
    Flush(oneshot::Sender<()>),
}

impl Link {
    /// Speaks with `process` over `connection`; what it says goes to `events`.
    pub(super) fn new(
        network: &Arc<dyn Network>,
        connection: Box<dyn Connection>,
        process: usize,
        events: UnboundedSender<Event>,
    ) -> Self {
        let (reader, writer) = tokio::io::split(connection);
        let (outgoing, queue) = unbounded_channel();
        let (open, closed) = oneshot::channel();
        network.spawn("link-write", Box::pin(write(network.clone(), writer, queue)));
        network
            .spawn("link-read", Box::pin(read(network.clone(), reader, process, events, closed)));
        Link { network: network.clone(), outgoing, _open: open }
    }

    /// Sends a signal, soon. Nothing happens if the other process is gone: that is reported as an event.
    pub(crate) fn send(&self, signal: Signal) {
        self.outgoing.send(Outgoing::Signal(signal)).ok();
    }

    /// Completes when everything sent so far is written, or can't be.
    pub(crate) fn flush(&self) -> impl Future<Output = ()> + Send + use<> {
        let (done, written) = oneshot::channel();
        self.outgoing.send(Outgoing::Flush(done)).ok();
        let network = self.network.clone();
        async move {
            within(&*network, SILENCE, written).await;
        }
    }
}

/// Writes what is to be said, and beats while there is nothing.
async fn write(
    network: Arc<dyn Network>,
    mut writer: impl tokio::io::AsyncWrite + Unpin + Send,
    mut queue: UnboundedReceiver<Outgoing>,
) {
    loop {
        let signal = match within(&*network, BEAT, queue.recv()).await {
            Some(Some(Outgoing::Signal(signal))) => signal,
            Some(Some(Outgoing::Flush(done))) => {
                done.send(()).ok();
                continue;
            }
            Some(None) => break,
            None => Signal::Beat,
        };
        // The reader notices a broken connection, too, and is the one that reports it.
        if messages::write(&*network, &mut writer, &signal).await.is_err() {
            break;
        }
    }
    writer.shutdown().await.ok();
}

/// Reports what the other process says, until it is lost or the link is dropped.
async fn read(
    network: Arc<dyn Network>,
    mut reader: impl tokio::io::AsyncRead + Unpin + Send,
    process: usize,
    events: UnboundedSender<Event>,
    mut closed: oneshot::Receiver<()>,
) {
    loop {
        let next = pin!(messages::read(&*network, SILENCE, &mut reader));
        let Either::Left((said, _)) = select(next, &mut closed).await else { return };
        let event = match said {
            Ok(Signal::Beat) => continue,
            Ok(signal) => Event::Said(process, signal),
            Err(error) => Event::Lost(process, reason(&error)),
        };
        let lost = matches!(event, Event::Lost(..));
        if events.send(event).is_err() || lost {
            return;
        }
    }
}

fn reason(error: &io::Error) -> String {
    use io::ErrorKind::{TimedOut, UnexpectedEof};
    match error.kind() {
        UnexpectedEof => "it has closed the connection".to_owned(),
        TimedOut => format!("it has been silent for {:.1} s", SILENCE.as_secs_f64()),
        _ => format!("the connection is broken: {error}"),
    }
}
