//! What a core counts: plain integers that only their core touches, listed with name and meaning so that `ops` can
//! publish them. Knows no metrics library.

use super::histogram::{Histogram, Scale};
use super::sketch::Measure;
use std::sync::Arc;

/// One published number of a core.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Prometheus name, with its unit suffix.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// True for a level that also falls; false for a count that only grows.
    pub gauge: bool,
}

macro_rules! counters {
    ($($kind:ident $field:ident $name:literal $help:literal;)*) => {
        /// A core's counts and levels.
        #[derive(Clone, Debug, Default)]
        pub struct Counters {
            $(#[doc = $help] pub $field: u64,)*
            /// Counts by reason: `(metric name, reason, count)`.
            pub by_reason: Vec<(&'static str, &'static str, u64)>,
            /// Counts by outcome and rooms: `(metric name, outcome, pattern of the rooms' names, count)`.
            pub by_rooms: Vec<(&'static str, &'static str, Arc<str>, u64)>,
            /// Distributions.
            pub histograms: Histograms,
            /// What the first rooms of each measure get a second: see [`BY_RANK`].
            pub top_rooms: [[f64; TOP_RANKS]; Measure::COUNT],
        }

        impl Counters {
            /// Name and meaning of each value of [`Counters::values`].
            pub const METRICS: &'static [Metric] =
                &[$(Metric { name: $name, help: $help, gauge: counters!(@gauge $kind) },)*];

            /// The values, in the order of [`Counters::METRICS`].
            pub fn values(&self, out: &mut Vec<u64>) {
                out.clear();
                out.extend([$(self.$field,)*]);
            }
        }
    };
    (@gauge gauge) => { true };
    (@gauge count) => { false };
}

/// One published distribution of a core.
#[derive(Clone, Copy, Debug)]
pub struct HistogramMetric {
    /// Prometheus name. Several that follow each other may share one, and differ by their label.
    pub name: &'static str,
    /// Name and value.
    pub label: Option<(&'static str, &'static str)>,
    /// What it is about, of all that share the name.
    pub help: &'static str,
    /// Its bounds.
    pub scale: Scale,
}

macro_rules! histograms {
    ($($field:ident $name:ident $([$label:literal $value:literal])?, $scale:expr;)*) => {
        /// A core's distributions.
        #[derive(Clone, Debug, Default)]
        pub struct Histograms {
            $(#[doc = concat!("Of `", stringify!($name), "`.")] pub $field: Histogram,)*
        }

        impl Histograms {
            /// What each value of [`Histograms::all`] is.
            pub const METRICS: &'static [HistogramMetric] = &[$(HistogramMetric {
                name: $name.0,
                label: histograms!(@label $($label $value)?),
                help: $name.1,
                scale: $scale,
            },)*];

            /// The distributions, in the order of [`Histograms::METRICS`].
            pub fn all(&self) -> impl Iterator<Item = &Histogram> {
                [$(&self.$field,)*].into_iter()
            }
        }
    };
    (@label) => { None };
    (@label $label:literal $value:literal) => { Some(($label, $value)) };
}

const TURN: (&str, &str) =
    ("roomcast_turn_seconds", "Time that turns of the core's loop took, of those that did something.");
const STAGE: (&str, &str) = (
    "roomcast_stage_seconds",
    "Time that events took, by stage: owner, from their line's coming in until their room's owner had them; member, \
     from there to the outboxes of a core's members; socket, from there until all of these sockets that take bytes had \
     them; total, all of it. Of one event in 64, and of each that comes 10 ms or more after the last such one.",
);
const SEND_FRAMES: (&str, &str) = ("roomcast_send_frames", "Frames that one send to a WebSocket completed.");
const BATCH_SENDS: (&str, &str) = ("roomcast_batch_sends", "Sends that one call to the kernel carried.");
const RING: (&str, &str) = (
    "roomcast_ring_messages",
    "Messages found in the fullest ring to this core, or for itself, by plane: publish, to owners; deliver, to \
     members. In one of 17 turns, if there were any.",
);

histograms! {
    turn TURN, Scale::Seconds;
    stage_owner STAGE ["stage" "owner"], Scale::Seconds;
    stage_member STAGE ["stage" "member"], Scale::Seconds;
    stage_socket STAGE ["stage" "socket"], Scale::Seconds;
    stage_total STAGE ["stage" "total"], Scale::Seconds;
    send_frames SEND_FRAMES, Scale::Numbers(13);
    batch_sends BATCH_SENDS, Scale::Numbers(9);
    ring_publish RING ["plane" "publish"], Scale::Numbers(14);
    ring_deliver RING ["plane" "deliver"], Scale::Numbers(14);
}

/// Rooms of each measure whose figures are published: a rank is a label, a room's name never is.
pub const TOP_RANKS: usize = 5;

/// By [`Measure::index`]: a metric with a `rank` label, and its meaning.
pub const BY_RANK: [(&str, &str); Measure::COUNT] = [
    (
        "roomcast_top_room_deliveries_per_second",
        "Deliveries a second in the core's busiest rooms by that, by rank; over the last 8 to 16 s.",
    ),
    (
        "roomcast_top_room_bytes_per_second",
        "Bytes delivered a second in the core's busiest rooms by that, by rank; over the last 8 to 16 s.",
    ),
    (
        "roomcast_top_room_lag_bytes_per_second",
        "Bytes a second that came to members who lagged, in the core's rooms with most of that, by rank; over the last \
         8 to 16 s.",
    ),
];

counters! {
    count accepted "roomcast_connections_accepted_total" "TCP connections accepted, clients and publishers.";
    count accepts_paced "roomcast_accepts_paced_total" "Turns that left connections in the backlog for the next ones.";
    gauge connections_unheard "roomcast_connections_unheard" "Client connections now that have not sent a request yet.";
    gauge connections "roomcast_connections" "Client TCP connections open now.";
    gauge publishers "roomcast_publishers" "Publisher TCP connections open now.";
    gauge sessions_socket_io "roomcast_sessions_socket_io" "Engine.IO sessions open now.";
    gauge sessions_polling "roomcast_sessions_polling" "Engine.IO sessions over long-polling now.";
    gauge sessions_raw "roomcast_sessions_raw" "Raw WebSocket sessions open now.";
    gauge sockets "roomcast_sockets" "Sockets connected to a namespace now.";
    gauge rooms_owned "roomcast_rooms_owned" "Rooms whose order this core keeps now.";
    gauge rooms_attached "roomcast_rooms_attached" "Rooms with members on this core now, counted once per encoding.";
    count joins "roomcast_joins_total" "Memberships begun.";
    count leaves "roomcast_leaves_total" "Memberships ended, by leaving or by disconnecting.";
    count client_messages "roomcast_client_messages_total" "Messages received from clients, heartbeats excluded.";
    count client_bytes "roomcast_client_received_bytes_total" "Bytes received from clients.";
    count requests "roomcast_http_requests_total" "HTTP requests from clients, good and bad.";
    count polls "roomcast_polls_total" "Long-polling responses with packets.";
    count upgrades "roomcast_upgrades_total" "Sessions that went from long-polling to WebSocket.";
    count handed_over "roomcast_handed_over_total" "Client connections handed to the core of their session.";
    count requests_unsettled "roomcast_requests_unsettled_total" "Requests that may be out of order.";
    count lines "roomcast_ingest_lines_total" "Lines received from publishers, good and bad.";
    count ingest_bytes "roomcast_ingest_received_bytes_total" "Bytes received from publishers.";
    count events_ordered "roomcast_events_total" "Events given an offset, once per room.";
    count snapshots "roomcast_snapshots_total" "Answers to what a room keeps.";
    gauge snapshot_events "roomcast_snapshot_events" "Events that rooms keep now, the last of each key.";
    gauge snapshot_bytes "roomcast_snapshot_bytes" "Bytes of the events that rooms keep now, encodings not counted.";
    count client_emits "roomcast_client_emits_total" "Events published for clients, as a rule said.";
    count encodes "roomcast_encodes_total" "Encodings made: one per event and encoding in use.";
    count deliveries "roomcast_deliveries_total" "Frames appended to a member's outbox.";
    count delivered_bytes "roomcast_delivered_bytes_total" "Bytes appended to members' outboxes.";
    count volatile_dropped "roomcast_volatile_dropped_total" "Volatile frames that a member could not take at once.";
    count asks "roomcast_asks_total" "Events whose publisher asked for acknowledgements.";
    gauge asks_open "roomcast_asks_open" "Events whose publisher waits for acknowledgements now.";
    count asked "roomcast_asked_total" "Sockets asked to acknowledge an event.";
    count acks "roomcast_acks_total" "Acknowledgements that came in time.";
    count acks_ignored "roomcast_acks_ignored_total" "Acknowledgements too late, or not asked for.";
    count acks_missing "roomcast_acks_missing_total" "Acknowledgements that did not come in time.";
    count acks_dropped "roomcast_acks_dropped_total" "Acknowledgements left out of a receipt as it was too large.";
    count tokens_refreshed "roomcast_tokens_refreshed_total" "Tokens that took the place of a socket's former one.";
    count tokens_expired "roomcast_tokens_expired_total" "Sockets disconnected as their token had expired.";
    count sends "roomcast_sends_total" "Sends completed by the kernel.";
    count sent_frames "roomcast_sent_frames_total" "Frames that left completely.";
    count sent_bytes "roomcast_sent_bytes_total" "Bytes accepted by the kernel for clients.";
    count sends_partial "roomcast_sends_partial_total" "Sends of which the kernel took only a part.";
    count sends_blocked "roomcast_sends_blocked_total" "Sends refused because the socket's buffer was full.";
    gauge inbox_bytes "roomcast_inbox_bytes" "Memory of what clients have sent and is not whole, or waits, now.";
    gauge outbox_bytes "roomcast_outbox_bytes" "Bytes waiting in outboxes now, shared frames counted at each holder.";
    gauge outbox_memory_bytes "roomcast_outbox_memory_bytes" "Memory of outboxes now, shared frames once.";
    gauge lagging "roomcast_lagging_sessions" "Sessions whose outbox was full and has not been empty since.";
    gauge ring_slots "roomcast_ring_slots" "Messages that one ring between two cores holds.";
    count ring_full_up "roomcast_ring_full_publish_total" "Messages that waited as the ring to an owner was full.";
    count ring_full_down "roomcast_ring_full_deliver_total" "Messages that waited as the ring to a member was full.";
    count kernel_retries "roomcast_kernel_retries_total" "Submissions repeated for want of memory or space.";
    count wakes "roomcast_wakes_total" "Sleeping cores woken by this one.";
    count turns "roomcast_turns_total" "Turns of the core's loop.";
    count sleeps "roomcast_sleeps_total" "Times the core's loop went to sleep.";
    count panics "roomcast_panics_total" "Panics caught while handling one connection; the connection was closed.";
}

/// Metrics with a `reason` label, and their meaning.
pub const BY_REASON: &[(&str, &str)] = &[
    (CLOSES, "Client connections closed, by reason."),
    (LINE_ERRORS, "Publisher lines refused, by reason."),
    (HTTP_REFUSED, "HTTP requests refused before a session began, by reason."),
    (ACCEPT_ERRORS, "Failed accepts, by error."),
    (SOCKET_ERRORS, "Socket errors, by error."),
    (RULE_REFUSALS, "Client messages refused, by reason."),
    (AUTH_REFUSALS, "Tokens refused, missing ones included, by reason."),
    (CLIENT_ERRORS, "Clients that broke their protocol, by reason."),
    (PUBLISHER_CLOSES, "Publisher connections closed, by reason."),
    (SNAPSHOT_EVICTIONS, "Events that rooms no longer keep, by reason."),
];

/// Metrics with an `outcome` and a `rooms` label, and their meaning. The latter is a pattern of names from the config,
/// so that clients cannot make up labels; `*` if there is none.
pub const BY_ROOMS: &[(&str, &str)] = &[(
    SLOW_CONSUMERS,
    "What became of slow consumers, by outcome (disconnect, shed: connections; dropped, conflated: events) and \
     pattern of rooms.",
)];

/// What operators' limits refused, with a `limit` label: the limit's key in the config. It is counted from
/// [`BY_REASON`], so that one number tells of a limit whatever it refuses.
pub const LIMIT_REFUSALS: (&str, &str) =
    ("roomcast_limit_refusals_total", "What a limit of the config refused, by the limit's key.");

/// See [`BY_REASON`].
pub const CLOSES: &str = "roomcast_closes_total";
/// See [`BY_REASON`].
pub const LINE_ERRORS: &str = "roomcast_ingest_errors_total";
/// See [`BY_REASON`].
pub const HTTP_REFUSED: &str = "roomcast_http_refused_total";
/// See [`BY_REASON`].
pub const ACCEPT_ERRORS: &str = "roomcast_accept_errors_total";
/// See [`BY_REASON`].
pub const SOCKET_ERRORS: &str = "roomcast_socket_errors_total";
/// See [`BY_REASON`].
pub const RULE_REFUSALS: &str = "roomcast_rule_refusals_total";
/// See [`BY_REASON`].
pub const AUTH_REFUSALS: &str = "roomcast_auth_refusals_total";
/// See [`BY_REASON`].
pub const CLIENT_ERRORS: &str = "roomcast_client_errors_total";
/// See [`BY_REASON`].
pub const PUBLISHER_CLOSES: &str = "roomcast_publisher_closes_total";
/// See [`BY_ROOMS`].
pub const SLOW_CONSUMERS: &str = "roomcast_slow_consumers_total";
/// See [`BY_REASON`].
pub const SNAPSHOT_EVICTIONS: &str = "roomcast_snapshot_evictions_total";

/// What operators' limits and lists refuse has a reason of its own each: those are what to look for before a limit is
/// changed. Where a limit's answer is a close, its reason is counted in [`CLOSES`] as well.
pub mod limits {
    /// In [`HTTP_REFUSED`](super::HTTP_REFUSED): a connection beyond `connections_per_ip_max`.
    pub const CONNECTIONS_PER_IP: &str = "connections_per_ip";
    /// In [`HTTP_REFUSED`](super::HTTP_REFUSED): a handshake beyond `handshakes_per_ip_per_s`.
    pub const HANDSHAKES_PER_IP: &str = "handshakes_per_ip";
    /// In [`HTTP_REFUSED`](super::HTTP_REFUSED): a handshake beyond `handshakes_per_s`.
    pub const HANDSHAKES: &str = "handshakes";
    /// In [`HTTP_REFUSED`](super::HTTP_REFUSED): nothing, or not all of a head, within `handshake_ms_max`.
    pub const HANDSHAKE_TIMEOUT: &str = "handshake_timeout";
    /// In [`HTTP_REFUSED`](super::HTTP_REFUSED): a body that took longer than `request_body_ms_max`.
    pub const BODY_TIMEOUT: &str = "body_timeout";
    /// In [`RULE_REFUSALS`](super::RULE_REFUSALS), or [`HTTP_REFUSED`](super::HTTP_REFUSED) for a request: a part of
    /// something that is not whole, beyond `inboxes_bytes_max`.
    pub const INBOXES_BYTES: &str = "inboxes_bytes";
    /// In [`RULE_REFUSALS`](super::RULE_REFUSALS): an event beyond `events_per_socket_per_s`.
    pub const EVENTS_PER_SOCKET: &str = "events_per_socket";
    /// In [`RULE_REFUSALS`](super::RULE_REFUSALS): a `CONNECT` beyond what `events_per_socket_per_s` makes of it.
    pub const CONNECTS: &str = "connects";
    /// In [`RULE_REFUSALS`](super::RULE_REFUSALS): a `CONNECT` whose payload is too large to be kept.
    pub const AUTH_BYTES: &str = "auth_bytes";
    /// In [`RULE_REFUSALS`](super::RULE_REFUSALS): a namespace beyond `namespaces_per_client_max`.
    pub const NAMESPACES: &str = "too_many_namespaces";
    /// In [`RULE_REFUSALS`](super::RULE_REFUSALS): a room beyond `rooms_per_socket_max`.
    pub const ROOMS_PER_SOCKET: &str = "rooms_per_socket";
    /// In [`RULE_REFUSALS`](super::RULE_REFUSALS): a room's name that is too long, or none.
    pub const ROOM_NAME: &str = "room_name";

    /// Counts by reason, each with the key of the limit that it is about: see
    /// [`LIMIT_REFUSALS`](super::LIMIT_REFUSALS).
    pub const KEYS: [(&str, &str, &str); 20] = [
        (super::HTTP_REFUSED, CONNECTIONS_PER_IP, "connections_per_ip_max"),
        (super::HTTP_REFUSED, HANDSHAKES_PER_IP, "handshakes_per_ip_per_s"),
        (super::HTTP_REFUSED, HANDSHAKES, "handshakes_per_s"),
        (super::HTTP_REFUSED, HANDSHAKE_TIMEOUT, "handshake_ms_max"),
        (super::HTTP_REFUSED, BODY_TIMEOUT, "request_body_ms_max"),
        (super::HTTP_REFUSED, "too_long", "http_head_bytes_max"),
        (super::HTTP_REFUSED, "body_too_long", "message_bytes_max"),
        (super::CLIENT_ERRORS, "too_big", "message_bytes_max"),
        (super::CLIENT_ERRORS, "too_large", "packet_bytes_max"),
        (super::CLIENT_ERRORS, "too_many_attachments", "attachments_max"),
        (super::HTTP_REFUSED, INBOXES_BYTES, "inboxes_bytes_max"),
        (super::RULE_REFUSALS, INBOXES_BYTES, "inboxes_bytes_max"),
        (super::RULE_REFUSALS, EVENTS_PER_SOCKET, "events_per_socket_per_s"),
        (super::RULE_REFUSALS, CONNECTS, "events_per_socket_per_s"),
        (super::RULE_REFUSALS, AUTH_BYTES, "auth_bytes"),
        (super::RULE_REFUSALS, NAMESPACES, "namespaces_per_client_max"),
        (super::RULE_REFUSALS, ROOMS_PER_SOCKET, "rooms_per_socket_max"),
        (super::RULE_REFUSALS, ROOM_NAME, "room_name_bytes_max"),
        (super::CLOSES, "slow consumer", "outbox_bytes_max"),
        (super::CLOSES, "slow consumer, memory short", "outboxes_bytes_max"),
    ];
}

impl Counters {
    /// Adds one to `metric` at `reason`. For rare things: it searches.
    ///
    /// # Panics
    /// If `metric` is not listed in [`BY_REASON`].
    pub fn count(&mut self, metric: &'static str, reason: &'static str) {
        self.count_many(metric, reason, 1);
    }

    /// Adds `more` to `metric` at `reason`; nothing if that is zero.
    ///
    /// # Panics
    /// As [`Counters::count`].
    pub fn count_many(&mut self, metric: &'static str, reason: &'static str, more: u64) {
        if more == 0 {
            return;
        }
        match self.by_reason.iter_mut().find(|(m, r, _)| *m == metric && *r == reason) {
            Some((_, _, count)) => *count += more,
            None => {
                assert!(BY_REASON.iter().any(|(name, _)| *name == metric), "{metric} is not listed");
                self.by_reason.push((metric, reason, more));
            }
        }
    }

    /// Says how often `outcome` has been met in the rooms of that pattern so far. It searches, so not for each time.
    ///
    /// # Panics
    /// If `metric` is not listed in [`BY_ROOMS`].
    pub fn set_for_rooms(&mut self, metric: &'static str, outcome: &'static str, rooms: &Arc<str>, count: u64) {
        match self.by_rooms.iter_mut().find(|(m, o, r, _)| *m == metric && *o == outcome && r == rooms) {
            Some(entry) => entry.3 = count,
            None if count == 0 => {}
            None => {
                assert!(BY_ROOMS.iter().any(|(name, _)| *name == metric), "{metric} is not listed");
                self.by_rooms.push((metric, outcome, rooms.clone(), count));
            }
        }
    }
}
