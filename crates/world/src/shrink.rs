//! Fewer faults that still do it: what a person reads is the shortest list that leads to the violation.

use crate::fault::Fault;

/// Leaves out faults for as long as `fails` says that the rest still leads to a violation.
///
/// First halves, then quarters, down to single ones (Zeller, Hildebrandt: Simplifying and Isolating Failure-Inducing Input, 2002).
pub fn shrink(mut faults: Vec<Fault>, mut fails: impl FnMut(&[Fault]) -> bool) -> Vec<Fault> {
    let mut size = faults.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut shrunk = false;
        while at < faults.len() {
            let end = (at + size).min(faults.len());
            let mut rest = faults.clone();
            rest.drain(at..end);
            if fails(&rest) {
                faults = rest;
                shrunk = true;
            } else {
                at = end;
            }
        }
        if size == 1 && !shrunk {
            return faults;
        }
        size = (size / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{What, When};

    #[test]
    fn what_matters_stays() {
        let fault = |step| Fault { when: When::Step(step), what: What::Kill };
        let all: Vec<Fault> = (0..37).map(fault).collect();
        let needed = [fault(3), fault(20), fault(36)];
        let left = shrink(all, |rest| needed.iter().all(|fault| rest.contains(fault)));
        assert_eq!(left, needed);
    }
}
