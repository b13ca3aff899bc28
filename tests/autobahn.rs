//! WebSocket as RFC 6455 has it: the fuzzing client of autobahn's test suite against an endpoint that echoes. Cases 1
//! to 10; 12 and 13 are about compression.

mod common;

use common::python::{Python, skipped};
use common::{Server, wait_until};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Mutex;

on_one_and_two_cores!(every_case_is_answered_as_the_rfc_says);

/// Of the pinned version. Fewer mean that the suite did not come to its end.
const CASES: usize = 301;

/// All that a report may say: right; right, but later than it could be known; nothing to judge.
const GOOD: [&str; 3] = ["OK", "NON-STRICT", "INFORMATIONAL"];

fn every_case_is_answered_as_the_rfc_says(cores: usize) {
    // One of them installs it for both; and the suite's frames of 16 MB want the machine for themselves.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let python = match Python::two() {
        Ok(python) => python,
        Err(why) => return skipped("autobahn's WebSocket suite", &why),
    };
    let server = Server::example("conformance.toml", cores);
    // Left there for whoever wants to read more about a failure.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("autobahn-{cores}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let spec = json!({
        "outdir": folder,
        "servers": [{ "agent": "roomcast", "url": format!("ws://{}/echo", server.listen) }],
        "cases": (1..=10).map(|group| format!("{group}.*")).collect::<Vec<_>>(),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    let spec_file = folder.join("spec.json");
    fs::write(&spec_file, spec.to_string()).unwrap();
    let log = File::create(folder.join("log")).unwrap();
    let program = "from autobahntestsuite.wstest import run; run()";
    let mut command = python.command();
    command.args(["-c", program, "--mode", "fuzzingclient", "--spec"]).arg(&spec_file);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let status = Suite(command.spawn().unwrap()).finish(&folder);
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    assert!(status.success(), "the suite ended with {status}:\n{}", read("log"));
    let index: Value = serde_json::from_str(&read("index.json")).unwrap_or_else(|_| panic!("{}", read("log")));
    let cases = index["roomcast"].as_object().unwrap();
    assert_eq!(cases.len(), CASES);
    let is_good = |verdict: &Value| GOOD.iter().any(|good| verdict == good);
    let bad = cases.iter().filter(|(_, case)| !is_good(&case["behavior"]) || !is_good(&case["behaviorClose"]));
    let bad: Vec<String> = bad.map(|(name, case)| format!("{name}: {case}")).collect();
    assert!(bad.is_empty(), "see {folder:?}:\n{}", bad.join("\n"));
}

/// The suite's process, which ends with its value.
struct Suite(Child);

impl Suite {
    /// Waits until it ends. The limit is one case's, not that of all of them.
    #[track_caller]
    fn finish(mut self, folder: &Path) -> ExitStatus {
        loop {
            let before = cases_begun(folder);
            let mut status = None;
            wait_until("the suite goes on", || {
                status = self.0.try_wait().unwrap();
                status.is_some() || cases_begun(folder) > before
            });
            if let Some(status) = status {
                return status;
            }
        }
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// By the suite's log, in which each has a line.
fn cases_begun(folder: &Path) -> usize {
    fs::read_to_string(folder.join("log")).unwrap_or_default().matches("Running test case ID").count()
}
