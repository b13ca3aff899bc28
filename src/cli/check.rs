//! `roomcast check`: what a config means, in words. Does not know where the settings go.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use super::say;
use crate::config::{Alias, AliasKind, Config, EndpointKind, EndpointShape, NUMBERS};
use crate::session::rules::{ArgsSource, Condition, EventRule, ReplySource, RulesSource, UnknownEvents};

/// Prints what the config in `file` means.
///
/// # Errors
/// The first mistake in it.
pub(super) fn run(file: &Path, out: &mut dyn Write) -> Result<(), String> {
    let config = Config::load(file).map_err(|error| error.to_string())?;
    config.check_exposure().map_err(|error| error.to_string())?;
    config.ingest_token().and_then(|_| config.api_token()).map_err(|error| error.to_string())?;
    let identity = config.identity().map_err(|error| error.to_string())?;
    let mut text = format!("{} is a valid config.\n\n{}", file.display(), explained(&config));
    if let Some((_, warnings)) = identity.filter(|(_, warnings)| !warnings.is_empty()) {
        let _ = writeln!(text, "\nKey files:\n  {}", warnings.join("\n  "));
    }
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
    let _ = writeln!(text, "clients     {}, on {cores}{}", config.server.listen, shown_public(config.server.public));
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
    if rules.connect.is_empty() {
        text.push_str("  Every client may connect.\n");
    }
    for rule in &rules.connect {
        let rule = rule.clone();
        let (when, allow, error, set) = (rule.when, rule.allow, rule.error, rule.set);
        let (leave, join, reply) = (rule.leave, rule.join, rule.reply);
        let rule = EventRule { when, allow, error, set, leave, join, reply, ..EventRule::default() };
        sentence("A client that connects", "may", &rule, text);
    }
    for rule in &rules.on {
        sentence(&format!("A client that says {:?}", rule.event), "is heard", rule, text);
    }
    text.push_str(match (rules.on.is_empty(), rules.unknown_events) {
        (true, UnknownEvents::Error) => "  Whatever clients say is refused: there is no [[namespace.on]].\n",
        (true, UnknownEvents::Ignore) => "  Whatever clients say is ignored: there is no [[namespace.on]].\n",
        (false, UnknownEvents::Error) => "  Whatever else clients say is refused.\n",
        (false, UnknownEvents::Ignore) => "  Whatever else clients say is ignored.\n",
    });
}

/// `A client that says "x", if C: only if A. Joins R, is answered "y".`
fn sentence(subject: &str, plain: &str, rule: &EventRule, text: &mut String) {
    let _ = write!(text, "  {subject}");
    match &rule.when {
        None | Some(Condition::Fixed(true)) => {}
        Some(Condition::Fixed(false)) => text.push_str(", never"),
        Some(Condition::Expression(when)) => {
            let _ = write!(text, ", if {}", one_line(when));
        }
    }
    let mut parts = Vec::new();
    let words = rule.error.as_ref().map_or_else(String::new, |error| format!(" with the words {:?}", error.message));
    match &rule.allow {
        None | Some(Condition::Fixed(true)) => {}
        Some(Condition::Fixed(false)) => parts.push(format!("is refused{words}")),
        Some(Condition::Expression(allow)) => parts.push(format!("is refused{words} unless {}", one_line(allow))),
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
    if rule.disconnect {
        parts.push("is disconnected".to_owned());
    }
    if parts.is_empty() {
        parts.push(plain.to_owned());
    }
    let _ = writeln!(text, ":\n    {}.", parts.join(";\n    "));
}

fn one_line(expression: &str) -> String {
    expression.split_whitespace().collect::<Vec<_>>().join(" ")
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
    is refused unless type(data.room) == string;
    joins {data.room};
    is answered with "subscribed";
    gets an acknowledgement, if it asks.
  A client that says "unsubscribe":
    is refused unless type(data.room) == string;
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
            server = { listen = "0.0.0.0:80", cores = 2, public = true, trusted_proxies = ["10.0.0.0/8", "::1"] }
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
            [[namespace.connect]]
            when = """
              has(query.a)
              && true
            """
            join = ["a:{query.a}", "all"]
            set = { a = 1, b = 2 }
            [[namespace.on]]
            event = "bye"
            disconnect = true
            ack = "{args}"
            [[namespace.on]]
            event = "ping"
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
            r#"clients     0.0.0.0:80, on 2 cores; public = true: whoever reaches it is not authenticated
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
  A client that connects, if has(query.a) && true:
    joins a:{query.a}, all;
    is remembered with state.a, state.b.
  A client that says "bye":
    gets its arguments back as acknowledgement, if it asks;
    is disconnected.
  A client that says "ping":
    is heard.
  A client that says "no":
    is refused with the words "never".
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
        assert!(is.contains("namespace /\n  No client connects without a valid token.\n  Every"), "{is}");
        assert!(is.contains("namespace /open\n  Clients need no token here.\n  Every"), "{is}");
    }

    #[test]
    fn a_broken_config_is_told_with_its_place() {
        let file = std::env::temp_dir().join(format!("roomcast-check-{}.toml", std::process::id()));
        for (text, error) in [
            ("[server]\ncores = -1", ":2:9: server.cores = -1: must be between 0 and 1024"),
            ("cors.origins = [\"a.b\"]", ":1:17: cors.origins[0] = \"a.b\": the scheme is missing: write"),
            ("server.trusted_proxies = [\"a\"]", ":1:27: server.trusted_proxies[0] = \"a\": must be an address"),
            ("ops.token_file = \"nowhere\"", ":1:18: ops.token_file = \"nowhere\": cannot read"),
            ("ops.listen = \"0.0.0.0:1\"", ":1:14: ops.listen = \"0.0.0.0:1\": anyone who reaches"),
        ] {
            std::fs::write(&file, text).unwrap();
            let said = run(&file, &mut Vec::new()).unwrap_err();
            assert!(said.starts_with(&format!("{}{error}", file.display())), "{said}");
        }
        std::fs::write(&file, "").unwrap();
        let mut out = Vec::new();
        run(&file, &mut out).unwrap();
        assert!(out.starts_with(format!("{} is a valid config.\n\nclients ", file.display()).as_bytes()));
        std::fs::remove_file(file).unwrap();
    }
}
