//! What the text of a location names.

use std::path::PathBuf;

/// A place for a log, as people write it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// `memory:`
    Memory,
    /// `folder`, `/folder` or `file:///folder`
    Directory(PathBuf),
    /// `scheme://bucket/prefix`
    Remote { scheme: String, bucket: String, prefix: String },
}

impl Location {
    /// Reads `location`, or says what is wrong with it.
    pub(super) fn parse(location: &str) -> Result<Self, String> {
        if location == "memory:" {
            return Ok(Location::Memory);
        }
        if location.is_empty() {
            return Err("it is empty; name a directory, `memory:`, or a URL".to_owned());
        }
        let directory = location.strip_prefix("file://").unwrap_or(location);
        let Some((scheme, rest)) = directory.split_once("://") else {
            return Ok(Location::Directory(PathBuf::from(directory)));
        };
        if let Some(sign) = rest.chars().find(|sign| ['?', '#'].contains(sign)) {
            let why = format!("it has a `{sign}`; settings go into variables of the environment");
            return Err(why);
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(format!("it names no bucket; write {scheme}://bucket/prefix"));
        }
        let [scheme, bucket, prefix] =
            [scheme, bucket, prefix.trim_matches('/')].map(str::to_owned);
        Ok(Location::Remote { scheme, bucket, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_locations_name() {
        let directory = |path: &str| Location::Directory(path.into());
        let remote = |scheme: &str, bucket: &str, prefix: &str| {
            let [scheme, bucket, prefix] = [scheme, bucket, prefix].map(str::to_owned);
            Location::Remote { scheme, bucket, prefix }
        };
        for (text, expected) in [
            ("memory:", Location::Memory),
            ("a/b", directory("a/b")),
            ("file:///a/b", directory("/a/b")),
            ("s3://b", remote("s3", "b", "")),
            ("s3://b/", remote("s3", "b", "")),
            ("s3://b/x/y/", remote("s3", "b", "x/y")),
        ] {
            assert_eq!(Location::parse(text), Ok(expected), "{text}");
        }
        for text in ["", "s3://", "s3:///x", "s3://b/x?region=1", "s3://b#x"] {
            assert!(Location::parse(text).is_err(), "{text}");
        }
    }
}
