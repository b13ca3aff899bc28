//! A tiny suite runs to its end, writes its files, and can be compared with itself. Does not know how fast anything is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder for one test's results.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("roomcast-bench-suite-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in a temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn suite(out: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roomcast-bench"))
        .args(["suite", "--scale", "0.02", "--seconds", "0.3", "--repetitions", "1"])
        // Whatever else this machine does, one attempt is enough here.
        .args(["--tries", "2", "--foreign-max", "1"])
        .args(["--contenders", "floor-send,floor-joined", "--scenarios", "trains,firehose,idle,storm"])
        .arg("--out")
        .arg(out)
        .args(arguments)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_tiny_suite_writes_everything_and_compares_with_itself() {
    let first = Folder::new("first");
    let output = suite(&first.0, &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("[1/"), "{}", said(&output));

    let results: serde_json::Value = serde_json::from_str(&first.read("RESULTS.json")).unwrap();
    let runs = results["runs"].as_array().unwrap();
    // trains 1, firehose 3, idle 1, storm 2.
    assert_eq!(runs.len(), 7, "{}", said(&output));
    for run in runs {
        assert_eq!(run.get("failure"), None, "{run}");
        assert_eq!(run["measurement"]["lost"].as_u64().unwrap_or(0), 0, "{run}");
    }
    let firehose = runs.iter().find(|run| run["entry"] == "floor-joined/raw").unwrap();
    assert!(firehose["measurement"]["deliveries_per_s"].as_f64().unwrap() > 0.0, "{firehose}");

    let page = first.read("RESULTS.md");
    for words in ["## Targets", "## Where roomcast loses", "## trains", "## firehose", "charts/storm.svg", "0.02"] {
        assert!(page.contains(words), "{words} is missing in\n{page}");
    }
    for chart in ["trains", "firehose", "idle", "storm"] {
        let svg = first.read(&format!("charts/{chart}.svg"));
        roxmltree::Document::parse(&svg).unwrap();
    }

    let second = Folder::new("second");
    let earlier = first.0.join("RESULTS.json");
    let output = suite(&second.0, &["--against", earlier.to_str().unwrap()]);
    // Only roomcast's getting worse is an error, and it did not take part.
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("figures differ by no more than the spreads"), "{}", said(&output));

    // What is there already is not measured again, and the page can be written without measuring.
    fs::remove_file(first.0.join("RESULTS.md")).unwrap();
    let output = suite(&first.0, &["--resume"]);
    assert!(output.status.success() && !said(&output).contains("[1/"), "{}", said(&output));
    assert_eq!(first.read("RESULTS.md").lines().count(), page.lines().count());
    let output = suite(&first.0, &["--report", "--against", earlier.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn who_is_missing_is_named_and_nothing_at_all_is_an_error() {
    let folder = Folder::new("missing");
    let arguments = ["--peers", "/nowhere", "--roomcast", "/nowhere/roomcast"];
    let run = |contenders: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast-bench"));
        command.args(["suite", "--scale", "0.02", "--seconds", "0.3", "--repetitions", "1", "--scenarios", "storm"]);
        command.args(["--foreign-max", "1", "--contenders", contenders]).args(arguments);
        command.arg("--out").arg(&folder.0).output().unwrap()
    };
    let output = run("bun,floor-send");
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("WARNING: bun is not measured"), "{}", said(&output));
    assert!(folder.read("RESULTS.md").contains("| **not measured** | bun:"));
    let output = run("bun,roomcast");
    assert!(!output.status.success(), "{}", said(&output));
    let output = run("nobody");
    assert!(said(&output).contains("not one of roomcast"), "{}", said(&output));
}
