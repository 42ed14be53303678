//! Where windows begin and end that are the same for all keys. All in milliseconds, or whatever windows are counted in.

use std::cell::Cell;

use super::calendar::Days;

/// Windows as panes of equal length of which they are made.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Where a pane begins, somewhere.
    pub(super) offset: i64,
    pub(super) pane: i64,
    pub(super) windows: Windows,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Windows {
    /// One begins every `slide`.
    Sliding { size: i64, slide: i64 },
    /// One ends with every pane; they begin every `max`.
    Cumulating { max: i64 },
}

impl Grid {
    pub(super) fn tumbling(size: i64, offset: i64) -> Self {
        Grid { offset, pane: size, windows: Windows::Sliding { size, slide: size } }
    }

    pub(super) fn sliding(size: i64, slide: i64, offset: i64) -> Self {
        let (mut pane, mut rest) = (size, slide);
        while rest > 0 {
            (pane, rest) = (rest, pane % rest);
        }
        Grid { offset, pane, windows: Windows::Sliding { size, slide } }
    }

    /// The last multiple of `length` (from the offset on) that isn't after `time`.
    fn floor(&self, time: i64, length: i64) -> i64 {
        let since = time.saturating_sub(self.offset);
        time.saturating_sub(since.rem_euclid(length))
    }

    /// The first multiple that isn't before `time`.
    fn ceil(&self, time: i64, length: i64) -> i64 {
        let since = time.saturating_sub(self.offset);
        time.saturating_add((length - since.rem_euclid(length)) % length)
    }

    /// How long windows are, and how often one begins, if that is the same for all.
    pub(super) fn size_and_slide(&self) -> Option<(i64, i64)> {
        match self.windows {
            Windows::Sliding { size, slide } => Some((size, slide)),
            Windows::Cumulating { .. } => None,
        }
    }

    /// Where the pane of a moment begins.
    #[inline]
    pub(super) fn pane_of(&self, time: i64) -> i64 {
        self.floor(time, self.pane)
    }

    /// The first window end behind `after`, of windows with the pane that begins there; none if there is none.
    pub(super) fn next_end(&self, pane: i64, after: i64) -> Option<i64> {
        let begin = pane.saturating_add(self.pane).max(after.saturating_add(1));
        let end = match self.windows {
            Windows::Sliding { size, slide } => {
                self.ceil(begin.saturating_sub(size), slide).saturating_add(size)
            }
            Windows::Cumulating { .. } => self.ceil(begin, self.pane),
        };
        self.last_end(pane).filter(|last| end <= *last).map(|_| end)
    }

    /// When the last window with this pane ends; none if it is in none, as slides may leave gaps.
    #[inline]
    pub(super) fn last_end(&self, pane: i64) -> Option<i64> {
        match self.windows {
            Windows::Sliding { size, slide } => {
                let last = self.floor(pane, slide).saturating_add(size);
                (last > pane).then_some(last)
            }
            Windows::Cumulating { max } => Some(self.floor(pane, max).saturating_add(max)),
        }
    }

    /// The first pane whose last window ends after `time`: all before it are over.
    pub(super) fn first_live(&self, time: i64) -> i64 {
        let (last, every) = match self.windows {
            Windows::Sliding { size, slide } => (time.saturating_sub(size), slide),
            Windows::Cumulating { max } => (time.saturating_sub(max), max),
        };
        self.floor(last, every).saturating_add(every)
    }

    /// How many panes a window has at the most.
    pub(super) fn panes(&self) -> i64 {
        match self.windows {
            Windows::Sliding { size, .. } | Windows::Cumulating { max: size } => size / self.pane,
        }
    }

    /// Where the window begins that ends there.
    #[inline]
    pub(super) fn start_of(&self, end: i64) -> i64 {
        match self.windows {
            Windows::Sliding { size, .. } => end.saturating_sub(size),
            Windows::Cumulating { max } => self.floor(end.saturating_sub(1), max),
        }
    }
}

/// Windows of which every moment is in one.
#[derive(Clone, Debug)]
pub enum Spans {
    /// All of one length.
    Equal(Grid),
    /// Of the calendar.
    Calendar(Days),
}

/// Finds the window of a moment. Most moments are in the one that was found last.
#[derive(Clone, Debug)]
pub(super) struct Lookup {
    spans: Spans,
    last: Cell<(i64, i64)>,
}

impl Lookup {
    pub(super) fn new(spans: Spans) -> Self {
        Lookup { spans, last: Cell::new((0, 0)) }
    }

    /// Where the window ends that begins there.
    #[inline]
    pub(super) fn end_of(&self, start: i64) -> i64 {
        self.span_of(start).1
    }

    /// The window of a moment.
    #[inline]
    pub(super) fn span_of(&self, time: i64) -> (i64, i64) {
        let (start, end) = self.last.get();
        if (start..end).contains(&time) {
            return (start, end);
        }
        let span = match &self.spans {
            Spans::Equal(grid) => {
                let start = grid.pane_of(time);
                (start, grid.last_end(start).expect("tumbling windows leave no gaps"))
            }
            Spans::Calendar(days) => days.span_of(time),
        };
        self.last.set(span);
        span
    }
}
