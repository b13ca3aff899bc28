//! Publishes what the cores count to Prometheus. Each core keeps its handles, so that publishing is a store per number.
//! Distributions are rendered here: the library's grow until somebody reads them.

pub mod reference;

use crate::base::counters::{BY_RANK, BY_REASON, BY_ROOMS, Counters, Histograms, LIMIT_REFUSALS, TOP_RANKS, limits};
use crate::base::histogram::{BUCKETS, Histogram, Scale};
use crate::shard::Shard;
use metrics::{Counter, Gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// By `outcome`.
const RELOADS: &str = "roomcast_config_reloads_total";
const CONFIG_TIME: &str = "roomcast_config_last_good_timestamp_seconds";
const RESTART_KEYS: &str = "roomcast_config_restart_keys";

/// The config was read just now, and holds.
pub fn config_holds() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    metrics::gauge!(CONFIG_TIME).set(now);
}

/// The config was to be read again: `ok`, with so many changes that need a restart, or `refused`.
pub fn count_reload(outcome: &'static str, restart_keys: usize) {
    metrics::counter!(RELOADS, "outcome" => outcome).increment(1);
    if outcome == "ok" {
        metrics::gauge!(RESTART_KEYS).set(restart_keys as f64);
    }
}

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// A level.
    Gauge,
    /// A distribution.
    Histogram,
}

/// What is known about a metric before anything is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name, with its unit.
    pub name: &'static str,
    /// What it is to Prometheus.
    pub kind: Kind,
    /// Its labels.
    pub labels: Vec<&'static str>,
    /// What it counts.
    pub help: &'static str,
}

const CPU_TIME: &str = "process_cpu_seconds_total";

/// What the cores don't count.
const OTHERS: [(&str, Kind, &[&str], &str); 13] = [
    (
        "roomcast_operator_requests_total",
        Kind::Counter,
        &["status"],
        "HTTP requests on the operators' port, the API's included, by status.",
    ),
    (
        super::admin::CLOSES,
        Kind::Counter,
        &["reason"],
        "Connections on the operators' port closed without an answer, by reason: pushed_out by a new one as all places \
         were taken, no_place, timeout, idle; of the page's: live_slow, live_silent, or the rule of WebSockets that \
         was broken.",
    ),
    (RELOADS, Kind::Counter, &["outcome"], "Times that the config was to be read again, by outcome: ok, refused."),
    (CONFIG_TIME, Kind::Gauge, &[], "When the config that holds was read, in seconds of Unix time."),
    (RESTART_KEYS, Kind::Gauge, &[], "Changes in the config file, as last read, that need a restart."),
    ("roomcast_info", Kind::Gauge, &["version"], "Always 1; its labels tell the version."),
    ("roomcast_cores", Kind::Gauge, &[], "Cores that serve."),
    ("process_start_time_seconds", Kind::Gauge, &[], "When the process started, in Unix time."),
    (CPU_TIME, Kind::Counter, &[], "Processor time that the process took, the kernel's for it included."),
    ("process_resident_memory_bytes", Kind::Gauge, &[], "Memory of the process that is in RAM."),
    ("process_virtual_memory_bytes", Kind::Gauge, &[], "Addresses of the process that mean something."),
    ("process_open_fds", Kind::Gauge, &[], "Descriptors that the process has open."),
    ("process_max_fds", Kind::Gauge, &[], "Descriptors that the process may have open."),
];

/// Every metric that there is.
#[must_use]
pub fn all() -> Vec<Described> {
    let mut all: Vec<Described> = Vec::new();
    let mut add = |name, kind, labels: &[&'static str], help| {
        if all.last().is_none_or(|last| last.name != name) {
            all.push(Described { name, kind, labels: labels.to_vec(), help });
        }
    };
    for metric in Counters::METRICS {
        add(metric.name, if metric.gauge { Kind::Gauge } else { Kind::Counter }, &["core"], metric.help);
    }
    for (name, help) in BY_REASON {
        add(name, Kind::Counter, &["core", "reason"], help);
    }
    for (name, help) in BY_ROOMS {
        add(name, Kind::Counter, &["core", "outcome", "rooms"], help);
    }
    add(LIMIT_REFUSALS.0, Kind::Counter, &["core", "limit"], LIMIT_REFUSALS.1);
    for (name, help) in BY_RANK {
        add(name, Kind::Gauge, &["core", "rank"], help);
    }
    for metric in Histograms::METRICS {
        let own = metric.label.map(|(label, _)| label);
        add(metric.name, Kind::Histogram, &["core"].into_iter().chain(own).collect::<Vec<_>>(), metric.help);
    }
    for (name, kind, labels, help) in OTHERS {
        add(name, kind, labels, help);
    }
    all
}

/// Renders what all cores have published.
#[derive(Clone, Debug)]
pub struct Exporter {
    handle: PrometheusHandle,
    /// By core.
    histograms: Arc<Mutex<Vec<Arc<CoreHistograms>>>>,
}

impl Exporter {
    /// Installs the process's recorder. Once per process.
    ///
    /// # Errors
    /// A recorder is installed already.
    pub fn install() -> Result<Exporter, String> {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| error.to_string())?;
        for metric in all() {
            match metric.kind {
                Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
                Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
                Kind::Histogram => {}
            }
        }
        metrics::gauge!("roomcast_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        for outcome in ["ok", "refused"] {
            metrics::counter!(RELOADS, "outcome" => outcome).absolute(0);
        }
        metrics::gauge!(RESTART_KEYS).set(0.0);
        if let Ok(since) = SystemTime::now().duration_since(UNIX_EPOCH) {
            metrics::gauge!("process_start_time_seconds").set(since.as_secs_f64());
        }
        Ok(Exporter { handle, histograms: Arc::default() })
    }

    /// Registers everything that the next core counts: they come in the order of their numbers.
    #[must_use]
    pub fn add_core(&self) -> CoreMetrics {
        let mut all = self.histograms.lock().unwrap_or_else(PoisonError::into_inner);
        let histograms = Arc::new(CoreHistograms::default());
        let core = all.len();
        all.push(histograms.clone());
        metrics::gauge!("roomcast_cores").set(all.len() as f64);
        CoreMetrics::new(core, histograms)
    }

    /// The Prometheus text of all metrics.
    #[must_use]
    pub fn render(&self) -> String {
        publish_process();
        self.handle.run_upkeep();
        let mut text = self.handle.render();
        render_cpu_time(&mut text);
        let cores = self.histograms.lock().unwrap_or_else(PoisonError::into_inner);
        render_histograms(&mut text, &cores);
        text
    }
}

/// One core's distributions, as last published.
#[derive(Debug)]
struct CoreHistograms(Vec<Distribution>);

#[derive(Debug, Default)]
struct Distribution {
    counts: [AtomicU64; BUCKETS + 1],
    sum: AtomicU64,
}

impl Default for CoreHistograms {
    fn default() -> CoreHistograms {
        CoreHistograms(Histograms::METRICS.iter().map(|_| Distribution::default()).collect())
    }
}

impl Distribution {
    fn publish(&self, histogram: &Histogram) {
        for (published, count) in self.counts.iter().zip(histogram.counts()) {
            published.store(*count, Ordering::Relaxed);
        }
        self.sum.store(histogram.sum(), Ordering::Relaxed);
    }
}

/// Appends the distributions of all cores, by the text format's rules for histograms: buckets count whatever is not
/// above their bound, and the last, which has none, is the count.
fn render_histograms(text: &mut String, cores: &[Arc<CoreHistograms>]) {
    let put = |text: &mut String, line: std::fmt::Arguments<'_>| text.write_fmt(line).expect("a String takes it all");
    let mut last = "";
    for (index, metric) in Histograms::METRICS.iter().enumerate() {
        let name = metric.name;
        if name != last {
            put(text, format_args!("# HELP {name} {}\n# TYPE {name} histogram\n", metric.help));
            last = name;
        }
        for (core, histograms) in cores.iter().enumerate() {
            let own = metric.label.map(|(label, value)| format!(",{label}=\"{value}\"")).unwrap_or_default();
            let labels = format!("core=\"{core}\"{own}");
            let Distribution { counts, sum } = &histograms.0[index];
            let mut below = 0;
            for (bound, count) in counts.iter().enumerate().take(metric.scale.bounds()) {
                below += count.load(Ordering::Relaxed);
                let bound = bound_of(metric.scale, bound);
                put(text, format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {below}\n"));
            }
            let beyond = counts[metric.scale.bounds()..].iter().map(|count| count.load(Ordering::Relaxed));
            let count = below + beyond.sum::<u64>();
            let sum = sum.load(Ordering::Relaxed);
            put(text, format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n"));
            match metric.scale {
                Scale::Seconds => put(text, format_args!("{name}_sum{{{labels}}} {}\n", sum as f64 / 1e9)),
                Scale::Numbers(_) => put(text, format_args!("{name}_sum{{{labels}}} {sum}\n")),
            }
            put(text, format_args!("{name}_count{{{labels}}} {count}\n"));
        }
        if Histograms::METRICS.get(index + 1).is_none_or(|next| next.name != name) {
            text.push('\n');
        }
    }
}

/// The bound of a bucket, as its label says it.
fn bound_of(scale: Scale, bucket: usize) -> f64 {
    let bound = (1u64 << bucket) as f64;
    match scale {
        Scale::Seconds => bound / 1e6,
        Scale::Numbers(_) => bound,
    }
}

/// One core's handles.
pub struct CoreMetrics {
    core: String,
    handles: Vec<Handle>,
    /// In the order of the shard's, which only grows: each with the limit that it is about, by position in `limits`.
    by_reason: Vec<(Counter, Option<usize>)>,
    /// As above.
    by_rooms: Vec<Counter>,
    limits: Vec<Limit>,
    top_rooms: Vec<[Gauge; TOP_RANKS]>,
    histograms: Arc<CoreHistograms>,
    values: Vec<u64>,
}

enum Handle {
    Counter(Counter),
    Gauge(Gauge),
}

struct Limit {
    key: &'static str,
    counter: Counter,
    /// A place to add up.
    sum: u64,
}

impl CoreMetrics {
    fn new(core: usize, histograms: Arc<CoreHistograms>) -> CoreMetrics {
        let core = core.to_string();
        let handles = Counters::METRICS
            .iter()
            .map(|metric| {
                if metric.gauge {
                    Handle::Gauge(metrics::gauge!(metric.name, "core" => core.clone()))
                } else {
                    Handle::Counter(metrics::counter!(metric.name, "core" => core.clone()))
                }
            })
            .collect();
        let mut limits: Vec<Limit> = Vec::new();
        for (_, _, key) in limits::KEYS {
            if !limits.iter().any(|limit| limit.key == key) {
                let counter = metrics::counter!(LIMIT_REFUSALS.0, "core" => core.clone(), "limit" => key);
                limits.push(Limit { key, counter, sum: 0 });
            }
        }
        let gauge = |name: &'static str, rank: usize| {
            let rank = (rank + 1).to_string();
            metrics::gauge!(name, "core" => core.clone(), "rank" => rank)
        };
        let top_rooms = BY_RANK.iter().map(|(name, _)| std::array::from_fn(|rank| gauge(name, rank))).collect();
        CoreMetrics {
            core,
            handles,
            by_reason: Vec::new(),
            by_rooms: Vec::new(),
            limits,
            top_rooms,
            histograms,
            values: Vec::new(),
        }
    }

    /// Publishes the core's present numbers.
    pub fn publish(&mut self, shard: &mut Shard) {
        let counters = &shard.counters;
        counters.values(&mut self.values);
        for (handle, value) in self.handles.iter().zip(&self.values) {
            match handle {
                Handle::Counter(counter) => counter.absolute(*value),
                Handle::Gauge(gauge) => gauge.set(*value as f64),
            }
        }
        for (distribution, histogram) in self.histograms.0.iter().zip(counters.histograms.all()) {
            distribution.publish(histogram);
        }
        for (gauges, rates) in self.top_rooms.iter().zip(&counters.top_rooms) {
            gauges.iter().zip(rates).for_each(|(gauge, rate)| gauge.set(*rate));
        }
        self.publish_reasons(counters);
        for (index, (metric, outcome, rooms, count)) in counters.by_rooms.iter().enumerate() {
            if index == self.by_rooms.len() {
                let labels =
                    [("core", self.core.clone()), ("outcome", (*outcome).to_owned()), ("rooms", rooms.to_string())];
                self.by_rooms.push(metrics::counter!(*metric, &labels));
            }
            self.by_rooms[index].absolute(*count);
        }
    }

    fn publish_reasons(&mut self, counters: &Counters) {
        self.limits.iter_mut().for_each(|limit| limit.sum = 0);
        for (index, (metric, reason, count)) in counters.by_reason.iter().enumerate() {
            if index == self.by_reason.len() {
                let counter = metrics::counter!(*metric, "core" => self.core.clone(), "reason" => *reason);
                let key = limits::KEYS.iter().find(|(m, r, _)| (m, r) == (metric, reason)).map(|(_, _, key)| *key);
                let limit = key.and_then(|key| self.limits.iter().position(|limit| limit.key == key));
                self.by_reason.push((counter, limit));
            }
            let (counter, limit) = &self.by_reason[index];
            counter.absolute(*count);
            if let Some(limit) = limit {
                self.limits[*limit].sum += count;
            }
        }
        self.limits.iter().for_each(|limit| limit.counter.absolute(limit.sum));
    }
}

/// Appends the process's time, which has parts of seconds: the library's counters have none.
fn render_cpu_time(text: &mut String) {
    // proc_pid_stat(5): behind the name, which ends with the last bracket, the fields begin with the third.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u64>().ok());
    let described = OTHERS.iter().find(|(name, ..)| *name == CPU_TIME);
    if let (Some(user), Some(system), Some((name, _, _, help))) = (field(14), field(15), described) {
        // The kernel tells ticks of 10 ms, whatever its own are.
        let seconds = (user + system) as f64 / 100.0;
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {seconds}\n\n"));
    }
}

/// Reads what the kernel knows about the process. What cannot be read is left as it was.
fn publish_process() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (field, name) in [("VmRSS:", "process_resident_memory_bytes"), ("VmSize:", "process_virtual_memory_bytes")] {
        let text = status.lines().find_map(|line| line.strip_prefix(field));
        if let Some(kilobytes) = text.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()) {
            metrics::gauge!(name).set((kilobytes << 10) as f64);
        }
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        // The directory itself is open while it is read.
        metrics::gauge!("process_open_fds").set(entries.count().saturating_sub(1) as f64);
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    if let Some(max) = open_files.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok()) {
        metrics::gauge!("process_max_fds").set(max as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_rendered_by_the_formats_rules() {
        let cores = [Arc::new(CoreHistograms::default()), Arc::new(CoreHistograms::default())];
        let mut histogram = Histogram::default();
        [1, 3, 300, 100_000].into_iter().for_each(|frames| histogram.note(frames));
        let at = |name: &str, label| {
            let is = |metric: &&crate::base::counters::HistogramMetric| (metric.name, metric.label) == (name, label);
            Histograms::METRICS.iter().position(|metric| is(&metric)).unwrap()
        };
        cores[1].0[at("roomcast_batch_sends", None)].publish(&histogram);
        let mut times = Histogram::default();
        [900, 1_500, 20_000_000_000].into_iter().for_each(|ns| times.note_ns(ns));
        cores[0].0[at("roomcast_stage_seconds", Some(("stage", "total")))].publish(&times);
        let mut text = String::new();
        render_histograms(&mut text, &cores);
        for line in [
            "# TYPE roomcast_batch_sends histogram",
            "roomcast_batch_sends_bucket{core=\"1\",le=\"1\"} 1",
            "roomcast_batch_sends_bucket{core=\"1\",le=\"2\"} 1",
            "roomcast_batch_sends_bucket{core=\"1\",le=\"4\"} 2",
            "roomcast_batch_sends_bucket{core=\"1\",le=\"256\"} 2",
            "roomcast_batch_sends_bucket{core=\"1\",le=\"+Inf\"} 4",
            "roomcast_batch_sends_sum{core=\"1\"} 100304",
            "roomcast_batch_sends_count{core=\"1\"} 4",
            "roomcast_batch_sends_count{core=\"0\"} 0",
            "roomcast_stage_seconds_bucket{core=\"0\",stage=\"total\",le=\"0.000001\"} 1",
            "roomcast_stage_seconds_bucket{core=\"0\",stage=\"total\",le=\"0.000002\"} 2",
            "roomcast_stage_seconds_bucket{core=\"0\",stage=\"total\",le=\"8.388608\"} 2",
            "roomcast_stage_seconds_bucket{core=\"0\",stage=\"total\",le=\"+Inf\"} 3",
            "roomcast_stage_seconds_sum{core=\"0\",stage=\"total\"} 20.0000024",
        ] {
            assert_eq!(text.lines().filter(|other| *other == line).count(), 1, "{line} in\n{text}");
        }
        assert_eq!(text.matches("# TYPE roomcast_stage_seconds histogram\n").count(), 1);
        assert!(!text.contains("batch_sends_bucket{core=\"1\",le=\"512\"}"), "a batch has at most 256 sends\n{text}");
    }

    #[test]
    fn every_metric_is_described_once() {
        let all = all();
        for (index, metric) in all.iter().enumerate() {
            assert!(all[..index].iter().all(|other| other.name != metric.name), "{} is there twice", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
        }
    }
}
