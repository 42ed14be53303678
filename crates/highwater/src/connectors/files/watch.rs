//! Files that appear while the job runs: a task looks for them every so often.
//!
//! A file is taken once nobody has changed it for one interval. What is known of files is what the source's offsets say, which are keyed
//! state: a list that grows makes no entry of the log longer, and costs a checkpoint only what is new in it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_runtime::BoxError;
use highwater_runtime::connector::{Finder, FinderContext, Found, SplitOffset, Waker, on_thread};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::discover::{KnownFiles, NotFound, Place, Split, cannot};

/// How a source waits for files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    /// Time between two looks.
    pub(crate) interval: Duration,
    /// Files come in the order of their names, so that only the last one needs to be remembered.
    pub(crate) in_order: bool,
}

/// What a look does with a file that isn't known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is read.
    Take,
    /// It may still be written to.
    Wait,
    /// Its name is before that of one that was taken.
    TooLate,
}

impl Watch {
    /// What to do with a file if `last` is the last one that was taken, by its name.
    ///
    /// # Errors
    ///
    /// If the file can't be looked at.
    pub(crate) fn judge(&self, path: &Path, last: Option<&Path>) -> Result<Verdict, BoxError> {
        if self.in_order && last.is_some_and(|last| path < last) {
            return Ok(Verdict::TooLate);
        }
        let modified = path.metadata().and_then(|file| file.modified());
        let modified = modified.map_err(|error| cannot("look at", path, &error))?;
        // A time to come is that of a clock elsewhere that is ahead.
        let quiet = modified.elapsed().unwrap_or_default();
        Ok(if quiet >= self.interval { Verdict::Take } else { Verdict::Wait })
    }
}

/// Looks for files in a task, and hands over what that has found.
pub(crate) struct FileFinder {
    found: UnboundedReceiver<Found>,
}

impl FileFinder {
    /// What looks for more files of a place; none if nobody waits for any.
    pub(crate) fn of(
        place: &Place,
        context: FinderContext,
    ) -> Result<Option<Box<dyn Finder>>, BoxError> {
        let Some(watch) = place.watch else { return Ok(None) };
        Ok(Some(Box::new(FileFinder::start(place.clone(), watch, context))))
    }

    fn start(place: Place, watch: Watch, context: FinderContext) -> Self {
        let FinderContext { known, env, waker, .. } = context;
        let ids: Vec<String> = known.into_iter().map(|(id, _)| id).collect();
        let known = KnownFiles::of(&ids);
        let look = Look { place, known, ids, in_order: watch.in_order };
        let (sender, found) = unbounded_channel();
        let task = look_again(look, watch.interval, env.clone(), sender, waker);
        env.spawn("watch-files", Box::pin(task));
        FileFinder { found }
    }
}

impl Finder for FileFinder {
    fn poll(&mut self) -> Result<Found, BoxError> {
        let mut all = Found::default();
        loop {
            match self.found.try_recv() {
                Ok(found) => {
                    all.splits.extend(found.splits);
                    all.released.extend(found.released);
                }
                Err(TryRecvError::Empty) => return Ok(all),
                // While there is a finder the task doesn't end by itself.
                Err(TryRecvError::Disconnected) => {
                    return Err("looking for new files has panicked (the log above says where), and none would be found any more".into());
                }
            }
        }
    }
}

/// Ends when the finder is gone.
async fn look_again(
    mut look: Look,
    interval: Duration,
    env: Arc<dyn Env>,
    sender: UnboundedSender<Found>,
    waker: Waker,
) {
    while !sender.is_closed() {
        let looked = on_thread(&*env, "look-for-files", move || {
            let found = look.look();
            (look, found)
        });
        // The finder says that this task is gone.
        let Ok((back, found)) = looked.await else { return };
        look = back;
        if found != Found::default() && sender.send(found).is_ok() {
            waker.wake();
        }
        env.sleep(interval).await;
    }
}

/// What one look knows of those before it.
struct Look {
    place: Place,
    known: KnownFiles,
    /// The splits that aren't released.
    ids: Vec<String>,
    in_order: bool,
}

impl Look {
    fn look(&mut self) -> Found {
        let splits: Vec<(String, SplitOffset)> = match self.place.new_splits(&mut self.known) {
            Ok(splits) => splits,
            Err(NotFound::Nothing(_)) => Vec::new(),
            Err(NotFound::Failed(error)) => {
                tracing::warn!(%error, "can't look for new files; trying again");
                Vec::new()
            }
        };
        self.ids.extend(splits.iter().map(|(id, _)| id.clone()));
        Found { splits, released: self.release(), complete: false }
    }

    /// Files before the last one are never taken again, remembered or not.
    fn release(&mut self) -> Vec<String> {
        let Some(last) = self.known.last.as_ref().filter(|_| self.in_order) else {
            return Vec::new();
        };
        let (kept, released) = self.ids.drain(..).partition(|id| Split::parse(id).path == *last);
        self.ids = kept;
        released
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
