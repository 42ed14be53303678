//! The committer: turns the reports of all workers into one entry of the log, the one commit point; then has the
//! output published and garbage collected.
//!
//! A task beside worker 0. Checkpoints come one at a time, in order:
//!
//! ```text
//! reports ─▶ manifest ─▶ entry appended ─▶ publishers told ─▶ garbage deleted
//!               │             └─ fenced: the attempt ends
//!               └─ failed: nothing is lost, the next checkpoint covers it; the last one is repeated until it works
//! ```
//!
//! An append takes as long as the store is away. Nothing else may be appended before its outcome is known.
//!
//! # Invariants
//!
//! 1. An entry names only objects that were reported durable.
//! 5. An empty checkpoint is as durable as a full one: there is no shortcut for it.
//! 6. (of the log's) Objects are deleted only when a committed entry lists them as garbage, entry first.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Phase;
use highwater_log::{
    AppendError, CheckpointEntry, Committed, Configuration, Holding, Log, LogError, Manifest,
    ObjectRef, OperatorEntry, StagedItem, StagedOutput, collect, names,
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::Error;
use crate::attempt::Attempt;
use crate::connector::{Delivery, PublisherContext};
use crate::dataflow::{Closing, Ready, SinkItems, WorkerReport};
use crate::observe::WorkerPhases;
use crate::plan::{Checked, Role};
use crate::publish::{Publication, SinkPublishing, publications};
use crate::recover::Recovered;

/// How often a finished job looks whether its last output is published.
const PUBLISHED_POLL: Duration = Duration::from_millis(2);

/// Commits the checkpoints of one attempt.
pub(crate) struct Committer {
    attempt: Arc<Attempt>,
    log: Arc<Log>,
    configuration: Configuration,
    graph: Vec<OperatorEntry>,
    sinks: BTreeMap<String, SinkPublishing>,
    /// Committed output that isn't known to be published, and with which entry each item's part was decided.
    carried: Vec<Carried>,
    /// Staged in intervals that didn't commit.
    pending: Vec<SinkItems>,
    previous: Option<u64>,
    existing: BTreeMap<u64, Holding>,
    listed: BTreeSet<String>,
    /// Leftovers of older attempts are looked for once.
    swept: bool,
    /// Those that no entry lists as garbage yet.
    leftovers: Vec<String>,
    last: Option<CheckpointEntry>,
    /// Everything there was has been read, so that the job is over only when all of its output is published.
    has_read_all: bool,
    newest_entry: u64,
    /// The last checkpoint failed; only the first of a row is worth a warning.
    failing: bool,
}

struct Carried {
    sink: String,
    checkpoint: u64,
    item: StagedItem,
    decided: Option<u64>,
}

impl Committer {
    /// Makes the publishers, has them claim their destinations, and sets them to what the base left unpublished.
    pub(crate) async fn start(
        job: &str,
        plan: &Checked,
        recovered: &Recovered,
        attempt: &Arc<Attempt>,
    ) -> Result<Self, Error> {
        let mut sinks = BTreeMap::new();
        for (id, node) in plan.nodes().iter().enumerate() {
            let Role::Sink(sink) = &node.role else { continue };
            let uid = plan.uid(id);
            let failed = |source| Error::Operator { kind: "sink", uid: uid.to_owned(), source };
            let context = PublisherContext {
                uid: uid.to_owned(),
                job: job.to_owned(),
                job_id: recovered.job_id.clone(),
                attempt: attempt.number,
                starts_over: recovered.base.is_none(),
                covered: recovered.base.as_ref().map(|_| recovered.progress.interval),
                begun: attempt.settings.begun,
                env: attempt.env.clone(),
                log: recovered.log.clone(),
            };
            let publisher = sink.publisher(context).map_err(failed)?;
            publisher.prepare().await.map_err(failed)?;
            let promise = match sink.delivery() {
                Delivery::ExactlyOnce => "exactly once",
                Delivery::AtLeastOnce => "at least once",
            };
            tracing::debug!(sink = uid, promise, "the destination is ours");
            sinks.insert(uid.to_owned(), SinkPublishing::start(uid, publisher.into(), attempt));
        }
        let (mut existing, damage) = recovered.log.holdings(&recovered.facts).await?;
        existing.values_mut().for_each(own_store_only);
        let mut committer = Committer {
            attempt: attempt.clone(),
            log: recovered.log.clone(),
            configuration: Configuration {
                workers: attempt.settings.all_workers() as u32,
                key_groups: recovered.key_groups.count(),
                hash_version: highwater_codec::HASH_VERSION,
            },
            graph: recovered.graph.clone(),
            sinks,
            carried: Vec::new(),
            pending: Vec::new(),
            previous: recovered.base.as_ref().map(|(number, _)| *number),
            existing,
            listed: BTreeSet::new(),
            // What a damaged manifest names isn't known, so nothing can be told to be a leftover.
            swept: !damage.is_empty(),
            leftovers: Vec::new(),
            last: None,
            has_read_all: false,
            newest_entry: attempt.number,
            failing: false,
        };
        if let Some((number, base)) = &recovered.base {
            committer.take_over(*number, base).await?;
        }
        Ok(committer)
    }

    /// Takes over what the base left to do.
    async fn take_over(&mut self, number: u64, base: &CheckpointEntry) -> Result<(), Error> {
        for output in &base.staged {
            for item in &output.items {
                self.carried.push(Carried {
                    sink: output.sink.clone(),
                    checkpoint: output.checkpoint,
                    item: item.clone(),
                    decided: item.part.as_ref().map(|_| number),
                });
            }
        }
        let committed = self.log.committed(number).await?;
        let of_sink = |uid: &String| (uid.clone(), publications(uid, &base.staged));
        let output = self.sinks.keys().map(of_sink).collect();
        self.send(committed, output);
        self.delete(&base.garbage).await;
        if base.finished {
            self.has_read_all = true;
            self.last = Some(base.clone());
        }
        Ok(())
    }

    /// Commits what comes, until the dataflow has come to its end.
    pub(crate) async fn run(mut self, mut ready: UnboundedReceiver<Ready>) {
        while let Some(ready) = ready.recv().await {
            if self.attempt.is_over() {
                return;
            }
            if let Err(error) = self.checkpoint(ready).await {
                self.attempt.fail(error);
                return;
            }
        }
        self.finish().await;
    }

    /// Waits until everything is published, and records that. A job that was stopped doesn't wait for a destination that is
    /// down: the next start publishes what is left.
    pub(crate) async fn finish(&mut self) {
        while !self.sinks.values().all(SinkPublishing::is_idle) {
            if self.attempt.is_over() {
                return;
            }
            if !self.has_read_all
                && self.sinks.values().any(|sink| !sink.is_idle() && sink.is_failing())
            {
                tracing::warn!(
                    "stopped before everything is published; the next start publishes what is left"
                );
                return;
            }
            self.attempt.env.sleep(PUBLISHED_POLL).await;
        }
        let Some(last) = self.last.take() else { return };
        self.drop_published();
        if !self.carried.is_empty() {
            return;
        }
        if let Err(error) = self.tidy_up(last).await {
            tracing::warn!(%error, "the last output is published, and couldn't be recorded as such");
        }
    }

    /// Nothing has happened since, so the last entry stands once more, with its output recorded as published and what nothing
    /// refers to as garbage, if there is any.
    async fn tidy_up(&mut self, last: CheckpointEntry) -> Result<(), Error> {
        let manifest = self.log.get_manifest(&last.manifest).await?;
        self.sweep(&holding(&last, Some(&manifest))).await;
        if last.staged.is_empty() && self.leftovers.is_empty() {
            return Ok(());
        }
        let mut entry = CheckpointEntry {
            previous: self.previous,
            staged: Vec::new(),
            garbage: Vec::new(),
            ..last
        };
        entry.garbage = self.garbage(self.newest_entry + 1, &entry, &manifest).await;
        let committed = self.append(&entry, &manifest).await?;
        self.publish(committed);
        self.delete(&entry.garbage).await;
        Ok(())
    }

    async fn checkpoint(&mut self, ready: Ready) -> Result<(), Error> {
        let Ready { interval, reports, .. } = &ready;
        let interval = *interval;
        let ledger = &self.attempt.observed.ledger;
        ledger.reported(interval, self.attempt.env.monotonic());
        let failed: Vec<&WorkerReport> =
            reports.iter().filter(|report| report.failed.is_some()).collect();
        let failure = failed.first().map(|report| {
            let why = report.failed.as_deref().unwrap_or_default();
            format!("worker {}: {why}", report.worker)
        });
        self.pending.extend(reports.iter().flat_map(|report| report.staged.iter().cloned()));
        self.note_states(reports);
        let entry = match failure {
            Some(why) => Err(why),
            None => self.entry_or_wait(&ready).await.map_err(|error| error.to_string()),
        };
        let (entry, manifest) = match entry {
            Ok(entry) => entry,
            Err(why) => {
                let text = "a checkpoint failed; the next one covers what it would have";
                match std::mem::replace(&mut self.failing, true) {
                    false => tracing::warn!(interval, why, "{text}"),
                    true => tracing::debug!(interval, why, "{text}"),
                }
                self.attempt.observed.ledger.failed(interval, &why);
                self.attempt.settle(interval, false);
                if ready.closing.is_some() {
                    return Err(Error::LastCheckpoint(why));
                }
                return Ok(());
            }
        };
        self.failing = false;
        let bytes: u64 = reports.iter().map(|report| report.bytes).sum();
        let phases = reports.iter().map(|report| report.phases);
        let phases = phases.reduce(WorkerPhases::longest).unwrap_or_default();
        let committed = self.append(&entry, &manifest).await?;
        self.note_committed(committed.number(), interval, bytes, phases);
        self.publish(committed);
        // The next checkpoint may begin while garbage is deleted; it is committed after that.
        self.attempt.settle(interval, true);
        let began = self.attempt.env.monotonic();
        self.delete(&entry.garbage).await;
        let took = self.attempt.env.monotonic() - began;
        self.attempt.observed.ledger.collected(committed.number(), took);
        self.has_read_all = ready.closing.is_some_and(Closing::has_read_all);
        self.last = Some(entry);
        Ok(())
    }

    /// Says what a checkpoint took: one line of the log each.
    fn note_committed(&self, checkpoint: u64, interval: u32, bytes: u64, phases: WorkerPhases) {
        let observed = &self.attempt.observed;
        let now = self.attempt.env.monotonic();
        let noted = observed.ledger.entered(checkpoint, interval, bytes, phases, now);
        let ms = |us: u64| us as f64 / 1000.0;
        tracing::info!(
            target: "highwater::checkpoint",
            checkpoint,
            interval,
            bytes,
            records_in = observed.records_in(),
            records_out = observed.records_out(),
            duration_ms = ms(noted.duration_us),
            wait_ms = ms(noted.wait_us),
            encode_ms = ms(noted.encode_us),
            upload_ms = ms(noted.upload_us),
            commit_ms = ms(noted.commit_us),
            "committed"
        );
    }

    /// The entry for a checkpoint. The last one waits for a store that is away: there is none after it.
    async fn entry_or_wait(
        &mut self,
        ready: &Ready,
    ) -> Result<(CheckpointEntry, Manifest), LogError> {
        loop {
            let entry = self.entry(ready).await;
            let again = matches!(entry, Err(LogError::Unavailable { .. }));
            if !again || ready.closing.is_none() || self.attempt.is_over() {
                return entry;
            }
        }
    }

    /// The entry for a checkpoint, and its manifest, which is written.
    async fn entry(&mut self, ready: &Ready) -> Result<(CheckpointEntry, Manifest), LogError> {
        let mut objects: Vec<ObjectRef> =
            ready.reports.iter().flat_map(|report| report.needed.iter().cloned()).collect();
        objects.sort();
        objects.dedup();
        let manifest = Manifest { format: highwater_log::entry::FORMAT, objects };
        let manifest_ref =
            self.log.put_manifest(self.attempt.number, ready.interval.into(), &manifest).await?;
        let number = self.newest_entry + 1;
        self.drop_published();
        for SinkItems { sink, items } in std::mem::take(&mut self.pending) {
            self.carried.extend(items.into_iter().map(|item| Carried {
                sink: sink.clone(),
                checkpoint: number,
                item,
                decided: None,
            }));
        }
        let has_read_all = ready.closing.is_some_and(Closing::has_read_all);
        self.decide_parts(number, ready.clock_ms, has_read_all);
        let mut entry = CheckpointEntry {
            previous: self.previous,
            interval: ready.interval.into(),
            epoch: ready.epoch.timestamp(),
            clock_ms: ready.clock_ms,
            trigger: ready.trigger,
            configuration: self.configuration.clone(),
            graph: self.graph.clone(),
            manifest: manifest_ref,
            staged: self.staged(),
            garbage: Vec::new(),
            finished: ready.closing == Some(Closing::Finished),
        };
        entry.garbage = self.garbage(number, &entry, &manifest).await;
        Ok((entry, manifest))
    }

    /// Asks every sink which of its staged items become visible with entry `number`.
    fn decide_parts(&mut self, number: u64, clock_ms: u64, last: bool) {
        for (uid, sink) in &self.sinks {
            let mut undecided: Vec<&mut Carried> = self
                .carried
                .iter_mut()
                .filter(|carried| carried.sink == *uid && carried.decided.is_none())
                .collect();
            let mut items: Vec<StagedItem> =
                undecided.iter().map(|carried| carried.item.clone()).collect();
            sink.publisher.plan(&mut items, clock_ms, last);
            for (carried, item) in undecided.iter_mut().zip(items) {
                carried.decided = item.part.as_ref().map(|_| number);
                carried.item = item;
            }
        }
    }

    /// What is carried, as the entry holds it.
    fn staged(&self) -> Vec<StagedOutput> {
        let mut staged: BTreeMap<(u64, &str), Vec<StagedItem>> = BTreeMap::new();
        for Carried { sink, checkpoint, item, .. } in &self.carried {
            staged.entry((*checkpoint, sink)).or_default().push(item.clone());
        }
        staged
            .into_iter()
            .map(|((checkpoint, sink), items)| StagedOutput {
                sink: sink.to_owned(),
                checkpoint,
                items,
            })
            .collect()
    }

    fn drop_published(&mut self) {
        let sinks = &self.sinks;
        self.carried.retain(|carried| {
            let published = sinks.get(&carried.sink).map_or(0, SinkPublishing::published);
            carried.decided.is_none_or(|decided| decided > published)
        });
    }

    async fn garbage(
        &mut self,
        number: u64,
        entry: &CheckpointEntry,
        manifest: &Manifest,
    ) -> Vec<String> {
        let retained =
            NonZeroUsize::new(self.attempt.settings.retained).unwrap_or(NonZeroUsize::MIN);
        let next = holding(entry, Some(manifest));
        self.sweep(&next).await;
        let mut garbage = collect(retained, &self.existing, number, &next, &self.listed);
        let known: BTreeSet<String> = garbage.iter().cloned().collect();
        garbage.extend(
            std::mem::take(&mut self.leftovers).into_iter().filter(|name| !known.contains(name)),
        );
        garbage
    }

    /// Looks once for what earlier attempts left behind. `next` is what the next entry holds on to.
    async fn sweep(&mut self, next: &Holding) {
        if self.swept {
            return;
        }
        let mut referenced: BTreeSet<String> = next.objects.clone();
        referenced
            .extend(self.existing.values().flat_map(|holding| holding.objects.iter().cloned()));
        match self.log.leftovers(self.attempt.number, &referenced).await {
            Ok(leftovers) => {
                self.leftovers = leftovers;
                self.swept = true;
            }
            Err(error) => tracing::warn!(%error, "leftovers of earlier attempts stay for now"),
        }
    }

    /// Appends an entry; what it covers is to be published next.
    async fn append(
        &mut self,
        checkpoint: &CheckpointEntry,
        manifest: &Manifest,
    ) -> Result<Committed, Error> {
        let entry = self.log.next_entry(checkpoint.clone());
        assert_eq!(entry.number, self.newest_entry + 1, "2: entries follow one another");
        let appended = self.attempt.unless_over(self.log.append(&entry)).await;
        // Whether it is there, the next attempt will see.
        let appended = appended.unwrap_or(Err(AppendError::Ended));
        let committed = appended.map_err(|error| match error {
            AppendError::Fenced { .. } => Error::Fenced(error.to_string()),
            AppendError::Log(error) => Error::Log(error),
            in_doubt => Error::InDoubt(in_doubt),
        })?;
        self.newest_entry = committed.number();
        drop(highwater_env::enter(&self.attempt.env, Phase::Committed));
        for number in checkpoint.garbage.iter().filter_map(|name| names::entry_number(name)) {
            self.existing.remove(&number);
        }
        self.existing.insert(committed.number(), holding(checkpoint, Some(manifest)));
        self.previous = Some(committed.number());
        Ok(committed)
    }

    fn publish(&mut self, committed: Committed) {
        let number = committed.number();
        let mut output = Vec::new();
        for uid in self.sinks.keys() {
            let mut decided: BTreeMap<u64, Vec<StagedItem>> = BTreeMap::new();
            let now = self.carried.iter().filter(|carried| carried.decided == Some(number));
            for carried in now.filter(|carried| carried.sink == **uid) {
                decided.entry(carried.checkpoint).or_default().push(carried.item.clone());
            }
            let staged: Vec<StagedOutput> = decided
                .into_iter()
                .map(|(checkpoint, items)| StagedOutput { sink: uid.clone(), checkpoint, items })
                .collect();
            output.push((uid.clone(), publications(uid, &staged)));
        }
        self.send(committed, output);
    }

    /// Hands every sink what of its output the committed entry decided.
    fn send(&mut self, committed: Committed, output: Vec<(String, Vec<Publication>)>) {
        let output: Vec<_> =
            output.into_iter().filter(|(_, of_sink)| !of_sink.is_empty()).collect();
        let uids: Vec<&str> = output.iter().map(|(uid, _)| uid.as_str()).collect();
        let ledger = &self.attempt.observed.ledger;
        // Before a sink can answer.
        ledger.sent(committed.number(), &uids, self.attempt.env.monotonic());
        let unpublished = self.attempt.unpublished();
        for (uid, publications) in output {
            let sink = self.sinks.get_mut(&uid).expect("output is that of a sink");
            sink.send(committed, publications, unpublished.clone());
        }
    }

    async fn delete(&mut self, garbage: &[String]) {
        let _phase = highwater_env::enter(&self.attempt.env, Phase::Collecting);
        match self.log.delete(garbage).await {
            Ok(left) => self.listed = left.into_iter().collect(),
            Err(error) => {
                tracing::warn!(%error, "garbage stays until a later checkpoint");
                self.listed = garbage.iter().cloned().collect();
            }
        }
    }

    /// Brings the graph's schemas up to date with what was written.
    fn note_states(&mut self, reports: &[WorkerReport]) {
        for written in reports.iter().flat_map(|report| &report.states) {
            let states = self
                .graph
                .iter_mut()
                .filter(|operator| operator.uid == written.uid)
                .flat_map(|operator| &mut operator.states);
            for state in states.filter(|state| state.name == written.name) {
                state.schema = written.schema.clone();
            }
        }
    }
}

/// What a checkpoint holds on to in the checkpoints' own store; what a sink staged elsewhere is the sink's.
fn holding(checkpoint: &CheckpointEntry, manifest: Option<&Manifest>) -> Holding {
    let mut holding = Holding::new(checkpoint, manifest);
    own_store_only(&mut holding);
    holding
}

fn own_store_only(holding: &mut Holding) {
    holding.objects.retain(|name| names::parse(name).is_some());
}
