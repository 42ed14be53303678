//! The pacer: sets the time of the whole dataflow from worker 0, by ticks to all sources.
//!
//! A tick begins an epoch; some also begin a trigger or a checkpoint interval. The pacer holds the capability of the present
//! epoch, a source takes a tick's capability over, so the frontier of everything downstream follows the slowest
//! source. Ticks go on while sources are paused.
//!
//! Epochs are short while the dataflow keeps up. When many are under way they become longer, because each costs progress
//! messages between all workers, and when very many are, there are no more until some are complete: what a tick costs could otherwise be
//! more than there is time for. Operators over the rows of a trigger emit at its end, whether or not sources pause, so a trigger only ends when
//! what the one before has brought forth has gone through.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use timely::dataflow::Scope;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::operate::FrontierInterest;
use timely::scheduling::Activator;

use super::Rows;
use super::output::Output;
use super::route::{self, Whole};
use super::worker::Worker;
use crate::alignment::Hold;
use crate::batch::Batch;
use crate::connector::Waker;
use crate::recover::Recovered;
use crate::settings::Trigger;
use crate::time::Epoch;

/// With more epochs under way than this, they become longer.
const UNDER_WAY: usize = 32;

/// With so many epochs under way, none begins. Many, since one slow branch holds all of them back.
const UNDER_WAY_MAX: usize = 512;

/// Epochs become no longer than this many times their usual length.
const STRETCH_MAX: u32 = 10;

/// How long epochs are at least when each has one batch.
const CAREFUL_EPOCH: Duration = Duration::from_micros(50);

/// The beginning of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tick {
    /// The epoch.
    pub(crate) epoch: Epoch,
    /// The engine's clock; never runs backwards, also across attempts.
    pub(crate) clock_ms: u64,
    /// The number of the trigger that the epoch belongs to.
    pub(crate) trigger: u64,
    /// Sources pause: too much is committed and not yet published, or nothing could be committed for long.
    pub(crate) held_back: bool,
    /// This is the last tick.
    pub(crate) closing: Option<Closing>,
}

/// What sources are told: a tick, and what has become known since the last one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Signal {
    pub(crate) tick: Tick,
    /// Which splits are held, and which aren't any more.
    pub(crate) holds: Vec<Hold>,
}

/// Why there are no further ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Closing {
    /// All sources are at their end.
    Finished,
    /// What was there at the start has been read; a later attempt may find more.
    Drained,
    /// Somebody asked for it; sources are left where they are.
    Stopped,
}

impl Closing {
    /// Nothing that could be read was left.
    pub(crate) fn has_read_all(self) -> bool {
        self != Closing::Stopped
    }
}

/// The pacer of a worker; only the one of worker 0 ever ticks.
pub(crate) struct Pacer {
    activator: Activator,
    state: RefCell<State>,
}

struct State {
    capability: Option<Capability<u64>>,
    /// The last tick; its epoch is before the first interval until there was one.
    last: Option<Tick>,
    first_interval: u32,
    clock_ms: u64,
    trigger: u64,
    epoch_length: Duration,
    next_epoch: Duration,
    next_trigger: NextTrigger,
    /// The epoch that the present trigger began with.
    trigger_since: u64,
    next_interval: Duration,
    under_way: VecDeque<u64>,
}

/// When the trigger under way is over.
#[derive(Clone, Copy)]
enum NextTrigger {
    /// At this time.
    At(Duration),
    /// When so many records have been read in this attempt.
    Read(u64),
}

impl NextTrigger {
    fn after(worker: &Worker, now: Duration) -> Self {
        match worker.attempt.settings.trigger {
            Trigger::Every(time) => NextTrigger::At(now + time),
            Trigger::AvailableNow { rows } => NextTrigger::Read(records_in(worker) + rows.max(1)),
        }
    }

    /// Whether it is over, if it began with epoch `since`.
    fn is_here(self, worker: &Worker, now: Duration, since: u64) -> bool {
        match self {
            NextTrigger::At(time) => now >= time && worker.complete.get() >= since,
            NextTrigger::Read(records) => records_in(worker) >= records,
        }
    }
}

fn records_in(worker: &Worker) -> u64 {
    worker.attempt.observed.records_in()
}

pub(super) fn build<'scope>(
    scope: Scope<'scope, u64>,
    worker: &Rc<Worker>,
    recovered: &Recovered,
) -> (Rc<Pacer>, Rows<'scope>) {
    let mut builder = OperatorBuilder::new("pacer".to_owned(), scope);
    let (mut output, stream) = Output::add(&mut builder);
    let address = builder.operator_info().address;
    let now = worker.attempt.env.monotonic();
    let settings = &worker.attempt.settings;
    let pacer = Rc::new(Pacer {
        activator: scope.activator_for(address.clone()),
        state: RefCell::new(State {
            capability: None,
            last: None,
            first_interval: recovered.first_interval(),
            clock_ms: recovered.progress.clock_ms,
            trigger: recovered.progress.trigger,
            epoch_length: settings.epoch,
            next_epoch: now,
            next_trigger: NextTrigger::after(worker, now),
            trigger_since: 0,
            next_interval: now + settings.checkpoint_interval.unwrap_or_default(),
            under_way: VecDeque::new(),
        }),
    });
    if worker.index == 0 {
        let wake = scope.worker().sync_activator_for(address.to_vec());
        worker.attempt.set_pacer(Waker::new(move || {
            wake.activate().ok();
        }));
    }
    let (worker, shared) = (worker.clone(), pacer.clone());
    builder.build(move |mut capabilities| {
        if worker.index == 0 {
            let mut capability = capabilities.pop().expect("there is one output");
            let mut state = shared.state.borrow_mut();
            capability.downgrade(&Epoch::first_of(state.first_interval).timestamp());
            state.capability = Some(capability);
        }
        drop(capabilities);
        move |_| {
            if !worker.attempt.is_over() {
                shared.state.borrow_mut().step(&worker, &mut output);
            }
        }
    });
    (pacer, stream)
}

impl Pacer {
    /// When the pacer has something to do next, by the environment's monotonic clock.
    pub(crate) fn due(&self) -> Option<Duration> {
        let state = self.state.borrow();
        state.capability.is_some().then_some(state.next_epoch)
    }

    /// Has the pacer called at the next step.
    pub(crate) fn activate(&self) {
        self.activator.activate();
    }
}

impl State {
    fn step(&mut self, worker: &Worker, output: &mut Output) {
        if self.capability.is_none() {
            return;
        }
        let attempt = &worker.attempt;
        let now = attempt.env.monotonic();
        let closing = if self.last.is_none() {
            // Sources learn where they stand before anything ends.
            None
        } else if worker.sources_ended.get() {
            Some(match attempt.settings.trigger {
                Trigger::Every(_) => Closing::Finished,
                Trigger::AvailableNow { .. } => Closing::Drained,
            })
        } else if attempt.stop_requested() {
            Some(Closing::Stopped)
        } else {
            None
        };
        let interval_ends = self.interval_ends(worker, now);
        if now < self.next_epoch && closing.is_none() && !interval_ends {
            return;
        }
        if attempt.is_careful() && closing.is_none() && self.is_under_way(worker) {
            return;
        }
        self.forget_complete(worker);
        if self.under_way.len() >= UNDER_WAY_MAX && closing.is_none() && !interval_ends {
            self.next_epoch = now + self.epoch_length;
            return;
        }
        let epoch = match &self.last {
            None => Epoch::first_of(self.first_interval),
            Some(last) if interval_ends && closing.is_none() => {
                self.next_interval = now + attempt.settings.checkpoint_interval.unwrap_or_default();
                Epoch::first_of(last.epoch.interval() + 1)
            }
            Some(last) => last.epoch.next(),
        };
        let trigger_ends = self.last.is_some()
            && match closing {
                // When all sources are at their end, operators tell what is left in the epoch that begins now: it belongs to the last trigger.
                Some(closing) => closing == Closing::Drained,
                None => self.next_trigger.is_here(worker, now, self.trigger_since),
            };
        if trigger_ends {
            self.trigger += 1;
            self.next_trigger = NextTrigger::after(worker, now);
            self.trigger_since = epoch.timestamp();
        }
        self.clock_ms = self.clock_ms.max(attempt.env.wall_clock_ms());
        let tick = Tick {
            epoch,
            clock_ms: self.clock_ms,
            trigger: self.trigger,
            held_back: attempt.is_held_back(now),
            closing,
        };
        self.send(tick, worker, output);
        self.pace(worker, now);
        let observed = &attempt.observed;
        observed.note_epoch(epoch, self.trigger);
        let previous = self.last.replace(tick).map(|last| last.epoch.interval());
        if attempt.settings.checkpoint_interval.is_some() {
            if let Some(ended) = previous.filter(|previous| *previous < epoch.interval()) {
                attempt.checkpoint_is_due(now);
                observed.ledger.interval_ended(ended, now);
            }
            if closing.is_some() {
                attempt.checkpoint_is_due(now);
                observed.ledger.interval_ended(epoch.interval(), now);
            }
        }
    }

    /// Whether anything from before the last tick is still in the dataflow.
    fn is_under_way(&self, worker: &Worker) -> bool {
        self.last.is_some_and(|last| worker.complete.get() < last.epoch.timestamp())
    }

    /// Whether a new interval begins now: it is time, or somebody asked for it, and no checkpoint is in flight.
    fn interval_ends(&self, worker: &Worker, now: Duration) -> bool {
        let (Some(last), Some(_)) = (&self.last, worker.attempt.settings.checkpoint_interval)
        else {
            return false;
        };
        let interval = last.epoch.interval();
        let in_flight =
            interval > self.first_interval && worker.attempt.settled_interval() < interval - 1;
        let due = now >= self.next_interval && !worker.attempt.is_backed_up();
        !in_flight && (due || worker.attempt.take_checkpoint_request())
    }

    fn send(&mut self, tick: Tick, worker: &Worker, output: &mut Output) {
        let capability = self.capability.as_mut().expect("checked by the caller");
        capability.downgrade(&tick.epoch.timestamp());
        let signal = Signal { tick, holds: worker.holds.take() };
        let parts = (0..worker.peers).map(|_| Batch::new(vec![signal.clone()])).collect();
        output.give(capability, Batch::split(parts));
        if let Some(closing) = tick.closing {
            if closing.has_read_all() {
                worker.attempt.set_finished();
            }
            self.capability = None;
        }
    }

    fn forget_complete(&mut self, worker: &Worker) {
        let complete = worker.complete.get();
        while self.under_way.front().is_some_and(|epoch| *epoch < complete) {
            self.under_way.pop_front();
        }
    }

    /// Sets the time of the next epoch.
    fn pace(&mut self, worker: &Worker, now: Duration) {
        if let Some(last) = &self.last {
            self.under_way.push_back(last.epoch.timestamp());
        }
        let usual = match worker.attempt.is_careful() {
            true => CAREFUL_EPOCH,
            false => worker.attempt.settings.epoch,
        };
        self.epoch_length = if self.under_way.len() > UNDER_WAY {
            (self.epoch_length * 2).min(usual * STRETCH_MAX)
        } else {
            (self.epoch_length * 3 / 4).max(usual)
        };
        self.next_epoch = now + self.epoch_length;
    }
}

/// Brings the ticks to this worker: notes them for its hosts, and passes them to its sources.
pub(super) fn relay<'scope>(
    scope: Scope<'scope, u64>,
    ticks: Rows<'scope>,
    worker: &Rc<Worker>,
) -> Rows<'scope> {
    let mut builder = OperatorBuilder::new("ticks".to_owned(), scope);
    let mut input = builder.new_input(ticks, route::pact(Whole::To(0), worker.index));
    builder.set_notify_for(0, FrontierInterest::Never);
    let (mut output, stream) = Output::add(&mut builder);
    let worker = worker.clone();
    builder.build(move |capabilities| {
        drop(capabilities);
        move |_| {
            input.for_each(|capability, batch| {
                let signals: Vec<Signal> =
                    std::mem::take(batch).take().expect("ticks are plain data of our own");
                for signal in &signals {
                    worker.publish_tick(signal.tick);
                }
                output.give(&capability, Batch::new(signals));
            });
        }
    });
    stream
}
