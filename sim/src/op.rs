//! The operators that random jobs are made of, and what is known of each.

use highwater_runtime::connector::Malformed;

/// What one node does with the rows of its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads rows.
    Read {
        /// In so many splits.
        splits: u32,
        /// Of so many rows at the most.
        rows: u32,
        /// The last of them are found only after some attempts.
        late: u32,
        /// What becomes of rows that can't be read; if the job would fail, there are none.
        malformed: Malformed,
    },
    /// Adds to each value.
    Map(i64),
    /// The same, by a function that could fail.
    TryMap(i64),
    /// Looks at each row.
    Inspect,
    /// Keeps values that aren't divided by this.
    Filter(i64),
    /// Passes each row on so many times.
    Repeat(u32),
    /// Drops keys that this divides, changes the others.
    FilterMap(u32),
    /// Values that this divides go to the first output, the others to the second.
    Split(i64),
    /// The same, the others as another type.
    SplitMap(i64),
    /// Both inputs.
    Union,
    /// All three inputs.
    UnionAll,
    /// To all workers in turn.
    Rebalance,
    /// Counts the rows of each key, telling of every one.
    CountEvery,
    /// The distinct (key, value)s.
    Distinct,
    /// `map_with_state`: the number of each row within its key, removing the state now and then.
    Number,
    /// A process function with value, list and map state.
    Process,
    /// `map_with_state` by split: a value goes wrong if a split's rows don't come in their order.
    Ordered,
    /// A running count, by epoch.
    Count,
    /// A running sum.
    Sum,
    /// A running reduction: the largest (value, split, seq).
    Reduce,
    /// A fold: how many values, and the xor of them.
    Fold,
    /// An aggregate of one's own: count and sum, in a struct with an option and text.
    Aggregate,
    /// The smallest value.
    Min,
    /// The smallest, by a key of one's own.
    MinBy,
    /// The largest, by a key of one's own.
    MaxBy,
    /// `map_with_state` behind a running aggregate: the last value of each key, told again at every row.
    Latest,
    /// The largest value of each key, behind a running count.
    Largest,
    /// `update_state_by_key`: the sum of all values.
    UpdateState,
    /// `update_state_by_key` that removes state: the sum of all values, of which whole fours are forgotten.
    UpdateRemoving,
    /// `update_state_by_key_at`: the sum of all values, with the time of the last batch that brought any.
    UpdateAt,
    /// `update_state_by_key_from`: the sum of all values and what keys have to begin with.
    UpdateFrom,
    /// Windows by event time: the rows that they use and those that are late.
    Windows(i64),
    /// Windows by the clock, by triggers or told of early: all rows are in one.
    WindowsOtherwise(i64),
    /// Windows of triggers with an inverse function: all rows are in one.
    Carried(i64),
    /// Sliding or cumulating windows: a row is in several.
    Overlapping(i64),
    /// Windows from which rows are taken out, sessions that each row prolongs in its own way, days.
    OtherKinds(i64),
    /// Windows told of early by either time or by a trigger of one's own, or whenever they are full.
    Early(i64),
    /// Windows that are told of again for late rows: how many rows each has.
    AllowedLateness(i64),
    /// Windows of all rows, whatever their keys: the rows themselves.
    AllWindows(i64),
    /// The rows of batches.
    Batches(i64),
    /// `transform_with`: the rows of the batches of two inputs.
    TransformWith(i64),
    /// The batches of two inputs: how many rows each key has in both.
    Cogroup,
    /// Both inputs joined by windows: how many pairs each key has, and rows that are alone.
    WindowJoin(i64),
    /// Both inputs joined by how far apart their rows happened: all pairs, or all rows, joined or alone or late.
    IntervalJoin(i64),
    /// `distinct_within` a time that never ends: the distinct (key, value)s.
    DistinctWithin(i64),
    /// `map_with_state` with a state to begin with: the number of each row within its key.
    FromInitial,
    /// Windows of the last rows of each key, told of for every one.
    LastRows(i64),
    /// A process function with timers by event time and by the clock: the rows of which they tell.
    Timers(i64),
    /// A process function with states that live for a while: the number of each row within its key.
    Lifetimes(i64),
    /// Counts the rows of each key over two inputs, telling of every one, of some at a side output.
    Connect,
    /// The same over one input, all rows of which are known to all workers, too.
    Broadcast,
    /// A process function that visits all keys when the second input says so: the number of each row of the first within its key.
    Visits(i64),
    /// A table that takes the rows of every checkpoint in one transaction.
    Write {
        /// Or at least once.
        exactly_once: bool,
    },
    /// `foreach`: a table that takes rows as they come, at least once.
    Foreach,
}

impl Op {
    /// How many outputs it has.
    pub fn outputs(self) -> usize {
        match self {
            Op::Split(_) | Op::SplitMap(_) => 2,
            Op::Read { malformed: Malformed::Reject, .. } => 2,
            op if op.takes_rows_once().is_some() => 0,
            _ => 1,
        }
    }

    /// How many streams it reads.
    pub fn inputs(self) -> usize {
        match self {
            Op::Read { .. } => 0,
            Op::UnionAll => 3,
            Op::Union | Op::Connect | Op::Cogroup | Op::TransformWith(_) => 2,
            op if op.looks_at_pairs() => 2,
            _ => 1,
        }
    }

    /// Whether it is a sink, and whether that takes every row exactly once.
    pub fn takes_rows_once(self) -> Option<bool> {
        match self {
            Op::Write { exactly_once } => Some(exactly_once),
            Op::Foreach => Some(false),
            _ => None,
        }
    }

    /// Whether it does something for each row of one input with each row of the other.
    pub fn looks_at_pairs(self) -> bool {
        matches!(self, Op::IntervalJoin(_) | Op::WindowJoin(_) | Op::Visits(_))
    }

    /// Whether it makes of each row something, by itself.
    pub fn is_stateless(self) -> bool {
        matches!(
            self,
            Op::Map(_)
                | Op::TryMap(_)
                | Op::Inspect
                | Op::Filter(_)
                | Op::Repeat(_)
                | Op::FilterMap(_)
                | Op::Split(_)
                | Op::SplitMap(_)
        )
    }

    /// Whether its rows are still known by the split in which they were read, if those of its inputs are.
    pub fn keeps_splits(self) -> bool {
        self.is_stateless() || matches!(self, Op::Union | Op::UnionAll | Op::Rebalance)
    }

    /// Whether it tells of keys and numbers only, and not of rows.
    pub fn tells_numbers(self) -> bool {
        self.is_by_event_time() && !matches!(self, Op::AllWindows(_))
            || matches!(
                self,
                Op::Connect
                    | Op::Broadcast
                    | Op::Cogroup
                    | Op::FromInitial
                    | Op::AllowedLateness(_)
                    | Op::WindowsOtherwise(_)
                    | Op::Carried(_)
                    | Op::LastRows(_)
                    | Op::Early(_)
            )
    }

    /// Whether its rows have times, by which their splits may be aligned.
    pub fn is_by_event_time(self) -> bool {
        matches!(
            self,
            Op::Windows(_)
                | Op::WindowsOtherwise(5)
                | Op::Overlapping(_)
                | Op::OtherKinds(_)
                | Op::Early(..=4)
                | Op::AllWindows(_)
                | Op::WindowJoin(_)
                | Op::IntervalJoin(_)
                | Op::DistinctWithin(_)
                | Op::Timers(_)
                | Op::Lifetimes(_)
                | Op::Visits(_)
        )
    }

    /// Whether late rows are missing in what it tells, so that there must be none.
    pub fn has_no_place_for_late_rows(self) -> bool {
        matches!(
            self,
            Op::Overlapping(_)
                | Op::OtherKinds(_)
                | Op::AllowedLateness(_)
                | Op::WindowJoin(_)
                | Op::IntervalJoin(2 | 4 | 5)
                | Op::DistinctWithin(_)
        )
    }

    /// Whether it tells what a key has come to by now, which depends on timing.
    pub fn is_running(self) -> bool {
        matches!(
            self,
            Op::Count
                | Op::Sum
                | Op::Reduce
                | Op::Fold
                | Op::Aggregate
                | Op::Min
                | Op::MinBy
                | Op::MaxBy
                | Op::UpdateState
                | Op::UpdateRemoving
                | Op::UpdateAt
                | Op::UpdateFrom
                | Op::Windows(_)
                | Op::WindowsOtherwise(_)
                | Op::Carried(_)
                | Op::Overlapping(_)
                | Op::OtherKinds(_)
                | Op::Early(_)
                | Op::AllowedLateness(_)
                | Op::Cogroup
                | Op::WindowJoin(_)
                | Op::IntervalJoin(_)
                | Op::Timers(_)
                | Op::Latest
                | Op::Largest
        )
    }
}
