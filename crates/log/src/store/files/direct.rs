//! Large files go to the disk around the page cache.
//!
//! They are written once, synced, and read only by another attempt. Through the cache the processor copies each byte into pages
//! that push out others of more use; this way the device fetches them from a small buffer.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use object_store::PutPayload;

/// Smaller files aren't worth a second handle.
const DIRECT_FROM: usize = 1 << 20;

/// Direct writes begin and end at multiples of this, in memory and in the file; no device asks for more.
const BLOCK: usize = 4096;

/// So much is written at once.
const BUFFER: usize = 1 << 20;

/// Writes what can be written directly to the existing, empty file at `path`: so many bytes of the payload from its beginning on.
/// Not all file systems can, and none can write a broken block; the caller writes the rest as usual.
pub(super) fn write(path: &Path, payload: &PutPayload) -> u64 {
    if payload.content_length() < DIRECT_FROM {
        return 0;
    }
    match open(path).and_then(|file| write_blocks(file, payload)) {
        Ok(done) => done,
        Err(error) => {
            // If something is wrong with the disk, the usual way will say so.
            tracing::debug!(path = %path.display(), %error, "can't be written directly");
            0
        }
    }
}

#[cfg(target_os = "linux")]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).custom_flags(libc::O_DIRECT).open(path)
}

#[cfg(not(target_os = "linux"))]
fn open(_: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

fn write_blocks(mut file: File, payload: &PutPayload) -> io::Result<u64> {
    let mut space = vec![0; BUFFER + BLOCK];
    let start = space.as_ptr().align_offset(BLOCK);
    let buffer = &mut space[start..start + BUFFER];
    let (mut filled, mut done) = (0, 0);
    for mut piece in payload.iter().map(|piece| &**piece) {
        while !piece.is_empty() {
            let (now, later) = piece.split_at(piece.len().min(BUFFER - filled));
            buffer[filled..filled + now.len()].copy_from_slice(now);
            filled += now.len();
            piece = later;
            if filled == BUFFER {
                file.write_all(buffer)?;
                done += BUFFER;
                filled = 0;
            }
        }
    }
    let blocks = filled / BLOCK * BLOCK;
    file.write_all(&buffer[..blocks])?;
    Ok((done + blocks) as u64)
}
