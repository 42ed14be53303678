//! Several processes that run one attempt together: who is who, what they tell each other, and how a lost one is noticed.
//!
//! Every process has a door (a listening socket). Before anything runs, processes 1, 2, ... knock at the door of process 0 and
//! say what they are; process 0 waits until all are there, takes a number in the commit log, and tells the others which attempt this
//! is and where it begins. Then every pair of processes opens a data connection, which timely takes over.
//!
//! ```text
//!   process 1 ──hello──▶ process 0     job, binary, graph, number of processes and workers: refused with a reason if one differs
//!             ◀─welcome─               attempt, base checkpoint, a number by which the members know each other
//!   process 2 ──join───▶ process 1     a data and a control connection for each pair
//!             ◀─beats──▶               on every control connection, for as long as the attempt lives
//! ```
//!
//! - `messages`: what is said, and the decision whether a process may take part. - `link`: a control connection.
//! - `door`: whoever knocks. - `form`: the handshake. - `watch`: what signals of other processes mean for the attempt.
//! - `wires`, `conduit`: the data connections, as timely wants them.
//!
//! Only process 0 ever writes to the log. A process that is lost, paused or silent for [`SILENCE`] ends the attempt on all others, and
//! whoever supervises them starts the next one. Nothing here is needed for exactness, which is the log's: it makes failures quick and their
//! reasons known.

mod conduit;
mod door;
mod form;
mod link;
mod messages;
mod watch;
mod wires;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use highwater_env::{Door, Env, Network, Wire};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::Error;

pub(crate) use form::{Formed, Needless};
pub use highwater_env::SILENCE;
use link::{Event, Link};
pub(crate) use messages::{Hello, Signal, Totals, Welcome};
pub(crate) use watch::Watch;
pub(crate) use wires::connect;

/// How often a process shows that it is alive.
const BEAT: Duration = Duration::from_millis(250);

/// Where a process stands among those of a job, with its door open.
#[derive(Debug)]
pub struct Place {
    process: usize,
    hosts: Vec<String>,
    door: Box<dyn Door>,
}

impl Place {
    /// Opens the door of process number `process`, at its address in `hosts` (`host:port`, one for each process, in their order).
    ///
    /// # Errors
    ///
    /// If the number or an address makes no sense, or the address can't be listened at: somebody else does already.
    pub fn open(env: &dyn Env, process: usize, hosts: Vec<String>) -> Result<Self, Error> {
        let Some(address) = hosts.get(process) else {
            let text = format!(
                "process {process} has no address: there are {} in the list of hosts, numbered from 0",
                hosts.len()
            );
            return Err(Error::Setting(text));
        };
        let listen = || env.network()?.listen(address);
        let door = listen().map_err(|source| Error::Io {
            what: format!(
                "process {process} can't listen at {address} (is another process of this job running there?)"
            ),
            source,
        })?;
        Place::with_door(process, hosts, door)
    }

    /// The same, with a door that is open already.
    ///
    /// # Errors
    ///
    /// If there is no such process, or only one.
    pub fn with_door(
        process: usize,
        hosts: Vec<String>,
        door: Box<dyn Door>,
    ) -> Result<Self, Error> {
        if process >= hosts.len() {
            let text = format!("there is no process {process} among {}", hosts.len());
            return Err(Error::Setting(text));
        }
        Ok(Place { process, hosts, door })
    }

    /// Which process this is.
    pub fn process(&self) -> usize {
        self.process
    }

    /// How many processes there are.
    pub fn processes(&self) -> usize {
        self.hosts.len()
    }
}

/// The processes of an attempt, as one of them knows them.
pub(crate) struct Cluster {
    pub(crate) process: usize,
    hosts: Vec<String>,
    env: Arc<dyn Env>,
    network: Arc<dyn Network>,
    /// The control connection to every other process.
    links: Vec<Option<Link>>,
    events: UnboundedReceiver<Event>,
    /// For links still to come.
    report: UnboundedSender<Event>,
    /// What the members of this attempt know each other by; 0 until process 0 has said it.
    incarnation: u64,
}

/// The data connection to another process.
pub(crate) struct Data {
    /// The process, for people.
    peer: String,
    pub(crate) wire: Wire,
}

/// The data connection to every other process; none to oneself.
pub(crate) type Wires = Vec<Option<Data>>;

impl Cluster {
    fn shown(&self, process: usize) -> String {
        shown(&self.hosts, process)
    }

    /// Tells every other process; what is returned waits until that is on its way.
    pub(crate) fn tell_all(&self, signal: &Signal) -> impl Future<Output = ()> + Send + use<> {
        tell_all(&self.links, signal)
    }
}

fn tell_all(links: &[Option<Link>], signal: &Signal) -> impl Future<Output = ()> + Send + use<> {
    links.iter().flatten().for_each(|link| link.send(signal.clone()));
    let on_their_way: Vec<_> = links.iter().flatten().map(Link::flush).collect();
    async move {
        for sent in on_their_way {
            sent.await;
        }
    }
}

/// A process, for people.
fn shown(hosts: &[String], process: usize) -> String {
    let host = hosts.get(process).map_or("?", String::as_str);
    format!("process {process} ({host})")
}

/// What `task` comes to, if it does within `limit`.
async fn within<T>(
    network: &dyn Network,
    limit: Duration,
    task: impl Future<Output = T>,
) -> Option<T> {
    match select(pin!(task), network.sleep(limit)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}
