//! Running jobs, asked by the program: `status`, `stop`, `checkpoint now`.

mod jobs;

use jobs::Place;
use serde_json::Value;

#[test]
#[ignore = "the other tests run it, as a job"]
fn job() {
    jobs::run();
}

fn committed(status: &Value) -> u64 {
    status["status"]["checkpoints"]["committed"].as_u64().unwrap_or_default()
}

#[test]
fn a_job_says_what_it_does_by_name_and_by_place() {
    let place = Place::new();
    let job = place.start("--checkpoint-interval 50ms --workers 2", 0, 20_000);
    let status = place.wait("status numbers", |status| committed(status) > 2);
    assert_eq!((&status["job"], &status["pid"]), (&"numbers".into(), &job.0.id().into()));
    assert_eq!(status["status"]["state"], "running");
    for line in ["status numbers", "status .highwater/numbers"] {
        let said = place.highwater(line);
        assert_eq!(said.code, 0, "{said:?}");
        let operators = ["numbers ", "count ", "classes ", "numbers-out "];
        for words in
            operators.iter().chain(&["2 workers", "0 restarts", "running", "every 50.0 ms"])
        {
            assert!(said.out.contains(words), "{words}: {}", said.out);
        }
        // The last checkpoints with their phases, newest first.
        let (_, checkpoints) = said.out.split_once("CHECKPOINT").unwrap();
        let rows = checkpoints.lines().skip(1).take_while(|line| !line.is_empty());
        let numbers: Vec<u64> =
            rows.map(|row| row.split_whitespace().next().unwrap().parse().unwrap()).collect();
        assert!(numbers.len() > 2 && numbers.is_sorted_by(|a, b| a > b), "{}", said.out);
    }
}

#[test]
fn all_running_jobs_are_listed_and_silent_ones_named() {
    let place = Place::new();
    assert!(place.highwater("status").out.contains("no job is run"));
    let job = place.start("--checkpoint-interval 50ms", 0, 1000);
    let all = place.wait("status", |all| committed(&all["jobs"][0]) > 0);
    assert_eq!(all["jobs"].as_array().unwrap().len(), 1);
    let said = place.highwater("status");
    let line = said.out.lines().find(|line| line.contains("numbers")).unwrap();
    let checkpoints = place.checkpoints().canonicalize().unwrap();
    for word in [job.0.id().to_string().as_str(), "running", checkpoints.to_str().unwrap()] {
        assert!(line.contains(word), "{word}: {said:?}");
    }
    job.signal("-STOP");
    let said = place.highwater("status");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("SILENT") && said.out.contains("doesn't answer"), "{said:?}");
    let said = place.highwater("status numbers");
    assert!(said.code == 2 && said.err.contains("doesn't answer"), "{said:?}");
    job.signal("-CONT");
    place.wait("status numbers", |_| true);
}

#[test]
fn a_checkpoint_is_taken_now_and_is_in_the_store() {
    let place = Place::new();
    let _job = place.start("--checkpoint-interval 1h", 0, 20_000);
    place.wait("status numbers", |status| status["status"]["records_in"].as_u64() > Some(1000));
    let said = place.highwater("checkpoint now numbers --json");
    assert_eq!(said.code, 0, "{said:?}");
    let number = said.json()["checkpoint"].as_u64().unwrap();
    let list = place.highwater("checkpoint list .highwater/numbers --json").json();
    let listed = list["checkpoints"].as_array().unwrap();
    assert!(listed.len() == 1 && listed[0]["number"] == number, "{list}");
    let said = place.highwater("checkpoint now .highwater/numbers");
    assert!(said.out.starts_with("numbers: checkpoint ") && said.out.contains(" in "), "{said:?}");
}

#[test]
fn a_stop_waits_for_the_end() {
    let place = Place::new();
    let job = place.start("--checkpoint-interval 1h", 0, 20_000);
    place.wait("status numbers", |status| status["status"]["records_in"].as_u64() > Some(1000));
    let said = place.highwater("stop numbers --json");
    assert_eq!(said.code, 0, "{said:?}");
    let ended = said.json();
    assert_eq!(ended["finished"], false);
    job.finish();
    // All that was read is in the checkpoint that it names.
    let line = format!("checkpoint show .highwater/numbers {} --json", ended["checkpoint"]);
    let shown = place.highwater(&line).json();
    let splits = shown["sources"][0]["splits"].as_array().unwrap();
    let read: u64 = splits.iter().filter_map(|split| split["records"].as_u64()).sum();
    assert_eq!(ended["records_in"], read);
    for line in ["stop numbers", "status numbers", "checkpoint now numbers"] {
        let said = place.highwater(line);
        assert!(said.code == 2 && said.err.contains("no job of that name"), "{said:?}");
    }
}
