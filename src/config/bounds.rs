//! Every number in the config: its key, its bounds and why they are where they are. Knows no module's Options.

use toml::de::{DeTable, DeValue};

use super::Config;
use super::document::{ConfigError, Document, path};
use crate::base::ids::CORES_MAX;
use crate::base::rate::Rate;
use crate::session::rules::PathStep;

/// A number that operators can set.
pub(crate) struct Number {
    /// The section and the key in it.
    pub(crate) key: &'static str,
    /// The smallest value.
    pub(crate) min: u64,
    /// The largest value.
    pub(crate) max: u64,
    /// What 0 means, if it is no number like the others.
    pub(crate) zero: Option<&'static str>,
    /// The number in a config.
    pub(crate) get: fn(&Config) -> u64,
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// A deadline below this is shorter than a round trip around the world: it would hit healthy clients.
const SHORTEST_MS: u64 = 100;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// No message is larger: one event is held once in each encoding, and a line or message is gathered whole.
const MESSAGE_BYTES_LARGEST: u64 = 64 * MIB;
/// No message bound is smaller: connecting with a token in the auth payload must fit.
const MESSAGE_BYTES_SMALLEST: u64 = KIB;

/// More a second than a machine can take.
const RATE_MAX: u64 = Rate::MAX as u64;

/// Also the bounds of an endpoint's own.
pub(super) const MESSAGE_BYTES_MAX: Number =
    number("limits.message_bytes_max", MESSAGE_BYTES_SMALLEST, MESSAGE_BYTES_LARGEST, |c| {
        c.limits.message_bytes_max as u64
    });

const fn number(key: &'static str, min: u64, max: u64, get: fn(&Config) -> u64) -> Number {
    Number { key, min, max, zero: None, get }
}

/// A limit that 0 switches off.
const fn limit(key: &'static str, max: u64, zero: &'static str, get: fn(&Config) -> u64) -> Number {
    Number { key, min: 0, max, zero: Some(zero), get }
}

const NONE: &str = "none";
const DRAIN_THIRD: &str = "as many as are done in a third of server.drain_ms_max";
const ONE_SECONDS: &str = "as many as come in one second";

/// All of them, in the order of the reference.
pub(crate) const NUMBERS: &[Number] = &[
    // 0 stands for all; more do not fit into socket ids.
    number("server.cores", 0, CORES_MAX as u64, |c| c.server.cores as u64),
    // 0 closes at once. Service managers kill long before an hour is over.
    number("server.drain_ms_max", 0, HOUR_MS, |c| c.server.drain_ms_max),
    // Faster than clients can come back anywhere.
    limit("server.drain_clients_per_s", RATE_MAX, DRAIN_THIRD, |c| c.server.drain_clients_per_s.into()),
    // 0 leaves it to the browser, 5 s. None remembers an answer for more than a day.
    number("cors.max_age_s", 0, DAY_MS / 1000, |c| u64::from(c.cors.max_age_s)),
    // Clocks that differ by more than an hour are wrong, and a token that is over must be over some day.
    number("auth.leeway_s", 0, HOUR_MS / 1000, |c| c.auth.leeway_s),
    number("ingest.line_bytes_max", MESSAGE_BYTES_SMALLEST, MESSAGE_BYTES_LARGEST, |c| c.ingest.line_bytes_max as u64),
    // One receipt with all its offsets should find room; beyond 64 MiB a publisher that does not read is a leak.
    number("ingest.receipt_bytes_max", 4 * KIB, 64 * MIB, |c| c.ingest.receipt_bytes_max as u64),
    // Each room is a message to its owner: a line must not keep a core for long.
    number("ingest.rooms_per_line_max", 1, 100_000, |c| c.ingest.rooms_per_line_max as u64),
    // Who was asked is remembered for as long.
    number("ingest.ack_timeout_ms_max", 1, HOUR_MS, |c| c.ingest.ack_timeout_ms_max),
    MESSAGE_BYTES_MAX,
    // A message of the largest size must fit with its text. A client that never sends the last attachment holds as
    // much.
    number("limits.packet_bytes_max", MESSAGE_BYTES_SMALLEST, 16 * MESSAGE_BYTES_LARGEST, |c| {
        c.limits.packet_bytes_max as u64
    }),
    // 0 refuses binary. Each attachment is a message of its own that is kept until the last one is there.
    number("limits.attachments_max", 0, 10_000, |c| c.limits.attachments_max as u64),
    // Below 1 KiB a browser's own headers do not fit; above 64 KiB a head is an attack.
    number("limits.http_head_bytes_max", KIB, 64 * KIB, |c| c.limits.http_head_bytes_max as u64),
    // Nobody would come in; a whole backlog of the kernel's usual length.
    number("limits.accepts_per_turn", 1, 4096, |c| c.limits.accepts_per_turn as u64),
    number("limits.handshake_ms_max", SHORTEST_MS, 10 * 60_000, |c| c.limits.handshake_ms_max),
    // A message of the largest size over a slow line takes minutes; who takes an hour for a body is not sending one.
    number("limits.request_body_ms_max", SHORTEST_MS, HOUR_MS, |c| c.limits.request_body_ms_max),
    number("limits.keep_alive_ms", SHORTEST_MS, HOUR_MS, |c| c.limits.keep_alive_ms),
    // A packet is compared with each of the client's namespaces.
    number("limits.namespaces_per_client_max", 1, 1024, |c| c.limits.namespaces_per_client_max as u64),
    // It stands in the name of every room of the namespace.
    number("limits.namespace_bytes_max", 1, 4 * KIB, |c| c.limits.namespace_bytes_max as u64),
    // Without a room there is nothing to serve; a socket that goes leaves all of them in one turn.
    number("limits.rooms_per_socket_max", 1, 100_000, |c| c.limits.rooms_per_socket_max as u64),
    // A socket's own room has a name of 20 bytes, which publishers must be able to say.
    number("limits.room_name_bytes_max", 20, 4 * KIB, |c| c.limits.room_name_bytes_max as u64),
    // Below 4 KiB a few small events make a slow consumer; outboxes count their bytes in 32 bits.
    number("limits.outbox_bytes_max", 4 * KIB, 1024 * MIB, |c| u64::from(c.limits.outbox_bytes_max)),
    // Below 1 MiB a few clients between two polls are too much; the upper end is more memory than a machine has.
    Number {
        key: "limits.outboxes_bytes_max",
        min: MIB,
        max: 16 * 1024 * 1024 * MIB,
        zero: Some("no bound"),
        get: |c| c.limits.outboxes_bytes_max,
    },
    // As above; a message that is larger than this never finds room.
    Number {
        key: "limits.inboxes_bytes_max",
        min: MIB,
        max: 16 * 1024 * 1024 * MIB,
        zero: Some("no bound"),
        get: |c| c.limits.inboxes_bytes_max,
    },
    // An address that may have more has no limit worth the name.
    limit("limits.connections_per_ip_max", 1_000_000, NONE, |c| c.limits.connections_per_ip_max.into()),
    limit("limits.handshakes_per_ip_per_s", RATE_MAX, NONE, |c| c.limits.handshakes_per_ip_per_s.into()),
    limit("limits.handshakes_per_ip_burst", RATE_MAX, ONE_SECONDS, |c| c.limits.handshakes_per_ip_burst.into()),
    limit("limits.handshakes_per_s", RATE_MAX, NONE, |c| c.limits.handshakes_per_s.into()),
    limit("limits.handshakes_burst", RATE_MAX, ONE_SECONDS, |c| c.limits.handshakes_burst.into()),
    // A core handles some 100,000 events a second: who lets one socket have a tenth of it needs no limit.
    limit("limits.events_per_socket_per_s", 10_000, NONE, |c| c.limits.events_per_socket_per_s.into()),
    limit("limits.events_per_socket_burst", 10_000, ONE_SECONDS, |c| c.limits.events_per_socket_burst.into()),
    number("heartbeat.ping_interval_ms", SHORTEST_MS, DAY_MS, |c| c.heartbeat.ping_interval_ms),
    number("heartbeat.ping_timeout_ms", SHORTEST_MS, DAY_MS, |c| c.heartbeat.ping_timeout_ms),
    number("heartbeat.connect_timeout_ms", SHORTEST_MS, DAY_MS, |c| c.heartbeat.connect_timeout_ms),
    number("heartbeat.upgrade_timeout_ms", SHORTEST_MS, DAY_MS, |c| c.heartbeat.upgrade_timeout_ms),
    // Below 16 cores wake each other for every message; rings are made in full at start, two per pair of cores.
    Number {
        key: "mesh.ring_slots",
        min: 16,
        max: 65_536,
        zero: Some("chosen by the number of cores"),
        get: |c| c.mesh.ring_slots as u64,
    },
    // A room should outlive the pause of a client that reconnects, or its offsets begin anew.
    number("rooms.idle_ms", SHORTEST_MS, DAY_MS, |c| c.rooms.idle_ms),
    // 0 forgets a room with its last member. Each core may remember as many, with their names.
    number("rooms.idle_max", 0, 10_000_000, |c| c.rooms.idle_max as u64),
    // Each core keeps its part of it, and a room at least one event. 64 GiB is more than a room server should hold.
    number("rooms.snapshots_bytes_max", 64 * KIB, 64 * 1024 * MIB, |c| c.rooms.snapshots_bytes_max as u64),
];

impl Number {
    /// `between 1 and 100000`
    pub(crate) fn bounds(&self) -> String {
        let zero = if self.zero.is_some() && self.min > 0 { "0 or " } else { "" };
        format!("{zero}between {} and {}", self.min, self.max)
    }

    /// Says what would be right if `value` is not.
    fn check(&self, value: &DeValue<'_>) -> Result<(), String> {
        let DeValue::Integer(integer) = value else {
            return Err(format!("must be a whole number, {}", self.bounds()));
        };
        // More digits than an i128 has are certainly beyond the bounds.
        let value = i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX);
        if self.allows(value) { Ok(()) } else { Err(format!("must be {}", self.bounds())) }
    }

    fn allows(&self, value: i128) -> bool {
        (i128::from(self.min)..=i128::from(self.max)).contains(&value) || (self.zero.is_some() && value == 0)
    }
}

/// Checks every number of the file before the file is read as a whole, so that a wrong one is told with its bounds.
pub(super) fn check_numbers(document: &Document, tables: &DeTable<'_>) -> Result<(), ConfigError> {
    for number in NUMBERS {
        if let Some(value) = find(tables, number.key) {
            number.check(value).map_err(|message| document.wrong_value(&path(number.key), message))?;
        }
    }
    let Some(DeValue::Array(endpoints)) = tables.get("endpoint").map(toml::Spanned::get_ref) else { return Ok(()) };
    for (index, endpoint) in endpoints.iter().enumerate() {
        let key = "message_bytes_max";
        if let Some(value) = endpoint.get_ref().get(key) {
            let path = [PathStep::Key("endpoint".into()), PathStep::Index(index), PathStep::Key(key.into())];
            let wrong = |message| document.wrong_value(&path, message);
            MESSAGE_BYTES_MAX.check(value.get_ref()).map_err(wrong)?;
        }
    }
    Ok(())
}

/// The value of a key in a section.
pub(super) fn find<'a, 'i>(tables: &'a DeTable<'i>, key: &str) -> Option<&'a DeValue<'i>> {
    let (section, key) = key.split_once('.')?;
    match tables.get(section)?.get_ref() {
        DeValue::Table(table) => table.get(key).map(toml::Spanned::get_ref),
        _ => None,
    }
}
