//! The rules of a bucket, in memory; the same on real servers is in the tests of the crate `highwater-cli`.

use std::sync::Arc;

use highwater_env::RealEnv;
use highwater_runtime::connector::Lasting;
use object_store::memory::InMemory;
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::connectors::Files;
use crate::connectors::files::publisher;

fn bucket() -> Bucket {
    let env: Arc<dyn Env> = Arc::new(RealEnv::new().unwrap());
    Bucket::over(Store::from_objects(Arc::new(InMemory::new())), "s3://bucket/out/", &env)
}

fn me(job_id: &str) -> Owner {
    Owner::new("job", job_id, "out")
}

fn put(bucket: &Bucket, name: &str, content: &str) {
    let (bucket, name, content) = (bucket.clone(), name.to_owned(), content.to_owned());
    let env = bucket.env.clone();
    let bytes = content.len() as u64;
    let put = async move { bucket.stage(&name, bytes, std::iter::once(Ok(content.into()))).await };
    highwater_env::block_on(env.as_ref(), put).unwrap();
}

fn names(bucket: &Bucket) -> Vec<String> {
    let mut names = bucket.names(None).unwrap();
    names.sort();
    names
}

fn text(bucket: &Bucket, name: &str) -> String {
    String::from_utf8(bucket.read(name).unwrap()).unwrap()
}

/// Stages this content on a worker, for a part.
fn staged(bucket: &Bucket, attempt: u64, worker: u64, content: &str, part: &str) -> StagedItem {
    let name = Staged { attempt, interval: 7, worker, number: 0, time_ms: 5, columns: None }.name();
    let item = StagedItem {
        name: partition::join("day=a%2Fb", &name),
        bytes: content.len() as u64,
        rows: 1,
        checksum: format!("{:016x}", xxh3_64(content.as_bytes())),
        part: Some(part.to_owned()),
    };
    // As if the first answer had been lost.
    (0..2).for_each(|_| put(bucket, &layout::staged_name(&item), content));
    item
}

fn publish(bucket: &Bucket, attempt: u64, items: &[StagedItem]) -> Result<(), BoxError> {
    let (place, items) = (Arc::new(bucket.clone()), items.to_vec());
    let env = bucket.env.clone();
    let task = async move {
        let place: Arc<dyn Place> = place;
        publisher::publish(&place, &Files::csv("x").format, attempt, items, env.as_ref()).await
    };
    highwater_env::block_on(bucket.env.as_ref(), task)
}

#[test]
fn a_prefix_belongs_to_one_sink() {
    let bucket = bucket();
    let error = bucket.check_there().unwrap_err();
    assert!(
        error.is::<Away>() && error.to_string().contains("s3://bucket/out/.highwater"),
        "{error}"
    );
    bucket.claim(&me("a")).unwrap();
    bucket.claim(&me("a")).unwrap();
    bucket.check_there().unwrap();
    let error = bucket.claim(&me("b")).unwrap_err().to_string();
    assert!(error.contains("belongs to the sink `out` of the job `job`"), "{error}");

    let other = self::bucket();
    put(&other, "mine.csv", "x");
    let error = other.claim(&me("a")).unwrap_err().to_string();
    assert!(error.contains("s3://bucket/out") && error.contains("mine.csv"), "{error}");
}

#[test]
fn a_part_is_there_whole_and_once() {
    let bucket = bucket();
    bucket.claim(&me("a")).unwrap();
    let part = "day=a%2Fb/part-a0000000001-i0000000007-w0001-n0000.csv";
    let contents = ["h,i\n1,2\n", "h,i\n3,4\n"];
    let items: Vec<StagedItem> =
        (0..2).map(|worker| staged(&bucket, 1, worker, contents[worker as usize], part)).collect();
    staged(&bucket, 0, 0, "of an attempt before", part);
    put(&bucket, &layout::joined_name(0, part), "the same");
    publish(&bucket, 1, &items).unwrap();
    assert_eq!(names(&bucket), [layout::OWNER, part]);
    assert_eq!(text(&bucket, part), "h,i\n1,2\n3,4\n");
    // A crash between any two of the deletions, or before them.
    for there in 0..3 {
        for (item, content) in items.iter().zip(contents).rev().take(there) {
            put(&bucket, &layout::staged_name(item), content);
        }
        publish(&bucket, 1, &items).unwrap();
        assert_eq!(names(&bucket), [layout::OWNER, part]);
    }

    assert!(bucket.check_covered(2, 6).is_err());
    bucket.check_covered(2, 7).unwrap();
    bucket.check_covered(1, 6).unwrap();
    bucket.clear(1).unwrap();
    assert_eq!(names(&bucket), [layout::OWNER, part]);
    // Somebody is in the middle of publishing it once more.
    for (item, content) in items.iter().zip(contents) {
        put(&bucket, &layout::staged_name(item), content);
    }
    put(&bucket, &layout::joined_name(1, part), "h,i\n1,2\n3,4\n");
    bucket.clear(2).unwrap();
    assert_eq!(names(&bucket), [layout::OWNER]);
    // Whoever was fenced by that start, and doesn't know yet, has nothing to publish.
    let error = publish(&bucket, 1, &items).unwrap_err();
    assert!(error.is::<Lasting>() && error.to_string().contains("neither"), "{error}");
    assert_eq!(names(&bucket), [layout::OWNER]);
}

#[test]
fn nothing_is_overwritten_and_nothing_damaged_published() {
    let bucket = bucket();
    bucket.claim(&me("a")).unwrap();
    let item = staged(&bucket, 1, 0, "1\n", "part-1.csv");
    put(&bucket, "part-1.csv", "22\n");
    let error = publish(&bucket, 1, std::slice::from_ref(&item)).unwrap_err();
    assert!(error.is::<Lasting>() && error.to_string().contains("other content"), "{error}");
    assert_eq!(text(&bucket, "part-1.csv"), "22\n");
    let short = StagedItem { bytes: 3, part: Some("part-2.csv".to_owned()), ..item.clone() };
    let error = publish(&bucket, 1, &[short]).unwrap_err();
    assert!(error.is::<Lasting>() && error.to_string().contains("2 bytes instead of 3"), "{error}");
    // What is read, because it is put together, is held against its checksum.
    let damaged = StagedItem { checksum: "0".repeat(16), ..item.clone() };
    let both =
        [item, damaged].map(|item| StagedItem { part: Some("part-3.csv".to_owned()), ..item });
    let error = publish(&bucket, 1, &both).unwrap_err();
    assert!(error.is::<Lasting>() && error.to_string().contains("damaged"), "{error}");
    assert!(!bucket.exists("part-2.csv").unwrap() && !bucket.exists("part-3.csv").unwrap());
}

#[test]
fn a_bucket_that_is_emptied_is_away() {
    let bucket = bucket();
    bucket.claim(&me("a")).unwrap();
    let item = staged(&bucket, 1, 0, "1\n", "part-1.csv");
    bucket.delete(names(&bucket)).unwrap();
    let error = publish(&bucket, 1, &[item]).unwrap_err();
    assert!(error.is::<Away>(), "{error}");
}
