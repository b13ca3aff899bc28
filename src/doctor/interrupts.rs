//! Where network cards interrupt: whether each core's processor has a queue of its own, and whether something moves it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

use super::Finding;
use super::facts::{Card, Facts};
use crate::net::cpus;

/// An interrupt of a card's receive queue.
#[derive(Debug, PartialEq, Eq)]
struct Queue {
    number: usize,
    interrupt: u32,
}

/// What drivers call the interrupt of a queue that receives: `eth0-TxRx-3`, `ens5-Tx-Rx-3`, `virtio2-input.3`,
/// `mlx5_comp3@pci:…`, `eth0-rx-3`, `ens1-fp-3`, `mana_q3@pci:…`. `tuning/irq-affinity.sh` knows the same.
static QUEUE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)(?:tx-?rx|rx-?tx|rx|input|comp|fp|queue|_q)[-._]?([0-9]+)").expect("the pattern is a constant")
});

/// The queues of a card in the order of their numbers. The last word of a line of `/proc/interrupts` is what the driver
/// calls the interrupt.
fn queues(card: &Card, interrupts: &str) -> Vec<Queue> {
    let queue_of = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        let interrupt = number.trim().parse::<u32>().ok()?;
        let name = rest.split_whitespace().next_back()?;
        let is_its = match &card.interrupts[..] {
            [] => name.contains(&card.name),
            interrupts => interrupts.contains(&interrupt),
        };
        if !is_its {
            return None;
        }
        let number = QUEUE.captures(name)?.get(1)?.as_str().parse().ok()?;
        Some(Queue { number, interrupt })
    };
    let mut queues: Vec<Queue> = interrupts.lines().filter_map(queue_of).collect();
    queues.sort_by_key(|queue| queue.number);
    queues
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let cores = facts.core_cpus();
    let mut findings: Vec<Finding> = facts.cards.iter().flat_map(|card| of_card(card, facts, cores)).collect();
    if facts.cards.is_empty() {
        findings.push(Finding::ok("interrupts", "no network card is to be seen from here"));
    }
    let is_spread = |card: &Card| queues(card, &facts.interrupts).len() > 1;
    if facts.has_process("irqbalance") && facts.cards.iter().any(is_spread) {
        findings.push(Finding::warning(
            "interrupts",
            "irqbalance runs and moves interrupts",
            "It takes queues away from the processors that they were given to, by load and every ten seconds.",
            "systemctl disable --now irqbalance   # or IRQBALANCE_ARGS=--banirq=… in /etc/default/irqbalance",
        ));
    }
    findings
}

/// `cores` are the processors that cores are pinned to.
fn of_card(card: &Card, facts: &Facts, cores: &[usize]) -> Vec<Finding> {
    let (name, list) = (&card.name, cpus::show(cores));
    let queues = queues(card, &facts.interrupts);
    let script = format!("{}/irq-affinity.sh --interface {name} --cpus {list}", facts.tuning);
    let mend = format!("{script} --apply");
    if queues.is_empty() {
        let what = format!("{name}: its interrupts are not told apart by queue; see /proc/interrupts");
        return vec![Finding::ok("interrupts", what)];
    }
    let mut findings = Vec::new();
    let places: Vec<Option<Vec<usize>>> =
        queues.iter().map(|queue| cpus::parse(facts.affinities.get(&queue.interrupt)?)).collect();
    let served: BTreeSet<usize> = places.iter().flatten().filter(|cpus| cpus.len() == 1).flatten().copied().collect();
    let reached = cores.iter().filter(|cpu| served.contains(cpu)).count();
    let is_single = |place: &Option<Vec<usize>>| place.as_ref().is_some_and(|cpus| cpus.len() == 1);
    if queues.len() < cores.len() && !card.spreads {
        findings.push(Finding::warning(
            "interrupts",
            format!("{name}: {} of packets for {} cores", count(queues.len(), "queue"), cores.len()),
            "The queues' processors do the TCP work of all cores besides their own, and are full before the others.",
            format!("ethtool -L {name} combined {}   # if the card has no more: {script} --rps --apply", cores.len()),
        ));
    }
    let wanted = queues.len().min(cores.len());
    if wanted > 1 && reached < wanted && places.iter().all(is_single) {
        let shown: Vec<String> = queues
            .iter()
            .zip(&places)
            .map(|(queue, place)| {
                format!("{} on {}", queue.number, place.as_deref().map_or("?".to_owned(), cpus::show))
            })
            .collect();
        findings.push(Finding::warning(
            "interrupts",
            format!("{name}: {reached} of {wanted} cores have a queue of their own (queue {})", shown.join(", ")),
            "Queues that share a processor, or have one without a core, leave the TCP work of some cores to others.",
            &mend,
        ));
    } else if wanted > 1 && !places.iter().all(is_single) {
        findings.push(Finding::warning(
            "interrupts",
            format!("{name}: its queues may interrupt several processors each"),
            "The kernel chooses one, and may choose the same for several queues.",
            &mend,
        ));
    }
    if facts.is_steered() && reached < cores.len() && !card.spreads {
        let idle: Vec<usize> = cores.iter().copied().filter(|cpu| !served.contains(cpu)).collect();
        findings.push(Finding::warning(
            "steering",
            format!("{name}: with server.steer = \"cpu\" the cores on {} get no clients", cpus::show(&idle)),
            "A connection goes to the core of the processor that its packets come in on, and nothing comes in there.",
            format!("server.steer = \"hash\" in the config, or {mend}"),
        ));
    }
    if findings.is_empty() {
        let what = format!("{name}: {} for {}", count(queues.len(), "queue"), count(cores.len(), "core"));
        findings.push(Finding::ok("interrupts", what));
    }
    findings
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;

    const INTERRUPTS: &str = "           CPU0       CPU1       CPU2       CPU3
  1:          0          0          0          9   IO-APIC    1-edge      i8042
 40:          1          0          0          0 PCI-MSIX-0000:01:00.0    0-edge      eth0
 41:      99123          0          0          0 PCI-MSIX-0000:01:00.0    1-edge      eth0-TxRx-0
 42:          0      98231          0          0 PCI-MSIX-0000:01:00.0    2-edge      eth0-TxRx-1
 43:          0          0      97112          0 PCI-MSIX-0000:01:00.0    3-edge      eth0-TxRx-2
 44:          0          0          0      99911 PCI-MSIX-0000:01:00.0    4-edge      eth0-TxRx-3
 50:          7          0          0          0 PCI-MSIX-0000:02:00.0    1-edge      nvme0q1
LOC:     123012     157497     123012     157497   Local timer interrupts
";

    fn card() -> Card {
        Card { name: "eth0".to_owned(), interrupts: (40..45).collect(), spreads: false }
    }

    /// Queues on these processors, cores on those.
    fn facts(places: [&str; 4], cores: &[usize]) -> Facts {
        Facts {
            cards: vec![card()],
            interrupts: INTERRUPTS.to_owned(),
            affinities: (41..45).zip(places.map(str::to_owned)).collect(),
            cpus: cores.to_owned(),
            ..Facts::default()
        }
    }

    fn said(facts: &Facts) -> Vec<(Grade, String)> {
        check(facts).into_iter().map(|finding| (finding.grade, finding.what)).collect()
    }

    #[test]
    fn names_of_many_drivers_are_read() {
        for (name, number) in [
            ("eth0-TxRx-3", Some("3")),
            ("i40e-eth0-TxRx-12", Some("12")),
            ("ens5-Tx-Rx-0", Some("0")),
            ("virtio2-input.1", Some("1")),
            ("mlx5_comp7@pci:0000:01:00.0", Some("7")),
            ("eth0-rx-2", Some("2")),
            ("ens192-rxtx-5", Some("5")),
            ("ens1f0-fp-4", Some("4")),
            ("mana_q9@pci:0000", Some("9")),
            ("virtio2-output.1", None),
            ("virtio2-config", None),
            ("eth0-tx-2", None),
            ("mlx5_async0@pci:0000:01:00.0", None),
            ("eth0", None),
        ] {
            let got = QUEUE.captures(name).map(|captures| captures[1].to_owned());
            assert_eq!(got.as_deref(), number, "{name}");
        }
    }

    #[test]
    fn queues_are_those_of_the_card() {
        let numbers = |card: &Card| queues(card, INTERRUPTS).iter().map(|queue| queue.interrupt).collect::<Vec<_>>();
        assert_eq!(numbers(&card()), [41, 42, 43, 44]);
        assert_eq!(numbers(&Card { interrupts: vec![], ..card() }), [41, 42, 43, 44], "by name");
        assert_eq!(numbers(&Card { name: "eth1".to_owned(), interrupts: vec![], ..card() }), [0; 0]);
    }

    #[test]
    fn one_queue_on_each_core_is_right_and_all_else_is_told() {
        let all = [0, 1, 2, 3];
        for (places, cores, words) in [
            (["0", "1", "2", "3"], &all[..], &[][..]),
            (["3", "2", "1", "0"], &all, &[]),
            // Fewer cores than queues.
            (["2", "3", "2", "3"], &all[2..], &[]),
            (
                ["0", "0", "1", "1"],
                &all,
                &["2 of 4 cores have a queue of their own (queue 0 on 0, 1 on 0, 2 on 1, 3 on 1)"],
            ),
            (["0-3", "0-3", "0-3", "0-3"], &all, &["may interrupt several processors"]),
            (["0", "1", "0", "1"], &all[2..], &["0 of 2 cores"]),
            (["0", "1", "2", "3"], &[0, 1, 2, 3, 4, 5, 6, 7], &["4 queues of packets for 8 cores"]),
            // One core has no other to leave work to.
            (["0-3", "0", "1", "1"], &all[..1], &[]),
        ] {
            let findings = check(&facts(places, cores));
            let bad: Vec<&Finding> = findings.iter().filter(|finding| finding.grade != Grade::Ok).collect();
            assert_eq!(bad.len(), words.len(), "{places:?} for {cores:?}: {findings:?}");
            for (finding, word) in bad.iter().zip(words) {
                assert!(finding.what.contains(word), "{finding:?}");
                assert!(finding.mend.as_ref().unwrap().contains("eth0"), "{finding:?}");
            }
        }
    }

    #[test]
    fn who_spreads_packets_by_software_needs_no_queues() {
        let mut facts = facts(["0", "1", "2", "3"], &[0, 1, 2, 3, 4, 5]);
        facts.cards[0].spreads = true;
        assert_eq!(said(&facts), [(Grade::Ok, "eth0: 4 queues for 6 cores".to_owned())]);
    }

    #[test]
    fn steering_needs_a_queue_for_each_core() {
        let config = crate::config::Config::parse("server.steer = \"cpu\"", "f.toml").unwrap();
        let mut facts = facts(["0", "1", "0", "1"], &[0, 1, 2, 3]);
        facts.settings.config = Some(config);
        let words = said(&facts);
        assert!(words.iter().any(|(_, what)| what.contains("the cores on 2-3 get no clients")), "{words:?}");
        facts.affinities = (41..45).zip(["0", "1", "2", "3"].map(str::to_owned)).collect();
        assert_eq!(said(&facts), [(Grade::Ok, "eth0: 4 queues for 4 cores".to_owned())]);
    }

    #[test]
    fn irqbalance_is_named() {
        let mut facts = facts(["0", "1", "2", "3"], &[0, 1, 2, 3]);
        facts.processes.insert(77, "irqbalance".to_owned());
        assert!(said(&facts).iter().any(|(grade, what)| *grade == Grade::Warning && what.contains("irqbalance")));
        assert_eq!(said(&Facts::default()).len(), 1, "a container without cards");
    }
}
