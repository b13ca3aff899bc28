//! The table of all metrics, for `docs/metrics.md`: what each means, and what to do with it. A test holds the file to
//! this.

use super::{Described, Kind, all};
use crate::base::counters::limits;
use std::fmt::Write as _;

/// Metrics that belong together: a title, and each with what to do with it.
type Section = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Every metric stands in one of them.
const SECTIONS: [Section; 11] = [
    (
        "Connections and sessions",
        "Who is here. The kernel spreads connections over cores, so that all should have about as many.",
        &[
            ("roomcast_connections", "Watch it against `process_max_fds` and the memory that a connection takes."),
            ("roomcast_connections_accepted_total", "Its rate far above the usual is a storm of reconnects."),
            (
                "roomcast_accepts_paced_total",
                "Grows in a storm of clients, who are let in between serving the others; all the time: too few cores.",
            ),
            ("roomcast_connections_unheard", "Many that stay: clients, or an attacker, that connect and say nothing."),
            ("roomcast_publishers", "0 means that no backend is connected: nothing will be sent."),
            ("roomcast_sessions_socket_io", "How many clients speak Socket.IO."),
            ("roomcast_sessions_polling", "If many stay, a proxy in between does not pass WebSockets."),
            ("roomcast_sessions_raw", "How many clients have a plain WebSocket."),
            ("roomcast_sockets", "A session in three namespaces has three."),
            ("roomcast_closes_total", "Look at `reason` when clients complain; `slow consumer` has a section below."),
            ("roomcast_client_errors_total", "A new client release that breaks its protocol shows here."),
            ("roomcast_socket_errors_total", "ECONNRESET is everyday life on mobile lines; others are worth a look."),
            ("roomcast_accept_errors_total", "EMFILE or ENFILE: raise `LimitNOFILE`; connections wait meanwhile."),
            ("roomcast_http_requests_total", "The rate of handshakes and polls."),
            ("roomcast_polls_total", "What clients without WebSockets cost."),
            ("roomcast_upgrades_total", "Far below the handshakes: WebSockets do not come through."),
            ("roomcast_handed_over_total", "Many are normal while clients poll on several connections."),
            ("roomcast_requests_unsettled_total", "If it grows, the machine has too little time."),
        ],
    ),
    (
        "Rooms",
        "Where they are. A room's owner orders its events; a core with members of it delivers them.",
        &[
            ("roomcast_rooms_owned", "Far apart between cores with few, large rooms only."),
            ("roomcast_rooms_attached", "What owners have to send to, once per core and encoding."),
            ("roomcast_joins_total", "Joins without leaves at this rate: a leak of rooms in an application."),
            ("roomcast_leaves_total", "See joins."),
            ("roomcast_snapshots_total", "How often clients ask what a room keeps."),
            ("roomcast_snapshot_events", "What the rooms keep."),
            ("roomcast_snapshot_bytes", "Watch it against `rooms.snapshots_bytes_max`."),
            (
                "roomcast_snapshot_evictions_total",
                "`memory` or `keys` means that late comers do not get the whole state: raise the bound.",
            ),
            ("roomcast_top_room_deliveries_per_second", "Names are in `GET /api/top`."),
            ("roomcast_top_room_bytes_per_second", "Names are in `GET /api/top?by=bytes`."),
            (
                "roomcast_top_room_lag_bytes_per_second",
                "Above 0, members of some room do not keep up; names are in `GET /api/top?by=lag`.",
            ),
        ],
    ),
    (
        "Events in",
        "What publishers and clients say.",
        &[
            ("roomcast_ingest_lines_total", "The load that backends make."),
            ("roomcast_ingest_received_bytes_total", "As bytes."),
            ("roomcast_ingest_errors_total", "Any is a bug in a backend: its receipts say what is wrong."),
            ("roomcast_publisher_closes_total", "`auth_timeout` or a refused token: look at that backend's config."),
            ("roomcast_client_messages_total", "What clients say to rules."),
            ("roomcast_client_received_bytes_total", "As bytes."),
            ("roomcast_client_emits_total", "Events that clients cause."),
            ("roomcast_events_total", "Events per second, the main measure of load, by the core that owns the room."),
            ("roomcast_encodes_total", "As many as events by encodings in use; more would be a bug."),
        ],
    ),
    (
        "Deliveries",
        "From owners into members' outboxes.",
        &[
            ("roomcast_deliveries_total", "By events it is the fan-out: members that got each."),
            ("roomcast_delivered_bytes_total", "Minus bytes sent, it is what was dropped or waits."),
            ("roomcast_volatile_dropped_total", "What volatile events are for; many tell of slow clients."),
        ],
    ),
    (
        "Sends",
        "From outboxes into the kernel. Frames that wait together leave in one send, sends in one call.",
        &[
            ("roomcast_sends_total", "The kernel's TCP work, most of the cost of everything."),
            ("roomcast_sent_frames_total", "By sends it is the coalescing: more frames per send are cheaper."),
            ("roomcast_sent_bytes_total", "What goes out, before TCP's own."),
            ("roomcast_sends_partial_total", "Clients whose socket buffer is nearly full."),
            ("roomcast_sends_blocked_total", "Clients whose socket buffer is full."),
            ("roomcast_send_frames", "Grows with load: a core that has no time joins more frames."),
            ("roomcast_batch_sends", "At 256 the core always has more to send than one call takes."),
            ("roomcast_kernel_retries_total", "Memory for sockets is short: see `net.ipv4.tcp_mem`."),
        ],
    ),
    (
        "Time",
        "How busy a core is, and how long an event takes. A core's load is the rate of `roomcast_turn_seconds_sum`.",
        &[
            (
                "roomcast_turn_seconds",
                "Others wait while a turn goes on: long ones are latency for all clients of the core.",
            ),
            (
                "roomcast_stage_seconds",
                "`total` is what clients feel, without the network. Its largest stage says where to look: owner, a \
                 busy owner; member, full rings or busy member cores; socket, more to send than the core has time for.",
            ),
            ("roomcast_turns_total", "A core that spins makes many of them; see `roomcast_turn_seconds` for work."),
            ("roomcast_sleeps_total", "None while it is busy or spins between bursts."),
            ("roomcast_wakes_total", "Each costs some 40 µs on both cores: few under load."),
        ],
    ),
    (
        "Rings between cores",
        "A full ring makes its sender wait, and in the end the publisher, by TCP. Nothing is lost.",
        &[
            ("roomcast_ring_slots", "`mesh.ring_slots`, or what was chosen."),
            ("roomcast_ring_messages", "Near `roomcast_ring_slots` the receiving core is the bottleneck."),
            ("roomcast_ring_full_publish_total", "If it grows, owners do not keep up: publishers are slowed."),
            ("roomcast_ring_full_deliver_total", "If it grows, member cores do not keep up."),
        ],
    ),
    (
        "Memory and slow consumers",
        "What waits for clients that do not read as fast as is sent, and what became of it.",
        &[
            ("roomcast_outbox_bytes", "Grows when clients, or the core, fall behind."),
            ("roomcast_outbox_memory_bytes", "Watch it against `limits.outboxes_bytes_max`."),
            ("roomcast_lagging_sessions", "How many clients are behind now."),
            (
                "roomcast_slow_consumers_total",
                "`disconnect` by the default policy, `dropped` and `conflated` by the rooms' own, `shed` when memory \
                 was short. Many at once: a network in between; always some: their lines are too slow for the rooms.",
            ),
            ("roomcast_inbox_bytes", "Watch it against `limits.inboxes_bytes_max`."),
        ],
    ),
    (
        "Refusals",
        "Each limit and each reason has a count of its own.",
        &[
            (
                "roomcast_limit_refusals_total",
                "Look here before a limit is changed: it grows when clients are refused that should not be, or as an \
                 attack is held off.",
            ),
            ("roomcast_http_refused_total", "Requests that did not become sessions."),
            (
                "roomcast_rule_refusals_total",
                "`event` and `connect` are the rules' own no; others are limits and mistakes.",
            ),
            (
                "roomcast_auth_refusals_total",
                "Much `token_expired`: clients do not refresh; `token_invalid`: a new key that is not here?",
            ),
            ("roomcast_tokens_refreshed_total", "How clients keep their sockets."),
            ("roomcast_tokens_expired_total", "Sockets that did not refresh in time."),
        ],
    ),
    (
        "Acknowledgements",
        "Of events whose publisher asked for them.",
        &[
            ("roomcast_asks_total", "How many events ask."),
            ("roomcast_asks_open", "Lines that wait now."),
            ("roomcast_asked_total", "Sockets that were asked."),
            ("roomcast_acks_total", "By asked it is the share that answers."),
            ("roomcast_acks_missing_total", "Clients that did not answer: slow, gone, or without a handler."),
            ("roomcast_acks_ignored_total", "Late ones: the timeout is too short."),
            ("roomcast_acks_dropped_total", "Ask fewer sockets at once, or for shorter answers."),
        ],
    ),
    (
        "The process and the operators' port",
        "",
        &[
            ("roomcast_info", "Join it to other metrics, or see which versions run."),
            ("roomcast_cores", "Load by cores."),
            (
                "roomcast_config_reloads_total",
                "`refused`: the log says what is wrong in the file; the former one holds.",
            ),
            ("roomcast_config_last_good_timestamp_seconds", "Older than the file: somebody has forgotten to reload."),
            ("roomcast_config_restart_keys", "Above 0, plan a restart: the log names the keys."),
            ("roomcast_panics_total", "Any is a bug of ours: please report it with the log."),
            ("roomcast_operator_requests_total", "Scrapes and uses of the API; 401 and 403 are refused ones."),
            ("roomcast_operator_closes_total", "`pushed_out`: somebody holds many connections to this port."),
            ("process_start_time_seconds", "A change is a restart."),
            ("process_cpu_seconds_total", "Its rate is processors in use; cores that spin count as busy."),
            ("process_resident_memory_bytes", "Watch it against the machine's memory, sockets' buffers not included."),
            ("process_virtual_memory_bytes", "Of no use but to compare."),
            ("process_open_fds", "Each connection takes one."),
            ("process_max_fds", "Raise `LimitNOFILE` before the open ones come near."),
        ],
    ),
];

/// The text of `docs/metrics.md`.
#[must_use]
pub fn reference() -> String {
    let all = all();
    let mut out = String::from(HEAD);
    let mut put = |text: std::fmt::Arguments<'_>| out.write_fmt(text).expect("a String takes it all");
    for (title, about, metrics) in SECTIONS {
        put(format_args!("\n## {title}\n"));
        if !about.is_empty() {
            put(format_args!("\n{about}\n"));
        }
        put(format_args!(
            "\n| metric | type | labels | unit | what it is | what to do with it |\n|---|---|---|---|---|---|\n"
        ));
        for (name, advice) in metrics {
            let Some(metric) = all.iter().find(|metric| metric.name == *name) else {
                unreachable!("a test looks for {name}")
            };
            put(format_args!("{}", row(metric, advice)));
        }
    }
    put(format_args!("\n## Limits\n\n`limit` in `roomcast_limit_refusals_total`, and where else it is counted:\n\n"));
    put(format_args!("| limit | counted in | as `reason` |\n|---|---|---|\n"));
    for (metric, reason, key) in limits::KEYS {
        put(format_args!("| `{key}` | `{metric}` | `{reason}` |\n"));
    }
    out.push_str(TAIL);
    out
}

const HEAD: &str = "\
# Metrics

`GET /metrics` on the operators' port (`ops.listen`, `127.0.0.1:3200`) answers with Prometheus text. This page is
generated from the code; `ROOMCAST_BLESS=1 cargo test --test metrics_reference` writes it anew.

* [`prometheus.yml`](prometheus.yml) is a scrape config to copy, [`alerts.yml`](alerts.yml) alert rules with what to do
  about each, [`grafana-dashboard.json`](grafana-dashboard.json) a dashboard to import (Dashboards, New, Import).
* Every core counts for itself: nearly all metrics have a label `core`, and `sum by (…)` makes one number of them. One
  core that differs from the others is worth a look. Cores publish every 100 ms and before they sleep.
* No label has a room's or a client's name, so the number of series is bounded: some 350 for each core. Which rooms get
  most, by name, says `GET /api/top`.
* A series with `reason`, `outcome` or `status` appears when it has happened for the first time.
* Histograms have bounds by factors of two: a quantile is exact to a factor of two, and mostly much better. Times are in
  seconds.
";

const TAIL: &str = "
## The busiest rooms

`GET /api/top?by=deliveries&limit=10` names the rooms of all namespaces that get most, over the last 8 to 16 s; so does
the publishers' line `{\"op\":\"top\",\"by\":\"deliveries\",\"limit\":10,\"id\":1}`:

```json
{\"ok\":true,\"by\":\"deliveries\",\"seconds\":12.500,\"rooms\":[
  {\"ns\":\"/\",\"room\":\"a\",\"count\":125,\"error\":0,\"per_second\":10.00}]}
```

* `by` is `deliveries` (frames appended to members' outboxes), `bytes` (of these), or `lag`: the bytes of events that
  came to members who lag, whatever became of them: waiting, dropped, conflated, or the member was disconnected. A
  member lags from the event that finds its outbox full (`limits.outbox_bytes_max`) until the outbox is empty again.
* `count` is never too low, and too high by at most `error`: each core keeps the 128 rooms that may count most (a
  space-saving sketch). While a core has to do with fewer, `error` is 0.
* `room` is null for events to all sockets of a namespace. What goes to a single socket by its id is not listed.
* `roomcast_top_room_…_per_second` has the first five of each core, by `rank` and without names.
";

fn row(metric: &Described, advice: &str) -> String {
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let (labels, unit, help) = (labels.join(", "), unit(metric.name), metric.help);
    format!("| `{}` | {kind} | {labels} | {unit} | {help} | {advice} |\n", metric.name)
}

/// As the name says it.
fn unit(name: &str) -> &'static str {
    let name = name.trim_end_matches("_total");
    [("_bytes_per_second", "bytes/s"), ("_per_second", "1/s"), ("_bytes", "bytes"), ("_seconds", "seconds")]
        .into_iter()
        .find(|(end, _)| name.ends_with(end))
        .map_or("count", |(_, unit)| unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::counters::TOP_RANKS;

    #[test]
    fn every_metric_stands_in_one_section() {
        let mut named: Vec<&str> = SECTIONS.iter().flat_map(|(_, _, m)| m.iter().map(|(name, _)| *name)).collect();
        let mut known: Vec<&str> = all().iter().map(|metric| metric.name).collect();
        named.sort_unstable();
        known.sort_unstable();
        let missing: Vec<_> = known.iter().filter(|name| !named.contains(name)).collect();
        assert!(missing.is_empty(), "say in SECTIONS what is to be done with {missing:?}");
        assert_eq!(named, known, "no metric is unknown or named twice");
        assert_eq!(TOP_RANKS, 5, "TAIL says five");
        assert!(!reference().contains("||") && reference().lines().all(|line| !line.ends_with(' ')));
    }
}
