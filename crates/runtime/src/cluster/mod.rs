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
//! - `door`: whoever knocks. - `form`: the handshake. - `watch`: what signals of other processes mean for the attempt. - `conduit`: a data
//!   connection.
//!
//! Only process 0 ever writes to the log. A process that is lost, paused or silent for [`SILENCE`] ends the attempt on all others, and
//! whoever supervises them starts the next one. Nothing here is needed for exactness, which is the log's: it makes failures quick and their
//! reasons known.

#![allow(
    clippy::disallowed_methods,
    reason = "sockets are the real world; a simulated attempt has none"
)]

mod conduit;
mod door;
mod form;
mod link;
mod messages;
mod watch;

use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use crate::Error;

pub(crate) use conduit::Conduit;
pub(crate) use form::Formed;
use link::{Event, Link};
pub(crate) use messages::{Hello, Signal, Totals, Welcome};
pub(crate) use watch::Watch;

/// How often a process shows that it is alive.
const BEAT: Duration = Duration::from_millis(250);

/// A process that says nothing for so long is lost.
pub const SILENCE: Duration = Duration::from_millis(1600);

/// Where a process stands among those of a job, with its door open.
#[derive(Debug)]
pub struct Place {
    process: usize,
    hosts: Vec<String>,
    listener: TcpListener,
}

impl Place {
    /// Opens the door of process number `process`, at its address in `hosts` (`host:port`, one for each process, in their order).
    ///
    /// # Errors
    ///
    /// If the number or an address makes no sense, or the address can't be listened at: somebody else does already.
    pub fn open(process: usize, hosts: Vec<String>) -> Result<Self, Error> {
        let Some(address) = hosts.get(process) else {
            let text = format!(
                "process {process} has no address: there are {} in the list of hosts, numbered from 0",
                hosts.len()
            );
            return Err(Error::Setting(text));
        };
        let listener = TcpListener::bind(address.as_str()).map_err(|source| Error::Io {
            what: format!(
                "process {process} can't listen at {address} (is another process of this job running there?)"
            ),
            source,
        })?;
        Place::with_listener(process, hosts, listener)
    }

    /// The same, with a door that is open already.
    ///
    /// # Errors
    ///
    /// If there is no such process, or only one.
    pub fn with_listener(
        process: usize,
        hosts: Vec<String>,
        listener: TcpListener,
    ) -> Result<Self, Error> {
        if process >= hosts.len() {
            let text = format!("there is no process {process} among {}", hosts.len());
            return Err(Error::Setting(text));
        }
        Ok(Place { process, hosts, listener })
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
    /// The control connection to every other process.
    links: Vec<Option<Link>>,
    events: Receiver<Event>,
    /// For links still to come.
    report: Sender<Event>,
    /// What the members of this attempt know each other by; 0 until process 0 has said it.
    incarnation: u64,
}

/// The data connection to every other process; none to oneself.
pub(crate) type Sockets = Vec<Option<TcpStream>>;

/// The same, as timely sees them.
pub(crate) type Conduits = Vec<Option<Conduit>>;

impl Cluster {
    fn shown(&self, process: usize) -> String {
        shown(&self.hosts, process)
    }
}

impl Cluster {
    /// Tells every other process, and waits until that is on its way.
    pub(crate) fn tell_all(&self, signal: &Signal) {
        tell_all(&self.links, signal);
    }
}

fn tell_all(links: &[Option<Link>], signal: &Signal) {
    links.iter().flatten().for_each(|link| link.send(signal.clone()));
    links.iter().flatten().for_each(Link::flush);
}

/// A process, for people.
fn shown(hosts: &[String], process: usize) -> String {
    let host = hosts.get(process).map_or("?", String::as_str);
    format!("process {process} ({host})")
}
