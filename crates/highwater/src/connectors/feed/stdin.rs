//! Standard input.
//!
//! Who holds it: the supervisor was given file descriptor 0, never reads it, and hands it down to the processes of every attempt, of which
//! process 0 reads. So it outlives a failed attempt, and the next one goes on where the last one stopped reading: which may be
//! in the middle of a line.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater_runtime::BoxError;
use highwater_runtime::connector::SplitOffset;

use super::source::{FeedInput, Place};
use crate::connectors::records::frames::Block;
use crate::connectors::records::reader::Outbox;

/// If whoever shares it with us has said that reading it doesn't wait, we look so often.
const LOOK: Duration = Duration::from_millis(10);

/// Somebody in this process reads standard input. Two would get pieces of lines.
static IS_READ: AtomicBool = AtomicBool::new(false);

struct Hold;

impl Drop for Hold {
    fn drop(&mut self) {
        IS_READ.store(false, Ordering::Release);
    }
}

pub(super) fn read(
    feed: &FeedInput,
    offset: &SplitOffset,
    out: &Outbox<'_, Block>,
) -> Result<(), BoxError> {
    if IS_READ.swap(true, Ordering::AcqRel) {
        return Err("standard input is read by another source already; a job has one such source at the most".into());
    }
    let _hold = Hold;
    feed.warn("standard input", "; the first line is left out, since it may be the rest of one");
    let failed = |error: io::Error| format!("can't read standard input: {error}");
    let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let mut input = feed.patient(File::from(input), LOOK, out);
    let begins = offset.position == 0 && !feed.is_restart;
    let mut place = Place { position: offset.position, line: begins.then_some(1) };
    if feed.is_restart {
        place.position += input.skip_until(b'\n').map_err(failed)? as u64;
    }
    feed.pass(input, &mut place, true, out).map_err(failed)?;
    Ok(())
}
