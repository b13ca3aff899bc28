//! The ready configs and their walk-throughs: each config is one, and what the walk-throughs say that `roomcast check`
//! answers is what it answers.

use std::path::Path;
use std::process::{Command, Output};

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a line of the shell in the repository's folder, where `roomcast` is the one under test.
fn shell(line: &str) -> Output {
    let bin = Path::new(env!("CARGO_BIN_EXE_roomcast")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    Command::new("sh").args(["-c", line]).current_dir(folder()).env("PATH", path).output().unwrap()
}

#[test]
fn every_example_is_a_config() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let output = shell(&format!("roomcast check {}", path.display()));
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            count += 1;
        }
    }
    assert_eq!(count, 6);
}

/// Blocks of the walk-throughs: `$ COMMAND`, perhaps on several lines, and what it prints.
#[test]
fn walk_throughs_show_what_check_answers() {
    let text = std::fs::read_to_string(folder().join("examples/README.md")).unwrap();
    let mut count = 0;
    for block in text.split("```console\n$ ").skip(1) {
        let (block, _) = block.split_once("```").expect("a block has an end");
        let mut command = String::new();
        let mut lines = block.lines();
        for line in lines.by_ref() {
            match line.strip_suffix('\\') {
                Some(line) => command.push_str(line),
                None => {
                    command.push_str(line);
                    break;
                }
            }
        }
        let shown: Vec<&str> = lines.collect();
        let output = shell(&command);
        assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        if !shown.is_empty() {
            assert_eq!(said.lines().collect::<Vec<_>>(), shown, "{command}\n{said}");
        }
        count += 1;
    }
    assert!(count >= 4, "{count}");
}

/// The shell lines that make a token do.
#[test]
fn tokens_are_made_by_a_shell_line() {
    let text = std::fs::read_to_string(folder().join("examples/README.md")).unwrap();
    let blocks: Vec<&str> = text.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    for made_by in ["token() {", "b64() {"] {
        let block = blocks.iter().find(|block| block.starts_with(made_by)).expect("the walk-through shows it");
        let output = shell(block);
        let token = String::from_utf8(output.stdout).unwrap();
        let parts: Vec<&str> = token.trim_end().split('.').collect();
        assert_eq!(parts.len(), 3, "{token}\n{}", String::from_utf8_lossy(&output.stderr));
        let node = r#"
            const [, token] = process.argv, [head, body, signature] = token.split(".");
            const key = require("fs").readFileSync("examples/keys/demo-hs256.secret", "utf8").trimEnd();
            const own = require("crypto").createHmac("sha256", key).update(head + "." + body).digest("base64url");
            const { sub, exp } = JSON.parse(Buffer.from(body, "base64url"));
            const left = exp - Date.now() / 1000;
            process.exit(own === signature && sub === "IR0001" && left > 3000 && left < 4000 ? 0 : 1)"#;
        let checked = Command::new("node").args(["-e", node, token.trim_end()]).current_dir(folder()).output().unwrap();
        assert!(checked.status.success(), "{made_by}: {token}{}", String::from_utf8_lossy(&checked.stderr));
    }
}
