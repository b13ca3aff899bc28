//! Kernel settings beside those of `tuning/90-roomcast.conf`. A missing key is none of ours: not every kernel has all.

use super::Finding;
use super::facts::Facts;

/// One setting, what it should be, and what becomes of roomcast otherwise.
struct Rule {
    key: &'static str,
    wanted: Wanted,
    /// What `mend` sets.
    value: &'static str,
    why: &'static str,
}

enum Wanted {
    AtLeast(u64),
    Exactly(u64),
    /// Of three numbers the last one.
    LargestAtMost(u64),
    /// So many numbers between the two.
    RangeOf(u64),
}

const RULES: &[Rule] = &[
    Rule {
        key: "net.core.somaxconn",
        wanted: Wanted::AtLeast(65_535),
        value: "65535",
        why: "When all clients come back at once, those without a place in the queue are heard a second later at best.",
    },
    Rule {
        key: "net.ipv4.tcp_max_syn_backlog",
        wanted: Wanted::AtLeast(65_535),
        value: "65535",
        why: "Beyond so many half-open connections the kernel answers with cookies, which forget TCP's options.",
    },
    Rule {
        key: "net.core.netdev_max_backlog",
        wanted: Wanted::AtLeast(16_384),
        value: "16384",
        why: "Packets of publishers and proxies on this host beyond it are thrown away, and sent again 200 ms later.",
    },
    Rule {
        key: "fs.nr_open",
        wanted: Wanted::AtLeast(1_048_576),
        value: "2097152",
        why: "LimitNOFILE can be no more than this, and every client is a descriptor.",
    },
    Rule {
        key: "fs.file-max",
        wanted: Wanted::AtLeast(1_048_576),
        value: "4194304",
        why: "All processes of the host together have no more descriptors than this, and every client is one.",
    },
    Rule {
        key: "net.ipv4.tcp_wmem",
        wanted: Wanted::LargestAtMost(1 << 20),
        value: "4096 16384 1048576",
        why: "So much the kernel holds for each client that does not read, beyond all limits of roomcast, and \
              slow_consumer acts only after it.",
    },
    Rule {
        key: "net.ipv4.tcp_rmem",
        wanted: Wanted::LargestAtMost(1 << 20),
        value: "4096 131072 1048576",
        why: "So much the kernel holds of a client that sends faster than it is read, beyond all limits of roomcast.",
    },
    Rule {
        key: "net.ipv4.tcp_slow_start_after_idle",
        wanted: Wanted::Exactly(0),
        value: "0",
        why: "Connections are silent between events; after that, a snapshot or a burst takes more round trips.",
    },
    Rule {
        key: "net.ipv4.ip_local_port_range",
        wanted: Wanted::RangeOf(50_000),
        value: "10240 65535",
        why: "A proxy on this host has one port for each client that it brings.",
    },
    Rule {
        key: "net.netfilter.nf_conntrack_max",
        wanted: Wanted::AtLeast(1_048_576),
        value: "1048576",
        why: "The firewall's table has a row for each connection; when it is full, nobody comes in.",
    },
    Rule {
        key: "net.core.busy_poll",
        wanted: Wanted::Exactly(0),
        value: "0",
        why: "roomcast waits in no poll that it would shorten, and other programs burn the cores' time in theirs.",
    },
    Rule {
        key: "net.core.busy_read",
        wanted: Wanted::Exactly(0),
        value: "0",
        why: "Each receive that finds nothing asks the network card once more, for nothing.",
    },
];

/// The keys whose values the checks want, those of [`super::kernel`] among them.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|rule| rule.key).chain(["kernel.io_uring_disabled"])
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let bad: Vec<Finding> = RULES.iter().filter_map(|rule| judge(rule, facts.sysctls.get(rule.key)?)).collect();
    let known = RULES.iter().filter(|rule| facts.sysctls.contains_key(rule.key)).count();
    match known - bad.len() {
        0 => bad,
        good => {
            [vec![Finding::ok("sysctl", format!("{good} of {known} settings are as they should be"))], bad].concat()
        }
    }
}

/// What is wrong with a value, if anything. One that cannot be read is the kernel's secret.
fn judge(rule: &Rule, text: &str) -> Option<Finding> {
    let numbers: Vec<u64> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let (first, last) = (*numbers.first()?, *numbers.last()?);
    let (good, wanted) = match rule.wanted {
        Wanted::AtLeast(least) => (first >= least, format!("less than {least}")),
        Wanted::Exactly(value) => (first == value, format!("not {value}")),
        Wanted::LargestAtMost(most) => (last <= most, format!("more than {most}")),
        Wanted::RangeOf(count) => (last.saturating_sub(first) >= count, format!("fewer than {count} ports")),
    };
    let Rule { key, value, why, .. } = *rule;
    let shown = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let file = if key.contains("busy") { "91-roomcast-busy-poll.conf" } else { "90-roomcast.conf" };
    let value = if value.contains(' ') { format!("\"{key}={value}\"") } else { format!("{key}={value}") };
    let mend = format!("sysctl -w {value}   # and tuning/{file} in /etc/sysctl.d/ to keep it");
    (!good).then(|| Finding::warning("sysctl", format!("{key} = {shown}, {wanted}"), why, mend))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(key: &str) -> &'static Rule {
        RULES.iter().find(|rule| rule.key == key).unwrap()
    }

    #[test]
    fn values_are_compared_as_their_meaning_wants() {
        for (key, value, said) in [
            ("net.core.somaxconn", "65535", None),
            ("net.core.somaxconn", "1000000", None),
            ("net.core.somaxconn", "4096", Some("net.core.somaxconn = 4096, less than 65535")),
            ("net.ipv4.tcp_wmem", "4096\t16384\t1048576", None),
            ("net.ipv4.tcp_wmem", "4096\t16384\t4194304", Some("= 4096 16384 4194304, more than 1048576")),
            ("net.ipv4.tcp_slow_start_after_idle", "1", Some("= 1, not 0")),
            ("net.ipv4.ip_local_port_range", "32768\t60999", Some("fewer than 50000 ports")),
            ("net.ipv4.ip_local_port_range", "1024\t65535", None),
            ("net.core.busy_read", "50", Some("= 50, not 0")),
            ("fs.file-max", "9223372036854775807", None),
            ("fs.file-max", "who knows", None),
            ("fs.file-max", "", None),
        ] {
            let finding = judge(rule(key), value);
            assert_eq!(finding.is_some(), said.is_some(), "{key} = {value}: {finding:?}");
            if let (Some(finding), Some(said)) = (finding, said) {
                assert!(finding.what.contains(said), "{finding:?}");
                assert!(finding.mend.unwrap().starts_with("sysctl -w "), "{key}");
            }
        }
    }

    #[test]
    fn what_mends_is_in_the_tuning_files_and_is_good() {
        let files = concat!(
            include_str!("../../tuning/90-roomcast.conf"),
            include_str!("../../tuning/91-roomcast-busy-poll.conf")
        );
        let set = |key: &str| {
            let lines = files.lines().map(|line| line.strip_prefix('-').unwrap_or(line));
            let (_, value) = lines.filter_map(|line| line.split_once(" = ")).find(|(other, _)| *other == key)?;
            Some(value)
        };
        for rule in RULES {
            assert_eq!(set(rule.key), Some(rule.value), "{}", rule.key);
            assert_eq!(judge(rule, rule.value), None, "{}", rule.key);
        }
        let count = files.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
        assert_eq!(keys().count(), count, "every line of the files is checked");
        assert_eq!(set("kernel.io_uring_disabled"), Some("0"));
    }
}
