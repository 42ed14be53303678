//! `map_with_state` with all that DStreams give it: a state to begin with, time-outs, and what all keys have at every trigger.
//!
//! Records wait until their epoch is complete, because time-outs go by the engine's clock, of which an epoch has one.
//!
//! ```text
//! first start ─▶ initial states
//! epoch complete ─▶ function of each record ─▶ function of keys that were silent for too long ─trigger ends─▶ snapshot
//! ```

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater_codec::hash_key;
use highwater_runtime::plan::{Edge, Exchange, Times};
use highwater_runtime::{
    Batch, BoxError, Data, Epoch, EpochEnd, Keyed, Operator, OperatorContext, Outputs, Wants, Work,
};
use highwater_state::{ByKey, KeyGroups, KeyedTable, Kind, Replicated, StateTable};

use super::job::{Job, Spec};
use super::map_with_state::StateHandle;
use super::ordered::Ordered;
use super::process::{Instant, Lifetimes, Placed, Ttl};
use super::stateless::emit;
use super::{BATCH_ROWS, Key, KeyedStream, SLICE_ROWS, Stream};

/// How [`map_with_state_spec`](KeyedStream::map_with_state_spec) keeps its states.
#[derive(Clone, Debug)]
pub struct StateSpec<K, S> {
    initial: Vec<(K, S)>,
    timeout: Option<Duration>,
}

impl<K, S> StateSpec<K, S> {
    /// No states to begin with, and no time-outs.
    #[must_use]
    pub fn new() -> Self {
        StateSpec { initial: Vec::new(), timeout: None }
    }

    /// The states that keys have when the job is started for the first time.
    #[must_use]
    pub fn initial(self, states: impl IntoIterator<Item = (K, S)>) -> Self {
        StateSpec { initial: states.into_iter().collect(), ..self }
    }

    /// A key that has had no record for so long, by the engine's clock, times out: the function is called without a record, and the state is
    /// removed.
    #[must_use]
    pub fn timeout(self, silence: Duration) -> Self {
        StateSpec { timeout: Some(silence), ..self }
    }
}

impl<K, S> Default for StateSpec<K, S> {
    fn default() -> Self {
        StateSpec::new()
    }
}

impl<K: Key, V: Data> KeyedStream<K, V> {
    /// As [`map_with_state`](Self::map_with_state), with states to begin with, time-outs, and snapshots of all states.
    ///
    /// `f` is called with a record, or with none for a key that times out, whose state it sees for the last time; it can't change it then.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::{StateHandle, StateSpec};
    ///
    /// let run = testing::run(2, |job| {
    ///     let words = job.read("in", vec!["a".to_owned(), "b".to_owned(), "a".to_owned()]);
    ///     let spec = StateSpec::new().initial([("a".to_owned(), 5u64), ("c".to_owned(), 1)]);
    ///     let counts = words.key_by(|word| word.clone()).map_with_state_spec(
    ///         spec,
    ///         |word, record, count: &mut StateHandle<u64>| {
    ///             record?;
    ///             count.set(count.get().copied().unwrap_or_default() + 1);
    ///             Some((word.clone(), *count.get()?))
    ///         },
    ///     );
    ///     let counts = counts.uid("counts");
    ///     counts.main().write("out", Collect);
    ///     counts.snapshots().write("all", Collect);
    /// })?;
    /// assert_eq!(run.last_per_key::<String, u64>("out")["a"], 7);
    /// assert_eq!(run.last_per_key::<String, u64>("all")["c"], 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn map_with_state_spec<S: Data + Sync, U: Data>(
        &self,
        spec: StateSpec<K, S>,
        f: impl Fn(&K, Option<V>, &mut StateHandle<'_, S>) -> Option<U> + Send + Sync + 'static,
    ) -> MappedWithState<K, S, U>
    where
        K: Sync,
    {
        let at = std::panic::Location::caller();
        if spec.timeout.is_some_and(|timeout| timeout < Duration::from_millis(1)) {
            self.job
                .error(at, "keys must be silent for a millisecond or more before they time out");
        }
        let (f, spec) = (Arc::new(f), Arc::new(spec));
        let wants_snapshots = Arc::new(AtomicBool::new(false));
        let asked = wants_snapshots.clone();
        let place = Spec {
            name: "map_with_state",
            inputs: vec![Edge { from: self.port, exchange: Exchange::Keyed }],
            outputs: 1,
            wants: Wants { state: true, epochs: true },
            times: Times::Dropped,
            watermark: None,
            at,
        };
        let node = self.job.operator(place, move |context| {
            let snapshots = asked.load(Ordering::Relaxed);
            Mapping::<K, V, S, U, _>::new(context, f.clone(), spec.clone(), snapshots)
        });
        let (job, rows) = (self.job.clone(), PhantomData);
        MappedWithState { main: Stream::new(job.clone(), node, 0), job, wants_snapshots, rows }
    }
}

/// What comes out of [`map_with_state_spec`](KeyedStream::map_with_state_spec).
pub struct MappedWithState<K, S, U> {
    main: Stream<U>,
    job: Job,
    wants_snapshots: Arc<AtomicBool>,
    rows: PhantomData<fn() -> (K, S)>,
}

impl<K, S, U> MappedWithState<K, S, U> {
    /// What the function answers.
    pub fn main(&self) -> Stream<U> {
        self.main.clone()
    }

    /// Every key with its state, at the end of every trigger.
    pub fn snapshots(&self) -> Stream<(K, S)> {
        self.wants_snapshots.store(true, Ordering::Relaxed);
        let node = self.main.port().node;
        self.job.plan().set_outputs(node, 2);
        Stream::new(self.job.clone(), node, 1)
    }

    /// Names the operator, and so its states; see [`Stream::uid`].
    #[track_caller]
    pub fn uid(self, uid: &str) -> Self {
        self.main.uid(uid);
        self
    }
}

impl<K, S, U> fmt::Debug for MappedWithState<K, S, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.main.fmt(f)
    }
}

/// States that are there when a job is started for the first time. That they were put there is known to all workers.
pub(super) struct Beginning<K, S> {
    states: Arc<Vec<(K, S)>>,
    begun: Replicated<u8, ()>,
    key_groups: KeyGroups,
    groups: Range<u32>,
}

impl<K: Data + Eq, S: Data> Beginning<K, S> {
    pub(super) fn new(context: &OperatorContext, states: Arc<Vec<(K, S)>>) -> Self {
        let (key_groups, groups) = (context.key_groups, context.groups.clone());
        let begun = Replicated::new("begun", key_groups, context.worker == 0);
        Beginning { states, begun, key_groups, groups }
    }

    pub(super) fn state_table(&mut self) -> &mut dyn StateTable {
        &mut self.begun
    }

    /// Those of this worker, the first time that this is called in the life of the job.
    pub(super) fn take(&mut self) -> Result<Vec<(u64, K, S)>, BoxError> {
        if self.begun.get(&0).is_some() {
            return Ok(Vec::new());
        }
        self.begun.set(0, ());
        let mut own = Vec::new();
        for (key, state) in &*self.states {
            let hash = hash_key(key)?;
            if self.groups.contains(&self.key_groups.of(hash)) {
                own.push((hash, key.clone(), state.clone()));
            }
        }
        Ok(own)
    }
}

/// Emits what the function answered, in batches of the usual size.
fn emit_all<U: Data>(mut mapped: Vec<U>, out: &mut Outputs) {
    while !mapped.is_empty() {
        let rest = mapped.split_off(mapped.len().min(BATCH_ROWS));
        emit(out, 0, Batch::new(std::mem::replace(&mut mapped, rest)));
    }
}

/// The operator.
struct Mapping<K, V, S, U, F> {
    f: Arc<F>,
    input: Ordered<K, V>,
    states: KeyedTable<K, S>,
    beginning: Beginning<K, S>,
    silent: Option<Lifetimes<K, ByKey>>,
    /// Whether snapshots are wanted, and how far the present one has got.
    snapshots: bool,
    shown: Option<usize>,
    rows: PhantomData<fn() -> U>,
}

impl<K, V, S, U, F> Mapping<K, V, S, U, F>
where
    K: Data + Eq,
    V: Data,
    S: Data,
    U: Data,
    F: Fn(&K, Option<V>, &mut StateHandle<'_, S>) -> Option<U>,
{
    fn new(
        context: &OperatorContext,
        f: Arc<F>,
        spec: Arc<StateSpec<K, S>>,
        snapshots: bool,
    ) -> Self {
        let (key_groups, groups) = (context.key_groups, context.groups.clone());
        let silent = |silence| {
            Lifetimes::new("state", Ttl::after_write(silence), key_groups, groups.clone())
        };
        Mapping {
            f,
            input: Ordered::default(),
            states: KeyedTable::new("state", Kind::Value, key_groups, groups.clone()),
            beginning: Beginning::new(context, Arc::new(spec.initial.clone())),
            silent: spec.timeout.map(silent),
            snapshots,
            shown: None,
            rows: PhantomData,
        }
    }

    /// Calls the function for rows of an epoch.
    fn map(
        &mut self,
        Keyed { hashes, rows }: Keyed<K, V>,
        [before, now]: [Instant; 2],
        out: &mut Outputs,
    ) {
        let mut mapped = Vec::with_capacity(rows.len());
        for (hash, (key, value)) in hashes.into_iter().zip(rows) {
            let placed = Placed { group: hash, lookup: hash, place: key };
            mapped.extend(self.overdue(&placed, before));
            let key = &placed.place;
            let mut handle = StateHandle::new(self.states.get_hashed(hash, hash, key));
            mapped.extend((self.f)(key, Some(value), &mut handle));
            let change = handle.into_change();
            let has_state = change.apply(&mut self.states, hash, &placed.place);
            match &mut self.silent {
                Some(silent) if has_state => silent.write(placed, now),
                Some(silent) => silent.forget(hash, hash, &placed.place),
                None => {}
            }
        }
        emit_all(mapped, out);
    }

    /// Has a key time out that did so in an epoch before, with so many others that its turn hasn't come. A record begins anew.
    fn overdue(&mut self, placed: &Placed<K>, before: Instant) -> Option<U> {
        let Placed { group, lookup, place } = placed;
        let silent = self.silent.as_mut()?;
        if silent.is_alive(*group, *lookup, place, before) {
            return None;
        }
        silent.forget(*group, *lookup, place);
        let state = self.states.remove_hashed(*group, *lookup, place)?;
        (self.f)(place, None, &mut StateHandle::timing_out(&state))
    }

    /// Calls the function for keys that time out.
    fn time_out(&mut self, now: Instant, out: &mut Outputs) {
        let Some(silent) = &mut self.silent else { return };
        let (f, states) = (&self.f, &mut self.states);
        let mut mapped = Vec::new();
        silent.give_times(now, |spot| {
            states.get_hashed(spot.group, spot.lookup, &spot.place).is_some()
        });
        silent.clean(now, |gone| {
            let state = states.remove_hashed(gone.group, gone.lookup, &gone.place);
            if let Some(state) = state {
                mapped.extend(f(&gone.place, None, &mut StateHandle::timing_out(&state)));
            }
        });
        emit_all(mapped, out);
    }

    /// Shows the states of some key groups. Answers whether those were all.
    fn show(&mut self, out: &mut Outputs) -> bool {
        let mut seen = 0;
        for group in self.shown.unwrap_or(0)..self.states.group_count() {
            if seen >= SLICE_ROWS {
                self.shown = Some(group);
                return false;
            }
            let entries = self.states.group_entries(group);
            let rows: Vec<(K, S)> = entries.map(|(k, s)| (k.clone(), s.clone())).collect();
            seen += rows.len();
            for rows in rows.chunks(BATCH_ROWS) {
                emit(out, 1, Batch::new(rows.to_vec()));
            }
        }
        self.shown = None;
        true
    }
}

impl<K, V, S, U, F> Operator for Mapping<K, V, S, U, F>
where
    K: Data + Eq,
    V: Data,
    S: Data,
    U: Data,
    F: Fn(&K, Option<V>, &mut StateHandle<'_, S>) -> Option<U>,
{
    fn receive(
        &mut self,
        _: usize,
        epoch: Epoch,
        batch: Batch,
        _: &mut Outputs,
    ) -> Result<(), BoxError> {
        self.input.receive(epoch, batch).map(drop)
    }

    fn complete(&mut self, end: &EpochEnd, out: &mut Outputs) -> Result<Work, BoxError> {
        let [before, now] = [end.clock_before_ms, end.clock_ms].map(|ms| {
            let clock = Some(ms.min(i64::MAX as u64) as i64);
            Instant { clock, watermark: None, time: None }
        });
        if self.shown.is_none() {
            for (hash, key, state) in self.beginning.take()? {
                if let Some(silent) = &mut self.silent {
                    silent.write(Placed { group: hash, lookup: hash, place: key.clone() }, now);
                }
                self.states.upsert_hashed(hash, hash, key, || state);
            }
            let mut taken = 0;
            while let Some((rows, _)) = self.input.next(end.epoch) {
                taken += rows.rows.len();
                self.map(rows, [before, now], out);
                if taken >= SLICE_ROWS {
                    return Ok(Work::More);
                }
            }
            self.input.finish();
            self.time_out(now, out);
        }
        if self.snapshots && end.trigger_ends && !self.show(out) {
            return Ok(Work::More);
        }
        Ok(Work::Done)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        let mut tables: Vec<&mut dyn StateTable> =
            vec![&mut self.states, self.beginning.state_table()];
        tables.extend(self.silent.as_mut().map(Lifetimes::state_table));
        tables
    }

    fn restored(&mut self) {
        let Some(silent) = &mut self.silent else { return };
        let groups = 0..self.states.group_count();
        let entries = groups.flat_map(|group| self.states.group_entries(group));
        silent.restored(entries.map(|(key, _)| key));
    }
}
