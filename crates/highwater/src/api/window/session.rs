//! Windows of activity: each key keeps its sessions, which grow and merge.
//!
//! When a session begins, its key is listed for the moment at which it would end. Most sessions have grown by then, and are listed
//! anew: so a record that extends a session costs nothing but the lookup of its key.

use std::sync::Arc;

use highwater_codec::hash_key;
use highwater_runtime::{Data, Keyed, OperatorContext, Work};
use highwater_state::{AHEAD, KeyedTable, Kind, Spot, StateTable};
use serde::{Deserialize, Serialize};

use super::kind::Gap;
use super::operator::{Late, Now, ToldRows, Windows};
use crate::api::SLICE_ROWS;
use crate::api::due::Due;
use crate::api::few::Few;
use crate::api::ordered::Timed;
use crate::api::step::Merge;

/// A session of a key; its sessions neither overlap nor touch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "A: Data")]
struct Span<A> {
    start: i64,
    end: i64,
    /// It has been told of as it is.
    told: bool,
    acc: A,
}

/// The sessions of a key, in their order.
type Spans<A> = Few<Span<A>>;

/// A session to be looked at.
#[derive(Debug)]
struct Listed<K> {
    hash: u64,
    key: K,
    /// A moment within it. Sessions only grow, so it is the one that has this moment, whatever has become of it.
    within: i64,
}

/// The sessions of some keys.
pub(super) struct Sessions<K, V, S: Merge<V>> {
    step: Arc<S>,
    gap: Gap<V>,
    /// Sessions are kept so much longer than they last.
    lateness: i64,
    sessions: KeyedTable<K, Spans<S::Acc>>,
    due: Due<Listed<K>>,
}

impl<K: Data + Eq, V: Data, S: Merge<V>> Sessions<K, V, S> {
    pub(super) fn new(context: &OperatorContext, step: Arc<S>, gap: Gap<V>, lateness: i64) -> Self {
        let (key_groups, groups) = (context.key_groups, context.groups.clone());
        Sessions {
            step,
            gap,
            lateness,
            sessions: KeyedTable::new("sessions", Kind::Accumulator, key_groups, groups),
            due: Due::default(),
        }
    }

    /// Tells of a session that is due, or forgets it, or lists it for later.
    fn look_at(&mut self, listed: Listed<K>, spot: Spot, now: Now, told: &mut ToldRows<K, S::Out>) {
        let Listed { hash, key, within } = listed;
        let Some(spans) = self.sessions.get_at(spot, hash, hash, &key) else { return };
        let has = |span: &Span<S::Acc>| (span.start..span.end).contains(&within);
        let Some(at) = spans.iter().position(has) else { return };
        let span = &spans[at];
        let end = span.end;
        let forgotten_at = end.saturating_add(self.lateness);
        let tells = end <= now.watermark && !span.told;
        if tells {
            told.push(key.clone(), (span.start, end), self.step.out(&span.acc));
        }
        if forgotten_at <= now.watermark {
            if spans.len() == 1 {
                self.sessions.remove_at(spot, hash, hash, &key);
            } else {
                self.sessions.upsert_at(spot, hash, hash, key, Few::new).value.remove(at);
            }
            return;
        }
        if tells {
            let spans = self.sessions.upsert_at(spot, hash, hash, key.clone(), Few::new).value;
            spans[at].told = true;
        }
        let next = if end <= now.watermark { forgotten_at } else { end };
        self.due.push(next, Listed { hash, key, within });
    }
}

impl<K: Data + Eq, V: Data, S: Merge<V>> Windows for Sessions<K, V, S> {
    type Key = K;
    type In = V;
    type Out = S::Out;

    fn add(
        &mut self,
        (keyed, times): Timed<K, V>,
        now: Now,
        late: &mut Late<K, V>,
        _: &mut ToldRows<K, S::Out>,
    ) {
        let Keyed { hashes, rows } = keyed;
        let mut spots = [Spot::default(); AHEAD];
        for (index, (key, value)) in rows.into_iter().enumerate() {
            if index % AHEAD == 0 {
                let soon = hashes[index..].iter().take(AHEAD);
                spots = self.sessions.look_ahead(soon.map(|hash| (*hash, *hash)));
            }
            let (hash, time) = (hashes[index], times[index]);
            let gap = self.gap.behind(&value);
            if gap == 0 {
                continue;
            }
            let (start, end) = (time, time.saturating_add(gap));
            let meets = |span: &Span<S::Acc>| span.start <= end && start <= span.end;
            // A record that nothing keeps alive; one that meets a session that is still kept belongs to it.
            if end.saturating_add(self.lateness) <= now.before {
                let spans = self.sessions.get_at(spots[index % AHEAD], hash, hash, &key);
                if !spans.is_some_and(|spans| spans.iter().any(meets)) {
                    late.push(key, value, time);
                    continue;
                }
            }
            let step = &*self.step;
            let entry = self.sessions.upsert_at(spots[index % AHEAD], hash, hash, key, Few::new);
            let spans = entry.value;
            let Some(at) = spans.iter().position(meets) else {
                let at = spans.partition_point(|span| span.start < start);
                spans.insert(at, Span { start, end, told: false, acc: step.first(value) });
                let listed = Listed { hash, key: entry.key.clone(), within: end - 1 };
                self.due.push(end, listed);
                continue;
            };
            // It may join several, which are next to each other.
            let mut met = spans[at + 1..].iter().take_while(|span| meets(span)).count();
            let was_told = spans[at].told;
            while met > 0 {
                let joined = spans.remove(at + 1);
                spans[at].end = joined.end;
                step.merge(&mut spans[at].acc, joined.acc);
                met -= 1;
            }
            let span = &mut spans[at];
            (span.start, span.end) = (span.start.min(start), span.end.max(end));
            span.told = false;
            step.add(&mut span.acc, value);
            if was_told {
                // It is to be told of again, now or when it ends.
                let listed = Listed { hash, key: entry.key.clone(), within: span.end - 1 };
                self.due.push(span.end, listed);
            }
        }
    }

    fn tell(&mut self, now: Now, told: &mut ToldRows<K, S::Out>) -> Work {
        let (mut looked, mut spots) = (0, [Spot::default(); AHEAD]);
        loop {
            if looked % AHEAD == 0 {
                let soon = self.due.soon(now.watermark).take(AHEAD);
                spots =
                    self.sessions.look_ahead(soon.map(|(_, listed)| (listed.hash, listed.hash)));
            }
            let Some((_, listed)) = self.due.pop(now.watermark) else { break };
            self.look_at(listed, spots[looked % AHEAD], now, told);
            looked += 1;
            if told.is_full() || looked >= SLICE_ROWS {
                return Work::More;
            }
        }
        Work::Done
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.sessions]
    }

    fn restored(&mut self) {
        for group in 0..self.sessions.group_count() {
            for (key, spans) in self.sessions.group_entries(group) {
                let hash = hash_key(key).expect("a key that was stored can be hashed");
                for span in spans.iter() {
                    let when =
                        if span.told { span.end.saturating_add(self.lateness) } else { span.end };
                    self.due.push(when, Listed { hash, key: key.clone(), within: span.end - 1 });
                }
            }
        }
    }
}
