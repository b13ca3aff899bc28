//! One measurement's figures, as a JSON object for the suite and as lines for people.

use super::measure::Times;
use serde::Serialize;
use std::fmt;

/// Figures; those that a scenario does not have are absent.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    pub scenario: String,
    pub dialect: String,
    /// Connections that count: all but those that are never read.
    pub sockets: u64,
    pub rooms: u64,
    /// Length of the measured window.
    pub seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliveries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliveries_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ns_per_delivery: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ns_per_event: Option<f64>,
    /// CPU of the server over wall time: 2.0 is two cores.
    pub cpu_share: f64,
    /// CPU of the generator's thread over wall time: 1.0 means that the generator is the limit.
    pub generator_share: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator_ns_per_delivery: Option<f64>,
    /// Share of the used cores' time that neither server, softirq threads nor generator used.
    pub foreign_share: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_byte_us: Option<Percentiles>,
    pub lost: u64,
    pub duplicates: u64,
    pub reordered: u64,
    /// Connections that the server closed; of those that are never read, see `slow_closed`.
    pub closed: u64,
    /// Connections that are never read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<u64>,
    /// Those of them whose end could be seen without reading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_closed: Option<u64>,
    /// Pss of the server for each connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_bytes: Option<f64>,
    /// Kernel memory for each connection, its two ends counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_bytes: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_s: Option<f64>,
    /// From connect() to the confirmation of the join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_us: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ns_per_connection: Option<f64>,
}

/// Of times, in µs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Percentiles {
    /// `None` if there are no times.
    pub fn of(times: &Times) -> Option<Percentiles> {
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
        (!times.is_empty()).then(|| Percentiles { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) })
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Percentiles { p50, p99, p999, max } = self;
        write!(f, "p50 {p50:.0} µs, p99 {p99:.0} µs, p99.9 {p999:.0} µs, max {max:.0} µs")
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {} sockets in {} rooms", self.scenario, self.dialect, self.sockets, self.rooms)?;
        write!(f, ", {:.2} s", self.seconds)?;
        if let (Some(events), Some(deliveries)) = (self.events_per_s, self.deliveries_per_s) {
            write!(f, ", {events:.0} events/s, {deliveries:.0} deliveries/s")?;
        }
        if let (Some(event), Some(delivery)) = (self.cpu_ns_per_event, self.cpu_ns_per_delivery) {
            write!(f, ", CPU {delivery:.0} ns per delivery, {event:.0} ns per event")?;
        }
        if let Some(connections) = self.connections_per_s {
            write!(f, ", {connections:.0} connections/s")?;
        }
        if let Some(connection) = self.cpu_ns_per_connection {
            write!(f, ", CPU {connection:.0} ns per connection")?;
        }
        if let (Some(user), Some(kernel)) = (self.user_bytes, self.kernel_bytes) {
            write!(f, ", {user:.0} B user and {kernel:.0} B kernel memory per connection")?;
        }
        for (name, times) in
            [("latency", self.latency_us), ("last byte", self.last_byte_us), ("joined after", self.connect_us)]
        {
            if let Some(times) = times {
                write!(f, "\n  {name}: {times}")?;
            }
        }
        write!(f, "\n  CPU: server {:.0} %, generator {:.0} %", 100.0 * self.cpu_share, 100.0 * self.generator_share)?;
        if let Some(each) = self.generator_ns_per_delivery {
            write!(f, " ({each:.0} ns per delivery)")?;
        }
        write!(f, ", others {:.1} % of the cores", 100.0 * self.foreign_share)?;
        write!(f, "; {} lost, {} duplicates, ", self.lost, self.duplicates)?;
        write!(f, "{} reordered, {} closed", self.reordered, self.closed)?;
        if let (Some(slow), Some(closed)) = (self.slow, self.slow_closed) {
            write!(f, ", {closed} of {slow} slow ones closed")?;
        }
        Ok(())
    }
}
