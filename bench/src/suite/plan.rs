//! What is measured: contenders, scenarios, which contender runs in which scenario, and the figures that each one
//! gives. Tables, and nothing that runs.

use super::targets::TARGETS;

/// A server that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// On one core.
    Roomcast,
    /// On two cores, of which the generator may use one as well.
    Roomcast2,
    /// A ready frame to each member by `send`.
    FloorSend,
    /// The same by batched `io_uring`.
    FloorUring,
    /// All frames of one read from the publisher joined into one `send` per member.
    FloorJoined,
    /// The same by batched `io_uring`.
    FloorJoinedUring,
    /// Socket.IO on Node.
    SocketIo,
    /// `ws` on Node.
    Ws,
    /// Bun, which has uWebSockets inside.
    Bun,
    /// socketioxide, Rust.
    Socketioxide,
    /// NATS' server with its WebSocket listener.
    Nats,
}

impl Contender {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Roomcast,
        Self::Roomcast2,
        Self::FloorSend,
        Self::FloorUring,
        Self::FloorJoined,
        Self::FloorJoinedUring,
        Self::SocketIo,
        Self::Ws,
        Self::Bun,
        Self::Socketioxide,
        Self::Nats,
    ];

    /// As on the command line and in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Roomcast => "roomcast",
            Self::Roomcast2 => "roomcast-2",
            Self::FloorSend => "floor-send",
            Self::FloorUring => "floor-uring",
            Self::FloorJoined => "floor-joined",
            Self::FloorJoinedUring => "floor-joined-uring",
            Self::SocketIo => "socket.io",
            Self::Ws => "ws",
            Self::Bun => "bun",
            Self::Socketioxide => "socketioxide",
            Self::Nats => "nats",
        }
    }

    /// What it is, for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Roomcast => "roomcast",
            Self::Roomcast2 => "roomcast, two cores",
            Self::FloorSend => "floor: send",
            Self::FloorUring => "floor: io_uring",
            Self::FloorJoined => "floor: joined, send",
            Self::FloorJoinedUring => "floor: joined, io_uring",
            Self::SocketIo => "Socket.IO on Node",
            Self::Ws => "ws on Node",
            Self::Bun => "Bun",
            Self::Socketioxide => "socketioxide",
            Self::Nats => "NATS",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|contender| contender.name() == name)
    }

    /// True if it has no protocol work to do, so that it is no server that one could use.
    #[must_use]
    pub fn is_floor(self) -> bool {
        matches!(self, Self::FloorSend | Self::FloorUring | Self::FloorJoined | Self::FloorJoinedUring)
    }

    /// True if it is roomcast.
    #[must_use]
    pub fn is_roomcast(self) -> bool {
        matches!(self, Self::Roomcast | Self::Roomcast2)
    }

    /// Cores that it is given.
    #[must_use]
    pub fn cores(self) -> usize {
        if self == Self::Roomcast2 { 2 } else { 1 }
    }
}

/// What clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// JSON in WebSocket frames.
    Raw,
    /// Socket.IO over WebSocket.
    SocketIo,
    /// NATS' protocol in WebSocket frames.
    Nats,
}

impl Dialect {
    /// As the generator calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::SocketIo => "socket-io",
            Self::Nats => "nats",
        }
    }
}

/// A contender in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub contender: Contender,
    /// What its clients speak.
    pub dialect: Dialect,
    /// The generator's scenario, if it is another than the one that the entry stands in.
    pub load: Option<&'static str>,
}

impl Entry {
    /// What results call it: contender, dialect, and its load if that is another than its scenario's.
    #[must_use]
    pub fn key(&self) -> String {
        let base = format!("{}/{}", self.contender.name(), self.dialect.name());
        self.load.map_or(base.clone(), |load| format!("{base}/{load}"))
    }

    /// For tables and charts.
    #[must_use]
    pub fn title(&self) -> String {
        let mut title = self.contender.title().to_owned();
        let roomcast_or_floor = self.contender.is_roomcast() || self.contender.is_floor();
        match self.dialect {
            Dialect::SocketIo if roomcast_or_floor => title.push_str(" (Socket.IO)"),
            Dialect::Raw if self.contender.is_roomcast() => title.push_str(" (raw)"),
            _ => {}
        }
        if let Some(load) = self.load {
            title.push_str(&format!(", in {load}"));
        }
        title
    }
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Costs and times.
    Lower,
    /// Rates.
    Higher,
}

/// How numbers of a figure are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds of CPU.
    CpuNs,
    /// Microseconds that somebody waits.
    Us,
    /// Bytes.
    Bytes,
    /// So many a second.
    PerSecond,
}

/// A number of a measurement.
#[derive(Debug, PartialEq, Eq)]
pub struct Figure {
    /// Where it stands in the generator's JSON (RFC 6901).
    pub pointer: &'static str,
    /// For tables.
    pub name: &'static str,
    /// How it is written.
    pub unit: Unit,
    /// Which way is better.
    pub better: Better,
    /// True if it is compared with others' and with earlier results. A single worst case is shown, no more.
    pub compared: bool,
}

const fn figure(pointer: &'static str, name: &'static str, unit: Unit, better: Better) -> Figure {
    Figure { pointer, name, unit, better, compared: true }
}

/// CPU of the server and of ksoftirqd for one event at one member.
pub static CPU_PER_DELIVERY: Figure = figure("/cpu_ns_per_delivery", "CPU per delivery", Unit::CpuNs, Better::Lower);
static CPU_PER_EVENT: Figure = figure("/cpu_ns_per_event", "CPU per event", Unit::CpuNs, Better::Lower);
static CPU_PER_CONNECTION: Figure = figure("/cpu_ns_per_connection", "CPU per connection", Unit::CpuNs, Better::Lower);
static DELIVERIES: Figure = figure("/deliveries_per_s", "deliveries/s", Unit::PerSecond, Better::Higher);
static EVENTS: Figure = figure("/events_per_s", "events/s", Unit::PerSecond, Better::Higher);
/// Connections opened and joined in a second.
pub static CONNECTIONS: Figure = figure("/connections_per_s", "connections/s", Unit::PerSecond, Better::Higher);
static CONNECT_P99: Figure = figure("/connect_us/p99", "connect p99", Unit::Us, Better::Lower);
/// From publish to the generator's read, half of all deliveries.
pub static P50: Figure = figure("/latency_us/p50", "p50", Unit::Us, Better::Lower);
/// The same, 99 of 100 deliveries.
pub static P99: Figure = figure("/latency_us/p99", "p99", Unit::Us, Better::Lower);
static P999: Figure = figure("/latency_us/p999", "p99.9", Unit::Us, Better::Lower);
static MAX: Figure =
    Figure { pointer: "/latency_us/max", name: "max", unit: Unit::Us, better: Better::Lower, compared: false };
/// From publish until the last member has read it, half of all events.
pub static LAST_BYTE: Figure = figure("/last_byte_us/p50", "last byte p50", Unit::Us, Better::Lower);
static LAST_BYTE_P99: Figure = figure("/last_byte_us/p99", "last byte p99", Unit::Us, Better::Lower);
/// Memory of the process for each connection.
pub static USER_BYTES: Figure = figure("/user_bytes", "user memory", Unit::Bytes, Better::Lower);
static KERNEL_BYTES: Figure = figure("/kernel_bytes", "kernel memory", Unit::Bytes, Better::Lower);

/// A load, who bears it, and what is looked at.
#[derive(Debug)]
pub struct Scenario {
    /// As the generator calls it.
    pub name: &'static str,
    /// What happens, in a line.
    pub work: &'static str,
    /// Seconds of load; those that have no duration ignore it.
    pub seconds: f64,
    /// Who runs, in the order of the first repetition: what is divided by each other stands together.
    pub entries: &'static [Entry],
    /// What the others are divided by; of each dialect if there is one, else the raw one.
    pub reference: Option<Entry>,
    /// The columns of its table.
    pub figures: &'static [&'static Figure],
    /// The parts of its chart.
    pub charted: &'static [&'static Figure],
}

const fn raw(contender: Contender) -> Entry {
    Entry { contender, dialect: Dialect::Raw, load: None }
}

const fn socket_io(contender: Contender) -> Entry {
    Entry { contender, dialect: Dialect::SocketIo, load: None }
}

const NATS: Entry = Entry { contender: Contender::Nats, dialect: Dialect::Nats, load: None };
/// `slow` without anybody slow, so that the two stand next to each other in time.
pub const FIREHOSE_BESIDE_SLOW: Entry =
    Entry { contender: Contender::Roomcast, dialect: Dialect::Raw, load: Some("firehose") };

/// All scenarios, in the order of a repetition.
pub static SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "trains",
        work: "50 rooms of 200 sockets, 100 events/s in all, 200 B each: what an event costs when there is time",
        seconds: 5.0,
        entries: &[
            raw(Contender::FloorSend),
            raw(Contender::Roomcast),
            socket_io(Contender::Roomcast),
            raw(Contender::FloorUring),
            socket_io(Contender::SocketIo),
            raw(Contender::Ws),
            raw(Contender::Bun),
            socket_io(Contender::Socketioxide),
            NATS,
        ],
        reference: Some(raw(Contender::FloorSend)),
        figures: &[&CPU_PER_DELIVERY, &P50, &P99, &P999, &MAX],
        charted: &[&CPU_PER_DELIVERY, &P99],
    },
    Scenario {
        name: "firehose",
        work: "5 rooms of 200 sockets, 64 events of 200 B always under way: how much goes through",
        seconds: 4.0,
        entries: &[
            raw(Contender::FloorJoined),
            raw(Contender::Roomcast),
            socket_io(Contender::Roomcast),
            socket_io(Contender::FloorJoined),
            raw(Contender::FloorJoinedUring),
            raw(Contender::FloorSend),
            raw(Contender::FloorUring),
            raw(Contender::Roomcast2),
            socket_io(Contender::SocketIo),
            raw(Contender::Ws),
            raw(Contender::Bun),
            socket_io(Contender::Socketioxide),
            NATS,
        ],
        reference: Some(raw(Contender::FloorJoined)),
        figures: &[&DELIVERIES, &CPU_PER_DELIVERY, &P50, &P99],
        charted: &[&DELIVERIES, &CPU_PER_DELIVERY],
    },
    Scenario {
        name: "slow",
        work: "firehose, in which 1 % of the members never read: what the other 99 % notice",
        seconds: 4.0,
        entries: &[
            FIREHOSE_BESIDE_SLOW,
            raw(Contender::Roomcast),
            socket_io(Contender::Roomcast),
            socket_io(Contender::SocketIo),
            raw(Contender::Ws),
            raw(Contender::Bun),
            socket_io(Contender::Socketioxide),
            NATS,
        ],
        reference: Some(FIREHOSE_BESIDE_SLOW),
        figures: &[&P99, &P50, &DELIVERIES],
        charted: &[&P99, &DELIVERIES],
    },
    Scenario {
        name: "stadium",
        work: "one room of 10,000 sockets, 4 events always under way: when the last one has it",
        seconds: 4.0,
        entries: &[
            raw(Contender::FloorJoined),
            raw(Contender::Roomcast),
            raw(Contender::Roomcast2),
            socket_io(Contender::Roomcast),
            raw(Contender::FloorJoinedUring),
            socket_io(Contender::SocketIo),
            raw(Contender::Ws),
            raw(Contender::Bun),
            socket_io(Contender::Socketioxide),
            NATS,
        ],
        reference: Some(raw(Contender::FloorJoined)),
        figures: &[&LAST_BYTE, &LAST_BYTE_P99, &DELIVERIES, &CPU_PER_DELIVERY],
        charted: &[&LAST_BYTE, &CPU_PER_DELIVERY],
    },
    Scenario {
        name: "lobby",
        work: "2,500 rooms of 4 sockets, 1,000 events always under way: many small rooms",
        seconds: 4.0,
        entries: &[
            raw(Contender::FloorSend),
            raw(Contender::Roomcast),
            socket_io(Contender::Roomcast),
            raw(Contender::FloorJoined),
            raw(Contender::FloorUring),
            socket_io(Contender::SocketIo),
            raw(Contender::Ws),
            raw(Contender::Bun),
            socket_io(Contender::Socketioxide),
            NATS,
        ],
        reference: Some(raw(Contender::FloorSend)),
        figures: &[&EVENTS, &CPU_PER_EVENT, &P99],
        charted: &[&EVENTS, &CPU_PER_EVENT],
    },
    Scenario {
        name: "idle",
        work: "10,000 sockets that have joined a room and say nothing: memory of each",
        seconds: 1.0,
        entries: &[
            raw(Contender::Roomcast),
            socket_io(Contender::Roomcast),
            raw(Contender::FloorSend),
            socket_io(Contender::SocketIo),
            raw(Contender::Ws),
            raw(Contender::Bun),
            socket_io(Contender::Socketioxide),
            NATS,
        ],
        reference: None,
        figures: &[&USER_BYTES, &KERNEL_BYTES],
        charted: &[&USER_BYTES],
    },
    Scenario {
        name: "storm",
        work: "10,000 sockets connect and join, 500 at a time: after a restart, everybody comes at once",
        seconds: 1.0,
        entries: &[
            raw(Contender::FloorSend),
            raw(Contender::Roomcast),
            socket_io(Contender::FloorSend),
            socket_io(Contender::Roomcast),
            socket_io(Contender::SocketIo),
            raw(Contender::Ws),
            raw(Contender::Bun),
            socket_io(Contender::Socketioxide),
            NATS,
        ],
        reference: Some(raw(Contender::FloorSend)),
        figures: &[&CONNECTIONS, &CONNECT_P99, &CPU_PER_CONNECTION],
        charted: &[&CONNECTIONS, &CONNECT_P99],
    },
];

impl Scenario {
    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// What an entry's figures are divided by.
    #[must_use]
    pub fn reference_for(&self, entry: &Entry) -> Option<Entry> {
        let reference = self.reference?;
        let same_dialect = Entry { dialect: entry.dialect, ..reference };
        Some(if self.entries.contains(&same_dialect) { same_dialect } else { reference })
    }

    /// True if a target or a ratio needs it.
    #[must_use]
    pub fn is_needed(&self, entry: &Entry) -> bool {
        self.reference == Some(*entry)
            || TARGETS.iter().filter(|target| target.scenario == self.name).any(|target| target.needs(entry))
    }
}

/// One measurement to be made.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Counted from 0.
    pub repetition: usize,
    /// Where.
    pub scenario: &'static Scenario,
    /// Who.
    pub entry: Entry,
}

/// What is chosen of all that could be measured.
#[derive(Clone, Debug)]
pub struct Choice {
    /// By name.
    pub scenarios: Vec<&'static Scenario>,
    /// Who takes part.
    pub contenders: Vec<Contender>,
    /// Only what targets and ratios need.
    pub needed_only: bool,
    /// How often.
    pub repetitions: usize,
}

/// Contenders that no target asks about run in one of so many repetitions: their distances are so large that three of
/// five tell them, and the suite takes two thirds of the time.
pub const OTHERS_EVERY: usize = 2;

/// All steps in their order. Each repetition begins with another contender, so that what goes before is not always the
/// same.
#[must_use]
pub fn steps(choice: &Choice) -> Vec<Step> {
    let mut steps = Vec::new();
    for repetition in 0..choice.repetitions {
        let others = !choice.needed_only && repetition % OTHERS_EVERY == 0;
        for &scenario in &choice.scenarios {
            let mut entries: Vec<Entry> = scenario
                .entries
                .iter()
                .filter(|entry| choice.contenders.contains(&entry.contender))
                .filter(|entry| others || scenario.is_needed(entry))
                .copied()
                .collect();
            if entries.is_empty() {
                continue;
            }
            let first = repetition % entries.len();
            entries.rotate_left(first);
            steps.extend(entries.into_iter().map(|entry| Step { repetition, scenario, entry }));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn choice(needed_only: bool, repetitions: usize) -> Choice {
        let scenarios = SCENARIOS.iter().collect();
        Choice { scenarios, contenders: Contender::ALL.to_vec(), needed_only, repetitions }
    }

    #[test]
    fn names_are_unique_and_found() {
        for contender in Contender::ALL {
            assert_eq!(Contender::from_name(contender.name()), Some(contender));
        }
        for scenario in &SCENARIOS {
            assert_eq!(Scenario::from_name(scenario.name).unwrap().name, scenario.name);
            let keys: HashSet<String> = scenario.entries.iter().map(Entry::key).collect();
            assert_eq!(keys.len(), scenario.entries.len(), "{}", scenario.name);
            let titles: HashSet<String> = scenario.entries.iter().map(Entry::title).collect();
            assert_eq!(titles.len(), scenario.entries.len(), "{}", scenario.name);
        }
    }

    #[test]
    fn references_run_in_their_scenarios() {
        for scenario in &SCENARIOS {
            for entry in scenario.entries {
                if let Some(reference) = scenario.reference_for(entry) {
                    assert!(scenario.entries.contains(&reference), "{}", scenario.name);
                }
            }
        }
        let firehose = Scenario::from_name("firehose").unwrap();
        let of = |entry: Entry| firehose.reference_for(&entry).unwrap().key();
        assert_eq!(of(socket_io(Contender::Roomcast)), "floor-joined/socket-io");
        assert_eq!(of(NATS), "floor-joined/raw");
    }

    #[test]
    fn every_scenario_measures_roomcast_and_the_peers() {
        let everybody = [Contender::Roomcast, Contender::SocketIo, Contender::Ws, Contender::Bun];
        for scenario in &SCENARIOS {
            for contender in everybody.iter().chain(&[Contender::Socketioxide, Contender::Nats]) {
                let runs = scenario.entries.iter().any(|entry| entry.contender == *contender);
                assert!(runs, "{} in {}", contender.name(), scenario.name);
            }
        }
    }

    #[test]
    fn each_repetition_begins_with_another_and_has_all() {
        let steps = steps(&choice(false, 5));
        let of = |repetition| {
            let wanted = steps.iter().filter(move |s| s.repetition == repetition && s.scenario.name == "storm");
            wanted.map(|step| step.entry.key()).collect::<Vec<_>>()
        };
        let (first, third, fifth) = (of(0), of(2), of(4));
        assert_eq!(first[2..], third[..third.len() - 2]);
        assert_eq!(first[4], fifth[0]);
        assert_eq!(first.iter().collect::<HashSet<_>>(), third.iter().collect::<HashSet<_>>());
        // What targets need is in every one, and the others are not.
        assert_eq!(of(1).iter().collect::<HashSet<_>>(), of(3).iter().collect::<HashSet<_>>());
        assert!(of(1).contains(&"socket.io/socket-io".to_owned()) && !of(1).contains(&"bun/raw".to_owned()));
    }

    #[test]
    fn a_small_set_has_what_every_target_needs() {
        let steps = steps(&choice(true, 1));
        for target in &TARGETS {
            for scenario in SCENARIOS.iter().filter(|scenario| scenario.name == target.scenario) {
                for entry in scenario.entries.iter().filter(|entry| target.needs(entry)) {
                    let runs = steps.iter().any(|s| s.scenario.name == target.scenario && s.entry == *entry);
                    assert!(runs, "{} {}", target.scenario, entry.key());
                }
            }
        }
        assert!(steps.len() < 30, "{}", steps.len());
        assert!(!steps.iter().any(|step| step.entry.contender == Contender::Nats));
    }
}
