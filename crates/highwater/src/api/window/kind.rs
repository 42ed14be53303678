//! The kinds of windows there are.

use std::time::Duration;

use crate::api::time::as_ms;

/// A kind of windows: [`Tumbling`], [`Sliding`], [`Cumulating`] or [`Session`].
pub trait WindowKind: sealed::Kind {}

impl<T: sealed::Kind> WindowKind for T {}

mod sealed {
    pub trait Kind {
        /// How windows are kept, or why there can't be any.
        fn kept(self) -> Result<super::Kept, String>;
    }
}

/// How windows are kept.
#[derive(Clone, Copy, Debug)]
pub enum Kept {
    /// Each on its own.
    Disjoint(Grid),
    /// As panes that they share.
    Panes(Grid),
    /// As sessions, which grow together.
    Sessions {
        /// In milliseconds.
        gap: i64,
    },
}

/// Windows that are the same for all keys, as panes of equal length of which they are made. All in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Where a pane begins, somewhere.
    offset: i64,
    pane: i64,
    windows: Windows,
}

#[derive(Clone, Copy, Debug)]
enum Windows {
    /// One begins every `slide`.
    Sliding { size: i64, slide: i64 },
    /// One ends with every pane; they begin every `max`.
    Cumulating { max: i64 },
}

impl Grid {
    pub(super) fn tumbling(size: i64, offset: i64) -> Self {
        Grid { offset, pane: size, windows: Windows::Sliding { size, slide: size } }
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

    /// Where the window begins that ends there.
    #[inline]
    pub(super) fn start_of(&self, end: i64) -> i64 {
        match self.windows {
            Windows::Sliding { size, .. } => end.saturating_sub(size),
            Windows::Cumulating { max } => self.floor(end.saturating_sub(1), max),
        }
    }
}

fn some(what: &str, length: Duration) -> Result<i64, String> {
    match as_ms(length) {
        0 => Err(format!("{what} must be a millisecond or more, and this one is {length:?}")),
        i64::MAX => Err(format!("{what} of {length:?} is longer than time")),
        ms => Ok(ms),
    }
}

/// Windows of one length, one behind the other; a record is in one.
///
/// ```text
/// of(10)     |--------|--------|--------|
///            0       10       20       30
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tumbling {
    size: Duration,
    offset: Duration,
}

impl Tumbling {
    /// Windows of this length, of which one begins with 1970 (UTC).
    pub fn of(size: Duration) -> Self {
        Tumbling { size, offset: Duration::ZERO }
    }

    /// They begin so much later.
    #[must_use]
    pub fn offset(self, offset: Duration) -> Self {
        Tumbling { offset, ..self }
    }
}

impl sealed::Kind for Tumbling {
    fn kept(self) -> Result<Kept, String> {
        let size = some("the length of windows", self.size)?;
        Ok(Kept::Disjoint(Grid::tumbling(size, as_ms(self.offset))))
    }
}

/// Windows of one length, of which one begins every `slide`: they overlap, or leave gaps if the slide is longer.
///
/// ```text
/// of(20, 10)  |-----------------|
///                      |-----------------|
///             0       10       20       30
/// ```
///
/// What overlapping windows have in common is kept once, in panes of the greatest length that divides both.
#[derive(Clone, Copy, Debug)]
pub struct Sliding {
    size: Duration,
    slide: Duration,
    offset: Duration,
}

impl Sliding {
    /// Windows of length `size`, one every `slide`.
    pub fn of(size: Duration, slide: Duration) -> Self {
        Sliding { size, slide, offset: Duration::ZERO }
    }

    /// They begin so much later.
    #[must_use]
    pub fn offset(self, offset: Duration) -> Self {
        Sliding { offset, ..self }
    }
}

impl sealed::Kind for Sliding {
    fn kept(self) -> Result<Kept, String> {
        let size = some("the length of windows", self.size)?;
        let slide = some("the slide of windows", self.slide)?;
        let (mut pane, mut rest) = (size, slide);
        while rest > 0 {
            (pane, rest) = (rest, pane % rest);
        }
        let windows = Windows::Sliding { size, slide };
        Ok(Kept::Panes(Grid { offset: as_ms(self.offset), pane, windows }))
    }
}

/// Windows that grow step by step to a greatest length, and then begin anew: the sum of the day so far, every hour.
///
/// ```text
/// of(30, 10)  |--------|
///             |-----------------|
///             |--------------------------|--------|
///             0       10       20       30       40
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Cumulating {
    max: Duration,
    step: Duration,
    offset: Duration,
}

impl Cumulating {
    /// Windows that begin every `max`, and of which one ends every `step`, which must divide it.
    pub fn of(max: Duration, step: Duration) -> Self {
        Cumulating { max, step, offset: Duration::ZERO }
    }

    /// They begin so much later.
    #[must_use]
    pub fn offset(self, offset: Duration) -> Self {
        Cumulating { offset, ..self }
    }
}

impl sealed::Kind for Cumulating {
    fn kept(self) -> Result<Kept, String> {
        let max = some("the greatest length of windows", self.max)?;
        let step = some("the step of windows", self.step)?;
        if max % step != 0 {
            let (max, step) = (self.max, self.step);
            return Err(format!(
                "windows that grow by {step:?} never become {max:?} long; let the step divide the length"
            ));
        }
        let windows = Windows::Cumulating { max };
        Ok(Kept::Panes(Grid { offset: as_ms(self.offset), pane: step, windows }))
    }
}

/// Windows of activity: a session of a key ends when it has had no record for a while. It reaches from its first record to the
/// gap behind its last one.
///
/// ```text
/// with_gap(10)  |x--x-x---------|        |x---------|
///               0  3  5        15       24         34
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Session {
    gap: Duration,
}

impl Session {
    /// Sessions that so long a time without records ends.
    pub fn with_gap(gap: Duration) -> Self {
        Session { gap }
    }
}

impl sealed::Kind for Session {
    fn kept(self) -> Result<Kept, String> {
        Ok(Kept::Sessions { gap: some("the gap of sessions", self.gap)? })
    }
}
