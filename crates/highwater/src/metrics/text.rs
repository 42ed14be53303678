//! Metrics as text, in Prometheus' exposition format 0.0.4.

use std::fmt::Write;

use highwater_runtime::observe::JobStatus;

use super::table::{METRICS, Sample, Seen, Type};

/// All metrics of a job.
pub(super) fn render(status: &JobStatus, now_ms: u64) -> String {
    let seen = Seen { status, now_ms };
    let mut text = String::new();
    for metric in METRICS {
        let kind = match metric.kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
        };
        text += &format!("# HELP {} {}\n# TYPE {} {kind}\n", metric.name, metric.help, metric.name);
        for Sample { labels, value } in (metric.samples)(&seen) {
            debug_assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
            text += metric.name;
            text += "{job=";
            quote(&status.leader.job, &mut text);
            for (label, value) in metric.labels.iter().zip(&labels) {
                text += &format!(",{label}=");
                quote(value, &mut text);
            }
            writeln!(text, "}} {value}").expect("a string takes everything");
        }
    }
    text
}

/// A label's value, in quotes.
fn quote(value: &str, text: &mut String) {
    text.push('"');
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn label_values_are_quoted() {
        let mut text = String::new();
        quote("a\"b\\c\nd", &mut text);
        assert_eq!(text, r#""a\"b\\c\nd""#);
    }

    /// The table for users names every metric as it is exported, and no other.
    #[test]
    fn the_documentation_lists_what_is_exported() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let documentation = std::fs::read_to_string(path).unwrap();
        let documented: BTreeSet<&str> =
            documentation.lines().filter(|line| line.starts_with("| `highwater_")).collect();
        let row = |metric: &super::super::table::Metric| {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let labels: Vec<String> =
                metric.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help)
        };
        let rows: Vec<String> = METRICS.iter().map(row).collect();
        let exported: BTreeSet<&str> = rows.iter().map(String::as_str).collect();
        let missing: Vec<_> = exported.difference(&documented).collect();
        let wrong: Vec<_> = documented.difference(&exported).collect();
        assert!(missing.is_empty() && wrong.is_empty(), "missing {missing:#?}\nwrong {wrong:#?}");
    }

    #[test]
    fn names_follow_the_conventions() {
        let mut names = BTreeSet::new();
        for metric in METRICS {
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(metric.name.starts_with("highwater_") && metric.name.chars().all(plain));
            assert!(names.insert(metric.name), "{} is there twice", metric.name);
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == Type::Counter, "{}", metric.name);
            assert!(!metric.help.contains(['\n', '\\', '|']) && metric.help.ends_with('.'));
        }
    }
}
