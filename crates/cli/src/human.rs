//! Numbers, times and tables as people read them.

use chrono::{DateTime, SecondsFormat};
use comfy_table::{CellAlignment, ColumnConstraint, Table, presets};

/// `17 B`, `1.2 kB`, `340.0 MB`; a kB is 1024 bytes, as in the options of jobs.
pub fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if size < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1024.0;
    }
    format!("{size:.1} TB")
}

/// `2026-11-25T21:29:11Z`, from milliseconds since 1970.
pub fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(|| format!("{ms} ms"), |t| t.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// `340 us`, `1.2 ms`, `3.4 s`, from microseconds.
pub fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        1_000_000..600_000_000 => format!("{:.1} s", us as f64 / 1e6),
        _ => format!("{} min", us / 60_000_000),
    }
}

/// `1 object`, `2 objects`.
pub fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Rows below their heads. A head that begins with `>` has its column's numbers on the right.
pub fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(heads.iter().map(|head| head.trim_start_matches('>')));
    table.add_rows(rows);
    for (column, head) in table.column_iter_mut().zip(heads) {
        column.set_padding((0, 2)).set_constraint(ColumnConstraint::ContentWidth);
        if head.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines().map(|line| format!("  {}\n", line.trim_end()));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_times_and_counts() {
        let sizes = [0, 1023, 1024, 1536 << 10, 5 << 40].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 kB", "1.5 MB", "5.0 TB"]);
        assert_eq!(time(1_700_000_001_000), "2023-11-14T22:13:21Z");
        assert_eq!(time(u64::MAX), format!("{} ms", u64::MAX));
        let durations = [999, 1_500, 2_500_000, 7_200_000_000].map(duration);
        assert_eq!(durations, ["999 us", "1.5 ms", "2.5 s", "120 min"]);
        assert_eq!((count(1, "object"), count(0, "row")), ("1 object".into(), "0 rows".into()));
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "100".to_owned()]];
        let text = table(&["NAME", ">ROWS"], rows);
        assert_eq!(text, "  NAME  ROWS\n  a        1\n  bcd    100\n");
    }
}
