//! The front desk of a running job: one thread that answers those who ask, at the socket and at the metrics' address.
//!
//! It stands beside the engine, with a small runtime of its own; a desk that can't be opened is reported and keeps no job
//! from running, except that an address for metrics was asked for by name.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use highwater_env::Env;
use highwater_runtime::Control;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::control::Ended;
use crate::control::server::{self, Asked, Socket};
use crate::metrics;

/// So many who ask are answered at once; others wait.
const AT_ONCE: usize = 64;

/// So long the end of a job waits until those who wait for it have been told.
const FAREWELL: Duration = Duration::from_millis(500);

/// So long nobody is let in when that has failed: there may be too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// The front desk of a job.
pub(crate) struct Desk {
    asked: Arc<Asked>,
    /// Closed when the thread is done.
    done: Receiver<()>,
}

impl Desk {
    /// Opens the desk of the job `name`, whose checkpoints are at `location`; metrics are served at an address if one is given.
    ///
    /// # Errors
    ///
    /// If the address for metrics can't be used.
    pub(crate) fn open(
        env: &dyn Env,
        name: &str,
        location: Option<&str>,
        metrics: Option<&str>,
    ) -> io::Result<Self> {
        let metrics = metrics.map(metrics::listen).transpose()?;
        let asked = Asked::new(name, location);
        let socket = Socket::open(name, location).inspect_err(|error| {
            tracing::warn!(%error, "no socket for `highwater status`; the job runs without");
        });
        let (alive, done) = channel();
        let of_thread = asked.clone();
        let work = move || {
            if let Err(error) = serve(socket.ok(), metrics, of_thread) {
                tracing::warn!(%error, "nobody answers `highwater status` or for metrics any more");
            }
            drop(alive);
        };
        env.spawn_thread("front-desk", Box::new(work));
        Ok(Desk { asked, done })
    }

    /// The job runs.
    pub(crate) fn started(&self, control: &Control) {
        self.asked.started(control);
    }

    /// The job has ended: tells those who wait for that, and closes.
    pub(crate) fn close(self, how: Ended) {
        self.asked.ended(how);
        match self.done.recv_timeout(FAREWELL * 2) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => tracing::debug!("somebody who asks doesn't listen"),
        }
    }
}

/// Answers until the job has ended, and tells that to those who wait for it.
fn serve(
    socket: Option<Socket>,
    metrics: Option<TcpListener>,
    asked: Arc<Asked>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = socket.as_ref().map(|socket| socket.listener.try_clone()).transpose()?;
        let listener = listener.map(UnixListener::from_std).transpose()?;
        let metrics = metrics.map(tokio::net::TcpListener::from_std).transpose()?;
        let mut answering: JoinSet<()> = JoinSet::new();
        loop {
            let free = answering.len() < AT_ONCE;
            let accepted = tokio::select! {
                stream = at_socket(listener.as_ref()), if free => stream.map(|stream| {
                    answering.spawn(server::serve(stream, asked.clone()));
                }),
                stream = for_metrics(metrics.as_ref()), if free => stream.map(|stream| {
                    answering.spawn(metrics::serve(stream, asked.clone()));
                }),
                Some(_) = answering.join_next() => Ok(()),
                _ = asked.end() => break,
            };
            if let Err(error) = accepted {
                tracing::debug!(%error, "somebody who asks can't be let in");
                tokio::time::timeout(PAUSE, asked.end()).await.ok();
            }
        }
        // Nobody new can find it; those who are here say goodbye by themselves.
        drop(socket);
        let all = async { while answering.join_next().await.is_some() {} };
        tokio::time::timeout(FAREWELL, all).await.ok();
        Ok(())
    })
}

/// The next one who asks at the socket; nobody ever if there is none.
async fn at_socket(listener: Option<&UnixListener>) -> io::Result<UnixStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// The same, at the address for metrics.
async fn for_metrics(listener: Option<&tokio::net::TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}
