//! What the operators of one worker share: ticks, the bound of records under way, what recovery knows.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::{Phase, PhaseGuard};
use highwater_state::KeyGroups;
use highwater_state::chain::Place;
use timely::scheduling::Activator;

use super::pacer::Tick;
use crate::alignment::Hold;
use crate::attempt::Attempt;
use crate::observe::{WorkerFacts, WorkerPhases};
use crate::settings::Trigger;
use crate::time::Epoch;

/// One worker of an attempt; lives on its thread.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) peers: usize,
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) key_groups: KeyGroups,
    pub(crate) owners: Arc<[u32]>,
    /// What is noted of it for people.
    pub(crate) facts: Arc<WorkerFacts>,
    /// All epochs below this timestamp have left the dataflow; `u64::MAX` at its end.
    pub(crate) complete: Cell<u64>,
    /// The object whose live parts are to be written again at the next freeze.
    pub(crate) retire: Cell<Option<Place>>,
    /// The interval of the last tick, once that has come.
    final_interval: Cell<Option<u32>>,
    /// On worker 0: all sources are at their end.
    pub(crate) sources_ended: Cell<bool>,
    /// On worker 0: which splits are held, and which aren't any more, since the last tick.
    pub(crate) holds: RefCell<Vec<Hold>>,
    /// As the last tick said.
    held_back: Cell<bool>,
    /// The last epoch in which a source of this worker has read rows.
    last_read: Cell<u64>,
    in_flight: RefCell<InFlight>,
    blocked: Cell<bool>,
    sources: RefCell<Vec<Activator>>,
    ticks: RefCell<Vec<Ticks>>,
    encoding: RefCell<(usize, Option<PhaseGuard>)>,
    phases: RefCell<BTreeMap<u32, Reached>>,
}

/// When this worker reached the phases of an interval's checkpoint.
#[derive(Clone, Copy, Default)]
struct Reached {
    /// The tick came that ends the interval.
    ended: Duration,
    /// The last host so far was frozen or cut.
    frozen: Duration,
    /// Everything was with the uploader.
    handed: Duration,
}

/// The ticks that one host hasn't dealt with yet.
pub(crate) type Ticks = Rc<RefCell<VecDeque<Tick>>>;

/// Bytes that sources have emitted and operators have added, by epoch, until the epoch has left the dataflow.
#[derive(Default)]
struct InFlight {
    by_epoch: VecDeque<(u64, usize)>,
    total: usize,
}

impl Worker {
    pub(crate) fn new(
        index: usize,
        peers: usize,
        attempt: Arc<Attempt>,
        key_groups: KeyGroups,
    ) -> Rc<Self> {
        Rc::new(Worker {
            facts: attempt.observed.add_worker(index, key_groups.range(index, peers)),
            index,
            peers,
            attempt,
            key_groups,
            owners: key_groups.owners(peers).into(),
            complete: Cell::new(0),
            retire: Cell::new(None),
            final_interval: Cell::new(None),
            sources_ended: Cell::new(false),
            holds: RefCell::default(),
            held_back: Cell::new(false),
            last_read: Cell::new(0),
            in_flight: RefCell::default(),
            blocked: Cell::new(false),
            sources: RefCell::default(),
            ticks: RefCell::default(),
            encoding: RefCell::default(),
            phases: RefCell::default(),
        })
    }

    /// The worker that has the key group of a key with this hash.
    pub(crate) fn owner(&self, hash: u64) -> usize {
        self.owners[self.key_groups.of(hash) as usize] as usize
    }

    /// A queue into which every tick is put.
    pub(crate) fn subscribe(&self) -> Ticks {
        let ticks = Ticks::default();
        self.ticks.borrow_mut().push(ticks.clone());
        ticks
    }

    /// Whether `interval` is the job's last; asked by hosts whose frontier is empty. That can be so before an interval that began
    /// just before the end was seen there; that one must be ended, too.
    ///
    /// The last tick has been here by then: every host reads what sources emit, a source of this worker lets go of its capability
    /// when it gets the last tick, and until then the message holds the frontier of all that is behind it.
    pub(crate) fn is_last(&self, interval: u32) -> bool {
        let last = self.final_interval.get();
        interval >= last.expect("a frontier is empty only behind the last tick, which passes here")
    }

    pub(crate) fn publish_tick(&self, tick: Tick) {
        self.held_back.set(tick.held_back);
        let interval = tick.epoch.interval();
        if tick.closing.is_some() {
            self.final_interval.set(Some(interval));
            self.reached(interval, |reached, now| reached.ended = now);
        } else if tick.epoch == Epoch::first_of(interval) {
            self.reached(interval - 1, |reached, now| reached.ended = now);
        }
        for queue in &*self.ticks.borrow() {
            queue.borrow_mut().push_back(tick);
        }
    }

    pub(crate) fn add_source(&self, activator: Activator) {
        self.sources.borrow_mut().push(activator);
    }

    /// Counts bytes that were emitted in an epoch.
    pub(crate) fn emitted(&self, timestamp: u64, bytes: usize) {
        let mut in_flight = self.in_flight.borrow_mut();
        in_flight.total += bytes;
        let at = in_flight.by_epoch.partition_point(|(epoch, _)| *epoch < timestamp);
        match in_flight.by_epoch.get_mut(at) {
            Some((epoch, sum)) if *epoch == timestamp => *sum += bytes,
            _ => in_flight.by_epoch.insert(at, (timestamp, bytes)),
        }
        self.facts.set_in_flight(in_flight.total);
    }

    /// Sources read only what is there now.
    pub(crate) fn available_now(&self) -> bool {
        matches!(self.attempt.settings.trigger, Trigger::AvailableNow { .. })
    }

    /// A source has read rows in an epoch.
    pub(crate) fn has_read(&self, timestamp: u64) {
        self.last_read.set(self.last_read.get().max(timestamp));
    }

    /// Whether sources must not read now. They are activated when that changes.
    ///
    /// When all that they have read has gone through, they may read in any case: the rest is of operators that emit by themselves, and
    /// could fill the bound for ever.
    pub(crate) fn must_wait(&self) -> bool {
        let bytes = self.in_flight.borrow().total;
        let full = bytes >= self.attempt.settings.in_flight_bytes
            && self.last_read.get() >= self.complete.get();
        let wait = full || self.held_back.get();
        if wait {
            self.blocked.set(true);
        }
        self.facts.set_paused(wait);
        wait
    }

    /// Lets go of the bytes of complete epochs; called between steps.
    pub(crate) fn release(&self) {
        let complete = self.complete.get();
        {
            let mut in_flight = self.in_flight.borrow_mut();
            while let Some((timestamp, bytes)) = in_flight.by_epoch.front().copied() {
                if timestamp >= complete {
                    break;
                }
                in_flight.total -= bytes;
                in_flight.by_epoch.pop_front();
            }
            self.facts.set_in_flight(in_flight.total);
        }
        if self.blocked.get() {
            self.blocked.set(false);
            if self.must_wait() {
                return;
            }
            for source in &*self.sources.borrow() {
                source.activate();
            }
        }
    }

    /// A host was frozen or cut at the end of an interval.
    pub(crate) fn froze(&self, interval: u32) {
        self.reached(interval, |reached, now| reached.frozen = now);
    }

    /// The uploader has everything of an interval.
    pub(crate) fn handed(&self, interval: u32) {
        self.reached(interval, |reached, now| reached.handed = now);
    }

    /// The uploader is done with an interval: gives how long its phases took.
    pub(crate) fn uploaded(&self, interval: u32) -> WorkerPhases {
        self.facts.set_uploaded(interval + 1);
        let now = self.attempt.env.monotonic();
        let Reached { ended, frozen, handed } =
            self.phases.borrow_mut().remove(&interval).unwrap_or_default();
        let us = |from: Duration, to: Duration| to.saturating_sub(from).as_micros() as u64;
        // Without anything to freeze, rows were waited for until the uploader was told so.
        let frozen = if frozen.is_zero() { handed } else { frozen };
        WorkerPhases {
            wait_us: us(ended, frozen),
            encode_us: us(frozen, handed),
            upload_us: us(handed, now),
        }
    }

    fn reached(&self, interval: u32, note: impl FnOnce(&mut Reached, Duration)) {
        if self.attempt.settings.checkpoint_interval.is_some() {
            let now = self.attempt.env.monotonic();
            note(self.phases.borrow_mut().entry(interval).or_default(), now);
        }
    }

    /// A host begins (`true`) or ends encoding; the phase is announced while any does.
    pub(crate) fn encoding(&self, begins: bool) {
        let mut encoding = self.encoding.borrow_mut();
        if begins {
            encoding.0 += 1;
            if encoding.1.is_none() {
                encoding.1 = Some(highwater_env::enter(&self.attempt.env, Phase::Encoding));
            }
        } else {
            encoding.0 -= 1;
            if encoding.0 == 0 {
                encoding.1 = None;
            }
        }
    }
}
