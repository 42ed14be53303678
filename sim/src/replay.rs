//! Once more from any checkpoint that is still there: the log up to it must lead to the same results.
//!
//! The store of a finished run is copied as it would be if nothing after that checkpoint had been committed, and so are the tables;
//! then the job goes on from there, undisturbed. Its sinks promise less this time, because recovery refuses to go behind output
//! that may be visible, and it has every reason to.

use std::sync::Arc;

use futures::{FutureExt, TryStreamExt};
use highwater::testing;
use highwater_log::names;
use highwater_runtime::Settings;
use highwater_runtime::connector::Delivery;
use highwater_world::{Media, Run, Scenario};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::graph::Graph;
use crate::job::{self, Tables, build};
use crate::source::{Found, splits};
use crate::{check, state};

/// Goes on from every retained checkpoint of a finished run, which has read `all` splits or not those that showed up late.
pub fn from_every_checkpoint(
    graph: &Graph,
    run: &Run,
    name: &str,
    tables: &Tables,
    all: bool,
    settings: &dyn Fn(usize) -> Settings,
) -> Result<(), String> {
    let checkpoints = check::checkpoints(&run.world)?;
    let splits = splits(graph, all);
    for checkpoint in checkpoints {
        let (objects, copy) = (copy_up_to(run, checkpoint)?, job::tables(graph));
        for (sink, table) in tables {
            copy[sink].fill(table, checkpoint);
        }
        let again = highwater_world::run(Scenario {
            seed: graph.seed,
            faults: Vec::new(),
            media: Media::Remote(objects),
            step_limit: 400_000,
            record: false,
            name: name.to_owned(),
            plan: &|world| {
                let (found, promise) = (Found::always(all), Delivery::AtLeastOnce);
                testing::plan(|job| build(graph, job, world, &copy, &found, promise))
            },
            settings,
            done: &|| (),
        });
        let failed = |why: String| format!("going on from checkpoint {checkpoint}: {why}");
        if let Some(violation) = again.violation {
            return Err(failed(violation.to_string()));
        }
        check::output(graph, &copy, &splits).map_err(failed)?;
        state::check(graph, &again, name, &splits).map_err(failed)?;
    }
    Ok(())
}

/// The store without any checkpoint behind this one.
fn copy_up_to(run: &Run, checkpoint: u64) -> Result<Arc<InMemory>, String> {
    let copy = Arc::new(InMemory::new());
    let (from, to) = (run.store.objects().clone(), copy.clone());
    let attempts = check::attempts(&run.world)?;
    let copying = async move {
        let listed: Vec<_> = from.list(None).try_collect().await?;
        for meta in listed {
            let number = names::entry_number(meta.location.as_ref());
            // An attempt that took the number of a collected checkpoint chose again, and came to nothing there.
            let attempt = |number| attempts.contains(&number) && !run.world.was_committed(number);
            let checkpoint = |number| number <= checkpoint && !attempts.contains(&number);
            if number.is_none_or(|number| checkpoint(number) || attempt(number)) {
                let bytes = from.get(&meta.location).await?.bytes().await?;
                to.put(&meta.location, bytes.into()).await?;
            }
        }
        Ok::<(), object_store::Error>(())
    };
    let copied = copying.now_or_never().ok_or("the media doesn't answer at once")?;
    copied.map_err(|error| error.to_string())?;
    Ok(copy)
}
