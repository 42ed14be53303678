//! The network of real life: TCP, on a thread of its own.

#![allow(clippy::disallowed_methods, reason = "this is the network of the real world")]

use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use crate::BoxFuture;
use crate::network::{Connection, Door, Network, SILENCE, Wire};

/// So long opening one connection may take.
const CONNECT: Duration = Duration::from_secs(1);

/// Sockets of this machine.
#[derive(Debug)]
pub(crate) struct TcpNetwork {
    // Some until drop: a runtime must be shut down without waiting for connections that hang.
    runtime: Option<Runtime>,
}

impl TcpNetwork {
    pub(crate) fn new() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("highwater-task-network")
            .enable_all()
            .build()?;
        Ok(TcpNetwork { runtime: Some(runtime) })
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("the runtime is there until drop")
    }
}

impl Drop for TcpNetwork {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Network for TcpNetwork {
    fn listen(&self, address: &str) -> io::Result<Box<dyn Door>> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let _inside = self.runtime().enter();
        Ok(Box::new(TcpDoor(tokio::net::TcpListener::from_std(listener)?)))
    }

    fn connect(&self, address: &str) -> BoxFuture<io::Result<Box<dyn Connection>>> {
        // Here, so that the connection belongs to the network's thread, wherever it is waited for.
        let connecting = self.runtime().spawn(connect(address.to_owned()));
        Box::pin(async move { connecting.await.map_err(io::Error::other)? })
    }

    fn spawn(&self, name: &str, task: BoxFuture<()>) {
        tracing::trace!(task = name, "spawned");
        self.runtime().spawn(task);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        let _inside = self.runtime().enter();
        Box::pin(tokio::time::sleep(duration))
    }
}

async fn connect(host: String) -> io::Result<Box<dyn Connection>> {
    let mut last = io::Error::other(format!("{host} is no address"));
    let name = host.clone();
    // Names are looked up by a function of the system that waits.
    let resolve = move || name.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    let addresses = tokio::task::spawn_blocking(resolve).await.map_err(io::Error::other)??;
    for address in addresses {
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                prepare(&stream)?;
                return Ok(Box::new(TcpConnection(stream)));
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "it doesn't answer"),
        }
    }
    Err(last)
}

/// Settings of every connection: small messages leave at once, and a machine that vanishes is noticed.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    let second = Duration::from_secs(1);
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(SILENCE))?;
    Ok(())
}

#[derive(Debug)]
struct TcpDoor(tokio::net::TcpListener);

impl Door for TcpDoor {
    fn address(&self) -> io::Result<String> {
        Ok(self.0.local_addr()?.to_string())
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>> {
        let (stream, _) = ready!(self.0.poll_accept(context))?;
        prepare(&stream)?;
        Poll::Ready(Ok(Box::new(TcpConnection(stream))))
    }
}

#[derive(Debug)]
struct TcpConnection(TcpStream);

impl Connection for TcpConnection {
    fn peer(&self) -> String {
        self.0.peer_addr().map_or_else(|_| "somebody".to_owned(), |address| address.to_string())
    }

    fn into_wire(self: Box<Self>) -> io::Result<Wire> {
        let stream = self.0.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(Wire::Socket(stream))
    }
}

impl AsyncRead for TcpConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for TcpConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
