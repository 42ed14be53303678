//! Stores at a server: opening them, and large objects in parts.
//!
//! Everything about such a store but its name comes from the variables of the environment that its own tools read. The client
//! never sends a request a second time: to try again is the log's business, which must know that it did.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};

/// Objects larger than this go in parts: a request must come to its end within the client's timeout, also over a slow line.
pub(super) const LARGE_BYTES: usize = 16 << 20;

/// How large a part is.
const PART_BYTES: usize = 8 << 20;

/// So many parts of an object are under way at once.
const PARTS_AT_ONCE: usize = 4;

/// Opens `prefix` in a bucket, or says why it can't be.
pub(super) fn open(
    scheme: &str,
    bucket: &str,
    prefix: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Arc<dyn ObjectStore>, String> {
    if scheme != "s3" {
        return Err(format!(
            "there is no store `{scheme}`; name a local directory, or s3://bucket/prefix"
        ));
    }
    let prefix = Path::parse(prefix).map_err(|error| error.to_string())?;
    let objects = open_s3(bucket, variables)?;
    if prefix.as_ref().is_empty() {
        return Ok(objects);
    }
    Ok(Arc::new(PrefixStore::new(objects, prefix)))
}

/// The client of a bucket, with those of the variables that it knows.
#[cfg(feature = "s3")]
fn open_s3(
    bucket: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Arc<dyn ObjectStore>, String> {
    use object_store::RetryConfig;
    use object_store::aws::{AmazonS3Builder, S3CopyIfNotExists};
    // Amazon's own condition. Whoever ignores it overwrites, which nothing hangs on: see `Store::copy_new`.
    let condition = S3CopyIfNotExists::Header("If-None-Match".to_owned(), "*".to_owned());
    let mut builder = AmazonS3Builder::new().with_copy_if_not_exists(condition);
    for (name, value) in variables.into_iter().filter(|(name, _)| name.starts_with("AWS_")) {
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, value);
        }
    }
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let client = builder.with_bucket_name(bucket).with_retry(retry).build();
    Ok(Arc::new(client.map_err(|error| error.to_string())?))
}

#[cfg(not(feature = "s3"))]
fn open_s3(
    _: &str,
    _: impl IntoIterator<Item = (String, String)>,
) -> Result<Arc<dyn ObjectStore>, String> {
    Err("this program is built without it; build it with the feature `s3` of the crate `highwater`"
        .to_owned())
}

/// Writes an object that isn't there yet, in parts; it appears whole when the last one is there.
pub(super) async fn put_in_parts(
    objects: &dyn ObjectStore,
    path: &Path,
    content: impl Iterator<Item = io::Result<Bytes>> + Send,
) -> object_store::Result<()> {
    match objects.head(path).await {
        Err(object_store::Error::NotFound { .. }) => {}
        Err(error) => return Err(error),
        Ok(_) => {
            let (path, source) = (path.to_string(), "it is there already".into());
            return Err(object_store::Error::AlreadyExists { path, source });
        }
    }
    let upload = objects.put_multipart(path).await?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    for piece in content {
        let mut rest = match piece {
            Ok(piece) => piece,
            Err(error) => {
                upload.abort().await.ok();
                return Err(super::unreadable(error));
            }
        };
        // A piece may be much larger than a part, and must not be sent all at once.
        while !rest.is_empty() {
            if let Err(error) = upload.wait_for_capacity(PARTS_AT_ONCE).await {
                upload.abort().await.ok();
                return Err(error);
            }
            upload.put(rest.split_to(rest.len().min(PART_BYTES)));
        }
    }
    upload.finish().await.map(drop)
}

/// Reads an object of `size` bytes, in parts.
pub(super) async fn get_in_parts(
    objects: &dyn ObjectStore,
    path: &Path,
    size: u64,
) -> object_store::Result<Bytes> {
    let ranges = (0..size).step_by(PART_BYTES);
    let ranges = ranges.map(|start| start..size.min(start + PART_BYTES as u64));
    let read = |range: Range<u64>| objects.get_range(path, range);
    let mut parts = stream::iter(ranges).map(read).buffered(PARTS_AT_ONCE);
    let mut content = BytesMut::with_capacity(size as usize);
    while let Some(part) = parts.try_next().await? {
        content.extend_from_slice(&part);
    }
    Ok(content.freeze())
}
