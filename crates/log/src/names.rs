//! The names of everything that a job keeps in its store, made and parsed in this one place.
//!
//! All are relative to the job's root. Names of objects hold the attempt that wrote them, so that a later
//! attempt can tell what an earlier one left behind without reading it.

/// The folder of entries.
pub const LOG: &str = "log";
/// The folder of workers' objects and manifests.
pub const DATA: &str = "data";
/// The folder of staged output.
pub const STAGE: &str = "stage";

/// The object by which a start sees that the store refuses to create what is there already.
pub const PROBE: &str = "probe";

/// What a name says about its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// An entry of the log.
    Entry {
        /// Its number.
        number: u64,
    },
    /// A worker's object of one checkpoint.
    Object {
        /// The attempt that wrote it.
        attempt: u64,
        /// The interval in which it was written.
        interval: u64,
        /// The worker that wrote it.
        worker: u32,
    },
    /// The manifest of one checkpoint.
    Manifest {
        /// The attempt that wrote it.
        attempt: u64,
        /// The interval that it describes.
        interval: u64,
    },
    /// Staged rows of a sink.
    Staged {
        /// The attempt that wrote it.
        attempt: u64,
        /// The interval in which it was written.
        interval: u64,
        /// The worker that wrote it.
        worker: u32,
        /// The sink's uid.
        sink: String,
        /// Which of the sink's objects of this worker and interval.
        n: u64,
    },
}

impl Name {
    /// The attempt that wrote the object; none for entries, whose names don't say.
    pub fn attempt(&self) -> Option<u64> {
        match self {
            Name::Entry { .. } => None,
            Name::Object { attempt, .. }
            | Name::Manifest { attempt, .. }
            | Name::Staged { attempt, .. } => Some(*attempt),
        }
    }
}

/// The name of an entry.
pub fn entry(number: u64) -> String {
    format!("{LOG}/{number:020}.json")
}

/// The name of a worker's object.
pub fn object(attempt: u64, interval: u64, worker: u32) -> String {
    format!("{DATA}/a{attempt:010}-i{interval:010}-w{worker:04}.hw")
}

/// The name of a checkpoint's manifest.
pub fn manifest(attempt: u64, interval: u64) -> String {
    format!("{DATA}/a{attempt:010}-i{interval:010}-manifest.json")
}

/// The name of staged rows. Characters of `sink` that not every store takes are escaped.
pub fn staged(attempt: u64, interval: u64, worker: u32, sink: &str, n: u64) -> String {
    let sink = escape(sink);
    format!("{STAGE}/a{attempt:010}-i{interval:010}-w{worker:04}-{sink}-{n}")
}

/// What `name` says, or none if it is no name that this module makes.
pub fn parse(name: &str) -> Option<Name> {
    let (folder, file) = name.split_once('/')?;
    let parsed = match folder {
        LOG => {
            let digits = file.strip_suffix(".json").filter(|digits| digits.len() == 20)?;
            Name::Entry { number: number(digits)? }
        }
        DATA => {
            let (attempt, interval, rest) = head(file)?;
            if rest == "manifest.json" {
                Name::Manifest { attempt, interval }
            } else {
                let worker = number(rest.strip_prefix('w')?.strip_suffix(".hw")?)?;
                Name::Object { attempt, interval, worker: u32::try_from(worker).ok()? }
            }
        }
        STAGE => {
            let (attempt, interval, rest) = head(file)?;
            let (worker, rest) = rest.strip_prefix('w')?.split_once('-')?;
            let (sink, n) = rest.rsplit_once('-')?;
            let worker = u32::try_from(number(worker)?).ok()?;
            Name::Staged { attempt, interval, worker, sink: unescape(sink)?, n: number(n)? }
        }
        _ => return None,
    };
    // One object has one name: other spellings of the same numbers are not ours.
    let made = match &parsed {
        Name::Entry { number } => entry(*number),
        Name::Object { attempt, interval, worker } => object(*attempt, *interval, *worker),
        Name::Manifest { attempt, interval } => manifest(*attempt, *interval),
        Name::Staged { attempt, interval, worker, sink, n } => {
            staged(*attempt, *interval, *worker, sink, *n)
        }
    };
    (made == name).then_some(parsed)
}

/// The number of the entry that `name` names, if it names one.
pub fn entry_number(name: &str) -> Option<u64> {
    match parse(name)? {
        Name::Entry { number } => Some(number),
        _ => None,
    }
}

/// Attempt, interval and what follows them.
fn head(file: &str) -> Option<(u64, u64, &str)> {
    let (attempt, rest) = file.strip_prefix('a')?.split_once('-')?;
    let (interval, rest) = rest.strip_prefix('i')?.split_once('-')?;
    Some((number(attempt)?, number(interval)?, rest))
}

fn number(digits: &str) -> Option<u64> {
    // `parse` alone would take a sign as well.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("={byte:02X}")),
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        if *byte == b'=' {
            let (digits, after) = after.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        assert_eq!(entry(7), "log/00000000000000000007.json");
        assert_eq!(object(3, 12, 1), "data/a0000000003-i0000000012-w0001.hw");
        assert_eq!(manifest(3, 12), "data/a0000000003-i0000000012-manifest.json");
        assert_eq!(staged(3, 12, 1, "out", 4), "stage/a0000000003-i0000000012-w0001-out-4");
    }

    #[test]
    fn names_parse_back() {
        assert_eq!(parse(&entry(u64::MAX)), Some(Name::Entry { number: u64::MAX }));
        let name = object(99_999_999_999, 2, 123_456);
        let parsed = Name::Object { attempt: 99_999_999_999, interval: 2, worker: 123_456 };
        assert_eq!(parse(&name), Some(parsed));
        assert_eq!(parse(&manifest(1, 2)), Some(Name::Manifest { attempt: 1, interval: 2 }));
        for sink in ["worst", "a-b-1", "daily/äß #%=~", "", "-", "a.b_c"] {
            let name = staged(5, 6, 7, sink, 8);
            let sink = sink.to_owned();
            let parsed = Name::Staged { attempt: 5, interval: 6, worker: 7, sink, n: 8 };
            assert_eq!(parse(&name), Some(parsed), "{name}");
            assert!(object_store::path::Path::parse(&name).is_ok(), "{name}");
        }
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in [
            "log/7.json",
            "log/+0000000000000000007.json",
            "log/00000000000000000007.json~",
            "log/.tmp-00000000000000000007.json-1-1",
            "data/a1-i1-w1.hw",
            "data/a0000000003-i0000000012-w01.hw",
            "data/a0000000003-i0000000012-w0001",
            "stage/a0000000003-i0000000012-w0001-out",
            "stage/a0000000003-i0000000012-w0001-=4-1",
            "stage/a0000000003-i0000000012-w0001-=41-1",
            "elsewhere/a0000000003-i0000000012-w0001.hw",
            "log",
            "",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
