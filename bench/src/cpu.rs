//! CPU time and memory of a process from `/proc`. Softirq threads are counted too: batched sends move work there.

use std::fs;
use std::time::Duration;

/// Ticks of `/proc/*/stat` per second: USER_HZ is 100 on every Linux that has a stable interface.
const TICKS_PER_SECOND: u32 = 100;

/// CPU time used by process `pid` and by all ksoftirqd threads so far.
pub fn used(pid: u32) -> Result<Duration, String> {
    let own = ticks(&pid.to_string()).ok_or_else(|| format!("there is no process {pid}"))?;
    let softirq: u64 = fs::read_dir("/proc")
        .map_err(|error| format!("/proc: {error}"))?
        .flatten()
        .filter(|entry| fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/")))
        .filter_map(|entry| ticks(entry.file_name().to_str()?))
        .sum();
    Ok(Duration::from_secs(own + softirq) / TICKS_PER_SECOND)
}

/// utime + stime (proc_pid_stat(5), fields 14 and 15).
fn ticks(pid: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain spaces and brackets; the fields begin after the last bracket.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Private and shared user memory of process `pid`, in bytes (Pss of smaps_rollup).
pub fn memory(pid: u32) -> Result<u64, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map_err(|e| format!("process {pid}: {e}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no Pss in smaps_rollup")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().map_err(|_| "Pss is no number")?;
    Ok(kilobytes << 10)
}
