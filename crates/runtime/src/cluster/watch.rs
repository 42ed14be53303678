//! What signals of other processes mean for a running attempt.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater_env::Network;

use super::link::{Event, Link};
use super::messages::{Greeting, Signal, Totals};
use super::{Cluster, door, shown};
use crate::Error;
use crate::attempt::{Attempt, Control, lock};

/// How often process 0 is told what the others do.
const REPORT: Duration = Duration::from_millis(500);

/// The other processes of a running attempt.
pub(crate) struct Watch {
    attempt: Arc<Attempt>,
    network: Arc<dyn Network>,
    links: Vec<Option<Link>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// What each process has done, once its part of the dataflow has come to its end.
    ended: Vec<Option<Totals>>,
    /// This process' own part has come to its end; from then on only process 0 matters to it, and others may leave before it.
    ended_here: bool,
    /// Process 0 says that all is over.
    done: Option<bool>,
}

impl Watch {
    /// Begins to listen to the other processes on behalf of `attempt`.
    pub(crate) fn start(cluster: Cluster, attempt: &Arc<Attempt>) -> Arc<Self> {
        let Cluster { hosts, network, links, mut events, report, .. } = cluster;
        let known = Known { ended: vec![None; hosts.len()], ended_here: false, done: None };
        let known = Mutex::new(known);
        let (attempt, inside) = (attempt.clone(), network.clone());
        let watch = Arc::new(Watch { attempt: attempt.clone(), network, links, known });
        let listening = watch.clone();
        let listen = async move {
            // Keeps the channel open, so that it ends with the process.
            let _open = report;
            while let Some(event) = events.recv().await {
                listening.handle(event, &hosts);
            }
        };
        inside.spawn("watch", Box::pin(listen));
        if attempt.process > 0 {
            attempt.env.spawn("report", Box::pin(watch.clone().report()));
        }
        watch
    }

    /// Tells process 0 every now and then what this process does, for people.
    async fn report(self: Arc<Self>) {
        while !self.attempt.is_over() {
            self.report_now();
            self.attempt.env.sleep(REPORT).await;
        }
    }

    fn report_now(&self) {
        let status = Control(self.attempt.clone()).report();
        self.tell_zero(Signal::Status(Box::new(status)));
    }

    fn handle(&self, event: Event, hosts: &[String]) {
        let attempt = &self.attempt;
        let control = || Control(attempt.clone());
        match event {
            Event::Said(_, Signal::Stop) => control().stop(),
            Event::Said(_, Signal::CheckpointNow) => control().request_checkpoint(),
            Event::Said(_, Signal::Status(report)) => attempt.observed.set_other(*report),
            Event::Said(process, Signal::Ended(totals)) => {
                lock(&self.known).ended[process] = Some(totals);
                attempt.notify();
            }
            Event::Said(0, Signal::Done { finished }) => {
                lock(&self.known).done = Some(finished);
                attempt.notify();
            }
            Event::Said(process, Signal::Failed { why }) => {
                attempt.fail(Error::Peer { process: shown(hosts, process), why });
            }
            Event::Lost(process, why) if self.is_needed(process) => {
                attempt.fail(Error::Peer { process: shown(hosts, process), why });
            }
            Event::Knocked(Greeting::Hello(_), connection) => {
                let why = format!("attempt {} is running with all its processes", attempt.number);
                door::answer(&self.network, connection, Signal::NotNow { why });
            }
            Event::Lost(..) | Event::Said(..) | Event::Knocked(Greeting::Join { .. }, _) => {}
        }
    }

    /// Whether the attempt still needs this other process.
    fn is_needed(&self, process: usize) -> bool {
        let known = lock(&self.known);
        known.done.is_none() && (process == 0 || !known.ended_here)
    }

    /// Tells process 0 that this process' part of the dataflow has come to its end.
    pub(crate) fn end(&self, totals: Totals) {
        lock(&self.known).ended_here = true;
        self.report_now();
        self.tell_zero(Signal::Ended(totals));
    }

    /// Tells process 0.
    pub(crate) fn tell_zero(&self, signal: Signal) {
        if let Some(Some(link)) = self.links.first() {
            link.send(signal);
        }
    }

    /// Tells every other process; what is returned waits until that is on its way.
    pub(crate) fn tell_all(&self, signal: &Signal) -> impl Future<Output = ()> + Send + use<> {
        super::tell_all(&self.links, signal)
    }

    /// At process 0: waits until the parts of all others have come to their end, or the attempt has failed.
    pub(crate) async fn all_ended(&self) {
        let ended = || lock(&self.known).ended.iter().skip(1).all(Option::is_some);
        self.attempt.wait_until(|| ended() || self.attempt.is_over()).await;
    }

    /// What all others have done, when their parts have come to their end.
    pub(crate) fn totals(&self) -> Totals {
        let known = lock(&self.known);
        known.ended.iter().flatten().fold(Totals::default(), |sum, one| Totals {
            records_in: sum.records_in + one.records_in,
            records_out: sum.records_out + one.records_out,
        })
    }

    /// At the other processes: waits until process 0 says that all is over, and whether the job is finished, or the attempt has failed.
    pub(crate) async fn done(&self) -> Option<bool> {
        let done = || lock(&self.known).done;
        self.attempt.wait_until(|| done().is_some() || self.attempt.is_over()).await;
        done()
    }

    /// At process 0: the attempt is over, and that others leave now is no failure.
    pub(crate) async fn dismiss(&self, finished: bool) {
        lock(&self.known).done = Some(finished);
        self.tell_all(&Signal::Done { finished }).await;
    }
}
