//! What the tests of connectors share: an environment, contexts, and readers polled to their end.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::{Env, RealEnv};
use highwater_log::{Health, Log, StagedItem, Store};
use highwater_runtime::connector::{
    Polled, PublisherContext, Reader, Reject, SplitOffset, Waker, Writer, WriterContext,
};
use highwater_runtime::{BoxError, Data, Epoch};

pub(super) fn env() -> Arc<dyn Env> {
    Arc::new(RealEnv::new().unwrap())
}

pub(super) fn no_waker() -> Waker {
    Waker::new(|| {})
}

/// A log in a folder of its own.
pub(super) struct Place {
    pub(super) folder: tempfile::TempDir,
    pub(super) env: Arc<dyn Env>,
    pub(super) log: Arc<Log>,
}

impl Place {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let env = env();
        let store = Store::from_objects(Arc::new(object_store::memory::InMemory::new()));
        let log = Arc::new(Log::new(store, "job".into(), env.clone(), "test"));
        Place { folder, env, log }
    }

    pub(super) fn writer(&self, attempt: u64, worker: usize) -> WriterContext {
        WriterContext {
            uid: "out".to_owned(),
            worker,
            attempt,
            direct: false,
            env: self.env.clone(),
            waker: no_waker(),
            log: self.log.clone(),
            health: Health::new(self.env.clone(), "sink `out`".to_owned(), "it is repeated"),
        }
    }

    pub(super) fn publisher(&self, job_id: &str, attempt: u64) -> PublisherContext {
        PublisherContext {
            uid: "out".to_owned(),
            job: "test".to_owned(),
            job_id: job_id.to_owned(),
            attempt,
            starts_over: false,
            covered: None,
            begun: false,
            env: self.env.clone(),
            log: self.log.clone(),
        }
    }

    pub(super) fn wait<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> T {
        highwater_env::block_on(self.env.as_ref(), task)
    }
}

pub(super) fn nap(env: &dyn Env) {
    env.block_on(env.sleep(Duration::from_millis(1)));
}

/// Cuts, and waits for the items.
pub(super) fn cut(writer: &mut dyn Writer, interval: u32, env: &dyn Env) -> Vec<StagedItem> {
    writer.cut(interval).unwrap();
    loop {
        if let Some(items) = writer.staged().unwrap() {
            return items;
        }
        nap(env);
    }
}

/// Polls until there are rows; none at the end. Nothing is rejected.
pub(super) fn poll<T: Data>(
    reader: &mut dyn Reader,
    env: &dyn Env,
) -> Result<Option<Vec<T>>, BoxError> {
    let polled = poll_with_rejects(reader, env)?;
    Ok(polled.map(|(rows, rejects)| {
        assert_eq!(rejects, []);
        rows
    }))
}

/// Rows, and what was rejected.
pub(super) type Both<T> = (Vec<T>, Vec<Reject>);

fn poll_with_rejects<T: Data>(
    reader: &mut dyn Reader,
    env: &dyn Env,
) -> Result<Option<Both<T>>, BoxError> {
    loop {
        match reader.poll(Epoch::new(1, 0))? {
            Polled::Rows(batch, bytes) => {
                assert!(bytes >= batch.len() * size_of::<T>());
                if !batch.is_empty() {
                    return Ok(Some((batch.take()?, Vec::new())));
                }
            }
            Polled::WithRejects(batch, rejects, bytes) => {
                assert!(!rejects.is_empty() && bytes >= batch.len() * size_of::<T>());
                return Ok(Some((batch.take()?, rejects)));
            }
            Polled::Waiting => nap(env),
            Polled::EpochOver => {}
            Polled::Ended => return Ok(None),
        }
    }
}

/// Everything that is left.
pub(super) fn drain<T: Data>(reader: &mut dyn Reader, env: &dyn Env) -> Result<Vec<T>, BoxError> {
    let mut all = Vec::new();
    while let Some(rows) = poll::<T>(reader, env)? {
        all.extend(rows);
    }
    Ok(all)
}

/// Everything that is left, good and bad.
pub(super) fn drain_with_rejects<T: Data>(
    reader: &mut dyn Reader,
    env: &dyn Env,
) -> Result<Both<T>, BoxError> {
    let (mut all, mut all_rejects) = (Vec::new(), Vec::new());
    while let Some((rows, rejects)) = poll_with_rejects::<T>(reader, env)? {
        all.extend(rows);
        all_rejects.extend(rejects);
    }
    Ok((all, all_rejects))
}

pub(super) fn at_begin(ids: &[String]) -> Vec<(String, SplitOffset)> {
    ids.iter().map(|id| (id.clone(), SplitOffset::default())).collect()
}
