//! Drives operators by hand, without a runtime: a plan is built with the typed API, its operators are made for any number of
//! workers, fed, told of epochs, checkpointed and restored.

use std::cell::RefCell;
use std::panic::Location;
use std::sync::{Arc, OnceLock};

use highwater_codec::hash_key;
use highwater_env::{Env, RealEnv};
use highwater_runtime::plan::{MakeOperator, Node, Role, Times};
use highwater_runtime::{
    Batch, Data, Epoch, EpochEnd, Keyed, Operator, OperatorContext, Outputs, Plan, RowsType, Wants,
    Work,
};
use highwater_state::object::{self, Object};
use highwater_state::{Image, KeyGroups, Slice};

use super::job::{Job, Spec};
use super::stateless::Forward;
use super::{Key, KeyedStream, Stream};

/// Few enough that groups are shared and workers can be many.
const KEY_GROUPS: u32 = 8;

thread_local! {
    /// What operators emitted on this thread, while somebody wants to know.
    static TAP: RefCell<Option<Vec<(usize, Batch)>>> = const { RefCell::new(None) };
}

/// Hears of every batch that an operator of this crate emits: [`Outputs`] can be read by the runtime only.
pub(super) fn tap(port: usize, batch: &Batch) {
    TAP.with_borrow_mut(|tapped| {
        if let Some(tapped) = tapped {
            tapped.push((port, batch.clone()));
        }
    });
}

/// What operators emit while `run` runs.
fn emitted<T>(run: impl FnOnce(&mut Outputs) -> T) -> (T, Vec<(usize, Batch)>) {
    TAP.set(Some(Vec::new()));
    let answer = run(&mut Outputs::default());
    (answer, TAP.take().expect("set above"))
}

/// Every row of these batches.
fn rows<T: Data>(batches: Vec<(usize, Batch)>) -> Vec<T> {
    batches.into_iter().flat_map(|(_, batch)| batch.take::<Vec<T>>().unwrap()).collect()
}

/// The context of one of some workers.
pub(super) fn context(worker: usize, workers: usize) -> OperatorContext {
    static ENV: OnceLock<Arc<dyn Env>> = OnceLock::new();
    let key_groups = KeyGroups::new(KEY_GROUPS);
    OperatorContext {
        uid: "op".to_owned(),
        worker,
        workers,
        key_groups,
        groups: key_groups.range(worker, workers),
        owners: key_groups.owners(workers).into(),
        env: ENV.get_or_init(|| Arc::new(RealEnv::new().unwrap())).clone(),
    }
}

/// A stream that comes from nowhere; its node is the plan's first.
#[track_caller]
fn input<T>(job: &Job) -> Stream<T> {
    let (at, wants) = (Location::caller(), Wants::default());
    let (times, watermark) = (Times::Dropped, None);
    let spec = Spec { name: "input", inputs: Vec::new(), outputs: 1, wants, times, watermark, at };
    let node = job.operator(spec, |_| Forward);
    Stream::new(job.clone(), node, 0)
}

/// The plan that `build` makes.
pub(super) fn plan<T: Data, O>(build: impl FnOnce(Stream<T>) -> O) -> Plan {
    let job = Job::new();
    build(input(&job));
    job.into_plan()
}

fn make_of(node: &Node) -> MakeOperator {
    match &node.role {
        Role::Operator { make, .. } => make.clone(),
        _ => panic!("only operators are driven by hand"),
    }
}

/// Runs one batch through the stateless operators that `build` makes, on one worker. Answers what comes out of each stream that
/// `build` gives.
pub(super) fn run_stateless<T: Data, U: Data, const N: usize>(
    records: Vec<T>,
    build: impl FnOnce(Stream<T>) -> [Stream<U>; N],
) -> [Vec<U>; N] {
    let job = Job::new();
    let streams = build(input(&job)).map(|stream| stream.port());
    let plan = job.into_plan();
    // By node: what it has emitted, at which port. Nodes come after those that they read.
    let mut out: Vec<Vec<(usize, Batch)>> = vec![vec![(0, Batch::new(records))]];
    for node in &plan.nodes()[1..] {
        let mut operator = make_of(node)(&context(0, 1));
        let ((), batches) = emitted(|outputs| {
            for (port, edge) in node.inputs.iter().enumerate() {
                for (output, batch) in &out[edge.from.node] {
                    if *output == edge.from.output {
                        operator.receive(port, Epoch::new(1, 0), batch.clone(), outputs).unwrap();
                    }
                }
            }
        });
        out.push(batches);
    }
    streams.map(|port| {
        rows(out[port.node].iter().filter(|(output, _)| *output == port.output).cloned().collect())
    })
}

/// One keyed operator on some workers, and what a store would hold of it.
pub(super) struct Rig {
    make: MakeOperator,
    wants: Wants,
    workers: Vec<Box<dyn Operator>>,
    interval: u32,
    /// The next epoch that can complete.
    epoch: u32,
    /// At the end of the last epoch that completed, and of the last checkpoint.
    watermark: Option<i64>,
    committed_watermark: Option<i64>,
    /// At the end of the next one.
    next_watermark: Option<i64>,
    clock_ms: u64,
    /// In the last epoch that completed, and at the last checkpoint; triggers that have ended by then.
    passed: (u64, u64),
    committed: (u64, u64),
    objects: Vec<Object>,
    /// How many rows were too late.
    late: u64,
}

impl Rig {
    /// The operator that `build` makes, on `workers` workers.
    pub(super) fn new<K: Key, V: Data, O>(
        workers: usize,
        build: impl FnOnce(KeyedStream<K, V>) -> O,
    ) -> Self {
        Self::of(workers, plan(|pairs: Stream<(K, V)>| build(pairs.keyed())))
    }

    /// The last operator of a plan.
    pub(super) fn of(workers: usize, plan: Plan) -> Self {
        let node = plan.nodes().last().unwrap();
        let Role::Operator { wants, .. } = node.role else { panic!("it is an operator") };
        assert!(wants.state, "it has state");
        let make = make_of(node);
        let mut rig = Rig {
            make,
            wants,
            workers: Vec::new(),
            interval: 0,
            epoch: 0,
            watermark: None,
            committed_watermark: None,
            next_watermark: None,
            clock_ms: 0,
            passed: (0, 0),
            committed: (0, 0),
            objects: Vec::new(),
            late: 0,
        };
        rig.crash(workers);
        rig
    }

    /// From the next start on it is the last operator of this plan.
    pub(super) fn change(&mut self, plan: Plan) {
        let node = plan.nodes().last().unwrap();
        self.make = make_of(node);
        if let Role::Operator { wants, .. } = node.role {
            self.wants = wants;
        }
    }

    /// The `ahead`-th epoch after the one that completes next.
    pub(super) fn epoch(&self, ahead: u32) -> Epoch {
        Epoch::new(self.interval, self.epoch + ahead)
    }

    /// Rows arrive; each goes to the worker of its key.
    pub(super) fn feed<K: Key, V: Data, O: Data>(
        &mut self,
        ahead: u32,
        records: Vec<(K, V)>,
    ) -> Vec<O> {
        self.feed_timed(ahead, records, Vec::new())
    }

    /// As [`feed`](Self::feed), with event times.
    pub(super) fn feed_timed<K: Key, V: Data, O: Data>(
        &mut self,
        ahead: u32,
        records: Vec<(K, V)>,
        times: Vec<i64>,
    ) -> Vec<O> {
        let epoch = self.epoch(ahead);
        let workers = self.workers.len();
        let owners = KeyGroups::new(KEY_GROUPS).owners(workers);
        let mut parts: Vec<(Keyed<K, V>, Vec<i64>)> =
            (0..workers).map(|_| Default::default()).collect();
        let mut times = times.into_iter();
        for (key, value) in records {
            let hash = hash_key(&key).unwrap();
            let group = KeyGroups::new(KEY_GROUPS).of(hash);
            let part = &mut parts[owners[group as usize] as usize];
            part.0.push(hash, key, value);
            part.1.extend(times.next());
        }
        let ((), batches) = emitted(|out| {
            for (worker, (part, times)) in self.workers.iter_mut().zip(parts) {
                // As if it came from another process.
                let part = Keyed::decode(&highwater_runtime::Rows::encode(&part).unwrap()).unwrap();
                let batch = Batch::new::<Keyed<K, V>>(part).with_times(times);
                worker.receive(0, epoch, batch, out).unwrap();
            }
        });
        rows(batches)
    }

    /// Rows arrive that all workers get, each with the number of the worker that sent it; by batches, in one order or the other.
    pub(super) fn feed_all<T: Data>(&mut self, ahead: u32, batches: Vec<Vec<(u32, T)>>) {
        let epoch = self.epoch(ahead);
        let ((), told) = emitted(|out| {
            for (number, worker) in self.workers.iter_mut().enumerate() {
                let mut batches = batches.clone();
                if number % 2 == 1 {
                    batches.reverse();
                }
                for batch in batches {
                    worker.receive(1, epoch, Batch::new(batch), out).unwrap();
                }
            }
        });
        assert!(told.is_empty(), "nothing is told before the epoch is complete");
    }

    /// The next epoch is complete.
    pub(super) fn complete<O: Data>(&mut self, trigger_ends: bool) -> Vec<O> {
        rows(self.complete_epoch(trigger_ends))
    }

    /// The next epoch is complete, and with it event time has come so far. Answers what the operator emits at its first output.
    pub(super) fn complete_at<O: Data>(&mut self, watermark: i64, clock_ms: u64) -> Vec<O> {
        self.advance(watermark, clock_ms);
        let emitted = self.complete_epoch(false).into_iter();
        rows(emitted.filter(|(port, _)| *port == 0).collect())
    }

    /// Event time has come so far when the job begins.
    pub(super) fn begin_at(&mut self, watermark: i64) {
        let watermark = Some(watermark);
        (self.watermark, self.committed_watermark, self.next_watermark) =
            (watermark, watermark, watermark);
    }

    /// The clock at the end of the next epoch.
    pub(super) fn set_clock(&mut self, clock_ms: u64) {
        self.clock_ms = clock_ms;
    }

    /// What time will be at the end of the next epoch.
    fn advance(&mut self, watermark: i64, clock_ms: u64) {
        (self.next_watermark, self.clock_ms) = (Some(watermark), clock_ms);
    }

    /// How many rows were said to be too late.
    pub(super) fn late(&self) -> u64 {
        self.late
    }

    /// The next epoch is complete. Answers what the operator emits, with the number of the output.
    pub(super) fn complete_epoch(&mut self, trigger_ends: bool) -> Vec<(usize, Batch)> {
        let epoch = self.epoch(0);
        self.epoch += 1;
        let end = EpochEnd {
            epoch,
            clock_ms: self.clock_ms,
            clock_before_ms: self.passed.0,
            trigger: self.passed.1,
            watermark: self.next_watermark,
            late_below: self.watermark,
            trigger_ends,
            finished: false,
        };
        self.passed = (self.clock_ms, self.passed.1 + u64::from(trigger_ends));
        self.watermark = self.next_watermark;
        if !self.wants.epochs {
            return Vec::new();
        }
        let (late, batches) = emitted(|out| {
            for worker in &mut self.workers {
                while worker.complete(&end, out).unwrap() == Work::More {}
            }
            out.late_rows()
        });
        self.late += late;
        for (_, batch) in &batches {
            assert!(batch.len() <= super::BATCH_ROWS);
        }
        batches
    }

    /// The interval ends, all of its epochs being complete, and its checkpoint is committed.
    pub(super) fn checkpoint(&mut self) {
        self.committed_watermark = self.watermark;
        self.committed = self.passed;
        self.interval += 1;
        self.epoch = 0;
        for (number, worker) in self.workers.iter_mut().enumerate() {
            for table in worker.tables() {
                table.freeze(self.interval, None);
            }
            let mut sections = Vec::new();
            for table in worker.tables() {
                loop {
                    if let Slice::Done(done) = table.encode(100).unwrap() {
                        sections.extend(done.into_iter().map(|section| ("op".to_owned(), section)));
                        break;
                    }
                }
            }
            let name = format!("i{}-w{number}", self.interval);
            self.objects
                .push(Object::open(&name, object::write(&sections).concat().into()).unwrap());
        }
    }

    /// The attempt dies; the next one has `workers` workers and starts from the last checkpoint.
    pub(super) fn crash(&mut self, workers: usize) {
        self.watermark = self.committed_watermark;
        self.passed = self.committed;
        self.next_watermark = self.watermark;
        self.interval += 1;
        self.epoch = 0;
        let image = Image::new(self.objects.clone());
        self.workers = (0..workers)
            .map(|worker| {
                let mut operator = (self.make)(&context(worker, workers));
                for table in operator.tables() {
                    table.restore("op", &image).unwrap();
                    table.begin(self.interval, true);
                }
                operator.restored();
                operator
            })
            .collect();
    }

    /// How many rows the last checkpoint wrote to the state `name`.
    pub(super) fn written(&self, name: &str) -> u64 {
        let last = &self.objects[self.objects.len() - self.workers.len()..];
        let sections = last.iter().flat_map(Object::sections);
        sections.filter(|section| section.head.state == name).map(|section| section.head.rows).sum()
    }

    /// How many entries the `table`-th state has.
    pub(super) fn entries(&mut self, table: usize) -> u64 {
        self.workers.iter_mut().map(|worker| worker.tables()[table].len()).sum()
    }
}
