//! Processors, clocks and memory of the host: what makes a sound config serve badly.

use super::Finding;
use super::facts::{Discipline, Facts};
use crate::net::cpus;

/// Clocks that are read without a call to the kernel.
const FAST_CLOCKS: [&str; 5] =
    ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "hyperv_clocksource_msr"];
/// From here on tokens that have just ended or just begun are judged wrongly, beyond `auth.leeway_s`.
const CLOCK_ERROR_MS_MAX: u128 = 5_000;
/// What roomcast takes without clients, with its rings, tables and code, generously.
const BASE_BYTES: u64 = 128 << 20;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![governors(facts)];
    findings.extend(facts.clocksource.as_ref().map(|current| clocksource(current, facts.clocksources.as_deref())));
    findings.extend(facts.clock.as_ref().map(synchronised));
    findings.extend(facts.huge_pages.as_ref().map(|mode| huge_pages(mode, facts.huge_pages_here.as_deref())));
    findings.push(memory(facts));
    findings.extend(facts.cpu_max.iter().filter_map(|(group, text)| quota(group, text)).next());
    findings.extend(facts.softnet.as_deref().map(dropped));
    findings.extend(facts.conntrack.as_ref().and_then(|count| {
        let max = facts.sysctls.get("net.netfilter.nf_conntrack_max")?;
        conntrack(count.trim().parse().ok()?, max.trim().parse().ok()?)
    }));
    findings
}

fn governors(facts: &Facts) -> Finding {
    if facts.governors.is_empty() {
        return Finding::ok("governor", "the processors' frequency is not ours to set here, as in a virtual machine");
    }
    let slow: Vec<usize> =
        facts.governors.iter().filter(|(_, governor)| *governor != "performance").map(|(cpu, _)| *cpu).collect();
    let Some(first) = slow.first() else {
        return Finding::ok("governor", "performance on all processors");
    };
    Finding::warning(
        "governor",
        format!("{} on processors {}", facts.governors[first], cpus::show(&slow)),
        "Cores sleep between events; a processor that slows down in the meantime delivers the next one late.",
        format!("{}/governor.sh --apply   # or: cpupower frequency-set -g performance", facts.tuning),
    )
}

fn clocksource(current: &str, available: Option<&str>) -> Finding {
    let what = format!("the clock is {current}");
    if FAST_CLOCKS.contains(&current) {
        return Finding::ok("clocksource", what);
    }
    let better = available.into_iter().flat_map(str::split_whitespace).find(|name| FAST_CLOCKS.contains(name));
    let mend = match better {
        Some(name) => format!("echo {name} > /sys/devices/system/clocksource/clocksource0/current_clocksource"),
        None => {
            "dmesg | grep -i -e tsc -e clocksource   # why the kernel does not trust the processor's counter".to_owned()
        }
    };
    Finding::warning(
        "clocksource",
        what,
        "Every turn of a core reads the clock; this one needs a call to the kernel and a slow device for it.",
        mend,
    )
}

fn synchronised(Discipline { synchronised, error_max }: &Discipline) -> Finding {
    const WHY: &str =
        "Tokens begin and end by the clock: one that is wrong turns clients away, or lets them in for too long.";
    const MEND: &str = "apt install chrony   # or: timedatectl set-ntp true";
    let error_ms = error_max.as_millis();
    match (synchronised, error_ms > CLOCK_ERROR_MS_MAX) {
        (true, false) => Finding::ok("clock", format!("kept right from outside, by {error_ms} ms at worst")),
        (true, true) => {
            Finding::warning("clock", format!("kept right from outside, but it may be {error_ms} ms wrong"), WHY, MEND)
        }
        (false, _) => Finding::warning("clock", "nothing keeps it right, as far as the kernel knows", WHY, MEND),
    }
}

/// `here` is the `THP_enabled` of a process of roomcast.
fn huge_pages(mode: &str, here: Option<&str>) -> Finding {
    let chosen = mode.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(mode, |(chosen, _)| chosen);
    if here == Some("0") {
        return Finding::ok("huge pages", format!("{chosen}; roomcast takes none, whatever the host says"));
    }
    if chosen != "always" {
        return Finding::ok("huge pages", chosen);
    }
    Finding::warning(
        "huge pages",
        "always, and roomcast could not opt out",
        "A server of few clients holds 15 MB more and grows in steps of 2 MB, and no load gains by it.",
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
    )
}

/// The least of the memory limits of the groups that the process is in, and the group. Version 1 has a number near 2⁶³
/// for none.
fn least_limit(limits: &[(String, String)]) -> Option<(u64, &str)> {
    let read = |(group, text): &'_ (String, String)| Some((text.trim().parse::<u64>().ok()?, group.clone()));
    let (bytes, group) = limits.iter().filter_map(read).filter(|(bytes, _)| *bytes < 1 << 60).min()?;
    let (group, _) = limits.iter().find(|(other, _)| *other == group)?;
    Some((bytes, group))
}

fn memory(facts: &Facts) -> Finding {
    let Some((limit, group)) = least_limit(&facts.memory_limits) else {
        return Finding::ok("memory", "no limit by a control group");
    };
    let there = format!("{} MiB for the control group {group}", limit >> 20);
    let Some(config) = &facts.settings.config else { return Finding::ok("memory", there) };
    let rest = BASE_BYTES + config.limits.inboxes_bytes_max + config.rooms.snapshots_bytes_max as u64;
    let outboxes = config.limits.outboxes_bytes_max;
    const WHY: &str = "When clients read slowly, what waits for them grows until the kernel kills the process; with a \
        bound that fits, roomcast disconnects the slowest clients instead. The kernel's socket buffers count too.";
    // Half for sockets' buffers and what is not counted.
    let fitting = limit.saturating_sub(rest) / 2;
    let set_outboxes = format!("limits.outboxes_bytes_max = {fitting}   # in the config's [limits]");
    if fitting < 1 << 20 {
        return Finding::warning(
            "memory",
            format!("{there}, less than what inboxes and snapshots may take: {} MiB", rest >> 20),
            WHY,
            format!("MemoryMax={}M in the service's unit, or smaller bounds in the config", (rest + (256 << 20)) >> 20),
        );
    }
    if outboxes == 0 {
        return Finding::warning("memory", format!("{there}, and outboxes have no bound together"), WHY, set_outboxes);
    }
    if outboxes.saturating_add(rest) > limit {
        let what =
            format!("{there}, less than outboxes, inboxes and snapshots may take: {} MiB", (outboxes + rest) >> 20);
        return Finding::warning("memory", what, WHY, set_outboxes);
    }
    Finding::ok("memory", there)
}

/// `cpu.max` of a control group: `max 100000`, or µs that it may run in so many µs.
fn quota(group: &str, text: &str) -> Option<Finding> {
    let mut words = text.split_whitespace();
    let (quota, period) = (words.next()?.parse::<u64>().ok()?, words.next()?.parse::<u64>().ok()?);
    Some(Finding::warning(
        "cpu quota",
        format!("{quota} µs in {period} µs for the control group {group}"),
        "When the quota is used up, all cores stand still until the next period: events are late by up to so long.",
        "CPUQuota= in the service's unit; give it processors by AllowedCPUs= instead",
    ))
}

/// The second column of `/proc/net/softnet_stat`, by processor and in hexadecimal.
fn dropped(softnet: &str) -> Finding {
    let column = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    let dropped: u64 = softnet.lines().filter_map(column).sum();
    if dropped == 0 {
        return Finding::ok("backlog", "no packet was dropped between network and TCP");
    }
    Finding::warning(
        "backlog",
        format!("{dropped} packets were dropped between network and TCP since the host started"),
        "They are sent again 200 ms later, and delay all that stands behind them in their connection.",
        "sysctl -w net.core.netdev_max_backlog=16384   # and tuning/90-roomcast.conf in /etc/sysctl.d/ to keep it",
    )
}

fn conntrack(count: u64, max: u64) -> Option<Finding> {
    (count >= max / 10 * 8).then(|| {
        Finding::warning(
            "conntrack",
            format!("the firewall's table holds {count} connections of {max}"),
            "When it is full, nobody comes in.",
            format!("sysctl -w net.netfilter.nf_conntrack_max={}", max.saturating_mul(4)),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;
    use crate::config::Config;
    use std::time::Duration;

    #[test]
    fn each_slow_governor_is_named() {
        let with = |governors: &[(usize, &str)]| {
            let governors = governors.iter().map(|(cpu, name)| (*cpu, (*name).to_owned())).collect();
            super::governors(&Facts { governors, ..Facts::default() })
        };
        assert_eq!(with(&[]).grade, Grade::Ok);
        assert_eq!(with(&[(0, "performance"), (1, "performance")]).grade, Grade::Ok);
        let finding = with(&[(0, "performance"), (1, "powersave"), (2, "powersave")]);
        assert_eq!((finding.grade, &*finding.what), (Grade::Warning, "powersave on processors 1-2"));
    }

    #[test]
    fn slow_clocks_are_told_with_the_way_out() {
        for (current, available, grade, mend) in [
            ("tsc", "tsc hpet acpi_pm", Grade::Ok, None),
            ("kvm-clock", "kvm-clock", Grade::Ok, None),
            ("hpet", "tsc hpet acpi_pm", Grade::Warning, Some("echo tsc > ")),
            ("acpi_pm", "acpi_pm", Grade::Warning, Some("dmesg")),
        ] {
            let finding = clocksource(current, Some(available));
            assert_eq!(finding.grade, grade, "{finding:?}");
            assert_eq!(finding.mend.as_deref().map(|text| text.starts_with(mend.unwrap())), mend.map(|_| true));
        }
        for (synchronised, error_ms, grade) in
            [(true, 20, Grade::Ok), (true, 16_000, Grade::Warning), (false, 16_000, Grade::Warning)]
        {
            let discipline = Discipline { synchronised, error_max: Duration::from_millis(error_ms) };
            assert_eq!(super::synchronised(&discipline).grade, grade);
        }
    }

    #[test]
    fn huge_pages_are_no_matter_once_we_are_out() {
        for (mode, here, grade) in [
            ("[always] madvise never", Some("0"), Grade::Ok),
            ("[always] madvise never", Some("1"), Grade::Warning),
            ("[always] madvise never", None, Grade::Warning),
            ("always [madvise] never", Some("1"), Grade::Ok),
        ] {
            assert_eq!(huge_pages(mode, here).grade, grade, "{mode} {here:?}");
        }
    }

    #[test]
    fn bounds_of_memory_must_fit_into_the_group() {
        let with = |limits: &[(&str, &str)], text: &str| {
            let memory_limits = limits.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            let mut facts = Facts { memory_limits, ..Facts::default() };
            facts.settings.config = Some(Config::parse(text, "f.toml").unwrap());
            super::memory(&facts)
        };
        let gib = (1_u64 << 30).to_string();
        for (limits, config, grade, word) in [
            (&[("/a", "max")][..], "", Grade::Ok, "no limit"),
            (&[("/a", "9223372036854771712")], "", Grade::Ok, "no limit"),
            (
                &[("/a", &gib), ("/", "max")],
                "",
                Grade::Warning,
                "1024 MiB for the control group /a, and outboxes have no",
            ),
            (&[("/a", &gib)], "limits.outboxes_bytes_max = 268435456", Grade::Ok, "1024 MiB"),
            (&[("/a", &gib)], "limits.outboxes_bytes_max = 1073741824", Grade::Warning, "may take"),
            (&[("/a", "max"), ("/", "67108864")], "", Grade::Warning, "control group /, less than what inboxes"),
        ] {
            let finding = with(limits, config);
            assert_eq!(finding.grade, grade, "{finding:?}");
            assert!(finding.what.contains(word), "{finding:?}");
        }
    }

    #[test]
    fn quotas_drops_and_full_tables_are_told() {
        assert_eq!(quota("/a", "max 100000"), None);
        assert!(quota("/a", "50000 100000").unwrap().what.contains("50000 µs in 100000 µs"));
        assert_eq!(dropped("00000017 00000000 00000000\n00002436 00000000 00000000\n").grade, Grade::Ok);
        assert!(dropped("00000017 00000010 0\n00002436 00000002 0\n").what.starts_with("18 packets"));
        assert_eq!(conntrack(79, 100), None);
        assert_eq!(conntrack(80, 100).unwrap().mend.unwrap(), "sysctl -w net.netfilter.nf_conntrack_max=400");
    }
}
