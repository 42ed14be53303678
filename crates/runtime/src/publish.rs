//! Publishing: what becomes visible, in which order, and what of it is done.
//!
//! One task a sink hands what committed checkpoints decided to the sink's publisher, oldest first, and repeats what
//! fails, for as long as the attempt lives. Publishers sit on process 0 alone: the work is a rename or a request for each part,
//! and one place keeps the order.
//!
//! # Invariants
//!
//! 3. Output becomes visible only if the entry that covers it exists: a [`Publication`] is made from a [`Committed`].
//! 4. Every publishing step can be repeated from the log alone: what a publication holds is a function of the entry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use highwater_env::Phase;
use highwater_log::{Committed, Health, LogError, Retry, StagedItem, StagedOutput};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::attempt::{Attempt, Unpublished};
use crate::connector::{Lasting, Publisher};
use crate::{BoxError, Error};

/// Between tries to publish, at first and at the most.
const RETRY: Retry = Retry::endless(Duration::from_millis(100), Duration::from_secs(5));

/// What is done while a destination takes nothing, for people.
const REMEDY: &str = "this is repeated until it works, and nothing is lost: processing goes on meanwhile, and sources pause when many \
                      checkpoints wait to be published";

/// Some parts that are published in one call.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    /// The checkpoint that staged the last of the items: the number that the publisher is told.
    pub(crate) checkpoint: u64,
    pub(crate) items: Vec<StagedItem>,
}

/// What of a sink's staged output is to be published, oldest first. All items of a part are in one publication.
pub(crate) fn publications(sink: &str, staged: &[StagedOutput]) -> Vec<Publication> {
    let mut last_of: BTreeMap<&str, u64> = BTreeMap::new();
    let outputs = || staged.iter().filter(|output| output.sink == sink);
    for output in outputs() {
        for part in output.items.iter().filter_map(|item| item.part.as_deref()) {
            let last = last_of.entry(part).or_default();
            *last = (*last).max(output.checkpoint);
        }
    }
    let mut by_checkpoint: BTreeMap<u64, Vec<StagedItem>> = BTreeMap::new();
    for item in outputs().flat_map(|output| &output.items) {
        if let Some(part) = &item.part {
            by_checkpoint.entry(last_of[part.as_str()]).or_default().push(item.clone());
        }
    }
    by_checkpoint.into_iter().map(|(checkpoint, items)| Publication { checkpoint, items }).collect()
}

/// The publishing of one sink.
pub(crate) struct SinkPublishing {
    pub(crate) publisher: Arc<dyn Publisher>,
    /// All publications of an entry at once: the task must not take the first for the only one.
    queue: UnboundedSender<Sent>,
    progress: Arc<Progress>,
    last_sent: u64,
}

/// What one entry decided for a sink.
struct Sent {
    number: u64,
    publications: Vec<Publication>,
    /// Held until they are published.
    unpublished: Arc<Unpublished>,
}

/// How far the task of a sink has come.
#[derive(Default)]
struct Progress {
    /// Everything that entries up to this one decided is published.
    published: AtomicU64,
    /// The last try failed.
    failing: AtomicBool,
}

impl SinkPublishing {
    /// Starts the task of a sink.
    pub(crate) fn start(uid: &str, publisher: Arc<dyn Publisher>, attempt: &Arc<Attempt>) -> Self {
        let (queue, publications) = unbounded_channel();
        let progress = Arc::new(Progress::default());
        let task = publish_all(
            uid.to_owned(),
            publisher.clone(),
            attempt.clone(),
            publications,
            progress.clone(),
        );
        attempt.env.spawn("publish", Box::pin(task));
        SinkPublishing { publisher, queue, progress, last_sent: 0 }
    }

    /// Publishes, later, what the committed entry decided.
    pub(crate) fn send(
        &mut self,
        committed: Committed,
        publications: Vec<Publication>,
        unpublished: Arc<Unpublished>,
    ) {
        let number = committed.number();
        self.last_sent = number;
        // A task that is gone has ended with its attempt.
        self.queue.send(Sent { number, publications, unpublished }).ok();
    }

    /// Everything that entries up to this one decided is published.
    pub(crate) fn published(&self) -> u64 {
        self.progress.published.load(Ordering::SeqCst)
    }

    /// Whether the destination takes nothing at the moment.
    pub(crate) fn is_failing(&self) -> bool {
        self.progress.failing.load(Ordering::SeqCst)
    }

    /// Whether everything that was sent is published.
    pub(crate) fn is_idle(&self) -> bool {
        self.published() >= self.last_sent
    }
}

async fn publish_all(
    uid: String,
    publisher: Arc<dyn Publisher>,
    attempt: Arc<Attempt>,
    mut queue: UnboundedReceiver<Sent>,
    progress: Arc<Progress>,
) {
    let health = Health::new(attempt.env.clone(), format!("sink `{uid}`"), REMEDY);
    while let Some(Sent { number, publications, unpublished }) = queue.recv().await {
        for Publication { checkpoint, items } in publications {
            let mut delays = RETRY.delays(attempt.env.as_ref());
            let mut request = health.request("publish");
            loop {
                if attempt.is_over() {
                    return;
                }
                let result = {
                    let _phase = highwater_env::enter(&attempt.env, Phase::Publishing);
                    publisher.publish(checkpoint, items.clone()).await
                };
                progress.failing.store(result.is_err(), Ordering::SeqCst);
                let failure = result.as_ref().err().map(ToString::to_string);
                attempt.observed.ledger.tried(&uid, failure);
                match result {
                    Ok(()) => break,
                    Err(source) if lasts(&source) => {
                        return attempt.fail(Error::Operator { kind: "sink", uid, source });
                    }
                    Err(error) => {
                        tracing::debug!(sink = uid, checkpoint, %error, "could not publish");
                        request
                            .failed(format!("could not publish checkpoint {checkpoint}: {error}"));
                        attempt.env.sleep(delays.next().unwrap_or(RETRY.longest)).await;
                    }
                }
            }
            request.done();
            // What an earlier attempt left behind is no output of this one.
            if number > attempt.number {
                attempt.observed.note_published(&*attempt.env);
            }
        }
        progress.published.fetch_max(number, Ordering::SeqCst);
        drop(unpublished);
        attempt.observed.ledger.published(&uid, number, attempt.env.monotonic());
    }
}

/// Whether trying again is of no use: what was staged is damaged or gone, or its place is taken.
fn lasts(error: &BoxError) -> bool {
    let of_the_log = error.downcast_ref::<LogError>();
    error.is::<Lasting>() || of_the_log.is_some_and(|error| matches!(error, LogError::Damaged(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, part: Option<&str>) -> StagedItem {
        StagedItem {
            name: name.to_owned(),
            bytes: 1,
            rows: 1,
            checksum: String::new(),
            part: part.map(str::to_owned),
        }
    }

    #[test]
    fn a_part_is_published_whole_and_in_order() {
        let output = |checkpoint, items| StagedOutput { sink: "s".to_owned(), checkpoint, items };
        let staged = [
            output(3, vec![item("a", Some("p"))]),
            output(4, vec![item("b", Some("p")), item("c", Some("q"))]),
            output(5, vec![item("d", Some("r")), item("e", None)]),
            StagedOutput { sink: "t".to_owned(), checkpoint: 5, items: vec![item("x", Some("x"))] },
        ];
        let names = |publication: &Publication| {
            let names: Vec<_> = publication.items.iter().map(|item| item.name.clone()).collect();
            (publication.checkpoint, names.concat())
        };
        let found: Vec<_> = publications("s", &staged).iter().map(names).collect();
        assert_eq!(found, [(4, "abc".to_owned()), (5, "d".to_owned())]);
    }
}
