//! What files can be, and what becomes of them: a test for each row of the table in `docs/files.md`, in its order.

use std::io::Write;
use std::path::{Path, PathBuf};

use highwater_runtime::connector::Malformed;
use serde::{Deserialize, Serialize};

use super::tests::{gzip, read_under, reader};
use super::*;
use crate::connectors::testing::{drain, env, poll};
use crate::connectors::{Csv, Files};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    name: String,
    number: i32,
    note: Option<String>,
}

fn row(name: &str, number: i32, note: Option<&str>) -> Row {
    Row { name: name.to_owned(), number, note: note.map(str::to_owned) }
}

/// A file that holds this.
struct File {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn new(name: &str, content: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        File { folder, path }
    }

    fn csv(content: &str) -> Self {
        File::new("a.csv", content)
    }

    /// Puts another file in its place, as `mv` does.
    fn replace(&self, content: impl AsRef<[u8]>) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, &self.path).unwrap();
    }
}

/// The rows of a CSV file, and what is wrong with the others.
fn read_with(files: &Files<Csv>) -> (Vec<Row>, Vec<String>) {
    let (both, _) = read_under::<Row, _>(files, Malformed::Reject);
    let (rows, rejects) = both.unwrap();
    (rows, rejects.into_iter().map(|reject| reject.error).collect())
}

fn read(content: &str) -> (Vec<Row>, Vec<String>) {
    read_with(&Files::csv(File::csv(content).path))
}

/// How reading a file fails.
fn failure(path: &Path) -> String {
    match read_under::<String, _>(&Files::text(path), Malformed::Skip).0 {
        Ok((rows, _)) => panic!("{} has {} lines", path.display(), rows.len()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn columns_in_any_order() {
    let (rows, bad) = read("note,number,name\nx,1,a\n,2,b\n");
    assert_eq!((rows, bad), (vec![row("a", 1, Some("x")), row("b", 2, None)], vec![]));
}

#[test]
fn a_column_that_nobody_wants() {
    let (rows, bad) = read("name,more,number,note\na,?,1,\n");
    assert_eq!((rows, bad), (vec![row("a", 1, None)], vec![]));
}

#[test]
fn a_column_that_is_missing() {
    // An optional field, and one that isn't.
    let (rows, bad) = read("name,number\na,1\n");
    assert_eq!((rows, bad), (vec![row("a", 1, None)], vec![]));
    let (rows, bad) = read("name,note\na,x\nb,y\n");
    assert_eq!((rows.len(), bad.len()), (0, 2));
    assert_eq!(bad[0], "missing field `number` (the header has: name, note)");
}

#[test]
fn two_columns_of_a_name() {
    let (rows, bad) = read("name,number,name\na,1,b\n");
    assert_eq!(rows, []);
    assert_eq!(bad, ["duplicate field `name` (the header has: name, number, name)"]);
    let (rows, bad) = read("name,other,number,other\na,x,1,y\n");
    assert_eq!((rows, bad), (vec![row("a", 1, None)], vec![]));
}

#[test]
fn no_header_where_one_is_expected() {
    let (rows, bad) = read("a,1,x\nb,2,y\n");
    assert_eq!(rows, []);
    assert_eq!(bad, ["missing field `name` (the header has: a, 1, x)"]);
}

#[test]
fn a_header_where_none_is_expected() {
    let file = File::csv("name,number,note\na,1,x\n");
    let (rows, bad) = read_with(&Files::csv(&file.path).without_header());
    assert_eq!(rows, [row("a", 1, Some("x"))]);
    assert_eq!(bad, ["column 2: expected a whole number (i32), found \"number\""]);
}

#[test]
fn a_header_in_the_middle() {
    let (rows, bad) = read("name,number,note\na,1,x\nname,number,note\nb,2,\n");
    assert_eq!(rows, [row("a", 1, Some("x")), row("b", 2, None)]);
    assert_eq!(bad, ["column `number`: expected a whole number (i32), found \"number\""]);
}

#[test]
fn a_byte_order_mark() {
    let (rows, bad) = read("\u{feff}name,number,note\na,1,\n");
    assert_eq!((rows, bad), (vec![row("a", 1, None)], vec![]));
    let file = File::new("a.txt", "\u{feff}one\ntwo");
    let (both, _) = read_under::<String, _>(&Files::text(&file.path), Malformed::Fail);
    assert_eq!(both.unwrap().0, ["one", "two"]);
}

#[test]
fn nothing_or_only_a_header() {
    for content in ["", "\n", "name,number,note", "name,number,note\n", "\u{feff}", "\r\n\r\n"] {
        assert_eq!(read(content), (vec![], vec![]), "{content:?}");
    }
}

#[test]
fn quoted_line_ends_where_blocks_meet() {
    // Records of some kilobytes, most of it line ends, so that every block ends within a field.
    let rows: Vec<Row> =
        (0..200).map(|n| row(&"line\n".repeat(400 + n as usize), n, Some("\r\n"))).collect();
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().for_each(|row| writer.serialize(row).unwrap());
    let content = writer.into_inner().unwrap();
    for (name, content) in [("a.csv", content.clone()), ("a.csv.gz", gzip(&content))] {
        let file = File::new(name, content);
        assert_eq!(read_with(&Files::csv(&file.path)), (rows.clone(), vec![]));
    }
}

#[test]
fn a_last_line_without_an_end() {
    for end in ["", "\n", "\r\n", "\n\n"] {
        let (rows, bad) = read(&format!("name,number,note\na,1,\nb,2,x{end}"));
        assert_eq!((rows, bad), (vec![row("a", 1, None), row("b", 2, Some("x"))], vec![]));
    }
}

/// Lines of ten bytes, so many that neither end of the file tells of its middle.
fn lines(tag: char) -> String {
    (0..5_000).map(|n| format!("{tag} {n:07}\n")).collect()
}

/// What is left after so many lines, if the file is meanwhile changed.
fn go_on(file: &File, read: usize, change: impl FnOnce()) -> Result<Vec<String>, String> {
    let files = Files::text(&file.path);
    let env = env();
    let found = files.place().splits(&[]).unwrap();
    let mut one = reader::<String, _>(&files, found, env.as_ref());
    one.limit_rows(read);
    assert_eq!(poll::<String>(&mut one, env.as_ref()).unwrap().unwrap().len(), read);
    let offsets = one.offsets();
    drop(one);
    change();
    let mut rest = reader::<String, _>(&files, offsets, env.as_ref());
    drain(&mut rest, env.as_ref()).map_err(|error| error.to_string())
}

/// Makes sure that the file's time is another.
fn touch(path: &Path) {
    let file = std::fs::File::options().append(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_modified(modified + std::time::Duration::from_secs(7)).unwrap();
}

#[test]
fn a_file_that_shrinks_or_grows() {
    for other in [&lines('a')[..49_990], &lines('a')[..10], "", &(lines('a') + "more\n")] {
        let file = File::new("a.txt", lines('a'));
        let error = go_on(&file, 100, || std::fs::write(&file.path, other).unwrap()).unwrap_err();
        let expected =
            format!("{} is not the file any more that was found: its length", file.path.display());
        assert!(error.starts_with(&expected), "{error}");
        assert!(error.contains("100 records of it have been read"), "{error}");
    }
}

#[test]
fn a_file_whose_ends_change() {
    let file = File::new("a.txt", lines('a'));
    let mut other = lines('a');
    other.replace_range(0..1, "b");
    let error = go_on(&file, 100, || file.replace(&other)).unwrap_err();
    assert!(error.contains("is not the file any more"), "{error}");
}

#[test]
fn a_file_that_changes_in_the_middle() {
    // One that is read from anywhere, and one that has to be decoded from its begin.
    let utf_8 = |text: &str| text.as_bytes().to_vec();
    let utf_16 = |text: &str| -> Vec<u8> {
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    for encoded in [&utf_8 as &dyn Fn(&str) -> Vec<u8>, &utf_16] {
        let (before, mut after) = (lines('a'), lines('a'));
        after.replace_range(20_000..20_001, "b");
        let file = File::new("a.txt", encoded(&before));
        let change = || {
            file.replace(encoded(&after));
            touch(&file.path);
        };
        // What was read has changed, ...
        let error = go_on(&file, 2_001, change).unwrap_err();
        let path = file.path.display();
        let expected =
            format!("{path} is not the file any more that was found: what was read of it");
        assert!(error.starts_with(&expected), "{error}");
        // ... or what wasn't, which is read as it is.
        file.replace(encoded(&before));
        let rest = go_on(&file, 2_000, change).unwrap();
        assert_eq!((rest.len(), &*rest[0], &*rest[1]), (3_000, "b 0002000", "a 0002001"));
    }
    // The checksum of a packed file is at its end.
    let file = File::new("a.txt.gz", gzip(lines('a').as_bytes()));
    let other = gzip(lines('a').replace("a 0002000", "b 0002000").as_bytes());
    let error = go_on(&file, 2_001, || file.replace(other)).unwrap_err();
    assert!(error.contains("is not the file any more"), "{error}");
}

#[test]
fn a_file_that_is_touched_or_copied() {
    for name in ["a.txt", "a.txt.gz"] {
        let content = match name {
            "a.txt" => lines('a').into_bytes(),
            _ => gzip(lines('a').as_bytes()),
        };
        let file = File::new(name, &content);
        assert_eq!(go_on(&file, 2_000, || touch(&file.path)).unwrap().len(), 3_000);
        let copied = || {
            file.replace(&content);
            touch(&file.path);
        };
        assert_eq!(go_on(&file, 2_000, copied).unwrap().len(), 3_000);
    }
}

#[test]
fn a_file_that_changes_while_it_is_read() {
    // Longer than what the reading thread may be ahead.
    let file = File::new("a.txt", lines('a').repeat(60));
    let files = Files::text(&file.path);
    let env = env();
    let found = files.place().splits(&[]).unwrap();
    let mut one = reader::<String, _>(&files, found, env.as_ref());
    poll::<String>(&mut one, env.as_ref()).unwrap();
    touch(&file.path);
    let error = drain::<String>(&mut one, env.as_ref()).unwrap_err().to_string();
    assert!(error.contains("was changed while it was being read"), "{error}");
}

#[test]
fn several_packed_files_in_one() {
    let text = "one\ntwo\nthree\nfour";
    let zstd = |text: &str| zstd::stream::encode_all(text.as_bytes(), 1).unwrap();
    for (name, content) in [
        // In the middle of a line; with an empty one between.
        ("a.gz", [gzip(&text.as_bytes()[..6]), gzip(b""), gzip(&text.as_bytes()[6..])].concat()),
        ("a.zst", [zstd(&text[..6]), zstd(""), zstd(&text[6..])].concat()),
    ] {
        let file = File::new(name, content);
        let (both, _) = read_under::<String, _>(&Files::text(&file.path), Malformed::Fail);
        assert_eq!(both.unwrap().0, ["one", "two", "three", "four"], "{name}");
    }
}

#[test]
fn packed_files_that_end_too_early() {
    let text = lines('a');
    let zstd = zstd::stream::encode_all(text.as_bytes(), 1).unwrap();
    for (name, whole) in [("a.gz", gzip(text.as_bytes())), ("a.zst", zstd)] {
        for cut in [5, whole.len() / 2, whole.len() - 1] {
            let file = File::new(name, &whole[..cut]);
            let error = failure(&file.path);
            assert!(error.starts_with(&format!("can't read {}: ", file.path.display())), "{error}");
        }
    }
}

#[test]
fn packed_files_that_are_damaged() {
    let text = lines('a');
    // As the program `zstd` does; without a checksum nobody can tell.
    let mut zstd = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    zstd.include_checksum(true).unwrap();
    zstd.write_all(text.as_bytes()).unwrap();
    let zstd = zstd.finish().unwrap();
    for (name, whole) in [("a.gz", gzip(text.as_bytes())), ("a.zst", zstd)] {
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 40].fill(0xFF);
        let behind = [whole.as_slice(), b"not packed"].concat();
        for content in [damaged, behind, b"not packed".to_vec()] {
            let file = File::new(name, content);
            let error = failure(&file.path);
            assert!(error.starts_with(&format!("can't read {}: ", file.path.display())), "{error}");
        }
    }
}

#[test]
fn empty_packed_files() {
    for (name, content) in
        [("a.gz", gzip(b"")), ("a.zst", zstd::stream::encode_all(&b""[..], 1).unwrap())]
    {
        let file = File::new(name, content);
        let (both, _) = read_under::<String, _>(&Files::text(&file.path), Malformed::Fail);
        assert_eq!(both.unwrap().0, Vec::<String>::new());
    }
}
