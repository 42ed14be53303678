//! Where the sockets of running jobs are: `{job}-{hash of the checkpoints' location}-{pid}.sock` in a folder that only this user can enter.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The address of a socket holds no more bytes, on any system.
const ADDRESS_MAX: usize = 100;

/// So much of a job's name is in the name of its socket, for people who look into the folder.
const NAME_MAX: usize = 24;

/// The folder, which may not exist.
pub(super) fn folder() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    let fallback = PathBuf::from(format!("/tmp/highwater-{user}"));
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match runtime.filter(|runtime| runtime.is_absolute()).map(|runtime| runtime.join("highwater")) {
        Some(folder) if folder.as_os_str().len() + NAME_MAX + 40 <= ADDRESS_MAX => folder,
        _ => fallback,
    }
}

/// Makes sure that the folder exists and is this user's alone.
pub(super) fn prepare(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    check(folder)
}

/// Makes sure that a folder that exists is this user's alone: in `/tmp` it may be somebody else's trap.
pub(super) fn check(folder: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(folder)?;
    let user = rustix::process::geteuid().as_raw();
    if found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let text = format!("{} is not a folder that only this user can enter", folder.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// What identifies a job here: the place of its checkpoints, however it is written.
pub(super) fn hash(location: &str) -> String {
    let local = location.strip_prefix("file://").unwrap_or(location);
    let canonical = match local.contains("://") {
        true => local.trim_end_matches('/').to_owned(),
        false => match fs::canonicalize(local) {
            Ok(path) => path.to_string_lossy().into_owned(),
            Err(_) => local.to_owned(),
        },
    };
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(canonical.as_bytes()))
}

/// The socket of a job in this process.
pub(super) fn socket(folder: &Path, job: &str, hash: &str) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '.' };
    let name: String = job.chars().take(NAME_MAX).map(plain).collect();
    folder.join(format!("{name}-{hash}-{}.sock", std::process::id()))
}

/// Removes what killed processes have left behind in the folder.
pub(super) fn sweep(folder: &Path) -> io::Result<()> {
    for path in sockets(folder, None)? {
        if is_orphan(&path) && UnixStream::connect(&path).is_err_and(|error| is_stale(&error)) {
            fs::remove_file(&path).ok();
        }
    }
    Ok(())
}

/// Whether nobody listens at a socket any more.
pub(super) fn is_stale(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// Whether the process that a socket's name names is gone. Where a folder is shared between containers it may live elsewhere.
pub(super) fn is_orphan(path: &Path) -> bool {
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let pid = name.rsplit('-').next().and_then(|pid| pid.parse().ok());
    let pid = pid.and_then(rustix::process::Pid::from_raw);
    pid.is_none_or(|pid| rustix::process::test_kill_process(pid).is_err())
}

/// The sockets in the folder, by name; those of one location if its hash is given.
pub(super) fn sockets(folder: &Path, hash: Option<&str>) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut sockets = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(parts) = name.strip_suffix(".sock").map(|name| name.rsplitn(3, '-')) else {
            continue;
        };
        let of_location = hash.is_none_or(|hash| parts.into_iter().nth(1) == Some(hash));
        if of_location && entry.file_type()?.is_socket() {
            sockets.push(entry.path());
        }
    }
    sockets.sort();
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn one_place_has_one_hash_however_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        for other in [format!("{path}/"), format!("file://{path}"), link.display().to_string()] {
            assert_eq!(hash(path), hash(&other), "{other}");
        }
        assert_eq!(hash("s3://bucket/job"), hash("s3://bucket/job/"));
        assert_ne!(hash("s3://bucket/job"), hash("s3://bucket/jobs"));
    }

    #[test]
    fn sockets_are_found_by_location() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (hash("s3://a"), hash("s3://b"));
        let path = socket(folder.path(), "a job - with a name/that is much too long", &one);
        let _one = UnixListener::bind(&path).unwrap();
        let _other = UnixListener::bind(socket(folder.path(), "b", &other)).unwrap();
        fs::write(folder.path().join("c-d-e.sock"), "no socket").unwrap();
        assert_eq!(sockets(folder.path(), Some(&one)).unwrap(), [path]);
        assert_eq!(sockets(folder.path(), None).unwrap().len(), 2);
        assert!(sockets(&folder.path().join("missing"), None).unwrap().is_empty());
    }

    #[test]
    fn a_folder_that_others_can_enter_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("sockets");
        prepare(&folder).unwrap();
        prepare(&folder).unwrap();
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
        let error = prepare(&folder).unwrap_err().to_string();
        assert!(error.contains("sockets is not a folder that only this user can enter"), "{error}");
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(parent.path(), &link).unwrap();
        assert!(prepare(&link).is_err());
    }
}
