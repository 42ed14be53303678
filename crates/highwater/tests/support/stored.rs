//! What a store holds.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::TryStreamExt;
use highwater_log::{CheckpointEntry, Entry, Store, record};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

/// Runs a task of a store outside of any attempt.
pub fn block_on<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(task)
}

pub fn memory() -> Store {
    Store::open("memory:").unwrap()
}

/// A copy of a store, in memory.
pub fn copy(contents: &BTreeMap<String, Bytes>) -> Store {
    let store = memory();
    block_on(async {
        for (name, bytes) in contents {
            store.objects().put(&Path::from(name.as_str()), bytes.clone().into()).await.unwrap();
        }
    });
    store
}

/// Everything in the store.
pub fn contents(store: &Store) -> BTreeMap<String, Bytes> {
    block_on(async {
        let listed: Vec<ObjectMeta> = store.objects().list(None).try_collect().await.unwrap();
        let mut contents = BTreeMap::new();
        for meta in listed {
            // Collected in between, if it isn't there.
            if let Ok(got) = store.objects().get(&meta.location).await {
                contents.insert(meta.location.to_string(), got.bytes().await.unwrap());
            }
        }
        contents
    })
}

/// The entries of the log, by number, but those that were damaged.
pub fn entries(store: &Store) -> BTreeMap<u64, Entry> {
    let contents = contents(store);
    let log = contents.iter().filter(|(name, _)| name.starts_with("log/"));
    log.filter_map(|(_, bytes)| {
        let entry: Entry = record::decode(bytes, 1).ok()?;
        Some((entry.number, entry))
    })
    .collect()
}

/// The checkpoints of the log, by number.
pub fn checkpoints(store: &Store) -> BTreeMap<u64, CheckpointEntry> {
    entries(store)
        .into_iter()
        .filter_map(|(number, entry)| Some((number, entry.checkpoint()?.clone())))
        .collect()
}

/// The number of the newest checkpoint; 0 if there is none.
pub fn newest(store: &Store) -> u64 {
    checkpoints(store).keys().next_back().copied().unwrap_or_default()
}
