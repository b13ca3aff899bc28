//! The reference of the config, for people: what each key is, does and bounds, as Markdown. Bounds come from where they
//! are checked; names and defaults are held to the code by the tests below. Knows no config that somebody has written.

mod sections;

use std::fmt::Write;

use super::bounds::NUMBERS;
use super::changes::{Effect, KEYS};
use super::{bounds, classes};

/// One table of the file.
struct Section {
    /// Its keys with the tables around it, as in `namespace.on`.
    path: &'static str,
    /// As it is written in a file.
    header: &'static str,
    /// What it is about, in Markdown.
    text: &'static str,
    /// The smallest config that has this table, with an `@` where its keys are: for examples.
    frame: &'static str,
    keys: &'static [Key],
}

/// One key of a table.
struct Key {
    name: &'static str,
    /// What its value is, in words.
    kind: &'static str,
    otherwise: Otherwise,
    /// What it does, in Markdown.
    text: &'static str,
    /// What happens to whoever goes beyond it: the answer, the close code, the counter. Empty if nobody can.
    beyond: &'static str,
    /// A value, in TOML.
    example: &'static str,
    /// Other keys of the table without which this one is refused, in TOML.
    with: &'static str,
}

/// What holds if a key is left out.
enum Otherwise {
    /// The same as with this value, in TOML.
    Value(&'static str),
    /// Something that cannot be written, in Markdown.
    Unset(&'static str),
    /// Nothing: it must be there.
    Required,
}

const fn key(
    name: &'static str,
    kind: &'static str,
    otherwise: Otherwise,
    example: &'static str,
    text: &'static str,
) -> Key {
    Key { name, kind, otherwise, text, beyond: "", example, with: "" }
}

impl Key {
    const fn beyond(self, beyond: &'static str) -> Key {
        Key { beyond, ..self }
    }

    const fn with(self, with: &'static str) -> Key {
        Key { with, ..self }
    }
}

/// The file's bounds as the code has them, for a key that is a number.
fn bounds_of(path: &str) -> Option<String> {
    let number = NUMBERS.iter().find(|number| number.key == path);
    number.map(|number| number.bounds()).or_else(|| match path {
        "endpoint.message_bytes_max" => Some(bounds::MESSAGE_BYTES_MAX.bounds()),
        _ => classes::bounds(path.strip_prefix("namespace.rooms.snapshot.")?),
    })
}

/// Of a line in the reference.
const COLUMNS_MAX: usize = 120;

/// When a changed key takes effect in a running process, if that holds for it whatever the rest of the file says. Keys
/// of a table go with it.
fn effect_of(path: &str) -> Option<Effect> {
    let is_of = |name: &str| path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    KEYS.iter().find(|key| is_of(key.name)).map(|key| key.effect)
}

const INTRODUCTION: &str = "\
# Config reference

Generated from [`src/config/reference`](../src/config/reference/sections.rs); `tests/config_reference.rs` holds it to
the code. The same keys with a comment each, ready to be copied, stand in
[`src/config/development.toml`](../src/config/development.toml), five whole configs in
[`examples/`](../examples/README.md).

The config is one TOML file, named by `--config FILE` or `ROOMCAST_CONFIG`. Without one, roomcast starts with
`development.toml`: every client may join every room, on loopback only. A few keys can also be set from outside; flags
win over variables, variables over the file:

| key | flag | variable |
|---|---|---|
| `server.listen` | `--listen` | `ROOMCAST_LISTEN` |
| `server.cores` | `--cores` | `ROOMCAST_CORES` |
| `ingest.listen` | `--ingest` | `ROOMCAST_INGEST` |
| `ops.listen` | `--admin` | `ROOMCAST_ADMIN` |
| `log.level` | `--log` | `ROOMCAST_LOG` |

Port 0 picks a free port; the start-up line and `--ports-file FILE` tell which.

An unknown key, a wrong type and a number out of bounds are refused at start with file, line, column, key, value and
what would be right; `roomcast check FILE` says the same without starting anything, and otherwise tells in words what
the file means. Numbers may be written as TOML allows: `1_000_000`, `0x10`. Units stand at the end of a key: `_ms`
milliseconds, `_s` seconds, `_bytes` bytes, `_per_s` a second.

**reload** stands at keys that take effect at SIGHUP, **restart** at those that need one; what holds for endpoints and
namespaces is in [operations.md](operations.md#reload-sighup). **Beyond** says what happens to whoever goes beyond a
bound. Reasons in `{…}` are labels of the metric; codes and reasons are explained in
[protocol.md](protocol.md#counters-by-reason). `roomcast_limit_refusals_total` counts by `limit`, the key in
`[limits]`, whatever it refuses. Examples are whole configs as far as the key goes.

";

/// The whole reference in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(INTRODUCTION);
    for section in sections::REFERENCE {
        // A String takes every write.
        let _ = writeln!(out, "* [`{}`](#{})", section.header, anchor(section.header));
    }
    for section in sections::REFERENCE {
        let _ = write!(out, "\n## `{}`\n\n{}\n", section.header, wrapped(section.text));
        for key in section.keys {
            write_key(&mut out, section, key);
        }
    }
    out
}

fn write_key(out: &mut String, section: &Section, key: &Key) {
    let path = format!("{}.{}", section.path, key.name);
    // A table has the same name as its own section.
    let own = table_of(&path);
    let _ = write!(out, "\n### `{path}`{}\n\n{}", own.map_or("", |_| " (table)"), capitalized(key.kind));
    if let Some(bounds) = bounds_of(&path) {
        let _ = write!(out, ", {}", grouped(&bounds));
    }
    let _ = match key.otherwise {
        Otherwise::Value(value) => write!(out, " · default `{value}`"),
        Otherwise::Unset(text) => write!(out, " · default: {text}"),
        Otherwise::Required => write!(out, " · required"),
    };
    let _ = match effect_of(&path) {
        Some(Effect::Reload) => write!(out, " · reload"),
        Some(Effect::Restart) => write!(out, " · restart"),
        None => Ok(()),
    };
    let more = own.map(|own| format!("See [`{}`](#{}).", own.header, anchor(own.header)));
    let text = [key.text, more.as_deref().unwrap_or_default()].join(" ");
    let _ = write!(out, "\n\n{}\n", wrapped(text.trim()));
    if !key.beyond.is_empty() {
        let _ = write!(out, "\n{}\n", wrapped(&format!("**Beyond:** {}", key.beyond)));
    }
    let line = format!("{} = {}\n{}", key.name, key.example, key.with);
    let _ = write!(out, "\n```toml\n{}\n```\n", with(section, "", &line).trim_end());
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The text with its numbers as people write them: `3_600_000`.
fn grouped(text: &str) -> String {
    let digits_from = |at: usize| text[at..].bytes().take_while(u8::is_ascii_digit).count();
    let mut out = String::new();
    for (at, c) in text.char_indices() {
        let (before, left) = (text[..at].ends_with(|c: char| c.is_ascii_digit()), digits_from(at));
        if before && left > 0 && left % 3 == 0 {
            out.push('_');
        }
        out.push(c);
    }
    out
}

/// A config with this section, in which `lines` stand besides what must be there, but for one key.
fn with(section: &Section, but: &str, lines: &str) -> String {
    let is_there = |name: &str| lines.lines().any(|line| line.split(" = ").next() == Some(name));
    let is_needed = |key: &&Key| matches!(key.otherwise, Otherwise::Required) && key.name != but && !is_there(key.name);
    let needed = section.keys.iter().filter(is_needed);
    let needed: String = needed.map(|key| format!("{} = {}\n", key.name, key.example)).collect();
    section.frame.replace('@', &(needed + lines))
}

/// The section of a key that is a table. A rule is a rule, whatever it is for.
fn table_of(path: &str) -> Option<&'static Section> {
    let path = path.replace(".connect.", ".on.");
    sections::REFERENCE.iter().find(|section| section.path == path)
}

/// The text in lines that can be read as they are. Code is not taken apart, and lines that are there stay.
fn wrapped(text: &str) -> String {
    let mut out = String::new();
    let (mut column, mut in_code) = (0, false);
    for word in text.split_inclusive([' ', '\n']) {
        let length = word.trim_end().chars().count();
        if column + length > COLUMNS_MAX && column > 0 && !in_code {
            out.truncate(out.trim_end().len());
            out.push('\n');
            column = 0;
        }
        out.push_str(word);
        in_code ^= word.matches('`').count() % 2 == 1;
        column = if word.ends_with('\n') { 0 } else { column + word.chars().count() };
    }
    out
}

/// The anchor that renderers give to a heading: its letters, digits, `_` and `-`, spaces as `-`.
fn anchor(heading: &str) -> String {
    let keeps = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ');
    heading.chars().filter(keeps).map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::sections::REFERENCE;
    use super::*;
    use crate::config::{Config, DEVELOPMENT};

    /// No name of a key is near to it, so that the error for it lists all keys that there are.
    const BOGUS: &str = "qqqqqqqqqqqq";

    /// The keys that the code knows beside an unknown one in this text.
    fn known_beside(text: &str) -> BTreeSet<String> {
        let message = Config::parse(text, "f").expect_err(text).message;
        let keys = message.strip_prefix("there is no such key; the keys here are ");
        keys.unwrap_or_else(|| panic!("{text}: {message}")).split(", ").map(str::to_owned).collect()
    }

    fn all_keys() -> impl Iterator<Item = (&'static Section, &'static Key)> {
        REFERENCE.iter().flat_map(|section| section.keys.iter().map(move |key| (section, key)))
    }

    /// All that a config comes to, compiled as far as modules see it.
    fn meaning(text: &str) -> String {
        let config = Config::parse(text, "f").unwrap_or_else(|error| panic!("{text}\n{error}"));
        let Config { server, cors, auth, ingest, ops, limits, heartbeat, mesh, rooms, log, .. } = config.clone();
        let endpoints = config.net_options().endpoints;
        let requires: Vec<_> = config.rules().iter().map(|rules| rules.require).collect();
        let namespaces = config.namespaces().unwrap();
        let sections = (server, cors, auth, ingest, ops, limits, heartbeat, mesh, rooms, log);
        format!("{sections:?} {endpoints:?} {requires:?} {namespaces:?}")
    }

    #[test]
    fn every_key_that_the_code_knows_is_described_and_no_other() {
        let sections: BTreeSet<String> = REFERENCE.iter().map(|s| s.path.split('.').next().unwrap().into()).collect();
        assert_eq!(sections, known_beside(&format!("{BOGUS} = 1")));
        for section in REFERENCE {
            let described: BTreeSet<String> = section.keys.iter().map(|key| key.name.to_owned()).collect();
            let known = known_beside(&section.frame.replace('@', &format!("{BOGUS} = 1\n")));
            assert_eq!(described, known, "{}: add what is missing to src/config/reference/sections.rs", section.header);
        }
    }

    #[test]
    fn every_table_in_a_table_has_a_section() {
        for (section, key) in all_keys() {
            let path = format!("{}.{}", section.path, key.name);
            assert_eq!(key.kind.starts_with("table"), table_of(&path).is_some(), "{path}");
        }
        for section in REFERENCE {
            let Some((parent, name)) = section.path.rsplit_once('.') else { continue };
            assert!(all_keys().any(|(s, key)| s.path == parent && key.name == name), "{}", section.path);
        }
    }

    #[test]
    fn defaults_are_what_the_reference_says() {
        for (section, key) in all_keys() {
            let without = || meaning(&with(section, key.name, &format!("{}\n", key.with)));
            match key.otherwise {
                Otherwise::Value(value) => {
                    let line = format!("{} = {value}\n{}\n", key.name, key.with);
                    assert_eq!(meaning(&with(section, "", &line)), without(), "{}.{}", section.path, key.name);
                }
                Otherwise::Unset(_) => {}
                Otherwise::Required => {
                    let text = with(section, key.name, &format!("{}\n", key.with));
                    assert!(Config::parse(&text, "f").is_err(), "{}.{} need not be there", section.path, key.name);
                }
            }
        }
    }

    #[test]
    fn examples_are_valid_and_say_something() {
        for (section, key) in all_keys() {
            let line = format!("{} = {}\n{}", key.name, key.example, key.with);
            let example = meaning(&with(section, "", &line));
            if let Otherwise::Value(_) = key.otherwise {
                let without = meaning(&with(section, key.name, &format!("{}\n", key.with)));
                assert_ne!(example, without, "{}.{}: the example is the default", section.path, key.name);
            }
        }
    }

    #[test]
    fn every_number_has_its_bounds_and_what_is_beyond_them() {
        for (section, key) in all_keys() {
            let path = format!("{}.{}", section.path, key.name);
            assert_eq!(key.kind == sections::NUMBER, bounds_of(&path).is_some(), "{path}");
            let (is_limit, told) = (key.name.ends_with("_max") || key.name.contains("_per_"), !key.beyond.is_empty());
            assert!(told || !is_limit, "{path}: say what happens beyond it");
        }
        for number in NUMBERS {
            assert!(all_keys().any(|(s, key)| format!("{}.{}", s.path, key.name) == number.key), "{}", number.key);
        }
    }

    #[test]
    fn the_development_config_names_every_key() {
        let is_named = |section: &Section, name: &str| {
            let table = format!("[[{}.{name}]]", section.path);
            let key = format!("{name} =");
            let is_apart = |at: usize| !DEVELOPMENT[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            DEVELOPMENT.contains(&table) || DEVELOPMENT.match_indices(&key).any(|(at, _)| is_apart(at))
        };
        let missing: Vec<String> = all_keys()
            .filter(|(section, key)| !is_named(section, key.name))
            .map(|(section, key)| format!("{}.{}", section.path, key.name))
            .collect();
        assert!(missing.is_empty(), "src/config/development.toml lacks {missing:?}");
    }

    #[test]
    fn every_key_of_a_section_says_when_it_takes_effect() {
        for (section, key) in all_keys().filter(|(s, _)| !["endpoint", "namespace"].contains(&s.path)) {
            let path = format!("{}.{}", section.path, key.name);
            assert_eq!(effect_of(&path).is_none(), path.starts_with("namespace."), "{path}");
        }
    }

    #[test]
    fn numbers_are_grouped() {
        for (text, shown) in [("0", "0"), ("1000", "1_000"), ("between 16 and 65536", "between 16 and 65_536")] {
            assert_eq!(grouped(text), shown);
        }
    }

    #[test]
    fn sentences_end() {
        for (section, key) in all_keys() {
            let path = format!("{}.{}", section.path, key.name);
            for text in [key.text, key.beyond].into_iter().filter(|text| !text.is_empty()) {
                assert!(text.ends_with('.'), "{path}: {text}");
            }
            assert!(!key.text.is_empty() || table_of(&path).is_some(), "{path}");
        }
    }
}
