//! Jobs with their checkpoints on real servers that speak S3: killed and started again, and with a server that dies under them.

mod jobs;

use std::ops::ControlFlow;

use highwater_test_servers::S3;
use jobs::{Job, Place};
use serde_json::Value;

#[test]
#[ignore = "the other tests run it, as a job"]
fn job() {
    jobs::run();
}

const OPTIONS: &str = "--checkpoints s3://bucket/jobs/numbers --checkpoint-interval 50ms";
const LIMIT: u64 = 20_000;
const RATE: u64 = 4_000;

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
            let job = place.start(&format!("{OPTIONS} --workers {workers}"), LIMIT, RATE);
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
