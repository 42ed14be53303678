//! Jobs with their checkpoints and their output on real servers that speak S3: killed and started again, and with a server that dies
//! under them.

mod jobs;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use futures::TryStreamExt;
use highwater_log::{Bytes, Store};
use highwater_test_servers::S3;
use jobs::{Job, Place};
use object_store::ObjectMeta;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

#[test]
#[ignore = "the other tests run it, as a job"]
fn job() {
    jobs::run();
}

const OPTIONS: &str = "--checkpoints s3://bucket/jobs/numbers --checkpoint-interval 50ms";
const LIMIT: u64 = 20_000;
const RATE: u64 = 4_000;

/// So slow that a job doesn't come to its end before it is killed, however slow the machine is.
const SLOW: u64 = 200;

fn committed(status: &Value) -> u64 {
    status["status"]["checkpoints"]["committed"].as_u64().unwrap_or_default()
}

/// Has the job run until it has committed so many checkpoints; `Break` if it comes to its end before.
fn until(place: &Place, mut job: Job, checkpoints: u64) -> ControlFlow<(), Job> {
    loop {
        if let Some(status) = job.0.try_wait().unwrap() {
            assert!(status.success());
            return ControlFlow::Break(());
        }
        let said = place.highwater("status s3://bucket/jobs/numbers --json");
        if said.code == 0 && committed(&said.json()) >= checkpoints {
            return ControlFlow::Continue(job);
        }
    }
}

fn all_is_there_once(place: &Place) {
    assert!(place.numbers().into_iter().eq(0..LIMIT), "{} rows", place.numbers().len());
    let said = place.highwater("checkpoint verify s3://bucket/jobs/numbers");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("everything is whole"), "{said:?}");
    let list = place.highwater("checkpoint list s3://bucket/jobs/numbers --json").json();
    let newest = list["checkpoints"].as_array().unwrap().last().unwrap();
    assert_eq!(newest["finished"], true);
}

#[test]
fn a_job_is_killed_again_and_again() {
    for server in [S3::moto, S3::seaweed] {
        let server = server();
        let place = Place::with(server.variables());
        let mut kills = 0;
        for workers in [1, 2, 3, 1, 2] {
            let job = place.start(&format!("{OPTIONS} --workers {workers}"), LIMIT, SLOW);
            let ControlFlow::Continue(job) = until(&place, job, 2) else { break };
            // Kills it.
            drop(job);
            kills += 1;
        }
        assert!(kills > 1, "it ended too soon to be killed");
        place.start(OPTIONS, LIMIT, 0).finish();
        let list = place.highwater("checkpoint list s3://bucket/jobs/numbers --json").json();
        assert!(list["attempts"].as_array().unwrap().len() > kills, "{list}");
        all_is_there_once(&place);
    }
}

#[test]
fn a_job_outlives_its_server() {
    let mut server = S3::seaweed();
    let place = Place::with(server.variables());
    // So slow that it still reads when the last request that had failed is repeated.
    let job = place.start(&format!("{OPTIONS} --restart exponential"), LIMIT, RATE / 8);
    let ControlFlow::Continue(job) = until(&place, job, 2) else { panic!("ended too soon") };
    server.kill();
    place.wait_until_said("checkpoint storage s3://bucket/jobs/numbers: could not");
    server.restart();
    place.wait_until_said("checkpoint storage s3://bucket/jobs/numbers: well again");
    job.finish();
    all_is_there_once(&place);
    // It waited, and wasn't started again.
    let list = place.highwater("checkpoint list s3://bucket/jobs/numbers --json").json();
    assert_eq!(list["attempts"].as_array().unwrap().len(), 1, "{list}");
}

const OUT: &str = "s3://bucket/out";

/// Every checkpoint has several files of each sink, and each of those takes several requests.
const WITH_OUTPUT: &str = "--checkpoints s3://bucket/jobs/numbers --checkpoint-interval 200ms";

fn with_output(server: &S3) -> Place {
    let mut variables = server.variables();
    variables.push((jobs::OUT.to_owned(), OUT.to_owned()));
    Place::with(variables)
}

/// What is below the location of the output, by name.
fn output(server: &S3) -> BTreeMap<String, Bytes> {
    let store = Store::open_with(OUT, server.variables()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listed: Vec<ObjectMeta> = store.objects().list(None).try_collect().await.unwrap();
        let mut objects = BTreeMap::new();
        for ObjectMeta { location, .. } in listed {
            // Deleted in between, if it isn't there.
            if let Some(content) = store.get_whole(&location).await.unwrap() {
                objects.insert(location.to_string(), content);
            }
        }
        objects
    })
}

/// The sinks.
const SINKS: [&str; 3] = ["lines", "table", "columns"];

/// What readers see of each sink: all numbers, in order.
fn published(server: &S3) -> [Vec<u64>; 3] {
    let mut found = [const { Vec::new() }; 3];
    let [lines, table, columns] = &mut found;
    for (name, content) in output(server) {
        let text = || str::from_utf8(&content).unwrap().lines();
        // In which of the three partitions, each of which has a name with all that is odd.
        let third = |prefix: &str, extension: &str| {
            let partition = name.strip_prefix(prefix)?.strip_prefix("/third=")?;
            let (third, rest) = partition.split_once("%2Fü +%25/part-").expect(partition);
            assert!(rest.ends_with(extension), "{name}");
            Some(third.parse::<u64>().unwrap())
        };
        if name.starts_with("lines/part-") {
            lines.extend(text().map(|line| line.parse::<u64>().unwrap()));
        } else if let Some(third) = third("table", ".csv") {
            let row = |line: &str| line.strip_prefix(&format!("{third},")).unwrap().parse::<u64>();
            table.extend(text().map(|line| row(line).unwrap()));
        } else if let Some(third) = third("columns", ".parquet") {
            let reader = ParquetRecordBatchReaderBuilder::try_new(content).unwrap();
            for batch in reader.build().unwrap() {
                let numbers = batch.unwrap().column(1).as_primitive::<UInt64Type>().clone();
                assert!(numbers.values().iter().all(|number| number % 3 == third));
                columns.extend(numbers.values());
            }
        } else {
            assert!(name.contains("/.highwater/"), "{name}");
        }
    }
    found.map(|mut numbers| {
        numbers.sort_unstable();
        numbers
    })
}

fn every_row_is_published_once(server: &S3) {
    for numbers in published(server) {
        assert!(numbers.iter().copied().eq(0..LIMIT), "{} rows", numbers.len());
    }
}

/// Every row once, and nothing left of how it came there.
fn output_is_exact(server: &S3) {
    every_row_is_published_once(server);
    let hidden = output(server).into_keys().filter(|name| name.contains("/.highwater/"));
    let owners = SINKS.map(|sink| format!("{sink}/.highwater/owner.json"));
    assert_eq!(hidden.collect::<BTreeSet<_>>(), owners.into());
}

#[test]
fn output_of_a_job_that_is_killed_again_and_again_is_exact() {
    for server in [S3::moto, S3::seaweed] {
        let server = server();
        let place = with_output(&server);
        let mut kills = 0;
        for workers in [1, 3, 2] {
            let job = place.start(&format!("{WITH_OUTPUT} --workers {workers}"), LIMIT, SLOW);
            let ControlFlow::Continue(job) = until(&place, job, 2) else { break };
            let twice = |numbers: &Vec<u64>| numbers.windows(2).any(|pair| pair[0] == pair[1]);
            assert!(!published(&server).iter().any(twice), "a row is there twice");
            drop(job);
            kills += 1;
        }
        assert!(kills > 1, "it ended too soon to be killed");
        place.start(WITH_OUTPUT, LIMIT, 0).finish();
        output_is_exact(&server);
        // Another job that is to write to the same place is refused, and changes nothing.
        let elsewhere = with_output(&server);
        let mut other = elsewhere.start("--checkpoints memory:", 10, 0);
        assert!(!other.0.wait().unwrap().success());
        elsewhere.wait_until_said("belongs to the sink `lines` of the job `numbers`");
        output_is_exact(&server);
        // Started over, it takes back what it wrote.
        place.start(&format!("{WITH_OUTPUT} --fresh"), LIMIT, 0).finish();
        output_is_exact(&server);
    }
}

#[test]
fn output_outlives_its_server() {
    let mut server = S3::seaweed();
    let place = with_output(&server);
    // Checkpoints elsewhere: only the sinks are in trouble.
    let checkpoints = "--checkpoints here --checkpoint-interval 50ms";
    let job = place.start(checkpoints, LIMIT, RATE / 2);
    place.wait("status here", |status| committed(status) >= 2);
    server.kill();
    place.wait_until_said(
        "sink `lines` on worker 0: can't write s3://bucket/out/lines/.highwater/staged/",
    );
    server.restart();
    place.wait_until_said("sink `lines` on worker 0: well again");
    job.finish();
    output_is_exact(&server);
    let list = place.highwater("checkpoint list here --json").json();
    assert_eq!(list["attempts"].as_array().unwrap().len(), 1, "{list}");
}

/// A process that stood still while another one took over and came to the end.
#[test]
fn output_of_a_process_that_was_replaced_changes_nothing() {
    for server in [S3::moto, S3::seaweed] {
        let server = server();
        let place = with_output(&server);
        let job = place.start(WITH_OUTPUT, LIMIT, SLOW);
        let ControlFlow::Continue(mut zombie) = until(&place, job, 2) else { panic!("it ended") };
        zombie.signal("-STOP");
        place.start(WITH_OUTPUT, LIMIT, 0).finish();
        output_is_exact(&server);
        zombie.signal("-CONT");
        assert!(!zombie.0.wait().unwrap().success());
        every_row_is_published_once(&server);
    }
}

#[test]
fn of_two_jobs_one_has_the_place() {
    for server in [S3::moto, S3::seaweed] {
        let server = server();
        let places = [0, 1].map(|_| with_output(&server));
        let jobs = places.each_ref().map(|place| place.start("--checkpoints here", LIMIT, 0));
        let succeeded = jobs.map(|mut job| job.0.wait().unwrap().success());
        // Each may have the place of some sink; then neither runs.
        assert!(!(succeeded[0] && succeeded[1]), "{succeeded:?}");
        if succeeded[0] || succeeded[1] {
            output_is_exact(&server);
        } else {
            assert_eq!(published(&server), [[0; 0]; 3]);
        }
    }
}

/// Where nothing was ever begun, a name may be wrong: the supervisor doesn't try for ever.
#[test]
fn a_server_that_was_never_there_is_told() {
    let server = S3::moto();
    let mut variables = with_output(&server).variables;
    drop(server);
    variables.retain(|(name, _)| name != jobs::OUT);
    let checkpoints = Place::with(variables.clone());
    variables.push((jobs::OUT.to_owned(), OUT.to_owned()));
    let output = Place::with(variables);
    let restart = "--restart exponential --processes 2";
    let mut jobs = [
        checkpoints.start(&format!("{OPTIONS} {restart}"), LIMIT, 0),
        output.start(&format!("--checkpoints here {restart}"), LIMIT, 0),
    ];
    for job in &mut jobs {
        assert!(!job.0.wait().unwrap().success());
    }
    checkpoints.wait_until_said("could not write s3://bucket/jobs/numbers/probe in 10 tries");
    output.wait_until_said("can't read s3://bucket/out/lines/.highwater/owner.json");
    for place in [&checkpoints, &output] {
        place.wait_until_said("the job has never begun, and isn't started again");
    }
}

/// What a job has begun with is waited for, also by attempts that find it away at their start.
#[test]
fn a_server_that_was_there_is_waited_for_by_the_next_attempt() {
    let mut server = S3::seaweed();
    let place = with_output(&server);
    let job = place.start(&format!("{WITH_OUTPUT} --restart exponential"), LIMIT, RATE / 4);
    let ControlFlow::Continue(job) = until(&place, job, 2) else { panic!("ended too soon") };
    server.kill();
    job.kill_children();
    place.wait_until_said("was ended by signal 9; starting again");
    place.wait_until_said("probe in 10 tries");
    server.restart();
    job.finish();
    output_is_exact(&server);
}
