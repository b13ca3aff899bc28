//! What roomcast must reach, as a table, and whether measurements reach it.

use super::plan::{CONNECTIONS, CPU_PER_DELIVERY, Contender, Dialect, Entry, FIREHOSE_BESIDE_SLOW, Figure, LAST_BYTE};
use super::plan::{P50, P99, Scenario, USER_BYTES};
use super::results::Results;
use super::statistics::{Spread, ratios};

/// What is looked at.
#[derive(Debug)]
pub enum Subject {
    /// A figure of the first divided by the second's.
    Ratio(&'static Figure, Entry, Entry),
    /// A figure itself.
    Value(&'static Figure, Entry),
    /// Events that were lost, came twice, or in the wrong order.
    Losses(Entry),
}

/// How far it may go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }
}

/// Something to reach.
#[derive(Debug)]
pub struct Target {
    /// Where.
    pub scenario: &'static str,
    /// In words.
    pub text: &'static str,
    /// Of what.
    pub subject: Subject,
    /// How much.
    pub bound: Bound,
}

const fn raw(contender: Contender) -> Entry {
    Entry { contender, dialect: Dialect::Raw, load: None }
}

const fn socket_io(contender: Contender) -> Entry {
    Entry { contender, dialect: Dialect::SocketIo, load: None }
}

const ROOMCAST: Entry = raw(Contender::Roomcast);
const ROOMCAST_SOCKET_IO: Entry = socket_io(Contender::Roomcast);
const SEND: Entry = raw(Contender::FloorSend);
const JOINED: Entry = raw(Contender::FloorJoined);

/// All of them.
pub static TARGETS: [Target; 14] = [
    Target {
        scenario: "firehose",
        text: "raw: CPU per delivery ≤ 1.03 × the coalescing floor",
        subject: Subject::Ratio(&CPU_PER_DELIVERY, ROOMCAST, JOINED),
        bound: Bound::AtMost(1.03),
    },
    Target {
        scenario: "firehose",
        text: "Socket.IO: CPU per delivery ≤ 1.03 × the coalescing floor",
        subject: Subject::Ratio(&CPU_PER_DELIVERY, ROOMCAST_SOCKET_IO, socket_io(Contender::FloorJoined)),
        bound: Bound::AtMost(1.03),
    },
    Target {
        scenario: "trains",
        text: "CPU per delivery ≤ 1.03 × the floor with send",
        subject: Subject::Ratio(&CPU_PER_DELIVERY, ROOMCAST, SEND),
        bound: Bound::AtMost(1.03),
    },
    Target {
        scenario: "trains",
        text: "p50 ≤ the floor's + 10 %",
        subject: Subject::Ratio(&P50, ROOMCAST, SEND),
        bound: Bound::AtMost(1.1),
    },
    Target {
        scenario: "trains",
        text: "p99 ≤ the floor's + 10 %",
        subject: Subject::Ratio(&P99, ROOMCAST, SEND),
        bound: Bound::AtMost(1.1),
    },
    Target {
        scenario: "stadium",
        text: "one core: CPU per delivery ≤ 0.92 × the coalescing floor with send",
        subject: Subject::Ratio(&CPU_PER_DELIVERY, ROOMCAST, JOINED),
        bound: Bound::AtMost(0.92),
    },
    Target {
        scenario: "stadium",
        text: "two cores: time to last byte ≤ 0.6 × one core's",
        subject: Subject::Ratio(&LAST_BYTE, raw(Contender::Roomcast2), ROOMCAST),
        bound: Bound::AtMost(0.6),
    },
    Target {
        scenario: "lobby",
        text: "CPU per delivery ≤ 1.03 × the floor with send",
        subject: Subject::Ratio(&CPU_PER_DELIVERY, ROOMCAST, SEND),
        bound: Bound::AtMost(1.03),
    },
    Target {
        scenario: "idle",
        text: "≤ 400 B user memory per raw connection",
        subject: Subject::Value(&USER_BYTES, ROOMCAST),
        bound: Bound::AtMost(400.0),
    },
    Target {
        scenario: "idle",
        text: "≤ 600 B user memory per Socket.IO connection",
        subject: Subject::Value(&USER_BYTES, ROOMCAST_SOCKET_IO),
        bound: Bound::AtMost(600.0),
    },
    Target {
        scenario: "storm",
        text: "raw: ≥ 0.95 × the floor's connections per second",
        subject: Subject::Ratio(&CONNECTIONS, ROOMCAST, SEND),
        bound: Bound::AtLeast(0.95),
    },
    Target {
        scenario: "storm",
        text: "Socket.IO: ≥ 10 × the connections per second of Socket.IO on Node",
        subject: Subject::Ratio(&CONNECTIONS, ROOMCAST_SOCKET_IO, socket_io(Contender::SocketIo)),
        bound: Bound::AtLeast(10.0),
    },
    Target { scenario: "slow", text: "no loss", subject: Subject::Losses(ROOMCAST), bound: Bound::AtMost(0.0) },
    Target {
        scenario: "slow",
        text: "p99 of the others within 10 % of firehose's",
        subject: Subject::Ratio(&P99, ROOMCAST, FIREHOSE_BESIDE_SLOW),
        bound: Bound::AtMost(1.1),
    },
];

/// Whether a target is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In the median.
    Met,
    /// In the median, while some repetition missed it.
    MetNotAlways,
    /// In the median.
    Missed,
    /// There is no repetition with everything that it takes.
    NotMeasured,
}

impl Verdict {
    /// For tables.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::MetNotAlways => "met, but not in every repetition",
            Self::Missed => "**missed**",
            Self::NotMeasured => "not measured",
        }
    }
}

impl Target {
    /// True if it cannot be judged without that entry of its scenario.
    #[must_use]
    pub fn needs(&self, entry: &Entry) -> bool {
        match &self.subject {
            Subject::Ratio(_, ours, theirs) => ours == entry || theirs == entry,
            Subject::Value(_, ours) | Subject::Losses(ours) => ours == entry,
        }
    }

    /// What was measured: ratios or values, over the repetitions.
    #[must_use]
    pub fn measured(&self, results: &Results) -> Option<Spread> {
        let scenario = Scenario::from_name(self.scenario)?;
        match &self.subject {
            Subject::Ratio(figure, ours, theirs) => {
                let ours = results.series(scenario, ours, figure);
                Spread::of_series(&ratios(&ours, &results.series(scenario, theirs, figure)))
            }
            Subject::Value(figure, ours) => Spread::of_series(&results.series(scenario, ours, figure)),
            Subject::Losses(ours) => {
                Spread::of(results.of(scenario, ours).filter(|run| run.measurement.is_some()).map(|run| {
                    let losses = run.losses();
                    (losses.lost + losses.duplicates + losses.reordered) as f64
                }))
            }
        }
    }

    /// Whether it is reached. One lost event in one repetition is a loss.
    #[must_use]
    pub fn verdict(&self, results: &Results) -> Verdict {
        let Some(spread) = self.measured(results) else { return Verdict::NotMeasured };
        let always = self.bound.holds(spread.min) && self.bound.holds(spread.max);
        let strict = matches!(self.subject, Subject::Losses(_));
        match (always, self.bound.holds(spread.median)) {
            (true, _) => Verdict::Met,
            (false, true) if !strict => Verdict::MetNotAlways,
            _ => Verdict::Missed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::synthetic::series;
    use super::*;

    fn target(scenario: &str, text: &str) -> &'static Target {
        TARGETS.iter().find(|target| target.scenario == scenario && target.text.contains(text)).unwrap()
    }

    #[test]
    fn targets_name_entries_of_their_scenarios() {
        for target in &TARGETS {
            let scenario = Scenario::from_name(target.scenario).unwrap();
            let named = scenario.entries.iter().filter(|entry| target.needs(entry)).count();
            let expected = if matches!(target.subject, Subject::Ratio(..)) { 2 } else { 1 };
            assert_eq!(named, expected, "{} {}", target.scenario, target.text);
        }
    }

    #[test]
    fn met_and_missed() {
        // (scenario, text, entry and values, its partner and values, verdict)
        type Case<'a> = (&'a str, &'a str, (&'a str, &'a [f64]), (&'a str, &'a [f64]), Verdict);
        let table: [Case; 9] = [
            ("lobby", "CPU", ("roomcast/raw", &[102.0, 204.0]), ("floor-send/raw", &[100.0, 200.0]), Verdict::Met),
            ("lobby", "CPU", ("roomcast/raw", &[104.0, 208.0]), ("floor-send/raw", &[100.0, 200.0]), Verdict::Missed),
            (
                "lobby",
                "CPU",
                ("roomcast/raw", &[102.0, 101.0, 120.0]),
                ("floor-send/raw", &[100.0, 100.0, 100.0]),
                Verdict::MetNotAlways,
            ),
            ("lobby", "CPU", ("roomcast/raw", &[102.0]), ("floor-joined/raw", &[100.0]), Verdict::NotMeasured),
            ("storm", "raw", ("roomcast/raw", &[96.0]), ("floor-send/raw", &[100.0]), Verdict::Met),
            ("storm", "raw", ("roomcast/raw", &[94.0]), ("floor-send/raw", &[100.0]), Verdict::Missed),
            ("storm", "Node", ("roomcast/socket-io", &[900.0]), ("socket.io/socket-io", &[100.0]), Verdict::Missed),
            ("idle", "raw", ("roomcast/raw", &[399.0]), ("floor-send/raw", &[1.0]), Verdict::Met),
            ("idle", "Socket.IO", ("roomcast/socket-io", &[601.0]), ("floor-send/raw", &[1.0]), Verdict::Missed),
        ];
        for (scenario, text, ours, theirs, verdict) in table {
            let target = target(scenario, text);
            let (Subject::Ratio(figure, ..) | Subject::Value(figure, _)) = &target.subject else { unreachable!() };
            let mut results = Results::new();
            series(&mut results, scenario, ours.0, figure.pointer, ours.1);
            series(&mut results, scenario, theirs.0, figure.pointer, theirs.1);
            assert_eq!(target.verdict(&results), verdict, "{scenario} {text} {ours:?}");
        }
    }

    #[test]
    fn one_loss_in_one_repetition_is_a_loss() {
        let target = target("slow", "no loss");
        for (lost, verdict) in [(&[0.0, 0.0, 0.0], Verdict::Met), (&[0.0, 0.0, 1.0], Verdict::Missed)] {
            let mut results = Results::new();
            series(&mut results, "slow", "roomcast/raw", "/lost", lost);
            assert_eq!(target.verdict(&results), verdict);
        }
        // An attempt that measured nothing has not shown that nothing is lost.
        let mut results = Results::new();
        series(&mut results, "slow", "roomcast/raw", "/lost", &[0.0]);
        results.runs[0].measurement = None;
        assert_eq!(target.verdict(&results), Verdict::NotMeasured);
    }
}
