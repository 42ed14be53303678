//! The handshake: how single processes become those of an attempt.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use highwater_env::Env;

use super::link::{Event, Link, prepare};
use super::messages::{self, Greeting, Hello, Signal, Welcome};
use super::{Cluster, Place, Sockets, door};
use crate::Error;

/// A process that can't be reached is tried again after so long.
const AGAIN: Duration = Duration::from_millis(50);

/// How often is said what is waited for.
const SAY: Duration = Duration::from_secs(5);

/// How often is asked whether there is still something to wait for.
const ASK: Duration = Duration::from_secs(1);

/// So long opening one connection may take.
const CONNECT: Duration = Duration::from_secs(1);

/// So long the members of an attempt have to connect with each other.
const MESH: Duration = Duration::from_secs(10);

/// The end of waiting for others.
pub(crate) enum Formed<T> {
    /// All are there.
    Together(T),
    /// There is nothing left to do for which others are needed.
    Needless,
}

/// Says what is waited for, and asks whether it still must be, each every now and then.
struct Patience<'a> {
    env: &'a Arc<dyn Env>,
    say_at: Duration,
    ask_at: Duration,
    needless: &'a mut dyn FnMut() -> bool,
}

impl<'a> Patience<'a> {
    fn new(env: &'a Arc<dyn Env>, needless: &'a mut dyn FnMut() -> bool) -> Self {
        let now = env.monotonic();
        Patience { env, say_at: now + ASK, ask_at: now + ASK, needless }
    }

    /// Whether waiting is over.
    fn is_over(&mut self, what: impl FnOnce() -> String) -> bool {
        let now = self.env.monotonic();
        if now >= self.say_at {
            self.say_at = now + SAY;
            tracing::warn!("{}", what());
        }
        if now < self.ask_at {
            return false;
        }
        self.ask_at = now + ASK;
        (self.needless)()
    }
}

impl Cluster {
    fn new(place: Place, env: &Arc<dyn Env>) -> Self {
        let Place { process, hosts, listener } = place;
        let (report, events) = channel();
        door::open(env, listener, report.clone());
        let links = hosts.iter().map(|_| None).collect();
        Cluster { process, hosts, links, events, report, incarnation: 0 }
    }

    /// At process 0: waits until all others have said hello and may take part. `needless` is asked once a second whether they are needed at
    /// all.
    pub(crate) fn gather(
        place: Place,
        me: &Hello,
        env: &Arc<dyn Env>,
        needless: &mut dyn FnMut() -> bool,
    ) -> Formed<Cluster> {
        let mut cluster = Cluster::new(place, env);
        cluster.incarnation = env.random().max(1);
        let mut patience = Patience::new(env, needless);
        loop {
            let missing = cluster.links.iter().skip(1).filter(|link| link.is_none()).count();
            if missing == 0 {
                return Formed::Together(cluster);
            }
            match cluster.events.recv_timeout(AGAIN) {
                Ok(Event::Knocked(Greeting::Hello(hello), stream)) => {
                    cluster.take_in(me, &hello, stream, env);
                }
                // From an attempt that is over.
                Ok(Event::Knocked(Greeting::Join { .. }, _) | Event::Said(..)) => {}
                Ok(Event::Lost(process, why)) => {
                    tracing::warn!("{} has left again: {why}", cluster.shown(process));
                    cluster.links[process] = None;
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            let what = || {
                let missing = (1..cluster.links.len()).filter(|p| cluster.links[*p].is_none());
                let missing: Vec<String> = missing.map(|p| cluster.shown(p)).collect();
                format!("waiting for {}", missing.join(", "))
            };
            if patience.is_over(what) {
                return Formed::Needless;
            }
        }
    }

    /// Answers a hello at process 0.
    fn take_in(&mut self, me: &Hello, hello: &Hello, mut stream: TcpStream, env: &Arc<dyn Env>) {
        let process = hello.process;
        let answer = if let Some(why) = me.refusal(hello) {
            tracing::warn!("{} can't take part: {why}", self.shown(process));
            Signal::Refused { why }
        } else if self.links[process].is_some() {
            Signal::NotNow { why: format!("there is a process {process} already") }
        } else {
            match Link::new(env, stream, process, self.report.clone()) {
                Ok(link) => self.links[process] = Some(link),
                Err(error) => tracing::warn!(%error, "{} has left at once", self.shown(process)),
            }
            return;
        };
        messages::write(&mut stream, &answer).ok();
    }

    /// At process 1, 2, ...: says hello to process 0 until it answers, and waits until all are there.
    ///
    /// # Errors
    ///
    /// If process 0 refuses.
    pub(crate) fn join(
        place: Place,
        me: &Hello,
        env: &Arc<dyn Env>,
        needless: &mut dyn FnMut() -> bool,
    ) -> Result<Formed<(Cluster, Welcome)>, Error> {
        let mut cluster = Cluster::new(place, env);
        let mut patience = Patience::new(env, needless);
        let mut why = String::new();
        loop {
            match cluster.knock(me, env) {
                Ok(link) => cluster.links[0] = Some(link),
                Err(error) => why = error.to_string(),
            }
            while cluster.links[0].is_some() {
                match cluster.events.recv_timeout(AGAIN) {
                    Ok(Event::Said(0, Signal::Welcome(welcome))) => {
                        cluster.incarnation = welcome.incarnation;
                        return Ok(Formed::Together((cluster, *welcome)));
                    }
                    Ok(Event::Said(0, Signal::Done { .. })) => return Ok(Formed::Needless),
                    Ok(Event::Said(0, Signal::Refused { why })) => {
                        return Err(Error::Handshake(format!(
                            "{} refuses this process: {why}",
                            cluster.shown(0)
                        )));
                    }
                    Ok(Event::Said(0, Signal::NotNow { why: reason })) => {
                        why = reason;
                        cluster.links[0] = None;
                    }
                    Ok(Event::Said(0, Signal::Failed { why: reason }) | Event::Lost(0, reason)) => {
                        why = reason;
                        cluster.links[0] = None;
                    }
                    // Members of an attempt that is over.
                    Ok(_) | Err(_) => {}
                }
                if patience.is_over(|| "waiting for the other processes".to_owned()) {
                    return Ok(Formed::Needless);
                }
            }
            if patience.is_over(|| format!("waiting for {}: {why}", cluster.shown(0))) {
                return Ok(Formed::Needless);
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn knock(&self, me: &Hello, env: &Arc<dyn Env>) -> io::Result<Link> {
        let mut stream = connect(&self.hosts[0])?;
        messages::write(&mut stream, &Greeting::Hello(me.clone()))?;
        Link::new(env, stream, 0, self.report.clone())
    }

    /// At process 0: lets the attempt begin.
    pub(crate) fn welcome(&self, welcome: Welcome) {
        let welcome = Welcome { incarnation: self.incarnation, ..welcome };
        let signal = Signal::Welcome(Box::new(welcome));
        self.links.iter().flatten().for_each(|link| link.send(signal.clone()));
    }

    /// Connects with every other process: those before this one are called, those after it call.
    ///
    /// # Errors
    ///
    /// If one of them is lost meanwhile.
    pub(crate) fn mesh(&mut self, env: &Arc<dyn Env>) -> Result<Sockets, Error> {
        let mut sockets: Sockets = self.hosts.iter().map(|_| None).collect();
        for (process, socket) in sockets.iter_mut().enumerate().take(self.process) {
            let call = |data| {
                let mut stream = connect(&self.hosts[process])?;
                let (incarnation, process) = (self.incarnation, self.process);
                messages::write(&mut stream, &Greeting::Join { incarnation, process, data })?;
                Ok(stream)
            };
            let lost = |error: io::Error| self.lost(process, &error.to_string());
            *socket = Some(call(true).map_err(lost)?);
            if process > 0 {
                let link = call(false)
                    .and_then(|stream| Link::new(env, stream, process, self.report.clone()));
                self.links[process] = Some(link.map_err(lost)?);
            }
        }
        let deadline = env.monotonic() + MESH;
        loop {
            let missing = (0..self.hosts.len())
                .filter(|process| *process != self.process)
                .find(|process| sockets[*process].is_none() || self.links[*process].is_none());
            let Some(missing) = missing else { return Ok(sockets) };
            if env.monotonic() > deadline {
                return Err(self.lost(missing, "it does not connect"));
            }
            match self.events.recv_timeout(AGAIN) {
                Ok(Event::Knocked(Greeting::Join { incarnation, process, data }, stream)) => {
                    let known = incarnation == self.incarnation
                        && process > self.process
                        && process < self.hosts.len();
                    if known && data {
                        // Timely waits for ever; the link notices when there is nothing to wait for.
                        let unbounded = stream.set_read_timeout(None);
                        unbounded.map_err(|error| self.lost(process, &error.to_string()))?;
                        sockets[process] = Some(stream);
                    } else if known {
                        let link = Link::new(env, stream, process, self.report.clone());
                        let link = link.map_err(|error| self.lost(process, &error.to_string()))?;
                        self.links[process] = Some(link);
                    }
                }
                Ok(Event::Lost(process, why) | Event::Said(process, Signal::Failed { why })) => {
                    return Err(self.lost(process, &why));
                }
                Ok(Event::Knocked(..) | Event::Said(..)) | Err(_) => {}
            }
        }
    }

    fn lost(&self, process: usize, why: &str) -> Error {
        Error::Peer { process: self.shown(process), why: why.to_owned() }
    }
}

fn connect(host: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::other(format!("{host} is no address"));
    for address in host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                prepare(&stream)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
