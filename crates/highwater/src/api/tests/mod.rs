//! Every operator against a plain model or a published case.

mod graph;
mod inputs;
mod interval_join;
mod keyed;
mod lifetime;
mod process;
mod published;
mod published_clock;
mod published_windows;
mod running;
mod timers;
mod triggered;
mod triggered_sessions;
mod update_state;
mod window;
mod window_axes;

use proptest::prelude::*;

/// What happens to a keyed operator.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Records (key, value) of an epoch so many ahead of the next to complete.
    Records(u32, Vec<(u16, u32)>),
    /// An epoch completes; it may be the last of a trigger.
    Complete { trigger_ends: bool },
    /// Every epoch completes, and a checkpoint is committed. The flag is for the last epoch.
    Checkpoint { trigger_ends: bool },
    /// The attempt dies, and goes on with so many workers.
    Crash(usize),
}

/// Epochs that may be under way at once.
pub(super) const OPEN_EPOCHS: u32 = 3;

pub(super) fn events() -> impl Strategy<Value = Vec<Event>> {
    let records = proptest::collection::vec((0..12_u16, 0..50_u32), 0..12);
    let event = prop_oneof![
        8 => (0..OPEN_EPOCHS, records).prop_map(|(ahead, rows)| Event::Records(ahead, rows)),
        6 => any::<bool>().prop_map(|trigger_ends| Event::Complete { trigger_ends }),
        2 => any::<bool>().prop_map(|trigger_ends| Event::Checkpoint { trigger_ends }),
        1 => (1..5_usize).prop_map(Event::Crash),
    ];
    proptest::collection::vec(event, 0..80)
}

/// The key that stands for a number: one that owns memory.
pub(super) fn text(key: u16) -> String {
    format!("key {key}")
}
