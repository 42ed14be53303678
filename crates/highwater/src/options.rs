//! The options of a job's command line.

use std::time::Duration;

use clap::Args;
use highwater_env::Env;
use highwater_runtime::cluster::Place;
use highwater_runtime::{Settings, Trigger};

use crate::{Error, FailingRecord, Restart};

/// The options that every job has. A program with options of its own flattens these into them.
///
/// ```
/// use clap::Parser;
///
/// #[derive(Parser)]
/// struct MyOptions {
///     /// The file to read.
///     input: String,
///     #[command(flatten)]
///     highwater: highwater::Options,
/// }
///
/// let options = MyOptions::parse_from(["job", "data.csv", "--workers", "2"]);
/// assert_eq!(options.highwater.settings().workers, 2);
/// ```
#[derive(Args, Clone, Debug)]
// What is said above is for programmers, and not for who asks a job for help.
#[command(about = None, long_about = None)]
pub struct Options {
    /// How many workers (threads) in each process; may be another number at every start.
    #[arg(long, short, env = "HIGHWATER_WORKERS", value_name = "N", default_value_t = 1)]
    pub workers: usize,

    /// How many processes; may be another number at every start. All are started here, unless there are `--hosts`.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "hosts")]
    pub processes: usize,

    /// The processes of the job on several machines: `host:port` of each, separated by commas. Every machine runs the same command, but
    /// for its `--process`.
    #[arg(long, value_name = "HOSTS", value_delimiter = ',', requires = "process")]
    pub hosts: Option<Vec<String>>,

    /// Which of the `--hosts` this one is, from 0.
    #[arg(long, value_name = "P", requires = "hosts")]
    pub process: Option<usize>,

    /// Whether the job is started again when it fails: never, exponential, fixed or failure-rate, with settings behind commas
    /// (`exponential,first=50ms,longest=30s,quiet=60s`; `fixed,delay=1s,times=10`; `failure-rate,failures=3,within=60s,delay=1s`).
    #[arg(long, value_name = "STRATEGY", default_value = "exponential")]
    pub restart: Restart,

    /// Where checkpoints are kept: a folder, `s3://bucket/prefix`, or `memory:` (by default `.highwater/` and the name of the job).
    #[arg(long, env = "HIGHWATER_CHECKPOINTS", value_name = "LOCATION")]
    pub checkpoints: Option<String>,

    /// What becomes of a record that makes the job fail every time: the job ends and names it, or goes on without it.
    #[arg(long, value_enum, default_value = "end")]
    pub failing_record: FailingRecord,

    /// How often a checkpoint is taken, at the most.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = some_time)]
    pub checkpoint_interval: Duration,

    /// Keep nothing. Refused if a sink promises exactly once.
    #[arg(long)]
    pub no_checkpoints: bool,

    /// How many checkpoints are kept.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub keep: usize,

    /// Start over: forget all checkpoints of this job and take its output back.
    #[arg(long)]
    pub fresh: bool,

    /// How often operators over whole batches run; or `available-now` (`once` is the same): read what is there, in several
    /// batches, and stop when it is committed and published.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = trigger)]
    pub trigger: Trigger,

    /// How long an epoch is while the job keeps up.
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = some_time)]
    pub epoch: Duration,

    /// How many bytes of records a worker may have under way (such as 32MB).
    #[arg(long, value_name = "BYTES", default_value = "32MB", value_parser = bytes)]
    pub in_flight: usize,

    /// How long the job goes on without being able to commit a checkpoint; then it stops reading until it can. What is read meanwhile
    /// is read again after a crash.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = some_time)]
    pub uncommitted: Duration,

    /// Say nothing but errors.
    #[arg(long, short)]
    pub quiet: bool,

    /// Log lines of JSON.
    #[arg(long)]
    pub json_logs: bool,

    /// Serve Prometheus metrics over HTTP; a port alone means this machine only.
    #[arg(long, env = "HIGHWATER_METRICS", value_name = "ADDRESS")]
    pub metrics: Option<String>,
}

impl Options {
    /// Whether the job runs in processes of its own, which are started again. Where no checkpoints outlive a process there is nothing
    /// that another one could go on from.
    pub(crate) fn is_supervised(&self) -> bool {
        let durable = !self.no_checkpoints && self.checkpoints.as_deref() != Some("memory:");
        self.restart != Restart::Never && durable
    }

    /// Opens the door of this process among others, if there are `--hosts`.
    pub(crate) fn place(&self, env: &dyn Env) -> Result<Option<Place>, Error> {
        if self.processes > 1 {
            let text = "several processes need a supervisor and checkpoints that outlive them: leave out `--restart never`, `--no-checkpoints` and \
                        `memory:`, or start each process with --hosts and --process";
            return Err(highwater_runtime::Error::Setting(text.to_owned()).into());
        }
        match (&self.hosts, self.process) {
            (Some(hosts), Some(process)) => Ok(Some(Place::open(env, process, hosts.clone())?)),
            _ => Ok(None),
        }
    }

    /// The engine's settings that these options stand for.
    pub fn settings(&self) -> Settings {
        Settings {
            workers: self.workers,
            epoch: self.epoch,
            trigger: self.trigger,
            checkpoint_interval: (!self.no_checkpoints).then_some(self.checkpoint_interval),
            in_flight_bytes: self.in_flight,
            uncommitted: self.uncommitted,
            retained: self.keep,
            fresh: self.fresh,
            ..Settings::default()
        }
    }
}

/// `250ms`, `1s`, `2m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err("a time is a number with ms, s, m or h, such as 250ms".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| format!("`{number}` is no whole number"))?;
    number.checked_mul(ms).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

/// `available-now`, `once`, or how often.
fn trigger(text: &str) -> Result<Trigger, String> {
    match text {
        "available-now" | "once" => Ok(Trigger::AVAILABLE_NOW),
        _ => duration(text).map(Trigger::Every).map_err(|why| format!("{why}; or available-now")),
    }
}

/// A duration that isn't nothing.
pub(crate) fn some_time(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| match time.is_zero() {
        true => Err("it must be more than nothing".to_owned()),
        false => Ok(time),
    })
}

/// `1000`, `64KB`, `32MB`, `1GB`.
fn bytes(text: &str) -> Result<usize, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: usize = match unit {
        "" | "B" => 1,
        "KB" | "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return Err("a size is a number, alone or with KB, MB or GB".to_owned()),
    };
    let number: usize = number.parse().map_err(|_| format!("`{number}` is no whole number"))?;
    number.checked_mul(factor).ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Parser)]
    struct Job {
        #[command(flatten)]
        options: Options,
    }

    fn argument() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            Just("--workers"),
            Just("--checkpoints"),
            Just("--checkpoint-interval"),
            Just("--keep"),
            Just("--trigger"),
            Just("--epoch"),
            Just("--in-flight"),
            Just("--uncommitted"),
            Just("--quiet"),
            Just("-w"),
        ];
        prop_oneof![
            name.prop_map(str::to_owned),
            any::<u64>().prop_map(|number| number.to_string()),
            (any::<u64>(), "(ms|s|m|h|KB|MB|GB)")
                .prop_map(|(number, unit)| format!("{number}{unit}")),
            Just("available-now".to_owned()),
            ".{0,12}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_arguments_are_understood_or_refused(
            arguments in proptest::collection::vec(argument(), 0..6),
        ) {
            let arguments = std::iter::once("job".to_owned()).chain(arguments);
            if let Ok(job) = Job::try_parse_from(arguments) {
                let _ = job.options.settings();
            }
        }
    }

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(trigger("5s"), Ok(Trigger::Every(Duration::from_secs(5))));
        assert_eq!(
            (trigger("once"), trigger("available-now")),
            (Ok(Trigger::AVAILABLE_NOW), trigger("once"))
        );
        assert!(trigger("sometimes").is_err());
        assert!(duration("5").is_err() && duration("s").is_err() && duration("1d").is_err());
        assert_eq!(bytes("32MB"), Ok(32 << 20));
        assert_eq!(bytes("7"), Ok(7));
        assert!(bytes("1TB").is_err() && bytes("MB").is_err());
    }
}
