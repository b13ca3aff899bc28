//! `roomcast doctor` says what is wrong, why it matters, and the line that mends it; and that line mends it. Exit code
//! 1 only for what keeps roomcast from serving.

mod common;

use common::host::FakeHost;
use common::{OPEN, Server, TempDir};
use roomcast::doctor::facts::Facts;
use roomcast::doctor::{Finding, Grade, Report};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Ports that are always free.
const PORTS: &str = "server.listen = \"127.0.0.1:0\"\ningest.listen = \"127.0.0.1:0\"\nops.listen = \"127.0.0.1:0\"\n";

/// Exit code, what it prints, what it complains about.
fn doctor(words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
    let output = command.env_remove("ROOMCAST_CONFIG").arg("doctor").args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().expect("it was not killed"), text(output.stdout), text(output.stderr))
}

/// The same for a config of this text, with its findings.
#[track_caller]
fn examine(config: &str) -> (i32, Vec<Value>) {
    let dir = TempDir::new();
    let file = dir.path("config.toml");
    fs::write(&file, config).unwrap();
    let (code, out, _) = doctor(&["--json", "--config", file.to_str().unwrap()]);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    (code, report["findings"].as_array().unwrap().clone())
}

/// The findings of one check as `grade what`.
fn of_check(findings: &[Value], check: &str) -> Vec<String> {
    let of = findings.iter().filter(|finding| finding["check"] == check);
    of.map(|finding| format!("{} {}", finding["grade"].as_str().unwrap(), finding["what"].as_str().unwrap())).collect()
}

#[test]
fn a_host_that_serves_is_told_in_text_and_json() {
    let dir = TempDir::new();
    let file = dir.path("config.toml");
    fs::write(&file, PORTS).unwrap();
    let file = file.to_str().unwrap();
    let (code, text, err) = doctor(&["--config", file]);
    assert_eq!((code, err.as_str()), (0, ""), "the tests run here, so a server does: {text}");
    for word in
        ["ok       kernel       Linux ", "ok       io_uring     ", &format!("ok       config       {file} is valid")]
    {
        assert!(text.contains(word), "{word}\n{text}");
    }
    assert!(text.contains("0 wrong, "), "{text}");

    let (code, json, err) = doctor(&["--json", "--config", file]);
    assert_eq!((code, err.as_str(), json.lines().count()), (0, "", 1));
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["wrong"], 0);
    let findings = report["findings"].as_array().unwrap();
    for check in
        ["kernel", "io_uring", "nofile", "memlock", "interrupts", "governor", "memory", "config", "cores", "port"]
    {
        assert!(!of_check(findings, check).is_empty(), "{check}: {json}");
    }
    for finding in findings {
        let is_ok = finding["grade"] == "ok";
        assert_eq!((finding["why"].is_null(), finding["mend"].is_null()), (is_ok, is_ok), "{finding}");
    }
}

#[test]
fn a_bad_config_and_a_taken_port_stop_serving() {
    for (config, word) in [
        ("[server]\ncolour = 1\n".to_owned(), "config.toml:2:1: server.colour"),
        (format!("{PORTS}[limits]\nmessage_bytes_max = 1\n"), "limits.message_bytes_max"),
        (PORTS.replacen("127.0.0.1:0", "0.0.0.0:0", 1), "server.public"),
        (format!("{PORTS}ingest.token_file = \"none\"\n"), "cannot read"),
        (format!("{PORTS}[[auth.key]]\nalgorithm = \"RS256\"\nfile = \"none.pem\"\n"), "none.pem"),
    ] {
        let (code, findings) = examine(&config);
        let said = of_check(&findings, "config");
        assert_eq!((code, said.len()), (1, 1), "{config}: {findings:?}");
        assert!(said[0].starts_with("wrong ") && said[0].contains(word), "{said:?}");
    }

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, findings) = examine(&PORTS.replacen("127.0.0.1:0", &address, 1));
    let said = of_check(&findings, "port");
    assert_eq!((code, said.len()), (1, 3), "{findings:?}");
    let us = format!("(process {})", std::process::id());
    assert!(said[0].starts_with("wrong server.listen") && said[0].contains(&us), "{said:?}");
    let finding = findings.iter().find(|finding| finding["check"] == "port").unwrap();
    assert!(finding["mend"].as_str().unwrap().starts_with(&format!("kill {} ", std::process::id())), "{finding}");

    let (code, text, err) = doctor(&["--config", "/nowhere.toml"]);
    assert_eq!((code, err.as_str()), (1, "roomcast: one thing keeps it from serving\n"), "{text}");
    assert!(text.contains("wrong    config       /nowhere.toml: cannot read"), "{text}");
}

#[test]
fn secrets_that_others_read_are_a_warning() {
    let dir = TempDir::new();
    let (file, token) = (dir.path("config.toml"), dir.path("publish.token"));
    fs::write(&file, format!("{PORTS}ingest.token_file = \"publish.token\"\n")).unwrap();
    fs::write(&token, "0123456789abcdef\n").unwrap();
    for (mode, warned) in [(0o644, true), (0o600, false)] {
        fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
        let (code, text, _) = doctor(&["--config", file.to_str().unwrap()]);
        assert_eq!(code, 0, "{text}");
        assert_eq!(text.contains(&format!("chmod o-r {}", token.display())), warned, "{text}");
    }
}

#[test]
fn a_running_server_is_looked_at_instead_of_the_shell() {
    let server = Server::setup(OPEN, 1).descriptors_max(5000).start();
    let ports = [server.listen, server.ingest, server.admin].map(|address| address.to_string());
    let config = ports.iter().fold(PORTS.to_owned(), |config, port| config.replacen("127.0.0.1:0", port, 1));
    let (code, findings) = examine(&config);
    assert_eq!(code, 0, "{findings:?}");
    for said in of_check(&findings, "port") {
        assert!(said.starts_with("ok ") && said.contains(&format!("(process {})", server.pid())), "{said}");
    }
    let said = of_check(&findings, "nofile");
    let pid = server.pid();
    assert_eq!(said, [format!("warning 5000 open files for the running server (process {pid}) at most")]);
}

fn report(host: &FakeHost) -> Vec<Finding> {
    let config = host.path("config.toml");
    fs::write(&config, PORTS).unwrap();
    Report::new(&Facts::gather(&host.root(), Some(&config))).findings().to_vec()
}

/// Warnings and worse of a check.
fn bad(findings: &[Finding], check: &str) -> Vec<Finding> {
    findings.iter().filter(|finding| finding.check == check && finding.grade != Grade::Ok).cloned().collect()
}

#[test]
fn the_line_that_mends_it_mends_it() {
    let host = FakeHost::new();
    for (path, text) in [
        ("proc/sys/kernel/osrelease", "5.15.0-91-generic"),
        ("proc/sys/kernel/io_uring_disabled", "1"),
        ("proc/sys/net/core/somaxconn", "128"),
        ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304"),
        ("proc/sys/fs/nr_open", "1048576"),
        ("proc/self/limits", "Max open files            1024                 4096                 files\n"),
        ("proc/self/cgroup", "0::/system.slice/roomcast.service\n"),
        ("sys/fs/cgroup/system.slice/memory.max", "max"),
        ("sys/fs/cgroup/system.slice/roomcast.service/memory.max", "2147483648"),
        ("sys/fs/cgroup/system.slice/cpu.max", "150000 100000"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet"),
        ("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm"),
        ("proc/net/softnet_stat", "00000017 00000005 00000000"),
        ("proc/77/comm", "irqbalance"),
    ] {
        host.write(path, text);
    }
    let findings = report(&host);
    for (check, words) in [
        ("kernel", &["Linux 5.15.0-91-generic is older than 6.1"][..]),
        ("io_uring", &["io_uring_disabled = 1"]),
        ("nofile", &["4096 open files"]),
        ("sysctl", &["net.core.somaxconn = 128, less than 65535", "net.ipv4.tcp_wmem = 4096 16384 4194304, more than"]),
        ("interrupts", &["eth0: its queues may interrupt several processors each", "irqbalance runs"]),
        ("governor", &["powersave on processors 0-3"]),
        ("clocksource", &["the clock is hpet"]),
        ("memory", &["2048 MiB for the control group /system.slice/roomcast.service, and outboxes have no bound"]),
        ("cpu quota", &["150000 µs in 100000 µs"]),
        ("backlog", &["5 packets were dropped"]),
    ] {
        let found = bad(&findings, check);
        assert_eq!(found.len(), words.len(), "{check}: {found:?}");
        for (finding, word) in found.iter().zip(words) {
            assert!(finding.what.contains(word), "{finding:?}");
        }
    }
    assert_eq!(findings.iter().filter(|finding| finding.grade == Grade::Wrong).count(), 1, "the kernel: {findings:#?}");

    // The scripts do what the doctor has named them for.
    for check in ["interrupts", "governor"] {
        let line = bad(&findings, check)[0].mend.clone().unwrap();
        let (code, said) = host.run(line.split('#').next().unwrap());
        assert_eq!(code, 0, "{line}: {said}");
    }
    fs::remove_dir_all(host.path("proc/77")).unwrap();
    // And so does what is set by hand.
    host.write("proc/sys/net/core/somaxconn", "65535");
    host.write("proc/sys/net/ipv4/tcp_wmem", "4096 16384 1048576");
    let findings = report(&host);
    for check in ["interrupts", "governor", "sysctl"] {
        assert_eq!(bad(&findings, check), [], "{check}");
    }
    let ok = findings.iter().find(|finding| finding.check == "interrupts").unwrap();
    assert_eq!(ok.what, "eth0: 4 queues for 4 cores");
}

#[test]
fn another_root_is_asked_for_by_a_flag() {
    let host = FakeHost::new();
    host.write("proc/sys/kernel/osrelease", "6.2.0-of-the-host");
    let config = host.path("config.toml");
    fs::write(&config, PORTS).unwrap();
    let words = ["--root", host.root().to_str().unwrap(), "--config", config.to_str().unwrap()].map(str::to_owned);
    let (code, text, _) = doctor(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Linux 6.2.0-of-the-host"), "{text}");
    assert!(Path::new("/proc/sys/kernel/osrelease").exists());
}
