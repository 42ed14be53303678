//! How a place outside of the engine is, the checkpoints' storage or the destination of a sink: since when it fails, and why.
//!
//! Requests are repeated, for as long as it takes where nothing else makes sense. Nobody wants to read of every one of them: a
//! [`Health`] says once that a place is in trouble, and once that it is well again. In between it answers whoever asks.
//!
//! ```text
//!  a request fails ─▶ in trouble ──(for a moment)──▶ said, once
//!                        │  all that failed have succeeded; or, if they were given up, one of their kind, or one that writes
//!                        ▼
//!                     well again ─▶ said, if the trouble was
//! ```

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_env::Env;

/// Trouble that is over sooner isn't worth a word.
const WORTH_A_WORD: Duration = Duration::from_millis(200);

/// The sort of request that shows a place to be well, whatever had failed there.
const WRITE: &str = "write";

/// How one place is.
pub struct Health {
    env: Arc<dyn Env>,
    /// Which place, for people.
    place: String,
    /// What is done about trouble, for people.
    remedy: &'static str,
    failed: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    trouble: Option<Begun>,
    /// Requests that have failed and are being repeated.
    failing: usize,
}

/// Trouble that isn't over.
struct Begun {
    since: Duration,
    /// The sort of the first request that failed.
    doing: &'static str,
    /// The last failure.
    why: String,
    /// Something has succeeded since.
    answers: bool,
    said: bool,
}

/// A place is in trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// For how long.
    pub lasts: Duration,
    /// What failed last, and why; and whether other requests succeed since, so that all is well once those that failed are repeated.
    pub why: String,
}

impl Health {
    /// The health of `place`, which is well as far as is known. `remedy` is what is done about trouble; both are for people.
    pub fn new(env: Arc<dyn Env>, place: String, remedy: &'static str) -> Arc<Self> {
        let (failed, state) = (AtomicU64::new(0), Mutex::default());
        Arc::new(Health { env, place, remedy, failed, state })
    }

    /// The trouble it is in, if it is.
    pub fn trouble(&self) -> Option<Trouble> {
        let now = self.env.monotonic();
        let state = self.lock();
        let begun = state.trouble.as_ref()?;
        let mut why = begun.why.clone();
        if begun.answers && state.failing > 0 {
            // They aren't repeated at once: a place that refuses some requests, since there are too many, is to be spared.
            why +=
                "; other requests succeed since then, and what failed is repeated within seconds";
        }
        Some(Trouble { lasts: now.saturating_sub(begun.since), why })
    }

    /// How many calls have failed so far.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// A request begins, of the sort `doing`: it may take several calls.
    pub fn request(self: &Arc<Self>, doing: &'static str) -> Request {
        Request { health: self.clone(), doing, since: self.env.monotonic(), failing: false }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Health({}, {:?})", self.place, self.trouble())
    }
}

/// A request that may have to be repeated. Dropped before it is [`done`](Request::done), it was given up.
#[derive(Debug)]
pub struct Request {
    health: Arc<Health>,
    doing: &'static str,
    since: Duration,
    failing: bool,
}

impl Request {
    /// A call for it failed, or hasn't been answered for long; why, for people.
    pub fn failed(&mut self, why: String) {
        let health = &self.health;
        health.failed.fetch_add(1, Ordering::Relaxed);
        let now = health.env.monotonic();
        let mut state = health.lock();
        if !std::mem::replace(&mut self.failing, true) {
            state.failing += 1;
        }
        let (since, doing) = (self.since, self.doing);
        let new = || Begun { since, doing, why: String::new(), answers: false, said: false };
        let trouble = state.trouble.get_or_insert_with(new);
        (trouble.why, trouble.answers) = (why, false);
        if !trouble.said && now.saturating_sub(trouble.since) >= WORTH_A_WORD {
            trouble.said = true;
            tracing::warn!(target: "highwater::health", "{}: {}; {}", health.place, trouble.why, health.remedy);
        }
    }

    /// It succeeded.
    pub fn done(mut self) {
        let health = self.health.clone();
        let now = health.env.monotonic();
        let mut state = health.lock();
        if std::mem::take(&mut self.failing) {
            state.failing -= 1;
        }
        let over = state.failing == 0
            && state
                .trouble
                .as_ref()
                .is_some_and(|trouble| [trouble.doing, WRITE].contains(&self.doing));
        if !over {
            if let Some(trouble) = &mut state.trouble {
                trouble.answers = true;
            }
            return;
        }
        if let Some(trouble) = state.trouble.take().filter(|trouble| trouble.said) {
            let lasted = now.saturating_sub(trouble.since).as_secs_f64();
            tracing::warn!(target: "highwater::health", "{}: well again, after {lasted:.1} s", health.place);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.failing {
            self.health.lock().failing -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(health: &Health) -> Option<String> {
        health.trouble().map(|trouble| trouble.why)
    }

    #[test]
    fn a_place_that_answers_again_says_so_until_all_is_repeated() {
        let env = Arc::new(highwater_env::RealEnv::new().unwrap());
        let health = Health::new(env, "the store".to_owned(), "it is repeated");
        let mut pending = health.request("write");
        pending.failed("no answer".to_owned());
        assert_eq!(why(&health).unwrap(), "no answer");
        health.request("read").done();
        let said = why(&health).unwrap();
        assert!(said.starts_with("no answer; other requests succeed"), "{said}");
        pending.failed("refused".to_owned());
        assert_eq!(why(&health).unwrap(), "refused");
        health.request("write").done();
        assert!(why(&health).unwrap().starts_with("refused; other requests succeed"));
        pending.done();
        assert_eq!(why(&health), None);
        assert_eq!(health.failed(), 2);
    }
}
