//! The data connections of a process, as timely wants them.
//!
//! Timely sends and receives with threads of its own, one pair for each socket. A simulated world can't have threads that run when they
//! like. There these threads do nothing, and messages go another way: a queue between a worker and such a thread may have a policy for
//! when it gets too long, which sees the queue whenever the worker has put something in or is about to take something out. Ours takes
//! everything out and gives it to the connection's [`Courier`], or puts in what has arrived there; on the worker's own thread.
//!
//! ```text
//!   worker ─▶ queue ─▶ (timely's thread ─▶ socket ─▶ timely's thread) ─▶ queue ─▶ worker
//!                └──▶ Sending ─▶ Courier ~~~~~~~~ Courier ─▶ Receiving ──▶┘        in simulation
//! ```

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use highwater_env::{Courier, Wire};
use timely::bytes::arc::{Bytes, BytesMut};
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::bytes_exchange::QueueEntry;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::zero_copy::spill::{SpillPolicy, SpillPolicyFn};
use timely::communication::allocator::zero_copy::stream::Stream;
use timely::communication::networking::MessageHeader;
use timely::communication::{AllocatorBuilder, Hooks};

use super::conduit::{Conduit, REASON};
use super::{Data, Wires};
use crate::Error;
use crate::attempt::{Attempt, lock};

/// Timely's allocators for the workers of this process, connected with those of others; and what is to be dropped after the workers.
pub(crate) fn connect(
    attempt: &Arc<Attempt>,
    wires: Wires,
) -> io::Result<(Vec<AllocatorBuilder>, Box<dyn Any + Send>)> {
    let workers = attempt.settings.workers;
    let mut hooks = Hooks::default();
    let inner = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), None);
    let process = attempt.process;
    let mut conduits = Vec::new();
    let mut couriers = HashMap::new();
    for (process, data) in wires.into_iter().enumerate() {
        conduits.push(match data {
            Some(Data { peer, wire: Wire::Socket(socket) }) => {
                Some(Conduit::new(socket, peer, attempt.clone()))
            }
            Some(Data { peer, wire: Wire::Simulated(courier) }) => {
                fail_when_broken(attempt, peer, &*courier);
                couriers.insert(process, courier);
                None
            }
            None => None,
        });
    }
    if couriers.is_empty() {
        let (builders, guard) =
            initialize_networking_from_sockets(inner, conduits, process, workers, hooks)?;
        return Ok((tcp(builders), Box::new(guard)));
    }
    let rest = Arc::new(Rest::default());
    let idle = conduits.iter().enumerate().map(|(remote, _)| {
        (remote != process).then(|| Idle { rest: rest.clone(), said_goodbye: false })
    });
    let idle = idle.collect();
    hooks.spill = Some(policies(attempt, couriers));
    let (builders, guard) =
        initialize_networking_from_sockets(inner, idle, process, workers, hooks)?;
    // Dropped in this order: the threads come to their end before they are waited for.
    Ok((tcp(builders), Box::new((EndOfRest(rest), guard))))
}

fn tcp(
    builders: Vec<timely::communication::allocator::zero_copy::allocator::TcpBuilder>,
) -> Vec<AllocatorBuilder> {
    builders.into_iter().map(AllocatorBuilder::Tcp).collect()
}

/// A simulated connection that breaks does what a [`Conduit`] does.
fn fail_when_broken(attempt: &Arc<Attempt>, peer: String, courier: &dyn Courier) {
    let (broken, owner) = (courier.broken(), attempt.clone());
    let watch = async move {
        broken.await;
        owner.env.sleep(REASON).await;
        let why = "the data connection is broken".to_owned();
        owner.fail(Error::Peer { process: peer, why });
    };
    attempt.env.spawn("watch data", Box::pin(watch));
}

/// The policies of all queues of a process, which timely asks for on the threads that use them: a sending thread one for each worker, a
/// worker one for each other process, in their order.
fn policies(attempt: &Arc<Attempt>, couriers: HashMap<usize, Arc<dyn Courier>>) -> SpillPolicyFn {
    let workers = attempt.settings.workers;
    let first = attempt.process * workers;
    let mut others: Vec<usize> = couriers.keys().copied().collect();
    others.sort_unstable();
    let sending: HashMap<usize, Arc<Outgoing>> = couriers
        .iter()
        .map(|(process, courier)| {
            let (courier, attempt) = (courier.clone(), attempt.clone());
            let outgoing = Outgoing { courier, attempt, workers: AtomicUsize::new(workers) };
            (*process, Arc::new(outgoing))
        })
        .collect();
    let receiving: Vec<Arc<Incoming>> = others
        .iter()
        .map(|process| {
            let queues = Mutex::new(vec![VecDeque::new(); workers]);
            Arc::new(Incoming { courier: couriers[process].clone(), first, queues })
        })
        .collect();
    let asked: Mutex<HashMap<usize, usize>> = Mutex::default();
    Arc::new(move || {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        let number = |prefix: &str| name.strip_prefix(prefix).and_then(|n| n.parse().ok());
        if let Some(outgoing) = number("timely:send-").and_then(|remote| sending.get(&remote)) {
            return (Box::new(Sending(outgoing.clone())), Box::new(Nothing));
        }
        let worker: usize = number("timely:work-").expect("nobody else makes queues");
        let nth = {
            let mut asked = lock(&asked);
            let count = asked.entry(worker).or_default();
            *count += 1;
            *count - 1
        };
        (Box::new(Nothing), Box::new(Receiving { incoming: receiving[nth].clone(), worker }))
    })
}

struct Nothing;

impl SpillPolicy for Nothing {
    fn apply(&mut self, _: &mut VecDeque<QueueEntry>) {}
}

/// What this process sends to another one.
struct Outgoing {
    courier: Arc<dyn Courier>,
    attempt: Arc<Attempt>,
    /// So many workers may still send something.
    workers: AtomicUsize,
}

/// One worker's part of it.
struct Sending(Arc<Outgoing>);

impl SpillPolicy for Sending {
    fn apply(&mut self, queue: &mut VecDeque<QueueEntry>) {
        for entry in queue.drain(..) {
            let QueueEntry::Bytes(mut bytes) = entry else { unreachable!("nothing is paged out") };
            while let Some(header) = MessageHeader::try_read(&bytes) {
                self.0.courier.send(bytes.extract_to(header.required_bytes()).to_vec());
            }
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let last = self.0.workers.fetch_sub(1, Ordering::SeqCst) == 1;
        // Workers of an attempt that has failed haven't come to their end.
        if last && !self.0.attempt.is_over() {
            self.0.courier.finish();
        }
    }
}

/// What another process sends to the workers of this one.
struct Incoming {
    courier: Arc<dyn Courier>,
    /// The first worker of this process among all.
    first: usize,
    queues: Mutex<Vec<VecDeque<Bytes>>>,
}

/// One worker's part of it.
struct Receiving {
    incoming: Arc<Incoming>,
    worker: usize,
}

impl SpillPolicy for Receiving {
    fn apply(&mut self, queue: &mut VecDeque<QueueEntry>) {
        let Incoming { courier, first, queues } = &*self.incoming;
        let mut queues = lock(queues);
        for message in courier.receive() {
            let header = MessageHeader::try_read(&message).expect("messages are sent whole");
            let bytes = BytesMut::from(message).freeze();
            for target in header.target_lower..header.target_upper {
                queues[target - first].push_back(bytes.clone());
            }
        }
        queue.extend(queues[self.worker].drain(..).map(QueueEntry::Bytes));
    }
}

/// Whether timely's own threads may end.
#[derive(Default)]
struct Rest {
    over: Mutex<bool>,
    ended: Condvar,
}

impl Rest {
    fn wait(&self) {
        let mut over = lock(&self.over);
        while !*over {
            over = self.ended.wait(over).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

struct EndOfRest(Arc<Rest>);

impl Drop for EndOfRest {
    fn drop(&mut self) {
        *lock(&self.0.over) = true;
        self.0.ended.notify_all();
    }
}

/// What timely's threads have for a socket: nothing happens there until the end, which is a regular one.
struct Idle {
    rest: Arc<Rest>,
    said_goodbye: bool,
}

impl io::Read for Idle {
    fn read(&mut self, mut buffer: &mut [u8]) -> io::Result<usize> {
        self.rest.wait();
        if std::mem::replace(&mut self.said_goodbye, true) {
            return Ok(0);
        }
        let goodbye = MessageHeader {
            channel: 0,
            source: 0,
            target_lower: 0,
            target_upper: 0,
            length: 0,
            seqno: 0,
        };
        let size = buffer.len();
        goodbye.write_to(&mut buffer)?;
        Ok(size - buffer.len())
    }
}

impl io::Write for Idle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.rest.wait();
        Ok(())
    }
}

impl Stream for Idle {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Idle { rest: self.rest.clone(), said_goodbye: self.said_goodbye })
    }

    fn set_nonblocking(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        Ok(())
    }
}
