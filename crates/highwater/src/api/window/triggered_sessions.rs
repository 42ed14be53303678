//! Sessions that a trigger has told of: each key keeps its sessions, each with what it holds and the timers that are set for it.
//!
//! ```text
//! sessions      |x--x-----|      |x------|            a record at the place of y meets both:
//!               |x--x----y-------x-------|            one session, with the records and timers of both; the trigger merges what it has noted,
//!                                                     and is then asked about y
//! ```
//!
//! A session is listed for its end when it begins, and then for its end as it is by then, until it has come; from then on for when it is forgotten.

use std::mem;

use highwater_codec::hash_key;
use highwater_runtime::{Data, Keyed, OperatorContext, Work};
use highwater_state::{KeyedTable, Kind, StateTable};
use serde::{Deserialize, Serialize};

use super::held::{Contents, Decided, Held, Moment};
use super::kind::Gap;
use super::operator::{Late, Now, ToldRows, Windows};
use super::timetable::{Scheduled, Timetable};
use super::trigger::{AnyTrigger, Fire, TriggerContext};
use crate::api::ordered::Timed;
use crate::api::process::By;

/// A session of a key; its sessions neither overlap nor touch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "A: Data")]
struct Span<A> {
    start: i64,
    end: i64,
    /// Its end has come, and the trigger was asked about that.
    is_over: bool,
    held: Held<A>,
}

/// A session for which something is due.
#[derive(Clone, Debug)]
pub(super) struct Listed<K> {
    hash: u64,
    key: K,
    /// A moment within it. Sessions only grow, so it is the one that has this moment, whatever has become of it.
    within: i64,
    /// It is listed for its end, or for when it is forgotten; otherwise for a timer.
    for_end: bool,
}

/// The sessions of some keys.
pub(super) struct TriggeredSessions<K, V, C: Contents<V>> {
    contents: C,
    trigger: AnyTrigger<V>,
    gap: Gap<V>,
    /// Sessions are kept so much longer than they last.
    lateness: i64,
    sessions: KeyedTable<K, Vec<Span<C::Acc>>>,
    timetable: Timetable<Listed<K>>,
}

/// The session that has a moment, among those of a key.
fn find<A>(spans: &[Span<A>], within: i64) -> Option<usize> {
    spans.iter().position(|span| (span.start..span.end).contains(&within))
}

impl<K: Data + Eq, V: Data, C: Contents<V>> TriggeredSessions<K, V, C> {
    pub(super) fn new(
        context: &OperatorContext,
        contents: C,
        trigger: AnyTrigger<V>,
        gap: Gap<V>,
        lateness: i64,
    ) -> Self {
        let (key_groups, groups) = (context.key_groups, context.groups.clone());
        TriggeredSessions {
            contents,
            trigger,
            gap,
            lateness,
            sessions: KeyedTable::new("sessions", Kind::Accumulator, key_groups, groups),
            timetable: Timetable::default(),
        }
    }

    /// Puts a record into its session, with which others may become one, and asks the trigger.
    fn put(
        &mut self,
        hash: u64,
        key: K,
        (start, end): (i64, i64),
        record: (V, i64),
        now: Now,
        told: &mut ToldRows<K, C::Out>,
    ) {
        let meets = |span: &Span<C::Acc>| span.start <= end && start <= span.end;
        let spans = self.sessions.upsert_hashed(hash, hash, key.clone(), Vec::new).value;
        let found = spans.iter().position(meets);
        let first = found.unwrap_or_else(|| {
            let at = spans.partition_point(|span| span.start < start);
            spans.insert(at, Span { start, end, is_over: false, held: Held::new() });
            at
        });
        // Those that it meets are next to each other.
        let met = spans[first + 1..].iter().take_while(|span| meets(span)).count();
        let joined: Vec<_> = spans.drain(first + 1..=first + met).collect();
        let span = &mut spans[first];
        let last = joined.last().map_or(span.end, |last| last.end);
        (span.start, span.end) = (span.start.min(start), last.max(end));
        let moment = Moment::of_record((span.start, span.end), now);
        let for_end = Listed { hash, key, within: span.end - 1, for_end: true };
        let is_over = span.end <= now.before;
        let was_over = mem::replace(&mut span.is_over, is_over);
        // Any other is listed for a time that isn't after the one at which something has to be done.
        if found.is_none() || was_over && !is_over {
            let forgotten_at = span.end.saturating_add(self.lateness);
            let due = if is_over { forgotten_at } else { span.end };
            self.timetable.list(By::EventTime, due, for_end.clone());
        }
        let listed = Listed { for_end: false, ..for_end };
        if !joined.is_empty() {
            let others = joined.into_iter().map(|joined| joined.held).collect();
            let merged = span.held.merge(&self.contents, &self.trigger, others, moment);
            self.timetable.list_decided(merged, || listed.clone());
        }
        let decided = span.held.put(&self.contents, &self.trigger, record, moment);
        self.done(&listed, decided, told);
    }

    /// Does what the trigger has decided about a session.
    fn done(&mut self, listed: &Listed<K>, decided: Decided, told: &mut ToldRows<K, C::Out>) {
        let timer = || Listed { for_end: false, ..listed.clone() };
        let fire = self.timetable.list_decided(decided, timer);
        let (hash, key) = (listed.hash, listed.key.clone());
        let spans = self.sessions.upsert_hashed(hash, hash, key, Vec::new).value;
        let Some(at) = find(spans, listed.within) else { return };
        let span = &mut spans[at];
        if let Some(out) = span.held.fire(&self.contents, fire) {
            told.push(listed.key.clone(), (span.start, span.end), out);
        }
    }

    /// Asks the trigger about the session that is listed, if `is_due` says that there is anything to ask.
    fn ask(
        &mut self,
        listed: &Listed<K>,
        now: Now,
        told: &mut ToldRows<K, C::Out>,
        is_due: impl FnOnce(&mut Span<C::Acc>) -> bool,
        decide: impl FnOnce(&mut TriggerContext<'_>) -> Fire,
    ) {
        let hash = listed.hash;
        let Some(spans) = self.sessions.get_hashed(hash, hash, &listed.key) else { return };
        let Some(at) = find(spans, listed.within) else { return };
        let spans = self.sessions.upsert_hashed(hash, hash, listed.key.clone(), Vec::new).value;
        let span = &mut spans[at];
        if is_due(span) {
            let moment = Moment::of_timer((span.start, span.end), now);
            let decided = span.held.ask(moment, decide);
            self.done(listed, decided, told);
        }
    }

    /// The end of a session may have come, or the time to forget it.
    fn look_at(&mut self, at: i64, listed: Listed<K>, now: Now, told: &mut ToldRows<K, C::Out>) {
        let hash = listed.hash;
        let Some(spans) = self.sessions.get_hashed(hash, hash, &listed.key) else { return };
        let Some(index) = find(spans, listed.within) else { return };
        let Span { end, is_over, .. } = spans[index];
        let forgotten_at = end.saturating_add(self.lateness);
        if !is_over && at < end {
            // It has grown.
            return self.timetable.list(By::EventTime, end, listed);
        }
        if !is_over {
            let trigger = self.trigger.clone();
            let comes = |span: &mut Span<C::Acc>| !mem::replace(&mut span.is_over, true);
            self.ask(&listed, now, told, comes, |cx| trigger.event_time(end.into(), cx));
        }
        if forgotten_at > at {
            return self.timetable.list(By::EventTime, forgotten_at, listed);
        }
        let spans = self.sessions.upsert_hashed(hash, hash, listed.key.clone(), Vec::new).value;
        spans.remove(index);
        if spans.is_empty() {
            self.sessions.remove_hashed(hash, hash, &listed.key);
        }
    }
}

impl<K: Data + Eq, V: Data, C: Contents<V>> Scheduled for TriggeredSessions<K, V, C> {
    type Listed = Listed<K>;

    fn timetable(&mut self) -> &mut Timetable<Listed<K>> {
        &mut self.timetable
    }

    fn due(
        &mut self,
        (by, at, listed): (By, i64, Listed<K>),
        now: Now,
        told: &mut ToldRows<K, C::Out>,
    ) {
        let trigger = self.trigger.clone();
        match by {
            By::EventTime if listed.for_end => self.look_at(at, listed, now, told),
            By::EventTime => {
                // The trigger is asked about the end once.
                let is_due =
                    |span: &mut Span<C::Acc>| span.held.take_event_timer(at) && at != span.end;
                self.ask(&listed, now, told, is_due, |cx| trigger.event_time(at.into(), cx));
            }
            By::Clock => {
                let is_due = |span: &mut Span<C::Acc>| span.held.take_clock_timer(at);
                self.ask(&listed, now, told, is_due, |cx| trigger.clock(at.into(), cx));
            }
        }
    }
}

impl<K: Data + Eq, V: Data, C: Contents<V>> Windows for TriggeredSessions<K, V, C> {
    type Key = K;
    type In = V;
    type Out = C::Out;

    fn add(
        &mut self,
        (keyed, times): Timed<K, V>,
        now: Now,
        late: &mut Late<K, V>,
        told: &mut ToldRows<K, C::Out>,
    ) {
        let Keyed { hashes, rows } = keyed;
        for ((hash, (key, value)), time) in hashes.into_iter().zip(rows).zip(times) {
            let gap = self.gap.behind(&value);
            if gap == 0 {
                continue;
            }
            let (start, end) = (time, time.saturating_add(gap));
            // A record that nothing keeps alive; one that meets a session that is still kept belongs to it.
            if end.saturating_add(self.lateness) <= now.before {
                let meets = |span: &Span<C::Acc>| span.start <= end && start <= span.end;
                let spans = self.sessions.get_hashed(hash, hash, &key);
                if !spans.is_some_and(|spans| spans.iter().any(meets)) {
                    late.push(key, value, time);
                    continue;
                }
            }
            self.put(hash, key, (start, end), (value, time), now, told);
        }
    }

    fn tell(&mut self, now: Now, told: &mut ToldRows<K, C::Out>) -> Work {
        self.do_due(now, told)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.sessions]
    }

    fn restored(&mut self) {
        for group in 0..self.sessions.group_count() {
            for (key, spans) in self.sessions.group_entries(group) {
                let hash = hash_key(key).expect("a key that was stored can be hashed");
                for span in spans {
                    let within = span.end - 1;
                    let listed = |for_end| Listed { hash, key: key.clone(), within, for_end };
                    let due = match span.is_over {
                        true => span.end.saturating_add(self.lateness),
                        false => span.end,
                    };
                    self.timetable.list(By::EventTime, due, listed(true));
                    let Held { event_timers, clock_timers, .. } = &span.held;
                    self.timetable.list_timers(event_timers, clock_timers, || listed(false));
                }
            }
        }
    }
}
