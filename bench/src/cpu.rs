//! CPU time and memory from `/proc`: of a server with its children, of the generator, of the cores that they use.
//!
//! A server's CPU is its threads' run time in ns. Softirq work that is done in a thread's own time (a loopback `send`
//! does the receiver's TCP work) is in it, as long as the kernel is built without CONFIG_IRQ_TIME_ACCOUNTING. What a
//! batched send leaves to the softirq thread of its core is added.

use rustix::thread::{CpuSet, sched_getaffinity};
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeSet, HashMap};
use std::fs;

/// Ticks of `/proc/*/stat` per second: USER_HZ is 100 on every Linux that has a stable interface.
const NS_PER_TICK: u64 = 1_000_000_000 / 100;

/// The monotonic clock, in ns.
#[inline]
pub fn now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

#[inline]
fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What is measured: the server's processes, and the cores that it and the generator run on.
#[derive(Debug)]
pub struct Subject {
    /// The server and its descendants, as they were at the start.
    processes: Vec<u32>,
    /// The softirq threads of the server's cores.
    softirq: Vec<u32>,
    /// The server's cores and those on which this thread may run.
    cores: BTreeSet<usize>,
}

/// A look at the clocks.
#[derive(Debug)]
pub struct Reading {
    at: u64,
    server: u64,
    generator: u64,
    /// Ticks of the used cores: in use, and in all.
    busy: u64,
    total: u64,
}

/// What was used between two readings.
#[derive(Debug, PartialEq)]
pub struct Usage {
    pub wall_ns: u64,
    /// Of the server and of its cores' softirq threads.
    pub server_ns: u64,
    pub generator_ns: u64,
    /// Share of the used cores' time that neither of them used.
    pub foreign_share: f64,
}

impl Subject {
    /// Process `pid` on `server_cores`.
    pub fn new(pid: u32, server_cores: &[usize]) -> Result<Subject, String> {
        let names = numbered("/proc");
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for process in &names {
            // Fields behind the name: state, parent.
            if let Some(parent) = stat(*process).and_then(|stat| stat.split(' ').nth(1)?.parse().ok()) {
                children.entry(parent).or_default().push(*process);
            }
        }
        if !names.contains(&pid) {
            return Err(format!("there is no process {pid}"));
        }
        let mut processes = vec![pid];
        let mut at = 0;
        while let Some(parent) = processes.get(at) {
            processes.extend_from_slice(children.get(parent).map_or(&[], Vec::as_slice));
            at += 1;
        }
        let threads: BTreeSet<String> = server_cores.iter().map(|core| format!("ksoftirqd/{core}")).collect();
        let is_softirq = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| threads.contains(name.trim_end()))
        };
        let softirq = names.into_iter().filter(is_softirq).collect();
        let own = sched_getaffinity(None).map_err(|error| format!("sched_getaffinity: {error}"))?;
        let own = (0..CpuSet::MAX_CPU).filter(|core| own.is_set(*core));
        Ok(Subject { processes, softirq, cores: server_cores.iter().copied().chain(own).collect() })
    }

    /// Reads the clocks.
    pub fn read(&self) -> Result<Reading, String> {
        let mut reading = Reading { at: 0, server: 0, generator: 0, busy: 0, total: 0 };
        let text = fs::read_to_string("/proc/stat").map_err(|error| format!("/proc/stat: {error}"))?;
        for (core, ticks) in text.lines().filter_map(core_ticks) {
            if self.cores.contains(&core) {
                reading.busy += ticks.0;
                reading.total += ticks.1;
            }
        }
        for (index, pid) in self.processes.iter().enumerate() {
            match run_time(*pid) {
                Some(used) => reading.server += used,
                None if index == 0 => return Err(format!("there is no process {pid} any more")),
                None => {}
            }
        }
        reading.server += self.softirq.iter().filter_map(|pid| run_time(*pid)).sum::<u64>();
        reading.generator = nanoseconds(ClockId::ThreadCPUTime);
        reading.at = now();
        Ok(reading)
    }

    /// Private and shared user memory of the server, in bytes (Pss of smaps_rollup).
    pub fn user_memory(&self) -> Result<u64, String> {
        let each = self.processes.iter().map(|pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
                .map_err(|error| format!("the memory of process {pid}: {error}"))?;
            kilobytes(&text, &["Pss:"])
        });
        each.sum::<Result<u64, String>>()
    }

    /// What was used from `earlier` to `later`.
    pub fn usage(&self, earlier: &Reading, later: &Reading) -> Usage {
        let wall_ns = later.at - earlier.at;
        // A thread that ends takes its time with it.
        let server_ns = later.server.saturating_sub(earlier.server);
        let generator_ns = later.generator - earlier.generator;
        let capacity = (wall_ns * self.cores.len() as u64) as f64;
        let ticks = later.total.saturating_sub(earlier.total);
        let busy = later.busy.saturating_sub(earlier.busy) as f64 / ticks.max(1) as f64;
        let foreign_share = (busy - (server_ns + generator_ns) as f64 / capacity.max(1.0)).max(0.0);
        Usage { wall_ns, server_ns, generator_ns, foreign_share }
    }
}

/// Kernel memory that grows with connections: slabs (sockets, files, epoll entries), page tables, kernel stacks, and
/// what TCP has in its queues. In bytes, of the whole machine.
pub fn kernel_memory() -> Result<u64, String> {
    let text = fs::read_to_string("/proc/meminfo").map_err(|error| format!("/proc/meminfo: {error}"))?;
    let memory = kilobytes(&text, &["Slab:", "PageTables:", "KernelStack:"])?;
    let text = fs::read_to_string("/proc/net/sockstat").map_err(|error| format!("/proc/net/sockstat: {error}"))?;
    let pages = text.lines().find_map(|line| line.strip_prefix("TCP:")?.split(' ').skip_while(|w| *w != "mem").nth(1));
    let pages: u64 = pages.and_then(|pages| pages.parse().ok()).ok_or("no TCP memory in /proc/net/sockstat")?;
    Ok(memory + pages * rustix::param::page_size() as u64)
}

/// The sum of the lines with these labels, in bytes.
fn kilobytes(text: &str, labels: &[&str]) -> Result<u64, String> {
    let each = labels.iter().map(|label| {
        let line = text.lines().find_map(|line| line.strip_prefix(label));
        let value = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(value.ok_or_else(|| format!("no {label} in the kernel's answer"))? << 10)
    });
    each.sum::<Result<u64, String>>()
}

/// Entries of a folder of `/proc` whose name is a number.
fn numbered(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The fields behind a process's name, which may contain spaces and brackets (proc_pid_stat(5), from field 3 on).
fn stat(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat[stat.rfind(')')? + 2..].to_owned())
}

/// CPU time of a process in ns: of each thread, where the kernel tells that; else utime + stime.
fn run_time(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for thread in numbered(&format!("/proc/{pid}/task")) {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")) else { continue };
        sum += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    if sum > 0 {
        return Some(sum);
    }
    let stat = stat(pid)?;
    let mut fields = stat.split(' ').skip(11);
    let (user, system) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
    Some((user + system) * NS_PER_TICK)
}

/// A core's number and its ticks (in use, in all) from a line of `/proc/stat`. What the hypervisor took away is use.
fn core_ticks(line: &str) -> Option<(usize, (u64, u64))> {
    // "cpu " without a number is the sum of all.
    let mut words = line.strip_prefix("cpu")?.split(' ');
    let core = words.next()?.parse().ok()?;
    // user nice system idle iowait irq softirq steal; guest time is in user time already.
    let ticks: Vec<u64> = words.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let total = ticks.iter().sum::<u64>();
    Some((core, (total - ticks.get(3)? - ticks.get(4)?, total)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc() {
        assert_eq!(core_ticks("cpu1 10 1 20 500 40 2 3 4 0 0"), Some((1, (40, 580))));
        assert_eq!(core_ticks("cpu  10 1 20 500 40 2 3 4 0 0"), None);
        assert_eq!(core_ticks("intr 5"), None);
        let text = "Slab:     2 kB\nPageTables:  1 kB\n";
        assert_eq!(kilobytes(text, &["Slab:", "PageTables:"]), Ok(3072));
        assert!(kilobytes(text, &["KernelStack:"]).is_err());
    }

    #[test]
    fn shares() {
        let subject = Subject { processes: vec![1], softirq: vec![], cores: [0, 1].into() };
        let earlier = Reading { at: 0, server: 50, generator: 70, busy: 100, total: 1000 };
        let later = Reading { at: 1_000_000_000, server: 500_000_050, generator: 900_000_070, busy: 250, total: 1200 };
        let usage = subject.usage(&earlier, &later);
        assert_eq!((usage.wall_ns, usage.server_ns, usage.generator_ns), (1_000_000_000, 500_000_000, 900_000_000));
        // 1.5 of 2 cores were busy, 1.4 of them for us.
        assert!((usage.foreign_share - 0.05).abs() < 1e-9);
    }

    #[test]
    fn this_process_is_readable() {
        let subject = Subject::new(std::process::id(), &[0]).unwrap();
        let (earlier, later) = (subject.read().unwrap(), subject.read().unwrap());
        assert!(later.server >= earlier.server && later.at > earlier.at && later.total > 0);
        assert!(subject.user_memory().unwrap() > 0);
        assert!(kernel_memory().unwrap() > 0);
        assert_eq!(Subject::new(u32::MAX, &[0]).unwrap_err(), "there is no process 4294967295");
    }
}
