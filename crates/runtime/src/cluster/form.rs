//! The handshake: how single processes become those of an attempt.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::{BoxFuture, Connection, Env};
use tokio::sync::mpsc::unbounded_channel;

use super::link::{Event, Link};
use super::messages::{self, Greeting, Hello, Signal, Welcome};
use super::{Cluster, Data, Place, Wires, door, within};
use crate::Error;

/// A process that can't be reached is tried again after so long.
const AGAIN: Duration = Duration::from_millis(50);

/// How often is said what is waited for.
const SAY: Duration = Duration::from_secs(5);

/// How often is asked whether there is still something to wait for.
const ASK: Duration = Duration::from_secs(1);

/// So long the members of an attempt have to connect with each other.
const MESH: Duration = Duration::from_secs(10);

/// The end of waiting for others.
pub(crate) enum Formed<T> {
    /// All are there.
    Together(T),
    /// There is nothing left to do for which others are needed.
    Needless,
}

/// Asks whether waiting for others has become needless.
pub(crate) type Needless = Box<dyn FnMut() -> BoxFuture<bool> + Send>;

/// Says what is waited for, and asks whether it still must be, each every now and then.
struct Patience {
    env: Arc<dyn Env>,
    say_at: Duration,
    ask_at: Duration,
    needless: Needless,
}

impl Patience {
    fn new(env: &Arc<dyn Env>, needless: Needless) -> Self {
        let now = env.monotonic();
        Patience { env: env.clone(), say_at: now + ASK, ask_at: now + ASK, needless }
    }

    /// Whether waiting is over.
    async fn is_over(&mut self, what: &str) -> bool {
        let now = self.env.monotonic();
        if now >= self.say_at {
            self.say_at = now + SAY;
            tracing::warn!("{what}");
        }
        if now < self.ask_at {
            return false;
        }
        self.ask_at = now + ASK;
        (self.needless)().await
    }
}

impl Cluster {
    fn new(place: Place, env: &Arc<dyn Env>) -> Result<Self, Error> {
        let Place { process, hosts, door } = place;
        let network = env
            .network()
            .map_err(|source| Error::Io { what: "getting at the network".to_owned(), source })?;
        let (report, events) = unbounded_channel();
        door::open(&network, door, report.clone());
        let links = hosts.iter().map(|_| None).collect();
        let env = env.clone();
        Ok(Cluster { process, hosts, env, network, links, events, report, incarnation: 0 })
    }

    /// The next event, if there is one soon.
    async fn next_event(&mut self) -> Option<Event> {
        within(&*self.network, AGAIN, self.events.recv()).await.flatten()
    }

    /// At process 0: waits until all others have said hello and may take part. `needless` is asked once a second whether they are needed at
    /// all.
    ///
    /// # Errors
    ///
    /// If there is no network.
    pub(crate) async fn gather(
        place: Place,
        me: Hello,
        env: Arc<dyn Env>,
        needless: Needless,
    ) -> Result<Formed<Cluster>, Error> {
        let mut cluster = Cluster::new(place, &env)?;
        cluster.incarnation = env.random().max(1);
        let mut patience = Patience::new(&env, needless);
        loop {
            let missing: Vec<String> = (1..cluster.links.len())
                .filter(|process| cluster.links[*process].is_none())
                .map(|process| cluster.shown(process))
                .collect();
            if missing.is_empty() {
                return Ok(Formed::Together(cluster));
            }
            match cluster.next_event().await {
                Some(Event::Knocked(Greeting::Hello(hello), connection)) => {
                    cluster.take_in(&me, &hello, connection);
                }
                // From an attempt that is over.
                Some(Event::Knocked(Greeting::Join { .. }, _) | Event::Said(..)) | None => {}
                Some(Event::Lost(process, why)) => {
                    tracing::warn!("{} has left again: {why}", cluster.shown(process));
                    cluster.links[process] = None;
                }
            }
            if patience.is_over(&format!("waiting for {}", missing.join(", "))).await {
                return Ok(Formed::Needless);
            }
        }
    }

    /// Answers a hello at process 0.
    fn take_in(&mut self, me: &Hello, hello: &Hello, connection: Box<dyn Connection>) {
        let process = hello.process;
        if let Some(why) = me.refusal(hello) {
            tracing::warn!("{} can't take part: {why}", self.shown(process));
            door::answer(&self.network, connection, Signal::Refused { why });
        } else if self.links[process].is_some() {
            let why = format!("there is a process {process} already");
            door::answer(&self.network, connection, Signal::NotNow { why });
        } else {
            self.links[process] = Some(self.link(connection, process));
        }
    }

    fn link(&self, connection: Box<dyn Connection>, process: usize) -> Link {
        Link::new(&self.network, connection, process, self.report.clone())
    }

    /// At process 1, 2, ...: says hello to process 0 until it answers, and waits until all are there.
    ///
    /// # Errors
    ///
    /// If process 0 refuses, or there is no network.
    pub(crate) async fn join(
        place: Place,
        me: Hello,
        env: Arc<dyn Env>,
        needless: Needless,
    ) -> Result<Formed<(Cluster, Welcome)>, Error> {
        let mut cluster = Cluster::new(place, &env)?;
        let mut patience = Patience::new(&env, needless);
        let mut why = String::new();
        loop {
            match cluster.call(0, &Greeting::Hello(me.clone())).await {
                Ok(connection) => cluster.links[0] = Some(cluster.link(connection, 0)),
                Err(error) => why = error.to_string(),
            }
            while cluster.links[0].is_some() {
                match cluster.next_event().await {
                    Some(Event::Said(0, Signal::Welcome(welcome))) => {
                        cluster.incarnation = welcome.incarnation;
                        return Ok(Formed::Together((cluster, *welcome)));
                    }
                    Some(Event::Said(0, Signal::Done { .. })) => return Ok(Formed::Needless),
                    Some(Event::Said(0, Signal::Refused { why })) => {
                        return Err(Error::Handshake(format!(
                            "{} refuses this process: {why}",
                            cluster.shown(0)
                        )));
                    }
                    Some(
                        Event::Said(
                            0,
                            Signal::NotNow { why: reason } | Signal::Failed { why: reason },
                        )
                        | Event::Lost(0, reason),
                    ) => {
                        why = reason;
                        cluster.links[0] = None;
                    }
                    // Members of an attempt that is over.
                    Some(_) | None => {}
                }
                if patience.is_over("waiting for the other processes").await {
                    return Ok(Formed::Needless);
                }
            }
            if patience.is_over(&format!("waiting for {}: {why}", cluster.shown(0))).await {
                return Ok(Formed::Needless);
            }
            env.sleep(AGAIN).await;
        }
    }

    /// Opens a connection to another process, and says so much.
    async fn call(&self, process: usize, greeting: &Greeting) -> io::Result<Box<dyn Connection>> {
        let mut connection = self.network.connect(&self.hosts[process]).await?;
        messages::write(&*self.network, &mut connection, greeting).await?;
        Ok(connection)
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
    /// If one of them is lost meanwhile; the others are told.
    pub(crate) async fn mesh(mut self) -> Result<(Self, Wires), Error> {
        match self.connect_with_all().await {
            Ok(wires) => Ok((self, wires)),
            Err(error) => {
                self.tell_all(&Signal::Failed { why: error.to_string() }).await;
                Err(error)
            }
        }
    }

    async fn connect_with_all(&mut self) -> Result<Wires, Error> {
        let mut data: Vec<Option<Box<dyn Connection>>> = self.hosts.iter().map(|_| None).collect();
        let join =
            |data| Greeting::Join { incarnation: self.incarnation, process: self.process, data };
        let (for_data, for_control) = (join(true), join(false));
        for (process, connection) in data.iter_mut().enumerate().take(self.process) {
            let lost = |error: io::Error| self.lost(process, &error.to_string());
            *connection = Some(self.call(process, &for_data).await.map_err(lost)?);
            if process > 0 {
                let control = self.call(process, &for_control).await.map_err(lost)?;
                self.links[process] = Some(self.link(control, process));
            }
        }
        let deadline = self.env.monotonic() + MESH;
        loop {
            let missing = (0..self.hosts.len())
                .filter(|process| *process != self.process)
                .find(|process| data[*process].is_none() || self.links[*process].is_none());
            let Some(missing) = missing else { break };
            if self.env.monotonic() > deadline {
                return Err(self.lost(missing, "it does not connect"));
            }
            match self.next_event().await {
                Some(Event::Knocked(
                    Greeting::Join { incarnation, process, data: is_data },
                    connection,
                )) => {
                    let known = incarnation == self.incarnation
                        && process > self.process
                        && process < self.hosts.len();
                    if known && is_data {
                        data[process] = Some(connection);
                    } else if known {
                        self.links[process] = Some(self.link(connection, process));
                    }
                }
                Some(Event::Lost(process, why) | Event::Said(process, Signal::Failed { why })) => {
                    return Err(self.lost(process, &why));
                }
                Some(Event::Knocked(..) | Event::Said(..)) | None => {}
            }
        }
        let mut wires = Wires::new();
        for (process, connection) in data.into_iter().enumerate() {
            let wire = connection.map(Connection::into_wire).transpose();
            let wire = wire.map_err(|error| self.lost(process, &error.to_string()))?;
            wires.push(wire.map(|wire| Data { peer: self.shown(process), wire }));
        }
        Ok(wires)
    }

    fn lost(&self, process: usize, why: &str) -> Error {
        Error::Peer { process: self.shown(process), why: why.to_owned() }
    }
}
