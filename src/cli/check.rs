//! `roomcast check`: what a config means, in words. Does not know where the settings go.

use std::fmt::Write as _;
use std::io::Write;

use super::args::Check;
use super::words::Words;
use super::{ask, say};
use crate::base::class::SnapshotOptions;
use crate::config::{Alias, AliasKind, Config, EndpointKind, EndpointShape, NUMBERS, Steer};
use crate::session::rules::{
    ArgsSource, Condition, EmitSource, EventRule, ReplySource, RoomsSource, RulesSource, SlowConsumerSource,
    SnapshotWish, UnknownEvents,
};

/// Longest sentence on a line of its own: terminals rarely show more.
const LINE_CHARS: usize = 100;

/// Prints what the config means, or what would happen to a client.
///
/// # Errors
/// The first mistake in the config or the question.
pub(super) fn run(check: &Check, out: &mut dyn Write) -> Result<(), String> {
    let config = Config::load(&check.file).map_err(|error| error.to_string())?;
    config.check_exposure().map_err(|error| error.to_string())?;
    config.ingest_token().and_then(|_| config.api_token()).map_err(|error| error.to_string())?;
    let identity = config.identity().map_err(|error| error.to_string())?;
    let text = if ask::is_asked(check) {
        ask::answer(check, &config, identity.as_ref().map(|(identity, _)| identity))?
    } else {
        let mut text = format!("{} is a valid config.\n\n{}", check.file.display(), explained(&config));
        if let Some((_, warnings)) = identity.filter(|(_, warnings)| !warnings.is_empty()) {
            let _ = writeln!(text, "\nKey files:\n  {}", warnings.join("\n  "));
        }
        text
    };
    say(out, text.trim_end()).map(|_| ())
}

/// The config in words.
fn explained(config: &Config) -> String {
    let mut text = String::new();
    let cores = match config.server.cores {
        0 => "all cores".to_owned(),
        1 => "1 core".to_owned(),
        cores => format!("{cores} cores"),
    };
    let steer = match config.server.steer {
        Steer::Hash => "",
        Steer::Cpu => ", by processor",
    };
    let public = shown_public(config.server.public);
    let _ = writeln!(text, "clients     {}, on {cores}{steer}{public}", config.server.listen);
    pages_and_proxies(config, &mut text);
    tokens(config, &mut text);
    publishers(config, &mut text);
    let _ = writeln!(text, "operators   {}{}", config.ops.listen, shown_public(config.ops.public));
    api(config, &mut text);
    let _ = writeln!(text, "log         {}, {}\n", config.log.level, config.log.format);
    endpoints(config, &mut text);
    for rules in config.rules() {
        namespace(rules, config.auth.require, &mut text);
    }
    differences(config, &mut text);
    text
}

fn publishers(config: &Config, text: &mut String) {
    let ingest = &config.ingest;
    let token = match &*ingest.token_file {
        "" => String::new(),
        file => format!(", with the token in {file}"),
    };
    let _ = writeln!(text, "publishers  {}{token}", ingest.listen);
    if let Some((path, mode)) = config.unix_socket() {
        let _ = writeln!(text, "            unix:{}, with the mode {mode:04o}", path.display());
    }
}

/// Who may use the HTTP API, and where it is besides.
fn api(config: &Config, text: &mut String) {
    let is_local = config.ops.listen.ip().to_canonical().is_loopback();
    let _ = match (&*config.ops.token_file, is_local) {
        ("", true) => writeln!(text, "api         for programs of this machine, without a token"),
        ("", false) => writeln!(text, "api         none: there is no ops.token_file, and others reach the port"),
        (file, _) => writeln!(text, "api         with the token in {file}"),
    };
    for Alias { path, kind, namespace } in &config.ops.alias {
        let _ = match kind {
            AliasKind::Health => writeln!(text, "            {path} as {}", kind.name()),
            _ => writeln!(text, "            {path} as {}, in namespace {namespace}", kind.name()),
        };
    }
}

fn shown_public(public: bool) -> &'static str {
    if public { "; public = true: whoever reaches it is not authenticated" } else { "" }
}

/// Who is let in and believed beyond the usual.
fn pages_and_proxies(config: &Config, text: &mut String) {
    let cors = &config.cors;
    if !cors.origins.is_empty() {
        let cookies = match (cors.credentials, cors.origins.iter().any(|origin| origin == "*")) {
            (false, _) => "",
            (true, false) => ", with cookies",
            (true, true) => ", with cookies: any page can speak in the name of its visitor",
        };
        let websockets = if cors.check_websockets { "" } else { "; WebSockets of any page" };
        let _ = writeln!(text, "pages       of {}{cookies}{websockets}", cors.origins.join(", "));
    }
    if !config.server.trusted_proxies.is_empty() {
        let _ = writeln!(text, "proxies     {}", config.server.trusted_proxies.join(", "));
    }
}

/// How clients show who they are.
fn tokens(config: &Config, text: &mut String) {
    let auth = &config.auth;
    if auth.key.is_empty() {
        return;
    }
    let mut parts = vec![format!("in {}", auth.sources.join(", else "))];
    for (what, wanted) in [("for", &auth.audience), ("issued by", &auth.issuer)] {
        if !wanted.is_empty() {
            parts.push(format!("{what} {}", wanted.join(" or ")));
        }
    }
    if let Some(event) = &auth.refresh_event {
        parts.push(format!("anew by the event {event:?}"));
    }
    let _ = writeln!(text, "tokens      {}", parts.join("; "));
    for key in &auth.key {
        let kid = key.kid.as_ref().map_or_else(String::new, |kid| format!(", kid {kid:?}"));
        let _ = match (&key.jwks, key.algorithm, &key.file) {
            (Some(file), ..) => writeln!(text, "            verified by the keys in {file}"),
            (None, Some(algorithm), Some(file)) => {
                writeln!(text, "            verified by {file}: {}{kid}", algorithm.name())
            }
            _ => unreachable!("keys were checked"),
        };
    }
}

fn endpoints(config: &Config, text: &mut String) {
    for endpoint in config.endpoints() {
        let _ = match (endpoint.kind, endpoint.shape()) {
            (EndpointKind::SocketIo, _) => write!(text, "{}  Socket.IO, all namespaces", endpoint.path()),
            (EndpointKind::EngineIoEcho, _) => write!(text, "{}  Engine.IO, sends messages back", endpoint.path()),
            (EndpointKind::WebSocketEcho, _) => write!(text, "{}  WebSocket, sends messages back", endpoint.path()),
            (EndpointKind::Raw, EndpointShape::Nested) => write!(
                text,
                "{}  plain WebSocket in namespace {}: {{\"type\":EVENT,\"data\":DATA}}",
                endpoint.path(),
                endpoint.namespace()
            ),
            (EndpointKind::Raw, EndpointShape::Flat) => write!(
                text,
                "{}  plain WebSocket in namespace {}: {{\"type\":EVENT, and the fields of DATA}}",
                endpoint.path(),
                endpoint.namespace()
            ),
        };
        if let Some(bytes) = endpoint.message_bytes_max {
            let _ = write!(text, ", messages up to {bytes} bytes");
        }
        text.push('\n');
    }
}

fn namespace(rules: &RulesSource, require: bool, text: &mut String) {
    let _ = match &rules.pattern {
        None => writeln!(text, "\nnamespace {}", rules.title()),
        Some(pattern) => writeln!(text, "\nevery namespace whose name matches {pattern} as a whole"),
    };
    match (rules.require.unwrap_or(require), require) {
        (true, _) => text.push_str("  No client connects without a valid token.\n"),
        (false, true) => text.push_str("  Clients need no token here.\n"),
        (false, false) => {}
    }
    for class in &rules.rooms {
        rooms(class, text);
    }
    if rules.connect.is_empty() && !rules.require.unwrap_or(require) {
        text.push_str("  Every client may connect.\n");
    }
    let title = match &rules.pattern {
        None => rules.title(),
        Some(_) => "such a namespace",
    };
    for rule in &rules.connect {
        sentence(&format!("connects to {title}"), "may", &rule.to_event_rule(), text);
    }
    for rule in &rules.on {
        sentence(&format!("says {:?}", rule.event), "is heard", rule, text);
    }
    text.push_str(match (rules.on.is_empty(), rules.unknown_events) {
        (true, UnknownEvents::Error) => "  Whatever clients say is refused: there is no [[namespace.on]].\n",
        (true, UnknownEvents::Ignore) => "  Whatever clients say is ignored: there is no [[namespace.on]].\n",
        (false, UnknownEvents::Error) => "  Whatever else clients say is refused.\n",
        (false, UnknownEvents::Ignore) => "  Whatever else clients say is ignored.\n",
    });
}

/// `Rooms route:* keep the last event of each key, …; a member that reads too slowly …`
fn rooms(class: &RoomsSource, text: &mut String) {
    let default = SnapshotOptions::default();
    let mut parts = Vec::new();
    if let Some(snapshot) = &class.snapshot {
        let keys = snapshot.keys_max.unwrap_or(default.keys_max as u64);
        let bytes = snapshot.bytes_max.unwrap_or(default.bytes_max as u64);
        let age = match snapshot.age_ms_max {
            0 => String::new(),
            age => format!(", for {age} ms"),
        };
        parts.push(format!("keep the last event of each key{age}: up to {keys} keys and {bytes} bytes a room"));
    }
    match &class.key {
        Some(key) => parts.push(format!("take {key} for an event's key, unless its line has one")),
        None if class.snapshot.is_some() => parts.push("know only the keys that lines have".to_owned()),
        None => {}
    }
    parts.push(
        match class.slow_consumer {
            SlowConsumerSource::Disconnect => "disconnect a member that reads too slowly",
            SlowConsumerSource::DropOldest => "leave out the oldest events for a member that reads too slowly",
            SlowConsumerSource::Conflate => {
                "leave out all but the newest of each key for a member that reads too slowly"
            }
        }
        .to_owned(),
    );
    let names = if class.r#match.iter().any(|name| name == "*") {
        "All rooms".to_owned()
    } else {
        format!("Rooms {}", class.r#match.join(", "))
    };
    let _ = writeln!(text, "  {names}:\n    {}.", parts.join(";\n    "));
}

/// `An ADMIN who says "x", if C: is refused unless A; joins R; is answered with "y".`
fn sentence(says: &str, plain: &str, rule: &EventRule, text: &mut String) {
    let when = match &rule.when {
        Some(Condition::Expression(when)) => Words::of(when),
        None | Some(Condition::Fixed(_)) => Words::default(),
    };
    let mut subject = match &when.who {
        Some(who) => format!("  {} who {says}", capitalized(who)),
        None => format!("  A client that {says}"),
    };
    if rule.when == Some(Condition::Fixed(false)) {
        subject.push_str(", never");
    }
    if !when.clauses.is_empty() {
        let _ = write!(subject, ", if {}", when.clauses.join(", and "));
    }
    let mut parts = Vec::new();
    let words = rule.error.as_ref().map_or_else(String::new, |error| format!(" with the words {:?}", error.message));
    match &rule.allow {
        None | Some(Condition::Fixed(true)) => {}
        Some(Condition::Fixed(false)) => parts.push(format!("is refused{words}")),
        Some(Condition::Expression(allow)) => {
            parts.push(format!("is refused{words} unless {}", Words::of(allow).clause()))
        }
    }
    let names: Vec<&str> = rule.set.keys().map(String::as_str).collect();
    for (verb, rooms) in [("leaves", &rule.leave), ("joins", &rule.join)] {
        if !rooms.is_empty() {
            parts.push(format!("{verb} {}", rooms.join(", ")));
        }
    }
    if !names.is_empty() {
        parts.push(format!("is remembered with state.{}", names.join(", state.")));
    }
    parts.extend(rule.reply.iter().map(|ReplySource { event, .. }| format!("is answered with {event:?}")));
    match &rule.ack {
        None => {}
        Some(ArgsSource::Text(_)) => parts.push("gets its arguments back as acknowledgement, if it asks".to_owned()),
        Some(ArgsSource::Args(_)) => parts.push("gets an acknowledgement, if it asks".to_owned()),
    }
    match &rule.snapshot {
        None | Some(SnapshotWish::OfJoined(false)) => {}
        Some(SnapshotWish::OfJoined(true)) => {
            parts.push("gets what the joined rooms keep, then what is new in them".to_owned());
        }
        Some(SnapshotWish::OfRoom(room)) => parts.push(format!("is told what {room} keeps")),
    }
    parts.extend(rule.emit.iter().map(emitted));
    if rule.disconnect {
        parts.push("is disconnected".to_owned());
    }
    if parts.is_empty() {
        parts.push(plain.to_owned());
    }
    let one = format!("{subject}{} {}.", if when.clauses.is_empty() { "" } else { "," }, parts[0]);
    if parts.len() == 1 && one.chars().count() <= LINE_CHARS {
        let _ = writeln!(text, "{one}");
    } else {
        let _ = writeln!(text, "{subject}:\n    {}.", parts.join(";\n    "));
    }
}

/// `sends "said" to room:{data.room}, itself excepted`
fn emitted(emit: &EmitSource) -> String {
    let rooms = emit.rooms.as_ref().map_or_else(|| "the whole namespace".to_owned(), |rooms| rooms.join(", "));
    let except = if emit.to_self == Some(false) { ", itself excepted" } else { "" };
    let volatile = if emit.volatile { ", but to nobody who must wait for it" } else { "" };
    format!("sends {:?} to {rooms}{except}{volatile}", emit.event)
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The numbers that are not as in the built-in config.
fn differences(config: &Config, text: &mut String) {
    let default = Config::development();
    let changed: Vec<_> = NUMBERS.iter().filter(|n| (n.get)(config) != (n.get)(&default)).collect();
    text.push_str(if changed.is_empty() { "\nAll limits have their defaults.\n" } else { "\nNot the default:\n" });
    for number in changed {
        let shown = |value: u64| match number.zero {
            Some(meaning) if value == 0 => format!("0, {meaning}"),
            _ => value.to_string(),
        };
        let (value, default) = (shown((number.get)(config)), shown((number.get)(&default)));
        let _ = writeln!(text, "  {} = {value} (default {default})", number.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_config_in_words() {
        assert_eq!(
            explained(&Config::development()),
            r#"clients     127.0.0.1:3000, on all cores
pages       of http://localhost:*, http://127.0.0.1:*
publishers  127.0.0.1:3100
operators   127.0.0.1:3200
api         for programs of this machine, without a token
log         info, auto

/socket.io/  Socket.IO, all namespaces
/ws  plain WebSocket in namespace /: {"type":EVENT,"data":DATA}

namespace /
  Every client may connect.
  A client that says "subscribe":
    is refused unless its room is a string;
    joins {data.room};
    is answered with "subscribed";
    gets an acknowledgement, if it asks.
  A client that says "unsubscribe":
    is refused unless its room is a string;
    leaves {data.room};
    is answered with "unsubscribed";
    gets an acknowledgement, if it asks.
  Whatever else clients say is refused.

All limits have their defaults.
"#
        );
    }

    #[test]
    fn rules_in_words() {
        let text = r#"
            server.trusted_proxies = ["10.0.0.0/8", "::1"]
            server.listen = "0.0.0.0:80"
            server.cores = 2
            server.public = true
            server.steer = "cpu"
            cors = { origins = ["*", "null"], credentials = true, max_age_s = 60, check_websockets = false }
            mesh.ring_slots = 16
            ingest = { listen = "0.0.0.0:3100", token_file = "publish.token", unix = "/run/p.sock", unix_mode = "600" }
            [ops]
            listen = "10.0.0.1:3200"
            public = true
            [[ops.alias]]
            path = "/stats"
            kind = "socket-stats"
            namespace = "/a"
            [[ops.alias]]
            path = "/health"
            kind = "health"
            [[endpoint]]
            kind = "raw"
            shape = "flat"
            [[endpoint]]
            kind = "engine.io-echo"
            message_bytes_max = 2000
            [[endpoint]]
            kind = "websocket-echo"
            [[namespace]]
            name = "/a"
            [[namespace.rooms]]
            match = ["train:*", "x"]
            key = "data.no"
            snapshot = { keys_max = 10, age_ms_max = 60_000 }
            slow_consumer = "conflate"
            [[namespace.rooms]]
            match = ["*"]
            slow_consumer = "drop_oldest"
            [[namespace.connect]]
            when = """
              has(query.a)
              && true
            """
            join = ["a:{query.a}", "all"]
            set = { a = 1, b = 2 }
            [[namespace.connect]]
            when = "claims.role == 'ADMIN'"
            join = ["admin_dashboard"]
            [[namespace.connect]]
            when = "claims.role in ['TTE', 'GUARD'] && has(claims.sub)"
            allow = "claims.sub.startsWith('IR')"
            join = ["tte_{claims.sub}"]
            [[namespace.on]]
            event = "bye"
            disconnect = true
            ack = "{args}"
            [[namespace.on]]
            event = "ping"
            [[namespace.on]]
            event = "look"
            snapshot = "train:{data.no}"
            reply = { event = "seen", data = "{snapshot}" }
            [[namespace.on]]
            event = "say"
            join = ["train:{data.no}"]
            snapshot = true
            emit = [
                { rooms = ["train:{data.no}", "x"], event = "said", data = "{data}", to_self = false },
                { event = "noise", volatile = true },
            ]
            [[namespace.on]]
            event = "no"
            allow = false
            error = { message = "never", data = 1 }
            [[namespace]]
            pattern = "/w-[0-9]+"
            unknown_events = "ignore"
        "#;
        assert_eq!(
            explained(&Config::parse(text, "f").unwrap()),
            r#"clients     0.0.0.0:80, on 2 cores, by processor; public = true: whoever reaches it is not authenticated
pages       of *, null, with cookies: any page can speak in the name of its visitor; WebSockets of any page
proxies     10.0.0.0/8, ::1
publishers  0.0.0.0:3100, with the token in publish.token
            unix:/run/p.sock, with the mode 0600
operators   10.0.0.1:3200; public = true: whoever reaches it is not authenticated
api         none: there is no ops.token_file, and others reach the port
            /stats as socket-stats, in namespace /a
            /health as health
log         info, auto

/ws  plain WebSocket in namespace /: {"type":EVENT, and the fields of DATA}
/engine.io/  Engine.IO, sends messages back, messages up to 2000 bytes
/echo  WebSocket, sends messages back

namespace /
  Every client may connect.
  Whatever clients say is refused: there is no [[namespace.on]].

namespace /a
  Rooms train:*, x:
    keep the last event of each key, for 60000 ms: up to 10 keys and 262144 bytes a room;
    take data.no for an event's key, unless its line has one;
    leave out all but the newest of each key for a member that reads too slowly.
  All rooms:
    leave out the oldest events for a member that reads too slowly.
  A client that connects to /a, if the query's a is given, and true:
    joins a:{query.a}, all;
    is remembered with state.a, state.b.
  An ADMIN who connects to /a joins admin_dashboard.
  A TTE or a GUARD who connects to /a, if the token's sub is given:
    is refused unless the token's sub begins with "IR";
    joins tte_{claims.sub}.
  A client that says "bye":
    gets its arguments back as acknowledgement, if it asks;
    is disconnected.
  A client that says "ping" is heard.
  A client that says "look":
    is answered with "seen";
    is told what train:{data.no} keeps.
  A client that says "say":
    joins train:{data.no};
    gets what the joined rooms keep, then what is new in them;
    sends "said" to train:{data.no}, x, itself excepted;
    sends "noise" to the whole namespace, but to nobody who must wait for it.
  A client that says "no" is refused with the words "never".
  Whatever else clients say is refused.

every namespace whose name matches /w-[0-9]+ as a whole
  Every client may connect.
  Whatever clients say is ignored: there is no [[namespace.on]].

Not the default:
  server.cores = 2 (default 0)
  cors.max_age_s = 60 (default 0)
  mesh.ring_slots = 16 (default 0, chosen by the number of cores)
"#
        );
    }

    #[test]
    fn tokens_in_words() {
        let text = r#"
            server.listen = "0.0.0.0:80"
            [auth]
            require = true
            sources = ["auth.token", "cookie.t"]
            audience = ["a", "b"]
            issuer = ["https://id"]
            refresh_event = "refresh"
            [[auth.key]]
            algorithm = "RS256"
            kid = "1"
            file = "keys/a.pem"
            [[auth.key]]
            jwks = "keys/set"
            [[namespace]]
            name = "/"
            [[namespace]]
            name = "/open"
            require = false
        "#;
        let is = explained(&Config::parse(text, "f").unwrap());
        let start = r#"clients     0.0.0.0:80, on all cores
tokens      in auth.token, else cookie.t; for a or b; issued by https://id; anew by the event "refresh"
            verified by keys/a.pem: RS256, kid "1"
            verified by the keys in keys/set
publishers  127.0.0.1:3100
"#;
        assert!(is.starts_with(start), "{is}");
        assert!(is.contains("namespace /\n  No client connects without a valid token.\n  Whatever"), "{is}");
        assert!(is.contains("namespace /open\n  Clients need no token here.\n  Every"), "{is}");
    }

    #[test]
    fn a_broken_config_is_told_with_its_place() {
        let file = std::env::temp_dir().join(format!("roomcast-check-{}.toml", std::process::id()));
        let check = Check { file: file.clone(), client: None, event: None, data: None, args: None };
        for (text, error) in [
            ("[server]\ncores = -1", ":2:9: server.cores = -1: must be between 0 and 1024"),
            ("cors.origins = [\"a.b\"]", ":1:17: cors.origins[0] = \"a.b\": the scheme is missing: write"),
            ("server.trusted_proxies = [\"a\"]", ":1:27: server.trusted_proxies[0] = \"a\": must be an address"),
            ("ops.token_file = \"nowhere\"", ":1:18: ops.token_file = \"nowhere\": cannot read"),
            ("ops.listen = \"0.0.0.0:1\"", ":1:14: ops.listen = \"0.0.0.0:1\": anyone who reaches"),
        ] {
            std::fs::write(&file, text).unwrap();
            let said = run(&check, &mut Vec::new()).unwrap_err();
            assert!(said.starts_with(&format!("{}{error}", file.display())), "{said}");
        }
        std::fs::write(&file, "").unwrap();
        let mut out = Vec::new();
        run(&check, &mut out).unwrap();
        assert!(out.starts_with(format!("{} is a valid config.\n\nclients ", file.display()).as_bytes()));
        std::fs::remove_file(file).unwrap();
    }
}
