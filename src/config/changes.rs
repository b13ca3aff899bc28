//! What a config file that was read again changes in a running process: which keys take effect at once, and which only
//! after a restart. Does not know how they take effect.

use super::document::{ConfigError, path};
use super::{Config, NAMESPACES_MAX};
use crate::config::Endpoint;
use crate::session::namespace::NamePattern;
use crate::session::rules::RulesSource;

/// When a key that was changed in the file takes effect in a running process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// At the next SIGHUP.
    Reload,
    /// When the process is started again.
    Restart,
}

/// One key of a section.
pub(crate) struct Key {
    /// With its section.
    pub(crate) name: &'static str,
    pub(crate) effect: Effect,
    differs: fn(&Config, &Config) -> bool,
    /// Gives the first config what the second one says.
    keep: fn(&mut Config, &Config),
}

macro_rules! keys {
    ($($effect:ident $section:ident $($key:ident)*;)*) => {
        &[$($(Key {
            name: concat!(stringify!($section), ".", stringify!($key)),
            effect: Effect::$effect,
            differs: |a, b| a.$section.$key != b.$section.$key,
            keep: |config, other| config.$section.$key.clone_from(&other.$section.$key),
        },)*)*]
    };
}

/// All keys of all sections. Endpoints and namespaces, which may be many, are compared one by one.
pub(crate) const KEYS: &[Key] = keys! {
    // What was bound, pinned or allocated at the start.
    Restart server listen cores steer;
    Reload server drain_ms_max drain_clients_per_s public trusted_proxies;
    Reload cors origins credentials headers max_age_s check_websockets;
    Reload auth require sources audience issuer leeway_s refresh_event key;
    // The HTTP API speaks lines as well, and has been told their bound.
    Restart ingest listen unix unix_mode line_bytes_max;
    Reload ingest token_file receipt_bytes_max rooms_per_line_max ack_timeout_ms_max;
    // Their port is served by a thread of its own.
    Restart ops listen token_file hosts service alias;
    Reload ops public;
    Reload limits message_bytes_max packet_bytes_max attachments_max http_head_bytes_max accepts_per_turn
        handshake_ms_max request_body_ms_max keep_alive_ms namespaces_per_client_max namespace_bytes_max
        rooms_per_socket_max room_name_bytes_max outbox_bytes_max outboxes_bytes_max inboxes_bytes_max
        connections_per_ip_max handshakes_per_ip_per_s handshakes_per_ip_burst handshakes_per_s handshakes_burst
        events_per_socket_per_s events_per_socket_burst;
    Reload heartbeat ping_interval_ms ping_timeout_ms connect_timeout_ms upgrade_timeout_ms;
    Restart mesh ring_slots;
    Reload rooms idle_ms idle_max snapshots_bytes_max;
    Reload log level;
    Restart log format;
};

/// A config that a running process can take over.
#[derive(Clone, Debug)]
pub struct Update {
    /// The new config, with the present one's values where they must stay.
    pub config: Config,
    /// What differs from the present config and takes effect.
    pub changed: Vec<String>,
    /// What differs from the present config and stays as it is until a restart.
    pub restart: Vec<String>,
}

impl Config {
    /// This config as a process can take it over that runs with `present`.
    ///
    /// # Errors
    /// What can take effect makes no sense, or is not safe, together with what must stay.
    pub fn over(mut self, present: &Config) -> Result<Update, ConfigError> {
        let (mut changed, mut restart) = (Vec::new(), Vec::new());
        for key in KEYS {
            if !(key.differs)(&self, present) {
                continue;
            }
            match key.effect {
                Effect::Reload => changed.push(key.name.to_owned()),
                Effect::Restart => {
                    (key.keep)(&mut self, present);
                    restart.push(key.name.to_owned());
                }
            }
        }
        self.endpoints = merge_endpoints(&self.endpoints, &present.endpoints, &mut changed, &mut restart);
        self.namespaces = merge_namespaces(&self.namespaces, present, &mut changed, &mut restart);
        // Each of these was checked for the file alone; an address or a namespace that stays was not in it.
        self.check_exposure()?;
        if let Some(locked) = self.namespaces.iter().find(|namespace| namespace.require == Some(true))
            && self.auth.key.is_empty()
        {
            let message = format!(
                "the namespace {:?} takes no client without a token and stays until a restart; keep a key for it, or \
                 restart",
                locked.title()
            );
            return Err(self.document.wrong_value(&path("auth.key"), message));
        }
        Ok(Update { config: self, changed, restart })
    }
}

/// Requests under way know endpoints by their place, and sessions by what is spoken there: only their bounds change.
fn merge_endpoints(
    new: &[Endpoint],
    present: &[Endpoint],
    changed: &mut Vec<String>,
    restart: &mut Vec<String>,
) -> Vec<Endpoint> {
    let mut merged = present.to_vec();
    for (index, (is, other)) in merged.iter_mut().zip(new).enumerate() {
        let differing: Vec<&str> = [
            ("kind", is.kind != other.kind),
            ("path", is.path() != other.path()),
            ("namespace", is.namespace() != other.namespace()),
            ("shape", is.shape() != other.shape()),
        ]
        .iter()
        .filter_map(|(key, differs)| differs.then_some(*key))
        .collect();
        restart.extend(differing.iter().map(|key| format!("endpoint[{index}].{key}")));
        if differing.is_empty() && is.message_bytes_max != other.message_bytes_max {
            is.message_bytes_max = other.message_bytes_max;
            changed.push(format!("endpoint[{index}].message_bytes_max"));
        }
    }
    for index in present.len().min(new.len())..present.len().max(new.len()) {
        let what = if index < new.len() { "new" } else { "gone" };
        restart.push(format!("endpoint[{index}] (it is {what})"));
    }
    merged
}

/// Sockets and rooms know their namespace by its number: whatever there is stays at its place, and new ones follow.
fn merge_namespaces(
    new: &[RulesSource],
    present: &Config,
    changed: &mut Vec<String>,
    restart: &mut Vec<String>,
) -> Vec<RulesSource> {
    let mut merged = Vec::new();
    for source in &present.namespaces {
        let title = source.title();
        let Some(other) = new.iter().find(|other| is_same(other, source)) else {
            // Its sockets are not asked to go, and whoever was kept out of it still is.
            restart.push(format!("namespace {title:?} (it is gone)"));
            let require = Some(source.require.unwrap_or(present.auth.require));
            merged.push(RulesSource { require, ..source.clone() });
            continue;
        };
        let mut taken = other.clone();
        if taken.rooms != source.rooms {
            // What rooms keep, and what their members' outboxes may drop, was decided by the former ones.
            restart.push(format!("namespace {title:?}: rooms"));
            taken.rooms.clone_from(&source.rooms);
        }
        if taken != *source {
            changed.push(format!("namespace {title:?}"));
        }
        merged.push(taken);
    }
    let order = |of: &[RulesSource], among: &[RulesSource]| -> Vec<String> {
        let both = of.iter().filter(|one| among.iter().any(|other| is_same(one, other)));
        both.filter_map(|source| source.pattern.clone()).collect()
    };
    // Of two patterns that match, the first one holds.
    if order(new, &present.namespaces) != order(&present.namespaces, new) {
        restart.push("namespace (the order of the patterns)".to_owned());
    }
    for (index, source) in new.iter().enumerate() {
        if present.namespaces.iter().any(|other| is_same(other, source)) {
            continue;
        }
        let title = source.title();
        let later = &new[index + 1..];
        let reason = if merged.len() >= NAMESPACES_MAX {
            Some("there are too many while others that are gone stay")
        } else if present.namespaces.iter().any(|other| is_matched(other, source)) {
            // Sockets that are in it by the pattern would not hear its events any more.
            Some("a pattern has matched this name so far")
        } else if source.pattern.is_some() && later.iter().any(|other| is_old_pattern(other, present)) {
            Some("it is a pattern before others")
        } else {
            None
        };
        match reason {
            Some(reason) => restart.push(format!("namespace {title:?} (it is new; {reason})")),
            None => {
                changed.push(format!("namespace {title:?} (it is new)"));
                merged.push(source.clone());
            }
        }
    }
    merged
}

fn is_same(one: &RulesSource, other: &RulesSource) -> bool {
    one.name == other.name && one.pattern == other.pattern
}

fn is_old_pattern(source: &RulesSource, present: &Config) -> bool {
    source.pattern.is_some() && present.namespaces.iter().any(|other| is_same(other, source))
}

/// True if the name of `source` is one of those that the pattern of `present` stands for.
fn is_matched(present: &RulesSource, source: &RulesSource) -> bool {
    let pattern = present.pattern.as_deref().and_then(|pattern| NamePattern::compile(pattern).ok());
    matches!((pattern, &source.name), (Some(pattern), Some(name)) if pattern.is_match(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        [server]
        listen = "127.0.0.1:3000"
        [limits]
        rooms_per_socket_max = 5
        [[endpoint]]
        kind = "socket.io"
        [[endpoint]]
        kind = "raw"
        path = "/ws"
        [[namespace]]
        name = "/"
        [[namespace]]
        name = "/a"
        [[namespace.rooms]]
        match = ["x"]
        [[namespace]]
        pattern = "^/p-.*$"
    "#;

    fn config(text: &str) -> Config {
        Config::parse(text, "f.toml").unwrap_or_else(|error| panic!("{error}"))
    }

    fn update(from: &str, to: &str) -> Update {
        config(to).over(&config(from)).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn every_key_of_every_section_is_listed_once() {
        let sections = ["server", "cors", "auth", "ingest", "ops", "limits", "heartbeat", "mesh", "rooms", "log"];
        let mut listed = 0;
        for section in sections {
            let message = Config::parse(&format!("[{section}]\nqqqqqqqqqqqq = 1"), "f").unwrap_err().message;
            let keys = message.split_once(" are ").or(message.split_once("mean ")).map(|(_, keys)| keys);
            for key in keys.unwrap_or_else(|| panic!("{section}: {message}")).trim_end_matches('?').split(", ") {
                let name = format!("{section}.{key}");
                assert_eq!(KEYS.iter().filter(|key| key.name == name).count(), 1, "{name}");
                listed += 1;
            }
        }
        assert_eq!(listed, KEYS.len());
    }

    #[test]
    fn the_operators_page_names_what_needs_a_restart() {
        let page = include_str!("../../docs/operations.md");
        let (_, table) = page.split_once("<!-- restart -->").expect("its list begins so");
        let (table, _) = table.split_once("<!-- /restart -->").expect("its list ends so");
        for key in KEYS {
            let is_named = table.contains(&format!("`{}`", key.name));
            assert_eq!(is_named, key.effect == Effect::Restart, "{}", key.name);
        }
    }

    #[test]
    fn the_same_file_changes_nothing() {
        let Update { changed, restart, .. } = update(FILE, FILE);
        assert_eq!((changed, restart), (vec![], vec![]));
    }

    #[test]
    fn what_can_is_taken_and_the_rest_is_named() {
        // (what stands in the file, instead of what, what takes effect, what needs a restart)
        for (before, after, taken, named) in [
            ("rooms_per_socket_max = 5", "rooms_per_socket_max = 6", "limits.rooms_per_socket_max", ""),
            (
                "rooms_per_socket_max = 5",
                "outbox_bytes_max = 5000",
                "limits.rooms_per_socket_max limits.outbox_bytes_max",
                "",
            ),
            ("127.0.0.1:3000", "127.0.0.1:4000", "", "server.listen"),
            (
                "[limits]",
                "[mesh]\nring_slots = 16\n[cors]\norigins = [\"*\"]\n[limits]",
                "cors.origins",
                "mesh.ring_slots",
            ),
            ("path = \"/ws\"", "path = \"/ws\"\nmessage_bytes_max = 2000", "endpoint[1].message_bytes_max", ""),
            ("path = \"/ws\"", "path = \"/raw\"\nmessage_bytes_max = 2000", "", "endpoint[1].path"),
            ("path = \"/ws\"", "shape = \"flat\"\nnamespace = \"/a\"", "", "endpoint[1].namespace endpoint[1].shape"),
            (
                "kind = \"raw\"\n",
                "kind = \"websocket-echo\"\n[[endpoint]]\nkind = \"raw\"\n",
                "",
                "endpoint[1].kind endpoint[1].path endpoint[2] (it is new)",
            ),
            ("name = \"/a\"", "name = \"/a\"\nunknown_events = \"ignore\"", "namespace \"/a\"", ""),
            ("name = \"/a\"", "name = \"/b\"", "namespace \"/b\" (it is new)", "namespace \"/a\" (it is gone)"),
            ("match = [\"x\"]", "match = [\"y\"]", "", "namespace \"/a\": rooms"),
            (
                "pattern = \"^/p-.*$\"",
                "name = \"/p-1\"\n[[namespace]]\npattern = \"^/p-.*$\"",
                "",
                "namespace \"/p-1\" (it is new; a pattern has matched this name so far)",
            ),
            (
                "[[namespace]]\n        pattern",
                "[[namespace]]\npattern = \"/q\"\n[[namespace]]\n        pattern",
                "",
                "namespace \"/q\" (it is new; it is a pattern before others)",
            ),
        ] {
            assert_eq!(FILE.matches(before).count(), 1, "{before}");
            let Update { changed, restart, config } = update(FILE, &FILE.replace(before, after));
            assert_eq!((changed.join(" ").as_str(), restart.join(" ").as_str()), (taken, named), "{after}");
            // What is there stays at its place, so that the next file is compared with it.
            assert_eq!(config.server.listen.port(), 3000);
            assert_eq!(config.rules()[..3].iter().map(RulesSource::title).collect::<Vec<_>>(), ["/", "/a", "^/p-.*$"]);
            assert_eq!(config.endpoints().len(), 2);
            config.namespaces().unwrap();
            assert_eq!(config.net_options().endpoints.len(), 2);
        }
    }

    #[test]
    fn numbers_of_namespaces_are_stable() {
        let reordered = FILE.replace("\"/a\"", "\"/z\"") + "[[namespace]]\nname = \"/a\"\nunknown_events = \"ignore\"";
        let Update { config, changed, .. } = update(FILE, &reordered);
        let titles: Vec<_> = config.rules().iter().map(RulesSource::title).collect();
        assert_eq!(titles, ["/", "/a", "^/p-.*$", "/z"]);
        assert_eq!(changed, ["namespace \"/a\"", "namespace \"/z\" (it is new)"]);
        let two = "[[namespace]]\npattern = \"^/q$\"\n[[namespace]]\npattern = \"^/p$\"";
        let other = "[[namespace]]\npattern = \"^/p$\"\n[[namespace]]\npattern = \"^/q$\"";
        assert_eq!(update(two, other).restart, ["namespace (the order of the patterns)"]);
    }

    #[test]
    fn nobody_is_exposed_by_what_stays() {
        let open = "[server]\nlisten = \"0.0.0.0:3000\"\npublic = true";
        let closed = "[server]\nlisten = \"127.0.0.1:3000\"";
        let error = config(closed).over(&config(open)).unwrap_err().to_string();
        assert!(error.contains("server.listen = \"0.0.0.0:3000\": clients are not authenticated"), "{error}");
        // The other way round nothing is opened.
        assert_eq!(update(closed, open).restart, ["server.listen"]);
        let key = "[[auth.key]]\nalgorithm = \"HS256\"\nfile = \"k\"\n";
        let locked = format!("[auth]\nrequire = true\n{key}[[namespace]]\nname = \"/a\"");
        let error = config("").over(&config(&locked)).unwrap_err().to_string();
        assert_eq!(
            error,
            "f.toml: auth.key: the namespace \"/a\" takes no client without a token and stays until a restart; keep a \
             key for it, or restart"
        );
        let kept = update(&locked, key).config;
        assert_eq!(kept.rules()[1].require, Some(true), "it is as closed as it was");
        assert_eq!(kept.rules()[0].require, None);
    }
}
