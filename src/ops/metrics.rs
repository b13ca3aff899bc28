//! Publishes the cores' counters to Prometheus. Each core keeps its handles, so that publishing is a store per number.

use crate::base::counters::{BY_REASON, BY_ROOMS, Counters};
use crate::shard::Shard;
use metrics::{Counter, Gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::collections::HashMap;
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

/// Renders what all cores have published.
#[derive(Clone, Debug)]
pub struct Exporter {
    handle: PrometheusHandle,
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
        for metric in Counters::METRICS {
            if metric.gauge {
                metrics::describe_gauge!(metric.name, metric.help);
            } else {
                metrics::describe_counter!(metric.name, metric.help);
            }
        }
        for (name, help) in BY_REASON.iter().chain(BY_ROOMS) {
            metrics::describe_counter!(*name, *help);
        }
        metrics::describe_counter!(
            "roomcast_operator_requests_total",
            "HTTP requests on the operators' port, the API's included, by status."
        );
        metrics::describe_counter!(
            super::admin::CLOSES,
            "Connections on the operators' port closed without an answer, by reason: pushed_out by a new one as all \
             places were taken, no_place, timeout, idle."
        );
        metrics::describe_counter!(RELOADS, "Times that the config was to be read again, by outcome (ok, refused).");
        metrics::describe_gauge!(CONFIG_TIME, "When the config that holds was read, in seconds of Unix time.");
        metrics::describe_gauge!(RESTART_KEYS, "Changes in the config file, as last read, that need a restart.");
        for outcome in ["ok", "refused"] {
            metrics::counter!(RELOADS, "outcome" => outcome).absolute(0);
        }
        metrics::gauge!(RESTART_KEYS).set(0.0);
        metrics::describe_gauge!("roomcast_info", "Always 1; its labels tell the version.");
        metrics::gauge!("roomcast_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        metrics::describe_gauge!("process_resident_memory_bytes", "Memory of the process that is in RAM.");
        metrics::describe_gauge!("process_open_fds", "Descriptors that the process has open.");
        Ok(Exporter { handle })
    }

    /// The Prometheus text of all metrics.
    #[must_use]
    pub fn render(&self) -> String {
        publish_process();
        self.handle.run_upkeep();
        self.handle.render()
    }
}

/// One core's handles.
pub struct CoreMetrics {
    core: String,
    handles: Vec<Handle>,
    by_reason: HashMap<(&'static str, &'static str), Counter>,
    /// In the order of the shard's, which only grows.
    by_rooms: Vec<Counter>,
    values: Vec<u64>,
}

enum Handle {
    Counter(Counter),
    Gauge(Gauge),
}

impl CoreMetrics {
    /// Registers everything that core number `core` counts.
    #[must_use]
    pub fn new(core: usize) -> CoreMetrics {
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
        CoreMetrics { core, handles, by_reason: HashMap::new(), by_rooms: Vec::new(), values: Vec::new() }
    }

    /// Publishes the core's present numbers.
    pub fn publish(&mut self, shard: &mut Shard) {
        shard.counters.values(&mut self.values);
        for (handle, value) in self.handles.iter().zip(&self.values) {
            match handle {
                Handle::Counter(counter) => counter.absolute(*value),
                Handle::Gauge(gauge) => gauge.set(*value as f64),
            }
        }
        for (metric, reason, count) in &shard.counters.by_reason {
            self.by_reason
                .entry((metric, reason))
                .or_insert_with(|| metrics::counter!(*metric, "core" => self.core.clone(), "reason" => *reason))
                .absolute(*count);
        }
        for (index, (metric, outcome, rooms, count)) in shard.counters.by_rooms.iter().enumerate() {
            if index == self.by_rooms.len() {
                let labels =
                    [("core", self.core.clone()), ("outcome", (*outcome).to_owned()), ("rooms", rooms.to_string())];
                self.by_rooms.push(metrics::counter!(*metric, &labels));
            }
            self.by_rooms[index].absolute(*count);
        }
    }
}

/// Reads what the kernel knows about the process. What cannot be read is left as it was.
fn publish_process() {
    let resident = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    if let Some(kilobytes) = resident {
        metrics::gauge!("process_resident_memory_bytes").set((kilobytes << 10) as f64);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        // The directory itself is open while it is read.
        metrics::gauge!("process_open_fds").set(entries.count().saturating_sub(1) as f64);
    }
}
