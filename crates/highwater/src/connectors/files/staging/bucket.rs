//! Files for a bucket: gathered in a temporary file of the machine, and put when their interval is over, beside the writing of the next one.
//!
//! All files of an interval share one temporary file, which has no name: nothing is left of it when the process ends, however it ends.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use highwater_log::{Bytes, StagedItem};

use super::{Answer, RETRY, Stop, Tries};
use crate::connectors::files::layout::staged_name;
use crate::connectors::files::place::Bucket;

/// So many files are put at once.
const AT_ONCE: usize = 4;

/// So much of a file is read at once.
const PIECE_BYTES: u64 = 8 << 20;

/// A bucket, and what was written for it.
pub(super) struct Stage {
    bucket: Bucket,
    tries: Tries,
    /// Of the present interval; none before its first row.
    spool: Option<Spool>,
}

/// A temporary file with pieces of many files.
struct Spool {
    file: Arc<File>,
    length: u64,
}

/// A file: where its pieces are in the temporary one.
#[derive(Default)]
pub(super) struct Spooled {
    spool: Option<Arc<File>>,
    pieces: Vec<Range<u64>>,
}

impl Spooled {
    /// What is in it.
    fn content(&self) -> impl Iterator<Item = io::Result<Bytes>> + Send + use<> {
        let (spool, pieces) = (self.spool.clone(), self.pieces.clone());
        let short = pieces.into_iter().flat_map(|Range { start, end }| {
            let begins = (start..end).step_by(PIECE_BYTES as usize);
            begins.map(move |begin| begin..end.min(begin + PIECE_BYTES))
        });
        short.map(move |Range { start, end }| {
            let mut bytes = vec![0; (end - start) as usize];
            if let Some(spool) = &spool {
                spool.read_exact_at(&mut bytes, start)?;
            }
            Ok(Bytes::from(bytes))
        })
    }
}

impl Stage {
    pub(super) fn new(bucket: Bucket, tries: Tries) -> Self {
        Stage { bucket, tries, spool: None }
    }
}

impl super::Stage for Stage {
    type File = Spooled;

    fn begin(&mut self, _: u64) -> Spooled {
        Spooled::default()
    }

    fn append(&mut self, file: &mut Spooled, bytes: &[u8]) -> Result<(), Stop> {
        let cannot = |error: &io::Error| {
            let folder = std::env::temp_dir();
            format!("can't write a temporary file in {}: {error}", folder.display()).into()
        };
        let (tries, spool) = (&self.tries, &mut self.spool);
        let spool = tries.until_done(
            cannot,
            |_| false,
            || {
                if spool.is_none() {
                    *spool = Some(Spool { file: Arc::new(tempfile::tempfile()?), length: 0 });
                }
                let spool = spool.as_mut().expect("it was made");
                spool.file.write_all_at(bytes, spool.length)?;
                let begin = spool.length;
                spool.length += bytes.len() as u64;
                Ok((spool.file.clone(), begin..spool.length))
            },
        )?;
        let (in_file, piece) = spool;
        file.spool = Some(in_file);
        match file.pieces.last_mut() {
            Some(last) if last.end == piece.start => last.end = piece.end,
            _ => file.pieces.push(piece),
        }
        Ok(())
    }

    fn close(&mut self, _: &mut Spooled) -> Result<(), Stop> {
        Ok(())
    }

    fn stage(&mut self, files: Vec<(StagedItem, Spooled)>, answer: Answer) {
        self.spool = None;
        if files.is_empty() {
            return answer.give(Ok(Vec::new()));
        }
        let puts: Vec<_> = files
            .into_iter()
            .map(|(item, file)| put(self.bucket.clone(), self.tries.clone(), item, file))
            .collect();
        let env = self.tries.env.clone();
        // A thread, since it reads files.
        let work = move || {
            let all = stream::iter(puts).buffered(AT_ONCE).try_collect::<Vec<StagedItem>>();
            answer.give(highwater_env::block_on(env.as_ref(), all));
        };
        self.tries.env.spawn_thread("stage-files", Box::new(work));
    }
}

/// Puts a file, and tries until that works.
async fn put(
    bucket: Bucket,
    tries: Tries,
    item: StagedItem,
    file: Spooled,
) -> Result<StagedItem, Stop> {
    let name = staged_name(&item);
    let mut request = tries.health.request("stage");
    let mut delays = RETRY.delays(tries.env.as_ref());
    while let Err(error) = bucket.stage(&name, item.bytes, file.content()).await {
        request.failed(bucket.cannot("write", &name, &error));
        tries.env.sleep(delays.next().unwrap_or(RETRY.longest)).await;
        tries.still_wanted()?;
    }
    request.done();
    Ok(item)
}
