//! Which record makes a job fail: what a supervisor learns from failures, as a state machine without any effects.
//!
//! ```text
//!   the same failure twice ─▶ one batch at a time ─▶ fails: that batch ─▶ record by record ─▶ fails: that record
//!            ▲                        │ passes                                  │ passes
//!            └────────────────────────┴─────────── no care any more ◀───────────┘
//! ```

use highwater_runtime::careful::{Care, Span};

/// A failure, as it bears on records.
#[derive(Clone, Debug)]
pub(super) struct Seen<'a> {
    pub(super) why: &'a str,
    /// A checkpoint was committed in the attempt.
    pub(super) progressed: bool,
    /// The job itself failed: nobody killed it from outside, no other process and no store was lost.
    pub(super) of_the_job: bool,
    /// What was on its way, if the attempt was careful.
    pub(super) suspect: Option<Span>,
}

/// What the failures so far point to.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    care: Care,
    last: Option<String>,
}

impl Suspicion {
    /// How carefully the next attempt reads.
    pub(super) fn care(&self) -> &Care {
        &self.care
    }

    /// Takes a failure into account. Gives the record that is at fault, if that is now known.
    pub(super) fn failed(&mut self, seen: &Seen<'_>) -> Option<Span> {
        if !seen.of_the_job {
            return None;
        }
        let before = self.last.replace(seen.why.to_owned());
        match &seen.suspect {
            Some(suspect) if suspect.is_single() => return Some(suspect.clone()),
            Some(suspect) => {
                self.care.one_at_a_time = true;
                self.care.suspect = Some(suspect.clone());
            }
            None => {
                let again = before.as_deref() == Some(seen.why) && !seen.progressed;
                self.care.one_at_a_time |= again;
            }
        }
        None
    }

    /// The job goes on without this record.
    pub(super) fn leave_out(&mut self, record: Span) {
        self.relax();
        self.care.left_out.push(record);
    }

    /// No more care is needed: what had failed has passed.
    pub(super) fn relax(&mut self) {
        self.care.one_at_a_time = false;
        self.care.suspect = None;
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first: u64, last: u64) -> Span {
        Span { source: "in".to_owned(), split: "0".to_owned(), first, last }
    }

    fn seen(suspect: Option<Span>) -> Seen<'static> {
        Seen { why: "row is bad", progressed: false, of_the_job: true, suspect }
    }

    #[test]
    fn the_same_failure_twice_leads_to_its_record() {
        let mut suspicion = Suspicion::default();
        let first = Seen { progressed: true, ..seen(None) };
        assert_eq!(suspicion.failed(&first), None);
        assert!(suspicion.care().is_none());
        assert_eq!(suspicion.failed(&seen(None)), None);
        assert!(suspicion.care().one_at_a_time);
        assert_eq!(suspicion.failed(&seen(Some(span(1, 4096)))), None);
        assert_eq!(suspicion.care().suspect, Some(span(1, 4096)));
        assert_eq!(suspicion.failed(&seen(Some(span(77, 77)))), Some(span(77, 77)));
        suspicion.leave_out(span(77, 77));
        let care = Care { left_out: vec![span(77, 77)], ..Care::default() };
        assert_eq!(*suspicion.care(), care);
    }

    #[test]
    fn kills_and_other_failures_accuse_nobody() {
        let mut suspicion = Suspicion::default();
        for _ in 0..5 {
            let killed = Seen { of_the_job: false, ..seen(Some(span(3, 3))) };
            assert_eq!(suspicion.failed(&killed), None);
        }
        assert!(suspicion.care().is_none());
        suspicion.failed(&seen(None));
        suspicion.failed(&Seen { why: "something else", ..seen(None) });
        assert!(suspicion.care().is_none());
    }
}
