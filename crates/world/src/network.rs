//! The network between simulated processes: doors, and connections that take their time, break, or say nothing for a while.
//!
//! A connection is a queue each way. What is sent arrives in order, each piece a while after it was sent. How the other end learns that a
//! process has died is drawn: the connection ends behind what was sent, it is reset and what was on its way is lost, or it says nothing
//! any more, as when a machine vanishes.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use highwater_env::{BoxFuture, Connection, Courier, Door, Network, Wire};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::env::sleep;
use crate::scheduler::{ProcessId, Shared, State};

/// All doors and connections of a world.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// In the order in which they were opened. Of those that share an address the last one counts whose process is still there.
    doors: Vec<Inside>,
    pipes: Vec<Pipe>,
}

/// What waits behind a door.
#[derive(Debug)]
struct Inside {
    address: String,
    process: ProcessId,
    /// Connections, of which the process has the second end.
    waiting: VecDeque<usize>,
    waker: Option<Waker>,
}

/// A connection.
#[derive(Debug)]
struct Pipe {
    ends: [End; 2],
    broken: bool,
    /// Nothing arrives before.
    silent_until_us: u64,
}

/// One end of a connection.
#[derive(Debug)]
struct End {
    process: ProcessId,
    /// What is on its way to here, in order, and when it arrives.
    arriving: VecDeque<(u64, Arrival)>,
    /// Nothing is sent from here any more.
    shut: bool,
    wakers: Vec<Waker>,
}

#[derive(Debug)]
enum Arrival {
    Bytes(Vec<u8>),
    /// Nothing follows; in a data connection, whether that is as it should be.
    End {
        finished: bool,
    },
}

impl End {
    fn new(process: ProcessId) -> Self {
        End { process, arriving: VecDeque::new(), shut: false, wakers: Vec::new() }
    }
}

/// One end of a connection: its number, and which end.
#[derive(Clone, Copy, Debug)]
struct Side {
    pipe: usize,
    end: usize,
}

impl Side {
    fn other(self) -> Side {
        Side { end: 1 - self.end, ..self }
    }
}

impl State {
    fn end(&mut self, side: Side) -> &mut End {
        &mut self.links.pipes[side.pipe].ends[side.end]
    }

    fn is_alive_at(&self, side: Side) -> bool {
        self.processes[self.links.pipes[side.pipe].ends[side.end].process].alive
    }

    /// Has whoever waits at this end look again, once the clock is there.
    fn wake_at(&mut self, side: Side, due_us: u64) {
        for waker in std::mem::take(&mut self.end(side).wakers) {
            self.set_timer(due_us, waker);
        }
    }

    /// Sends something from this end; false if it can't be.
    fn send(&mut self, from: Side, arrival: Arrival) -> bool {
        let to = from.other();
        let gone = !self.is_alive_at(from) || self.end(from).shut;
        if gone || self.links.pipes[from.pipe].broken {
            return false;
        }
        let latency = self.random.below(self.habits.network_us + 1);
        let last = self.end(to).arriving.back().map_or(0, |(due, _)| *due);
        let silent = self.links.pipes[from.pipe].silent_until_us;
        let due_us = (self.clock_us + latency).max(last).max(silent);
        self.trace.add(from.pipe as u64);
        if let Arrival::Bytes(bytes) = &arrival {
            self.trace.add(bytes.len() as u64);
        } else {
            self.end(from).shut = true;
        }
        self.end(to).arriving.push_back((due_us, arrival));
        self.wake_at(to, due_us);
        true
    }

    /// A connection is no more, at both ends.
    fn break_pipe(&mut self, pipe: usize) {
        self.links.pipes[pipe].broken = true;
        for end in 0..2 {
            self.end(Side { pipe, end }).arriving.clear();
            self.wake_at(Side { pipe, end }, self.clock_us);
        }
    }

    /// Connections between processes that live.
    fn open_pipes(&self) -> Vec<usize> {
        let alive = |end: &End| self.processes[end.process].alive;
        let pipes = self.links.pipes.iter().enumerate();
        let open = pipes.filter(|(_, pipe)| !pipe.broken && pipe.ends.iter().all(alive));
        open.map(|(number, _)| number).collect()
    }

    /// One connection breaks.
    pub(crate) fn cut(&mut self) {
        let open = self.open_pipes();
        if !open.is_empty() {
            self.counts.network_faults += 1;
            let pipe = *self.random.pick(&open);
            self.break_pipe(pipe);
        }
    }

    /// One connection, or all of one process, carries nothing for a while.
    pub(crate) fn silence(&mut self, ms: u64) {
        let open = self.open_pipes();
        if open.is_empty() {
            return;
        }
        self.counts.network_faults += 1;
        let one = *self.random.pick(&open);
        let process = self.links.pipes[one].ends[self.random.below(2) as usize].process;
        let whole = self.random.chance(500);
        let until_us = self.clock_us + ms * 1_000;
        for number in open {
            let pipe = &mut self.links.pipes[number];
            let touched = pipe.ends.iter().any(|end| end.process == process);
            if number != one && !(whole && touched) {
                continue;
            }
            pipe.silent_until_us = until_us;
            for (due_us, _) in pipe.ends.iter_mut().flat_map(|end| &mut end.arriving) {
                *due_us = until_us.max(*due_us);
            }
        }
    }

    /// A process is no more; `killed`, or come to its end.
    pub(crate) fn hang_up(&mut self, process: ProcessId, killed: bool) {
        // A machine that vanishes has all of its connections fall silent.
        let vanishes = killed && self.links.touches(process) && self.random.chance(200);
        for pipe in 0..self.links.pipes.len() {
            for end in 0..2 {
                let side = Side { pipe, end };
                if self.end(side).process != process || self.links.pipes[pipe].broken {
                    continue;
                }
                if vanishes {
                    self.end(side).shut = true;
                } else if !self.end(side).shut && self.random.chance(300) {
                    self.break_pipe(pipe);
                } else {
                    self.send(side, Arrival::End { finished: false });
                }
            }
        }
    }
}

impl Links {
    /// Connections that fell silent carry again what is sent from now on.
    pub(crate) fn heal(&mut self) {
        self.pipes.iter_mut().for_each(|pipe| pipe.silent_until_us = 0);
    }

    /// Whether a process has connections.
    fn touches(&self, process: ProcessId) -> bool {
        self.pipes.iter().flat_map(|pipe| &pipe.ends).any(|end| end.process == process)
    }
}

/// The network as one process sees it.
pub(crate) struct SimNetwork {
    shared: Arc<Shared>,
    process: ProcessId,
}

impl SimNetwork {
    pub(crate) fn new(shared: Arc<Shared>, process: ProcessId) -> Self {
        SimNetwork { shared, process }
    }
}

impl fmt::Debug for SimNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimNetwork(process {})", self.process)
    }
}

impl Network for SimNetwork {
    fn listen(&self, address: &str) -> io::Result<Box<dyn Door>> {
        let mut state = self.shared.lock();
        let door = state.links.doors.len();
        let process = self.process;
        let (address, waiting) = (address.to_owned(), VecDeque::new());
        state.links.doors.push(Inside { address, process, waiting, waker: None });
        Ok(Box::new(SimDoor { shared: self.shared.clone(), door }))
    }

    fn connect(&self, address: &str) -> BoxFuture<io::Result<Box<dyn Connection>>> {
        let (shared, process, address) = (self.shared.clone(), self.process, address.to_owned());
        let latency = |shared: &Arc<Shared>| {
            let mut state = shared.lock();
            let most = state.habits.network_us + 1;
            Duration::from_micros(state.random.below(most))
        };
        Box::pin(async move {
            sleep(&shared, latency(&shared)).await;
            let connected = shared.lock().connect(process, &address);
            sleep(&shared, latency(&shared)).await;
            let pipe = connected.ok_or(io::ErrorKind::ConnectionRefused)?;
            let side = Side { pipe, end: 0 };
            Ok(Box::new(SimConnection { shared, side, wired: false }) as Box<dyn Connection>)
        })
    }

    fn spawn(&self, _: &str, task: BoxFuture<()>) {
        self.shared.spawn(self.process, task);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        Box::pin(sleep(&self.shared, duration))
    }
}

impl State {
    fn connect(&mut self, process: ProcessId, address: &str) -> Option<usize> {
        let is_open = |door: &Inside| door.address == address && self.processes[door.process].alive;
        let door = self.links.doors.iter().rposition(is_open)?;
        let host = self.links.doors[door].process;
        let pipe = self.links.pipes.len();
        let ends = [End::new(process), End::new(host)];
        self.links.pipes.push(Pipe { ends, broken: false, silent_until_us: 0 });
        self.links.doors[door].waiting.push_back(pipe);
        if let Some(waker) = self.links.doors[door].waker.take() {
            self.set_timer(self.clock_us, waker);
        }
        Some(pipe)
    }
}

struct SimDoor {
    shared: Arc<Shared>,
    door: usize,
}

impl fmt::Debug for SimDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDoor({})", self.door)
    }
}

impl Door for SimDoor {
    fn address(&self) -> io::Result<String> {
        Ok(self.shared.lock().links.doors[self.door].address.clone())
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>> {
        let mut state = self.shared.lock();
        let inside = &mut state.links.doors[self.door];
        let Some(pipe) = inside.waiting.pop_front() else {
            inside.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        let (shared, side) = (self.shared.clone(), Side { pipe, end: 1 });
        Poll::Ready(Ok(Box::new(SimConnection { shared, side, wired: false })))
    }
}

struct SimConnection {
    shared: Arc<Shared>,
    side: Side,
    /// The workers have it now.
    wired: bool,
}

impl fmt::Debug for SimConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimConnection({:?})", self.side)
    }
}

impl Connection for SimConnection {
    fn peer(&self) -> String {
        let process = self.shared.lock().end(self.side.other()).process;
        format!("process {process} of the world")
    }

    fn into_wire(mut self: Box<Self>) -> io::Result<Wire> {
        self.wired = true;
        Ok(Wire::Simulated(Arc::new(SimCourier { shared: self.shared.clone(), side: self.side })))
    }
}

impl Drop for SimConnection {
    fn drop(&mut self) {
        if !self.wired {
            self.shared.lock().send(self.side, Arrival::End { finished: true });
        }
    }
}

impl AsyncRead for SimConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        if state.links.pipes[self.side.pipe].broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let clock_us = state.clock_us;
        let end = state.end(self.side);
        match end.arriving.front_mut() {
            Some((due_us, arrival)) if *due_us <= clock_us => {
                if let Arrival::Bytes(bytes) = arrival {
                    let read = bytes.len().min(buffer.remaining());
                    buffer.put_slice(&bytes[..read]);
                    bytes.drain(..read);
                    if bytes.is_empty() {
                        end.arriving.pop_front();
                    }
                }
                Poll::Ready(Ok(()))
            }
            Some((due_us, _)) => {
                let due_us = *due_us;
                state.set_timer(due_us, context.waker().clone());
                Poll::Pending
            }
            None => {
                end.wakers.push(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for SimConnection {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        let sent = state.send(self.side, Arrival::Bytes(bytes.to_vec()));
        Poll::Ready(sent.then_some(bytes.len()).ok_or(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.lock().send(self.side, Arrival::End { finished: true });
        Poll::Ready(Ok(()))
    }
}

struct SimCourier {
    shared: Arc<Shared>,
    side: Side,
}

impl fmt::Debug for SimCourier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimCourier({:?})", self.side)
    }
}

impl Courier for SimCourier {
    fn send(&self, message: Vec<u8>) {
        self.shared.lock().send(self.side, Arrival::Bytes(message));
    }

    fn receive(&self) -> Vec<Vec<u8>> {
        let mut state = self.shared.lock();
        let clock_us = state.clock_us;
        let arriving = &mut state.end(self.side).arriving;
        let mut arrived = Vec::new();
        while let Some((due_us, Arrival::Bytes(bytes))) = arriving.front_mut()
            && *due_us <= clock_us
        {
            arrived.push(std::mem::take(bytes));
            arriving.pop_front();
        }
        arrived
    }

    fn finish(&self) {
        self.shared.lock().send(self.side, Arrival::End { finished: true });
    }

    fn broken(&self) -> BoxFuture<()> {
        let (shared, side) = (self.shared.clone(), self.side);
        Box::pin(poll_fn(move |context| {
            let mut state = shared.lock();
            if state.links.pipes[side.pipe].broken {
                return Poll::Ready(());
            }
            let clock_us = state.clock_us;
            let end = state.end(side);
            match end.arriving.back() {
                Some((due_us, Arrival::End { finished: false })) if *due_us <= clock_us => {
                    return Poll::Ready(());
                }
                Some((due_us, Arrival::End { .. })) if *due_us > clock_us => {
                    let due_us = *due_us;
                    state.set_timer(due_us, context.waker().clone());
                }
                _ => end.wakers.push(context.waker().clone()),
            }
            Poll::Pending
        }))
    }
}
