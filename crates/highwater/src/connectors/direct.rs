//! What sinks share that hand rows to their destination as they come: at least once, without waiting for a checkpoint.
//!
//! ```text
//!  write: rows ─▶ channel ─▶ task: what has gathered ─thread─▶ destination     (again and again until it is accepted)
//!  cut ─────────▶ channel ─▶ task: everything before it is accepted ─▶ staged: no items
//! ```
//!
//! # Invariants
//!
//! - No row is lost: a checkpoint (or, without checkpoints, the end of the job) waits until the destination has accepted every row
//!   before it. Whoever goes on from it reads those again that came later.
//! - 8\. Nothing on the worker thread waits. The channel has no bound of its own: the runtime holds rows back while
//!   `queued_bytes` is large.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use highwater_env::Env;
use highwater_log::{Health, Retry, StagedItem};
use highwater_runtime::connector::{Lasting, Waker, Writer, WriterContext, on_thread};
use highwater_runtime::{Batch, BoxError, Data};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::staged_rows::Destination;

/// Between tries to deliver, at first and at the most.
const RETRY: Retry = Retry::endless(Duration::from_millis(100), Duration::from_secs(5));

/// About so many bytes are delivered in one call, if they have gathered.
const BYTES: usize = 1 << 20;

/// Makes the writer that hands rows to `destination`.
pub(super) fn writer<T: Data, D: Destination<T>>(
    destination: Arc<D>,
    context: WriterContext,
) -> Box<dyn Writer> {
    let WriterContext { env, waker, health, .. } = context;
    let (messages, inbox) = unbounded_channel();
    let (outbox, answers) = mpsc::channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let task = Task {
        destination,
        env: env.clone(),
        health,
        waker,
        inbox,
        outbox,
        queued: queued.clone(),
    };
    env.spawn("deliver", Box::pin(task.run()));
    Box::new(DirectWriter::<T> { messages, answers, queued })
}

/// What the task is told.
enum Message<T> {
    /// Rows, and about how many bytes of memory they take.
    Rows(Vec<T>, usize),
    Cut,
}

struct DirectWriter<T> {
    messages: UnboundedSender<Message<T>>,
    /// One for every cut, or an error.
    answers: mpsc::Receiver<Result<(), BoxError>>,
    queued: Arc<AtomicUsize>,
}

impl<T> DirectWriter<T> {
    fn send(&self, message: Message<T>) -> Result<(), BoxError> {
        // A task that is gone has said why.
        self.messages.send(message).map_err(|_| match self.answers.try_recv() {
            Ok(Err(error)) => error,
            _ => "the task that delivers rows is gone".into(),
        })
    }
}

impl<T: Data> Writer for DirectWriter<T> {
    fn write(&mut self, batch: Batch) -> Result<(), BoxError> {
        let bytes = batch.bytes();
        let rows: Vec<T> = batch.take()?;
        self.queued.fetch_add(bytes, Ordering::Relaxed);
        self.send(Message::Rows(rows, bytes))
    }

    fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    fn cut(&mut self, _: u32) -> Result<(), BoxError> {
        self.send(Message::Cut)
    }

    fn staged(&mut self) -> Result<Option<Vec<StagedItem>>, BoxError> {
        match self.answers.try_recv() {
            Ok(answer) => answer.map(|()| Some(Vec::new())),
            Err(mpsc::TryRecvError::Empty) => Ok(None),
            Err(mpsc::TryRecvError::Disconnected) => {
                Err("the task that delivers rows is gone".into())
            }
        }
    }
}

struct Task<T, D> {
    destination: Arc<D>,
    env: Arc<dyn Env>,
    health: Arc<Health>,
    waker: Waker,
    inbox: UnboundedReceiver<Message<T>>,
    outbox: mpsc::Sender<Result<(), BoxError>>,
    queued: Arc<AtomicUsize>,
}

impl<T: Data, D: Destination<T>> Task<T, D> {
    async fn run(mut self) {
        while let Some(message) = self.inbox.recv().await {
            let mut gathered = (Vec::new(), 0);
            let mut next = Some(message);
            let mut cut = false;
            while let Some(message) = next.take() {
                match message {
                    Message::Cut => cut = true,
                    Message::Rows(mut rows, bytes) => {
                        if gathered.0.is_empty() {
                            gathered.0 = rows;
                        } else {
                            gathered.0.append(&mut rows);
                        }
                        gathered.1 += bytes;
                        next = (gathered.1 < BYTES).then(|| self.inbox.try_recv().ok()).flatten();
                    }
                }
            }
            let (rows, bytes) = gathered;
            let delivered = match rows.is_empty() {
                true => Ok(()),
                false => self.deliver(rows).await,
            };
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
            let failed = delivered.is_err();
            if cut || failed {
                // Whoever isn't there any more doesn't wait for it.
                self.outbox.send(delivered).ok();
            }
            self.waker.wake();
            if failed {
                return;
            }
        }
    }

    /// Delivers rows, however often it takes.
    async fn deliver(&self, mut rows: Vec<T>) -> Result<(), BoxError> {
        let mut delays = RETRY.delays(self.env.as_ref());
        let mut request = self.health.request("deliver");
        loop {
            let (destination, env) = (self.destination.clone(), self.env.clone());
            let deliver = move || {
                let delivered = destination.deliver_directly(env.as_ref(), &rows);
                (rows, delivered)
            };
            let delivered;
            // A function that panicked has taken the rows with it: they come again after a restart.
            (rows, delivered) = on_thread(self.env.as_ref(), "deliver-rows", deliver).await?;
            match delivered {
                Err(error) if !error.is::<Lasting>() => {
                    request.failed(format!("could not deliver rows: {error}"));
                }
                Ok(()) => {
                    request.done();
                    return Ok(());
                }
                lasting => return lasting,
            }
            self.env.sleep(delays.next().unwrap_or(RETRY.longest)).await;
            if self.inbox.is_closed() {
                return Err("the attempt is over".into());
            }
        }
    }
}

#[cfg(test)]
#[path = "direct_tests.rs"]
mod tests;
