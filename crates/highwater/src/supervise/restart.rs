//! Whether and when a failed job is started again: strategies, as Flink's users know them, decided by a pure function.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::options::{duration, some_time};

/// So often the same failure may come in a row without a checkpoint in between: it would come for ever.
const SAME_MAX: u32 = 5;

/// What happens when an attempt has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// The job ends with the first failure. It runs in the process that was started, without a supervisor.
    Never,
    /// It is started again after a delay, which doubles with every failure until none has come for a while.
    Exponential {
        /// The first delay.
        first: Duration,
        /// The longest delay.
        longest: Duration,
        /// After so long without a failure the first delay is due again.
        quiet: Duration,
    },
    /// It is started again after always the same delay, so many times.
    Fixed {
        /// The delay.
        delay: Duration,
        /// How often.
        times: u32,
    },
    /// It is started again after always the same delay, unless failures come too often.
    FailureRate {
        /// So many failures ...
        failures: u32,
        /// ... in such a time are bearable.
        within: Duration,
        /// The delay.
        delay: Duration,
    },
}

impl Default for Restart {
    fn default() -> Self {
        Restart::Exponential {
            first: Duration::from_millis(50),
            longest: Duration::from_secs(30),
            quiet: Duration::from_secs(60),
        }
    }
}

/// A failed attempt, as the supervisor saw it.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// Since the supervisor began.
    pub(super) at: Duration,
    /// In words.
    pub(super) why: String,
    /// A checkpoint was committed in the attempt.
    pub(super) progressed: bool,
    /// The job itself failed: nobody killed it from outside, no other process and no store was lost.
    pub(super) of_the_job: bool,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Start again after so long.
    After(Duration),
    /// Leave it, for this reason.
    GiveUp(String),
}

impl Restart {
    /// What to do after the last of these failures. `jitter` is random, 0 to 99.
    pub(super) fn decide(&self, failures: &[Failure], jitter: u32) -> Decision {
        let Some(last) = failures.last() else { return Decision::After(Duration::ZERO) };
        let same = failures
            .iter()
            .rev()
            .take_while(|failure| {
                failure.why == last.why && !failure.progressed && failure.of_the_job
            })
            .count();
        if same >= SAME_MAX as usize {
            return Decision::GiveUp(format!(
                "it failed {same} times in the same way without a checkpoint in between"
            ));
        }
        match *self {
            Restart::Never => Decision::GiveUp("it is not to be started again".to_owned()),
            Restart::Fixed { times, .. } if failures.len() > times as usize => {
                Decision::GiveUp(format!("it was started again {times} times"))
            }
            Restart::Fixed { delay, .. } => Decision::After(delay),
            Restart::FailureRate { failures: most, within, delay } => {
                let since = last.at.saturating_sub(within);
                let recent = failures.iter().filter(|failure| failure.at >= since).count();
                match recent > most as usize {
                    true => Decision::GiveUp(format!(
                        "it failed {recent} times within {:.0} s",
                        within.as_secs_f64()
                    )),
                    false => Decision::After(delay),
                }
            }
            Restart::Exponential { first, longest, quiet } => {
                let pairs = failures.windows(2).rev();
                let row = pairs.take_while(|pair| pair[1].at - pair[0].at < quiet).count();
                let delay = first.saturating_mul(1 << row.min(20)).min(longest);
                // Up to a tenth more, so that many jobs don't come back at the same instant.
                Decision::After(delay + delay * jitter.min(99) / 1000)
            }
        }
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: &Duration| format!("{}ms", time.as_millis());
        match self {
            Restart::Never => f.write_str("never"),
            Restart::Exponential { first, longest, quiet } => write!(
                f,
                "exponential,first={},longest={},quiet={}",
                ms(first),
                ms(longest),
                ms(quiet)
            ),
            Restart::Fixed { delay, times } => {
                write!(f, "fixed,delay={},times={times}", ms(delay))
            }
            Restart::FailureRate { failures, within, delay } => write!(
                f,
                "failure-rate,failures={failures},within={},delay={}",
                ms(within),
                ms(delay)
            ),
        }
    }
}

/// `never`, `exponential`, `fixed`, `failure-rate`; each with settings behind commas, such as `fixed,delay=1s,times=10`.
impl FromStr for Restart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let mut restart = match parts.next().unwrap_or_default() {
            "never" => Restart::Never,
            "exponential" => Restart::default(),
            "fixed" => Restart::Fixed { delay: Duration::from_secs(1), times: 10 },
            "failure-rate" => Restart::FailureRate {
                failures: 3,
                within: Duration::from_secs(60),
                delay: Duration::from_secs(1),
            },
            other => {
                return Err(format!(
                    "`{other}` is no strategy: never, exponential, fixed or failure-rate"
                ));
            }
        };
        for part in parts {
            let (name, value) =
                part.split_once('=').ok_or_else(|| format!("`{part}` is not `name=value`"))?;
            let number =
                || value.parse().map_err(|_| format!("`{value}` is no number, for `{name}`"));
            match (&mut restart, name) {
                (Restart::Exponential { first, .. }, "first") => *first = some_time(value)?,
                (Restart::Exponential { longest, .. }, "longest") => *longest = some_time(value)?,
                (Restart::Exponential { quiet, .. }, "quiet") => *quiet = duration(value)?,
                (Restart::Fixed { delay, .. }, "delay") => *delay = duration(value)?,
                (Restart::Fixed { times, .. }, "times") => *times = number()?,
                (Restart::FailureRate { failures, .. }, "failures") => *failures = number()?,
                (Restart::FailureRate { within, .. }, "within") => *within = some_time(value)?,
                (Restart::FailureRate { delay, .. }, "delay") => *delay = duration(value)?,
                _ => return Err(format!("`{name}` is no setting of this strategy")),
            }
        }
        Ok(restart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(at_secs: &[u64]) -> Vec<Failure> {
        let failure = |(number, at): (usize, &u64)| Failure {
            at: Duration::from_secs(*at),
            why: format!("failure {number}"),
            progressed: false,
            of_the_job: true,
        };
        at_secs.iter().enumerate().map(failure).collect()
    }

    fn ms(decision: Decision) -> u64 {
        match decision {
            Decision::After(delay) => delay.as_millis() as u64,
            Decision::GiveUp(why) => panic!("{why}"),
        }
    }

    #[test]
    fn exponential_doubles_until_it_is_quiet_for_a_while() {
        let restart: Restart = "exponential,first=100ms,longest=1s,quiet=1m".parse().unwrap();
        let after = |at_secs: &[u64]| ms(restart.decide(&failures(at_secs), 0));
        assert_eq!(after(&[5]), 100);
        assert_eq!(after(&[5, 6]), 200);
        assert_eq!(after(&[5, 6, 7]), 400);
        assert_eq!(after(&[5, 6, 7, 8, 9, 10]), 1000);
        assert_eq!(after(&[5, 6, 7, 67]), 100);
        assert_eq!(ms(restart.decide(&failures(&[5]), 99)), 109);
    }

    #[test]
    fn fixed_counts_and_rate_forgets() {
        let fixed: Restart = "fixed,delay=2s,times=2".parse().unwrap();
        assert_eq!(ms(fixed.decide(&failures(&[1, 2]), 50)), 2000);
        assert!(matches!(fixed.decide(&failures(&[1, 2, 3]), 50), Decision::GiveUp(_)));
        let rate: Restart = "failure-rate,failures=2,within=10s,delay=1s".parse().unwrap();
        assert_eq!(ms(rate.decide(&failures(&[1, 20, 25]), 0)), 1000);
        assert!(matches!(rate.decide(&failures(&[18, 20, 25]), 0), Decision::GiveUp(_)));
        assert!(matches!(Restart::Never.decide(&failures(&[1]), 0), Decision::GiveUp(_)));
    }

    #[test]
    fn what_always_fails_in_the_same_way_comes_to_an_end() {
        let mut same = failures(&[1, 2, 3, 4, 5]);
        same.iter_mut().for_each(|failure| failure.why = "the same".to_owned());
        let restart = Restart::default();
        assert!(matches!(restart.decide(&same[..4], 0), Decision::After(_)));
        assert!(matches!(restart.decide(&same, 0), Decision::GiveUp(_)));
        same[3].progressed = true;
        assert!(matches!(restart.decide(&same, 0), Decision::After(_)));
    }

    #[test]
    fn strategies_are_written_as_they_are_read() {
        for text in ["never", "exponential", "fixed,times=3", "failure-rate,delay=5s"] {
            let restart: Restart = text.parse().unwrap();
            assert_eq!(restart.to_string().parse(), Ok(restart));
        }
        for text in
            ["", "often", "fixed,first=1s", "fixed,times=many", "never,x", "exponential,first=0s"]
        {
            assert!(text.parse::<Restart>().is_err(), "{text}");
        }
    }
}
