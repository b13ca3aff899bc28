//! The machine, the date and the commit, as results name them.

use super::process::cores;
use super::results::Machine;
use std::fs;
use std::path::Path;
use std::process::Command;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// This machine. What cannot be known is said so.
#[must_use]
pub fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let info = read("/proc/cpuinfo").unwrap_or_default();
    let memory = read("/proc/meminfo").unwrap_or_default();
    let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    Machine {
        cpu: after(&info, "model name").unwrap_or("unknown").to_owned(),
        cores: cores().len(),
        kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
        governor: governor.unwrap_or_else(|| "not visible".to_owned()),
        memory_mb: after(&memory, "MemTotal").and_then(kilobytes).unwrap_or(0) >> 10,
    }
}

/// The value behind a name and a colon.
fn after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

fn kilobytes(value: &str) -> Option<u64> {
    value.trim_end_matches("kB").trim().parse().ok()
}

/// The time, by UTC, to the second.
#[must_use]
pub fn now() -> String {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0);
    now.ok().and_then(|now| now.format(&Rfc3339).ok()).unwrap_or_else(|| "unknown".to_owned())
}

/// The commit of the repository that `folder` is in, with `-dirty` if a source differs from it.
#[must_use]
pub fn commit(folder: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    // What the suite writes is no source.
    let sources = [":/", ":(top,exclude)bench/RESULTS.*", ":(top,exclude)bench/charts"];
    let mut status = vec!["status", "--porcelain", "--untracked-files=no", "--"];
    status.extend(sources);
    match git(&status) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit}-dirty"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read() {
        let info = "processor\t: 0\nmodel name\t: AMD EPYC 9R45\nprocessor\t: 1\n";
        assert_eq!(after(info, "model name"), Some("AMD EPYC 9R45"));
        assert_eq!(after(info, "flags"), None);
        assert_eq!(kilobytes("16384 kB"), Some(16384));
        let machine = machine();
        assert!(machine.cores > 0 && machine.memory_mb > 0);
        assert!(now().ends_with('Z') && now().len() == "2026-01-01T00:00:00Z".len(), "{}", now());
        assert_eq!(commit(Path::new("/")), "unknown");
    }
}
