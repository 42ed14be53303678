//! Jobs in which something is stuck, and who is named for it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use highwater::connectors::{Discard, Generator, IntoSink};
use highwater::observe::{HostKind, State};
use highwater_log::StagedItem;
use highwater_runtime::connector::{
    Delivery, Publisher, PublisherContext, Sink, Writer, WriterContext,
};
use highwater_runtime::{Batch, BoxError};

use super::{asked, numbers, place, start};
use crate::program::{self, this_program};
use crate::support::{Raw, wait_for};

/// Makes this program the job of this file; names a file while which exists its sink is stuck, or nothing.
const STUCK: &str = "HIGHWATER_TEST_STUCK";

/// Rows without end to a sink that takes nothing while a file exists.
pub fn job() -> Option<highwater::Result<()>> {
    let file = std::env::var(STUCK).ok()?;
    let outcome = highwater::run("stuck", |job| {
        let rows = job.read::<u64>("rows", Generator::new(|index| index).rate(20_000));
        rows.clone().rebalance().write("elsewhere", Discard::new());
        let inner = IntoSink::<u64>::into_sink(Discard::new());
        rows.write("slow", Raw(Arc::new(Slow { inner, file: file.clone() })));
    });
    Some(outcome.map(|_| ()))
}

/// That job, with a sink that isn't stuck.
pub fn command() -> Command {
    let mut command = Command::new(this_program());
    command.env(STUCK, "").env_remove("RUST_LOG");
    command.env_remove("HIGHWATER_CHECKPOINTS").env_remove("HIGHWATER_WORKERS");
    command
}

/// A sink whose writer on worker 1 has too much queued while a file exists.
struct Slow {
    inner: Arc<dyn Sink>,
    file: String,
}

impl Sink for Slow {
    fn delivery(&self) -> Delivery {
        self.inner.delivery()
    }
    fn writer(&self, context: WriterContext) -> Result<Box<dyn Writer>, BoxError> {
        let queued = Arc::new(AtomicU64::new(0));
        if context.worker == 1 {
            let (file, queued) = (self.file.clone(), queued.clone());
            let (waker, env) = (context.waker.clone(), context.env.clone());
            // What a destination that is slow does to whoever stands beside a writer.
            let watch = move || {
                loop {
                    queued.store(if Path::new(&file).exists() { 5 << 20 } else { 0 }, SeqCst);
                    waker.wake();
                    env.block_on(env.sleep(Duration::from_millis(5)));
                }
            };
            context.env.spawn_thread("slow", Box::new(watch));
        }
        Ok(Box::new(SlowWriter { inner: self.inner.writer(context)?, queued }))
    }
    fn publisher(&self, context: PublisherContext) -> Result<Box<dyn Publisher>, BoxError> {
        self.inner.publisher(context)
    }
}

struct SlowWriter {
    inner: Box<dyn Writer>,
    queued: Arc<AtomicU64>,
}

impl Writer for SlowWriter {
    fn write(&mut self, batch: Batch) -> Result<(), BoxError> {
        self.inner.write(batch)
    }
    fn queued_bytes(&self) -> usize {
        self.queued.load(SeqCst) as usize
    }
    fn cut(&mut self, interval: u32) -> Result<(), BoxError> {
        self.inner.cut(interval)
    }
    fn staged(&mut self) -> Result<Option<Vec<StagedItem>>, BoxError> {
        self.inner.staged()
    }
}

pub fn a_stuck_sink_holds_the_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("checkpoints").display().to_string();
    let file = folder.path().join("stuck");
    let mut command = command();
    command.env(STUCK, &file).args(["--checkpoints", &place, "--workers", "2"]);
    let _job = start(command.args(["--checkpoint-interval", "50ms", "--in-flight", "64KB"]));
    let (status, _) =
        asked(&place, "all is well", |status| status.leader.checkpoints.committed > 2);
    let long = status.epoch_held.is_some_and(|held| held.for_ms > 500);
    assert!(!long, "nobody holds anything for long");
    std::fs::write(&file, "").unwrap();
    let (status, mut client) = asked(&place, "the epoch is held", |status| {
        status.epoch_held.as_ref().is_some_and(|held| held.for_ms > 500 && !held.by.is_empty())
    });
    let held = status.epoch_held.unwrap();
    let [holder] = held.by.as_slice() else { panic!("{held:?}") };
    assert_eq!((holder.worker, holder.operator.as_deref()), (1, Some("slow")), "{holder:?}");
    assert_eq!(holder.kind, Some(HostKind::Sink));
    assert!(holder.why.contains("5242880 bytes wait for its destination"), "{holder:?}");
    // The checkpoint waits for the same, and the sources for the bound.
    let by_sink = |held: &highwater::observe::CheckpointHeld| {
        held.by.iter().any(|by| by.worker == 1 && by.operator.as_deref() == Some("slow"))
    };
    asked(&place, "the checkpoint is held", |status| {
        status.checkpoint_held.as_ref().is_some_and(by_sink)
    });
    asked(&place, "sources pause", |status| status.workers[1].paused);
    std::fs::remove_file(&file).unwrap();
    let held = held.epoch;
    wait_for("it goes on", || {
        let status = client.status().unwrap().status.unwrap();
        status.oldest_epoch.is_some_and(|oldest| oldest > held)
    });
}

/// Row 1000 of `program.rs` is the second split's, and its reader doesn't come back from it.
pub fn a_hanging_split_holds_the_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, place) = (folder.path(), place(folder.path()));
    let mut command = numbers(folder, None, 20_000);
    let _job = start(command.env(program::HANG, folder.join("hangs")));
    let (status, _) = asked(&place, "the epoch is held", |status| {
        status.epoch_held.as_ref().is_some_and(|held| held.for_ms > 500 && !held.by.is_empty())
    });
    let held = status.epoch_held.unwrap();
    let [holder] = held.by.as_slice() else { panic!("{held:?}") };
    assert_eq!((holder.worker, holder.operator.as_deref()), (0, Some("numbers")));
    assert_eq!(holder.split.as_deref(), Some("1-of-3"), "{holder:?}");
    assert!(holder.why.contains("its thread has been in it for"), "{holder:?}");
    assert_eq!(status.leader.state, State::Running);
}
