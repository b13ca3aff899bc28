//! The numbers that the operators' page shows, read from the text of the metrics: what each core does now, how it went
//! in the last minutes, what was refused lately. Bounded, whatever happens. Does not know who looks at it, nor the
//! clock.

use super::reply::quoted;
use crate::base::counters;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::rc::Rc;

/// Points of the past that are kept: five minutes while somebody looks.
pub const POINTS_MAX: usize = 300;
/// And none is older than this.
const POINTS_MS_MAX: u64 = 300_000;
/// Incidents that are kept.
pub const INCIDENTS_MAX: usize = 64;
/// What is refused for the same reason within this time is one incident: otherwise five reasons in a flood would fill
/// the list with the last 13 seconds.
const INCIDENT_MS: u64 = 10_000;

/// What is told of each core: its name on the page, and the metric.
pub const OF_CORES: [(&str, &str); 14] = [
    ("connections", "roomcast_connections"),
    ("publishers", "roomcast_publishers"),
    ("polling", "roomcast_sessions_polling"),
    ("sockets", "roomcast_sockets"),
    ("rooms", "roomcast_rooms_owned"),
    ("events", "roomcast_events_total"),
    ("deliveries", "roomcast_deliveries_total"),
    ("sends", "roomcast_sends_total"),
    ("frames", "roomcast_sent_frames_total"),
    ("bytes", "roomcast_sent_bytes_total"),
    ("waiting_bytes", "roomcast_outbox_bytes"),
    ("memory_bytes", "roomcast_outbox_memory_bytes"),
    ("lagging", "roomcast_lagging_sessions"),
    // Of the turns that did something: over time it is the core's load.
    ("busy_s", "roomcast_turn_seconds_sum"),
];
/// The ones whose sums over the cores are kept for the past.
const OF_PAST: [&str; 5] = ["connections", "events", "deliveries", "bytes", "waiting_bytes"];
/// Whose reasons are told, and what the page calls it.
pub const OF_REFUSALS: [(&str, &str); 6] = [
    ("request", counters::HTTP_REFUSED),
    ("message", counters::RULE_REFUSALS),
    ("token", counters::AUTH_REFUSALS),
    ("line", counters::LINE_ERRORS),
    ("protocol", counters::CLIENT_ERRORS),
    ("accept", counters::ACCEPT_ERRORS),
];
/// What the page calls what became of slow consumers.
const SLOW: &str = "slow consumer";
const MEMORY: &str = "process_resident_memory_bytes";

/// The numbers at one time.
#[derive(Debug, Default, PartialEq)]
struct Sample {
    /// Of each core, in the order of [`OF_CORES`].
    cores: Vec<[f64; OF_CORES.len()]>,
    /// Of the process.
    memory_bytes: f64,
    /// By kind and reason, over all cores.
    refused: BTreeMap<(&'static str, String), f64>,
    /// By pattern of rooms and outcome, over all cores.
    slow: BTreeMap<(String, String), f64>,
}

/// Something that happened within a short time for one reason.
#[derive(Debug)]
struct Incident {
    /// When it was seen first, and last. Milliseconds since 1970.
    from: u64,
    until: u64,
    kind: &'static str,
    reason: String,
    count: f64,
}

/// What there is to show.
#[derive(Debug, Default)]
pub struct Board {
    last: Sample,
    past: VecDeque<(u64, [f64; OF_PAST.len()])>,
    incidents: VecDeque<Incident>,
    /// How often the numbers were taken.
    version: u64,
    message: Rc<str>,
}

impl Board {
    /// Takes the numbers from Prometheus text. `at` is in milliseconds since 1970; `status` says how the server is.
    pub fn take(&mut self, metrics: &str, at: u64, status: &str) {
        let sample = Sample::read(metrics);
        let nothing = |count: Option<&f64>| count.copied().unwrap_or(0.0);
        for ((kind, reason), count) in &sample.refused {
            let more = count - nothing(self.last.refused.get(&(kind, reason.clone())));
            note(&mut self.incidents, at, kind, Cow::Borrowed(reason), more);
        }
        for (whose, count) in &sample.slow {
            let more = count - nothing(self.last.slow.get(whose));
            note(&mut self.incidents, at, SLOW, Cow::Owned(format!("{} in {}", whose.1, whose.0)), more);
        }
        self.past.push_back((at, sample.past()));
        while self.past.len() > POINTS_MAX || self.past.front().is_some_and(|(then, _)| then + POINTS_MS_MAX < at) {
            self.past.pop_front();
        }
        let mut message = format!("{{\"type\":\"stats\",\"at\":{at},\"status\":\"{status}\",");
        sample.write(&mut message);
        let new = self.incidents.iter().filter(|incident| incident.until == at);
        let _ = write!(message, ",\"incidents\":{}}}", incidents(new));
        self.message = message.into();
        self.last = sample;
        self.version += 1;
    }

    /// Changes whenever the numbers were taken; 0 before the first time.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When the numbers were taken last.
    #[must_use]
    pub fn taken_at(&self) -> Option<u64> {
        self.past.back().map(|(at, _)| *at)
    }

    /// The numbers as they were taken last, and what has happened since the time before. JSON.
    #[must_use]
    pub fn message(&self) -> Rc<str> {
        self.message.clone()
    }

    /// The past, for somebody who begins to look: members of a JSON object, with a comma before them.
    #[must_use]
    pub fn past(&self) -> String {
        let fields = OF_PAST.map(|name| format!("\"{name}\"")).join(",");
        let point = |(at, values): &(u64, [f64; OF_PAST.len()])| format!("[{at},{}]", values.map(number).join(","));
        let points = self.past.iter().map(point).collect::<Vec<_>>().join(",");
        let incidents = incidents(self.incidents.iter());
        format!(",\"fields\":[\"at\",{fields}],\"points\":[{points}],\"incidents\":{incidents}")
    }
}

fn note(incidents: &mut VecDeque<Incident>, at: u64, kind: &'static str, reason: Cow<'_, str>, more: f64) {
    if more <= 0.0 {
        return;
    }
    let same = |incident: &&mut Incident| incident.kind == kind && incident.reason == reason;
    match incidents.iter_mut().rev().find(same).filter(|incident| at < incident.from + INCIDENT_MS) {
        Some(incident) => {
            incident.count += more;
            incident.until = at;
        }
        None => {
            if incidents.len() == INCIDENTS_MAX {
                incidents.pop_front();
            }
            incidents.push_back(Incident { from: at, until: at, kind, reason: reason.into_owned(), count: more });
        }
    }
}

fn incidents<'a>(which: impl Iterator<Item = &'a Incident>) -> String {
    let one = |Incident { from, until, kind, reason, count }: &Incident| {
        let (reason, count) = (quoted(reason), number(*count));
        format!("{{\"from\":{from},\"until\":{until},\"kind\":\"{kind}\",\"reason\":{reason},\"count\":{count}}}")
    };
    format!("[{}]", which.map(one).collect::<Vec<_>>().join(","))
}

/// As JSON has it, which knows no infinities.
fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { "0".to_owned() }
}

impl Sample {
    fn read(metrics: &str) -> Sample {
        let mut sample = Sample::default();
        for (name, labels, value) in metrics.lines().filter_map(series) {
            if name == MEMORY {
                sample.memory_bytes = value;
            } else if let Some(at) = OF_CORES.iter().position(|(_, metric)| *metric == name) {
                let core: Option<usize> = label(labels, "core").and_then(|core| core.parse().ok());
                if let Some(core) = core.filter(|core| *core < CORES_MAX) {
                    if core >= sample.cores.len() {
                        sample.cores.resize(core + 1, [0.0; OF_CORES.len()]);
                    }
                    sample.cores[core][at] = value;
                }
            } else if let Some((kind, _)) = OF_REFUSALS.iter().find(|(_, metric)| *metric == name) {
                let reason = label(labels, "reason").unwrap_or_default();
                *sample.refused.entry((kind, reason)).or_default() += value;
            } else if name == counters::SLOW_CONSUMERS {
                let of = |name| label(labels, name).unwrap_or_default();
                *sample.slow.entry((of("rooms"), of("outcome"))).or_default() += value;
            }
        }
        sample
    }

    fn past(&self) -> [f64; OF_PAST.len()] {
        OF_PAST.map(|name| {
            let at = OF_CORES.iter().position(|(own, _)| *own == name).expect("the past is of what is told of cores");
            self.cores.iter().map(|core| core[at]).sum()
        })
    }

    fn write(&self, out: &mut String) {
        let core = |values: &[f64; OF_CORES.len()]| {
            let one = |((name, _), value): (&(&str, &str), &f64)| format!("\"{name}\":{}", number(*value));
            format!("{{{}}}", OF_CORES.iter().zip(values).map(one).collect::<Vec<_>>().join(","))
        };
        let refused = |((kind, reason), count): (&(&str, String), &f64)| {
            format!("{{\"kind\":\"{kind}\",\"reason\":{},\"count\":{}}}", quoted(reason), number(*count))
        };
        let slow = |((rooms, outcome), count): (&(String, String), &f64)| {
            let (rooms, outcome) = (quoted(rooms), quoted(outcome));
            format!("{{\"rooms\":{rooms},\"outcome\":{outcome},\"count\":{}}}", number(*count))
        };
        let _ = write!(
            out,
            "\"memory_bytes\":{},\"cores\":[{}],\"refused\":[{}],\"slow\":[{}]",
            number(self.memory_bytes),
            self.cores.iter().map(core).collect::<Vec<_>>().join(","),
            self.refused.iter().map(refused).collect::<Vec<_>>().join(","),
            self.slow.iter().map(slow).collect::<Vec<_>>().join(","),
        );
    }
}

/// More than any machine has.
const CORES_MAX: usize = 4096;

/// A line of the text: name, labels without braces, value.
fn series(line: &str) -> Option<(&str, &str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (key, value) = line.rsplit_once(' ')?;
    let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
    Some((name, labels.strip_suffix('}')?, value.parse().ok()?))
}

/// The value of a label, without its escapes (Prometheus exposition formats, "Comments, help text, and type
/// information").
fn label(labels: &str, name: &str) -> Option<String> {
    let mut rest = labels;
    loop {
        let (own, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        if own == name {
            return Some(value);
        }
        rest = after[end + 1..].strip_prefix(',')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const TEXT: &str = "# TYPE roomcast_deliveries_total counter\n\
        roomcast_deliveries_total{core=\"0\"} 7\n\
        roomcast_deliveries_total{core=\"1\"} 5\n\
        roomcast_outbox_bytes{core=\"1\"} 2.5\n\
        roomcast_http_refused_total{core=\"0\",reason=\"host\"} 1\n\
        roomcast_http_refused_total{core=\"1\",reason=\"host\"} 2\n\
        roomcast_slow_consumers_total{core=\"0\",outcome=\"dropped\",rooms=\"a\\\"b,c=\\\"*\"} 4\n\
        roomcast_turn_seconds_bucket{core=\"0\",le=\"+Inf\"} 9\n\
        process_resident_memory_bytes 1048576\n\
        something else\n";

    fn told(board: &Board) -> Value {
        serde_json::from_str(&board.message()).unwrap()
    }

    #[test]
    fn the_numbers_are_those_of_the_metrics() {
        let mut board = Board::default();
        board.take(TEXT, 1000, "ready");
        let message = told(&board);
        assert_eq!(
            (&message["type"], &message["status"], &message["at"]),
            (&"stats".into(), &"ready".into(), &1000.into())
        );
        let cores = message["cores"].as_array().unwrap();
        let of = |name: &str| cores.iter().map(|core| core[name].as_f64().unwrap()).collect::<Vec<_>>();
        assert_eq!(
            (of("deliveries"), of("waiting_bytes"), of("events")),
            (vec![7.0, 5.0], vec![0.0, 2.5], vec![0.0; 2])
        );
        assert_eq!(message["memory_bytes"], 1_048_576);
        assert_eq!(message["refused"], serde_json::json!([{"kind": "request", "reason": "host", "count": 3}]));
        let slow = serde_json::json!([{"rooms": "a\"b,c=\"*", "outcome": "dropped", "count": 4}]);
        assert_eq!(message["slow"], slow);
        assert_eq!(message["incidents"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn every_metric_that_is_read_is_there() {
        let all = crate::ops::metrics::all();
        let names: Vec<&str> = all.iter().map(|metric| metric.name).collect();
        let of_refusals = OF_REFUSALS.iter().map(|(_, metric)| *metric);
        for metric in OF_CORES.iter().map(|(_, metric)| *metric).chain(of_refusals).chain([MEMORY]) {
            // A distribution's sum has a name of its own.
            let metric = metric.strip_suffix("_sum").unwrap_or(metric);
            assert!(names.contains(&metric), "{metric}");
        }
    }

    #[test]
    fn what_was_refused_is_told_once_and_kept_for_newcomers() {
        let mut board = Board::default();
        let text =
            |count: usize| format!("roomcast_auth_refusals_total{{core=\"0\",reason=\"token_expired\"}} {count}\n");
        let past = |board: &Board| serde_json::from_str::<Value>(&format!("{{\"x\":1{}}}", board.past())).unwrap();
        // (when, how many so far, what is told then: from and count)
        for (at, count, expected) in [
            (1000, 0, None),
            (2000, 3, Some((2000, 3))),
            (3000, 3, None),
            (4000, 5, Some((2000, 5))),
            (11_999, 6, Some((2000, 6))),
            (12_000, 8, Some((12_000, 2))),
        ] {
            board.take(&text(count), at, "ready");
            let told = &told(&board)["incidents"];
            let one = |(from, count)| {
                let (kind, reason) = ("token", "token_expired");
                serde_json::json!({"from": from, "until": at, "kind": kind, "reason": reason, "count": count})
            };
            let expected: Vec<Value> = expected.map(one).into_iter().collect();
            assert_eq!(*told, Value::Array(expected), "{at}");
        }
        assert_eq!(past(&board)["incidents"].as_array().unwrap().len(), 2);
        for n in 0..1000 {
            let reason = format!("roomcast_client_errors_total{{core=\"0\",reason=\"r{n}\"}} 1\n");
            board.take(&reason, 20_000 + n, "ready");
        }
        let past = past(&board);
        assert_eq!(past["incidents"].as_array().unwrap().len(), INCIDENTS_MAX);
        assert_eq!(past["incidents"][INCIDENTS_MAX - 1]["reason"], "r999");
        assert_eq!(past["points"].as_array().unwrap().len(), POINTS_MAX);
    }

    #[test]
    fn the_past_is_forgotten() {
        let mut board = Board::default();
        for at in [0, 100_000, 300_000, 300_001] {
            board.take(TEXT, at, "ready");
        }
        let past: Value = serde_json::from_str(&format!("{{\"x\":1{}}}", board.past())).unwrap();
        let expected = |at: u64| serde_json::json!([at, 0, 0, 12, 0, 2.5]);
        assert_eq!(past["points"], Value::Array([100_000, 300_000, 300_001].map(expected).into()));
        assert_eq!(
            past["fields"],
            serde_json::json!(["at", "connections", "events", "deliveries", "bytes", "waiting_bytes"])
        );
    }
}
