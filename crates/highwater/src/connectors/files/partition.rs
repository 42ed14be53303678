//! Folders within a sink's folder, by the values of some columns: `day=2026-11-25/carrier=AA`, as Hive names them.
//!
//! A staged file belongs to one partition. Its item's name is the partition's folder and the file's own name; the file itself lies
//! with all others, so that staging needs no folders.

use std::fmt::{self, Display, Write as _};
use std::sync::Arc;

use highwater_runtime::BoxError;

/// The longest name that common file systems allow for a folder.
const NAME_MAX: usize = 255;

/// The folder for rows whose value is empty.
const EMPTY: &str = "__HIVE_DEFAULT_PARTITION__";

/// Appends the folder of a row; fails if a value is too long for a name.
pub(crate) type Partition<T> = Arc<dyn Fn(&T, &mut String) -> Result<(), BoxError> + Send + Sync>;

/// Partitions by `columns`, whose values are what `values` says.
pub(crate) fn by<T: 'static, V: Display, const N: usize>(
    columns: [&str; N],
    values: impl Fn(&T) -> [V; N] + Send + Sync + 'static,
) -> Partition<T> {
    let columns = columns.map(|column| {
        let mut name = String::new();
        write!(Escaped(&mut name), "{column}").expect("text takes text");
        name + "="
    });
    Arc::new(move |row, folder| {
        for (column, value) in columns.iter().zip(values(row)) {
            if !folder.is_empty() {
                folder.push('/');
            }
            let begin = folder.len();
            folder.push_str(column);
            write!(Escaped(folder), "{value}")?;
            if folder.len() == begin + column.len() {
                folder.push_str(EMPTY);
            }
            if folder.len() - begin > NAME_MAX {
                let length = folder.len() - begin;
                let start: String = folder[begin..].chars().take(60).collect();
                return Err(format!(
                    "a row's partition needs a folder with a name of {length} bytes, `{start}...`, and file systems allow \
                     {NAME_MAX}; partition by something shorter"
                )
                .into());
            }
        }
        Ok(())
    })
}

/// Writes text with what Hive escapes in the names of folders as `%XX`.
struct Escaped<'o>(&'o mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_ascii_control() || "\"#%'*/:=?\\{[]^".contains(c) {
                write!(self.0, "%{:02X}", u32::from(c))?;
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

/// The partition of an item or part, empty without one, and the name of the file in it.
pub(crate) fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

/// The name of a file in a partition.
pub(crate) fn join(partition: &str, name: &str) -> String {
    if partition.is_empty() { name.to_owned() } else { format!("{partition}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(values: [&'static str; 2]) -> Result<String, BoxError> {
        let mut folder = String::new();
        by(["day", "a/b"], move |(): &()| values)(&(), &mut folder)?;
        Ok(folder)
    }

    #[test]
    fn names_are_those_of_hive() {
        assert_eq!(folder(["2026-11-25", "AA"]).unwrap(), "day=2026-11-25/a%2Fb=AA");
        let odd = folder(["../x=%", "\u{1}ü\n\\"]).unwrap();
        assert_eq!(odd, "day=..%2Fx%3D%25/a%2Fb=%01ü%0A%5C");
        assert_eq!(folder(["", "."]).unwrap(), format!("day={EMPTY}/a%2Fb=."));
    }

    #[test]
    fn a_name_that_no_file_system_takes_is_an_error() {
        let long: &'static str = "x".repeat(251).leak();
        assert!(folder([long, ""]).is_ok());
        let longer: &'static str = "x".repeat(252).leak();
        let error = folder([longer, ""]).unwrap_err().to_string();
        assert!(error.contains("256 bytes, `day=xxx"), "{error}");
    }

    #[test]
    fn what_is_joined_can_be_split() {
        for (partition, name) in [("", "a"), ("x=1", "a"), ("x=1/y=2", "a")] {
            assert_eq!(split(&join(partition, name)), (partition, name));
        }
    }
}
