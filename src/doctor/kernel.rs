//! The kernel, whether it lets us have an `io_uring`, and the limits of the process.

use super::Finding;
use super::facts::{Facts, Refusal};

/// The oldest kernel whose `io_uring` has all that cores need: `DEFER_TASKRUN` is the last of it.
const OLDEST: (u32, u32) = (6, 1);
/// An executor refuses to start below this.
const LOCKED_BYTES_MIN: u64 = 512 << 10;
/// Below this a host serves fewer clients than one core can.
const DESCRIPTORS_FEW: u64 = 65_536;
/// Listeners, rings, eventfds, logs: with fewer there is nothing left for clients.
const DESCRIPTORS_MIN: u64 = 256;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![
        release(facts.release.as_deref()),
        io_uring(facts.ring.as_ref(), facts.sysctls.get("kernel.io_uring_disabled").map(String::as_str)),
    ];
    let text = facts.limits.as_deref().unwrap_or("");
    let whose = facts.subject.to_string();
    findings.extend(limit(text, "Max open files").map(|(_, hard)| open_files(hard, &whose)));
    findings.extend(limit(text, "Max locked memory").map(|(soft, _)| locked_memory(soft, &whose)));
    findings
}

fn release(release: Option<&str>) -> Finding {
    let Some(release) = release else { return Finding::ok("kernel", "its version cannot be read") };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST {
        return Finding::ok("kernel", format!("Linux {release}"));
    }
    Finding::wrong(
        "kernel",
        format!("Linux {release} is older than {}.{}", OLDEST.0, OLDEST.1),
        "Cores need an io_uring with DEFER_TASKRUN, which came with Linux 6.1.",
        "apt install linux-image-amd64   # or your distribution's newer kernel; then reboot",
    )
}

/// Whether a ring like a core's could be made, and if not, what forbids it.
fn io_uring(refusal: Option<&Refusal>, sysctl: Option<&str>) -> Finding {
    const WHY: &str = "Every core moves its clients' bytes through an io_uring; without it roomcast does not start.";
    const ALLOW: &str = "sysctl -w kernel.io_uring_disabled=0   # and tuning/90-roomcast.conf to keep it";
    let level = sysctl.unwrap_or("0").trim();
    let Some(refusal) = refusal else {
        if level == "1" {
            return Finding::warning(
                "io_uring",
                "kernel.io_uring_disabled = 1: only for processes with CAP_SYS_ADMIN, and for a group",
                "You may have one, but a service without privileges may not, and then does not start.",
                ALLOW,
            );
        }
        return Finding::ok("io_uring", "a ring as cores use it can be made");
    };
    let (what, mend) = match refusal.errno {
        Some(libc::EPERM | libc::EACCES) if level != "0" => {
            (format!("forbidden: kernel.io_uring_disabled = {level}"), ALLOW)
        }
        Some(libc::EPERM | libc::EACCES) => (
            "forbidden, though not by kernel.io_uring_disabled: by a seccomp filter, as containers have".to_owned(),
            "docker run --security-opt seccomp=unconfined …   # or a profile with io_uring_setup, _enter, _register",
        ),
        Some(libc::ENOSYS) => (
            "the kernel has none: it was built without, or a seccomp filter hides it".to_owned(),
            "docker run --security-opt seccomp=unconfined …   # outside containers: a kernel with CONFIG_IO_URING=y",
        ),
        Some(libc::EINVAL) => (
            "the kernel does not know SINGLE_ISSUER, DEFER_TASKRUN or TASKRUN_FLAG: it is older than 6.1".to_owned(),
            "apt install linux-image-amd64   # or your distribution's newer kernel; then reboot",
        ),
        Some(libc::ENOMEM) => (
            "no memory for a ring: the limit of locked memory is too low".to_owned(),
            "ulimit -l 65536   # for the service: LimitMEMLOCK=64M in its unit",
        ),
        Some(libc::EMFILE | libc::ENFILE) => (
            "no descriptor is left for a ring".to_owned(),
            "ulimit -n 1048576   # for the service: LimitNOFILE=1048576 in its unit",
        ),
        _ => (format!("a ring cannot be made: {}", refusal.text), "strace -f -e trace=io_uring_setup roomcast doctor"),
    };
    Finding::wrong("io_uring", what, WHY, mend)
}

/// Soft and hard limit in a process's `/proc/PID/limits`; the largest number stands for `unlimited`.
fn limit(limits: &str, name: &str) -> Option<(u64, u64)> {
    let mut words = limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace();
    let mut next = || match words.next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    Some((next()?, next()?))
}

/// roomcast raises its soft limit by itself.
fn open_files(hard: u64, whose: &str) -> Finding {
    let what = format!("{hard} open files for {whose} at most");
    let mend = "LimitNOFILE=1048576 in the service's unit; for a shell: tuning/limits-roomcast.conf";
    let why = "Every client is a descriptor. Beyond the limit nobody comes in until somebody leaves.";
    if hard < DESCRIPTORS_MIN {
        Finding::wrong("nofile", what, why, mend)
    } else if hard < DESCRIPTORS_FEW {
        Finding::warning("nofile", what, why, mend)
    } else if hard == u64::MAX {
        Finding::ok("nofile", format!("any number of open files for {whose}"))
    } else {
        Finding::ok("nofile", what)
    }
}

fn locked_memory(soft: u64, whose: &str) -> Finding {
    if soft == u64::MAX {
        return Finding::ok("memlock", format!("any amount of locked memory for {whose}"));
    }
    let what = format!("{} KiB of locked memory for {whose}", soft >> 10);
    if soft >= LOCKED_BYTES_MIN {
        return Finding::ok("memlock", what);
    }
    Finding::wrong(
        "memlock",
        format!("{what}, less than {} KiB", LOCKED_BYTES_MIN >> 10),
        "Buffers of an io_uring are locked memory; below this the executors of the cores do not start.",
        "ulimit -l 65536   # for the service: LimitMEMLOCK=64M in its unit",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;

    #[test]
    fn kernels_are_told_by_their_release() {
        for (text, grade) in [
            ("6.18.44-fc-v782", Grade::Ok),
            ("6.1.0-18-amd64", Grade::Ok),
            ("7.0", Grade::Ok),
            ("10.2.3", Grade::Ok),
            ("6.0.19", Grade::Wrong),
            ("5.15.0-91-generic", Grade::Wrong),
            ("nonsense", Grade::Wrong),
        ] {
            let finding = release(Some(text));
            assert_eq!(finding.grade, grade, "{text}");
            assert!(finding.what.contains(text), "{finding:?}");
        }
        assert_eq!(release(None).grade, Grade::Ok, "what cannot be read is not wrong");
    }

    #[test]
    fn who_forbids_io_uring_is_named() {
        let refusal = |errno| Refusal { errno: Some(errno), text: "os error".to_owned() };
        for (errno, sysctl, grade, word) in [
            (None, None, Grade::Ok, "can be made"),
            (None, Some("0"), Grade::Ok, "can be made"),
            (None, Some("1"), Grade::Warning, "io_uring_disabled = 1"),
            (Some(libc::EPERM), Some("2"), Grade::Wrong, "io_uring_disabled = 2"),
            (Some(libc::EPERM), Some("0"), Grade::Wrong, "seccomp"),
            (Some(libc::ENOSYS), None, Grade::Wrong, "has none"),
            (Some(libc::EINVAL), None, Grade::Wrong, "6.1"),
            (Some(libc::ENOMEM), None, Grade::Wrong, "locked memory"),
            (Some(libc::EMFILE), None, Grade::Wrong, "descriptor"),
            (Some(libc::EIO), None, Grade::Wrong, "os error"),
        ] {
            let finding = io_uring(errno.map(refusal).as_ref(), sysctl);
            assert_eq!(finding.grade, grade, "{finding:?}");
            assert!(finding.what.contains(word), "{finding:?}");
            assert_eq!(finding.mend.is_some(), grade != Grade::Ok, "{finding:?}");
        }
    }

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 524288               files
Max locked memory         8388608              unlimited            bytes
";

    #[test]
    fn limits_are_read_from_the_kernels_table() {
        assert_eq!(limit(LIMITS, "Max open files"), Some((1024, 524_288)));
        assert_eq!(limit(LIMITS, "Max locked memory"), Some((8 << 20, u64::MAX)));
        assert_eq!(limit(LIMITS, "Max processes"), None);
        assert_eq!(limit("Max open files  many  more", "Max open files"), None);
    }

    #[test]
    fn few_descriptors_are_a_warning_and_none_is_wrong() {
        for (hard, grade) in [
            (64, Grade::Wrong),
            (255, Grade::Wrong),
            (256, Grade::Warning),
            (20_000, Grade::Warning),
            (65_536, Grade::Ok),
            (u64::MAX, Grade::Ok),
        ] {
            assert_eq!(open_files(hard, "this shell").grade, grade, "{hard}");
        }
        for (soft, grade) in [(64 << 10, Grade::Wrong), (512 << 10, Grade::Ok), (u64::MAX, Grade::Ok)] {
            assert_eq!(locked_memory(soft, "this shell").grade, grade, "{soft}");
        }
    }
}
