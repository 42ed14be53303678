//! Connections between the processes of an attempt.
//!
//! A process listens at its [`Door`]; others come in by [`Network::connect`]. A [`Connection`] carries bytes, in order, until it breaks. Those
//! that carry rows are handed over to timely in the end, as a [`Wire`].

use std::fmt::Debug;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::BoxFuture;

/// A process that says nothing for so long is lost; also how long a machine that has vanished is waited for.
pub const SILENCE: Duration = Duration::from_millis(1600);

/// How processes reach each other, real or simulated.
pub trait Network: Debug + Send + Sync + 'static {
    /// Opens a door at `address` (`host:port`).
    ///
    /// # Errors
    ///
    /// If the address makes no sense, or somebody else listens there.
    fn listen(&self, address: &str) -> io::Result<Box<dyn Door>>;

    /// Opens a connection to whoever listens at `address`. Gives up after a second.
    fn connect(&self, address: &str) -> BoxFuture<io::Result<Box<dyn Connection>>>;

    /// Starts a task that deals with connections. Other tasks don't hold it up, so that a busy process isn't taken for a dead one.
    fn spawn(&self, name: &str, task: BoxFuture<()>);

    /// Completes after `duration`, as punctually as tasks of the network run.
    fn sleep(&self, duration: Duration) -> BoxFuture<()>;
}

/// Where a process takes connections.
pub trait Door: Debug + Send + 'static {
    /// Its address, as others reach it.
    ///
    /// # Errors
    ///
    /// If the operating system doesn't say.
    fn address(&self) -> io::Result<String>;

    /// The next connection, once somebody has come in.
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>>;
}

/// A connection with another process. Dropped, it is closed.
pub trait Connection: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static {
    /// Who is at the other end, for people.
    fn peer(&self) -> String;

    /// Gives it up for the workers' use.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    fn into_wire(self: Box<Self>) -> io::Result<Wire>;
}

/// A connection as the workers use it: for timely's messages.
#[derive(Debug)]
pub enum Wire {
    /// A socket, which timely's own threads read and write.
    Socket(TcpStream),
    /// None, and workers send and receive whole messages themselves.
    Simulated(Arc<dyn Courier>),
}

/// One end of a simulated connection between the workers of two processes. No method blocks.
pub trait Courier: Debug + Send + Sync {
    /// Sends a message, in order behind those before. Nothing happens if the connection is broken.
    fn send(&self, message: Vec<u8>);

    /// The messages that have arrived since the last call.
    fn receive(&self) -> Vec<Vec<u8>>;

    /// Says that nothing will be sent any more, because the dataflow has come to its end.
    fn finish(&self);

    /// Completes if the connection breaks, or the other process goes without having finished.
    fn broken(&self) -> BoxFuture<()>;
}
