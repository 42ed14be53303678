//! The tries of one request to the store: how long a call is waited for, and when the next one is made.

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use highwater_env::BoxFuture;

use crate::health::Request;
use crate::log::Log;
use crate::retry::Retry;

/// A call that isn't answered for so long counts as failed ...
const LIMIT: Duration = Duration::from_secs(30);

/// ... and longer by a second for so many bytes that it writes or reads.
const SLOWEST_BYTES: u64 = 1 << 20;

/// People are told after this part of the limit that nothing has been answered yet.
const TOLD_AFTER: u32 = 6;

/// The tries of one request.
pub(super) struct Tries<'a> {
    log: &'a Log,
    request: Request,
    doing: &'static str,
    limit: Duration,
    retry: Retry,
    made: u32,
    /// None before the first failure.
    delays: Option<Box<dyn Iterator<Item = Duration> + Send>>,
}

impl Log {
    /// The tries of a request that moves about so many bytes.
    pub(super) fn tries(&self, doing: &'static str, bytes: usize, retry: Retry) -> Tries<'_> {
        let limit = LIMIT + Duration::from_secs(bytes as u64 / SLOWEST_BYTES);
        let request = self.health.request(doing);
        Tries { log: self, request, doing, limit, retry, made: 0, delays: None }
    }
}

impl Tries<'_> {
    /// How many were made in vain.
    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// The answer to a call; an error if it doesn't come in time.
    pub(super) async fn answer<T>(
        &mut self,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        let mut call = pin!(call);
        let soon = self.limit / TOLD_AFTER;
        if let Some(answer) = within(call.as_mut(), self.log.env.sleep(soon)).await {
            return answer;
        }
        let silent = |time: Duration| format!("no answer for {:.0} s", time.as_secs_f64());
        self.request.failed(format!("could not {} yet: {}", self.doing, silent(soon)));
        match within(call, self.log.env.sleep(self.limit - soon)).await {
            Some(answer) => answer,
            None => {
                let source = silent(self.limit).into();
                Err(object_store::Error::Generic { store: "storage", source })
            }
        }
    }

    /// Waits for the next try, since the one for `name` failed; false if there is none.
    pub(super) async fn again(&mut self, name: &str, why: &(dyn Display + Sync)) -> bool {
        self.note(name, why);
        let env = &self.log.env;
        let delays = self.delays.get_or_insert_with(|| Box::new(self.retry.delays(env.as_ref())));
        let Some(delay) = delays.next() else { return false };
        env.sleep(delay).await;
        true
    }

    /// A try for `name` failed.
    pub(super) fn note(&mut self, name: &str, why: &(dyn Display + Sync)) {
        self.made += 1;
        tracing::debug!(name, %why, tries = self.made, "a call to the store failed");
        self.request.failed(format!("could not {} {}: {why}", self.doing, self.log.shown(name)));
    }

    /// The request has succeeded.
    pub(super) fn done(self) {
        self.request.done();
    }
}

/// What `task` comes to before `end`.
async fn within<T>(task: impl Future<Output = T> + Unpin, end: BoxFuture<()>) -> Option<T> {
    match select(task, end).await {
        Either::Left((answer, _)) => Some(answer),
        Either::Right(_) => None,
    }
}
