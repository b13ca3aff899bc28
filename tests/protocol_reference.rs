//! `docs/protocol.md` and the other pages against the code: every reason that is counted and every close code stands in
//! its table, every line that they show is one, and every metric and reason that they name is there.

use regex::Regex;
use roomcast::base::counters::{BY_REASON, BY_ROOMS, Counters};
use roomcast::ops::api;
use roomcast::proto::line::{Limits, Parser};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Where code counts or names a reason: a part of the file's path, a pattern whose first group is the reason (or
/// several of them, in quotes), and the metric. Whoever counts in another way adds it here.
const SITES: &[(&str, &str, &str)] = &[
    ("proto/http/mod.rs", LABELS, "roomcast_http_refused_total"),
    ("proto/http/body.rs", LABELS, "roomcast_http_refused_total"),
    ("proto/engineio.rs", r"(?s)impl PacketError \{.*?fn label.*?match self \{(.*?)\n        \}", CLIENT_ERRORS),
    ("proto/engineio.rs", r"(?s)impl Refusal \{.*?fn label.*?match self \{(.*?)\n        \}", HTTP_REFUSED),
    ("proto/ws.rs", LABELS, CLIENT_ERRORS),
    ("proto/socketio.rs", LABELS, CLIENT_ERRORS),
    ("proto/raw.rs", LABELS, CLIENT_ERRORS),
    ("session/identity/mod.rs", LABELS, "roomcast_auth_refusals_total"),
    ("proto/line", r#"\b(?:refuse|string|boolean)\(\s*("\w+")"#, LINE_ERRORS),
    ("proto/line", r#"\blabel: ("\w+")"#, LINE_ERRORS),
    ("ingest/", r#"\blabel: ("\w+")"#, LINE_ERRORS),
    ("ingest/", r#"send_away\([^;]*?, ("\w+"), shard\)"#, LINE_ERRORS),
    ("ingest/", r#"send_away\([^;]*?, ("\w+"), shard\)"#, PUBLISHER_CLOSES),
    ("shard/mod.rs", r#"Closing::new\(\d+, ("[^"]+")\)"#, CLOSES),
    ("shard/transports.rs", r#"TRANSPORT_ERROR: Closing = Closing::new\(\d+, ("[^"]+")\)"#, CLOSES),
    ("net/", r#"finish\(at, ("[^"]+")\)"#, CLOSES_OF_ANY),
    ("net/http.rs", r#"if http\.served \{ "" \} else \{ ("[^"]+") \}"#, CLOSES),
    ("net/http.rs", r#"if self\.served [^{]*\{ "" \} else \{ ("[^"]+") \}"#, CLOSES),
    ("net/admit.rs", r#"\blabel: ("\w+")"#, HTTP_REFUSED),
    ("net/core.rs", r#"(?s)let label = match progress \{(.*?)\};"#, PUBLISHER_CLOSES),
    ("net/mod.rs", r"(?s)fn error_label.*?match [^{]*\{(.*?)\n    \}", "roomcast_socket_errors_total"),
    ("net/admit.rs", r#"\blabel: ("\w+")"#, HTTP_REFUSED),
    ("shard/", r#"protocol_error\(at, ("\w+")\)"#, CLIENT_ERRORS),
    ("net/", r#"refuse_post\([^)]*, ("\w+")\)"#, CLIENT_ERRORS),
    ("shard/", r#"count_refusal\(("\w+")\)"#, RULE_REFUSALS),
    ("shard/clients.rs", r"count_refusal\(refusal\.limit\.unwrap_or\((.*?)\)\)", RULE_REFUSALS),
    ("shard/delivery.rs", r#"(?s)for \(reason, count\) in \[(.*?)\] \{"#, "roomcast_snapshot_evictions_total"),
];

/// The arms of `fn label`.
const LABELS: &str = r"(?s)fn label\(&?self\).*?match self \{(.*?)\n        \}";
const CLIENT_ERRORS: &str = "roomcast_client_errors_total";
const HTTP_REFUSED: &str = "roomcast_http_refused_total";
const LINE_ERRORS: &str = "roomcast_ingest_errors_total";
const PUBLISHER_CLOSES: &str = "roomcast_publisher_closes_total";
const RULE_REFUSALS: &str = "roomcast_rule_refusals_total";
const CLOSES: &str = "roomcast_closes_total";
/// Of a client or of a publisher.
const CLOSES_OF_ANY: &str = "closes";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The program below `src`, by path, without unit tests.
fn sources() -> Vec<(String, String)> {
    fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    collect(&root().join("src"), &mut files);
    let text = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let program = text.split("#[cfg(test)]").next().unwrap().to_owned();
        (path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), program)
    };
    files.into_iter().map(text).collect()
}

/// What stands in quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2).filter(|text| !text.is_empty())
}

/// The reasons that the code counts, by metric.
fn counted() -> BTreeMap<String, BTreeSet<String>> {
    let sources = sources();
    let mut counted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut add = |metric: &str, reason: &str| {
        counted.entry(metric.to_owned()).or_default().insert(reason.to_owned());
    };
    let sites = SITES.iter().map(|(place, pattern, metric)| (place, pattern, Regex::new(pattern).unwrap(), metric));
    for (place, pattern, pattern_of, metric) in sites {
        let mut found = false;
        for (_, text) in sources.iter().filter(|(path, _)| path.contains(place)) {
            for reason in pattern_of.captures_iter(text).flat_map(|captures| quoted(captures.get(1).unwrap().as_str()))
            {
                found = true;
                add(metric, reason);
            }
        }
        // What limits refuse has constants for its reasons, and little else is refused there.
        let may_be_gone = *place == "net/admit.rs";
        assert!(found || may_be_gone, "{place} has nothing like {pattern} any more: bring SITES up to date");
    }
    // Literals beside their metric, and constants whose documentation names it.
    let names: BTreeMap<String, String> = {
        let constant = Regex::new(r#"pub const (\w+): &str = "(roomcast_\w+)";"#).unwrap();
        let text = read("src/base/counters.rs");
        constant.captures_iter(&text).map(|c| (c[1].to_owned(), c[2].to_owned())).collect()
    };
    let literal = Regex::new(r#"counters::([A-Z_]+),\s*("[^"]+")"#).unwrap();
    for (_, text) in &sources {
        for captures in literal.captures_iter(text) {
            if let Some(metric) = names.get(&captures[1]) {
                quoted(&captures[2]).for_each(|reason| add(metric, reason));
            }
        }
    }
    let limit = Regex::new(r#"((?:    ///[^\n]*\n)+)    pub const \w+: &str = ("\w+");"#).unwrap();
    let text = read("src/base/counters.rs");
    let metrics = Regex::new(r"super::([A-Z_]+)").unwrap();
    for captures in limit.captures_iter(&text) {
        for metric in metrics.captures_iter(&captures[1]) {
            quoted(&captures[2]).for_each(|reason| add(&names[&metric[1]], reason));
        }
    }
    counted
}

/// The reasons in the tables of docs/protocol.md, by the metric in the heading above.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = read("docs/protocol.md");
    let mut documented = BTreeMap::new();
    for section in text.split("\n### ").filter(|section| section.starts_with("roomcast_")) {
        let (metric, rest) = section.split_once('\n').unwrap();
        let rows = rest.split("\n## ").next().unwrap().lines();
        let reason = |row: &str| Some(row.strip_prefix("| `")?.split_once('`')?.0.to_owned());
        documented.insert(metric.to_owned(), rows.filter_map(reason).collect::<BTreeSet<String>>());
    }
    documented
}

#[test]
fn every_reason_that_is_counted_is_in_its_table_and_no_other() {
    let (counted, documented) = (counted(), documented());
    let none = BTreeSet::new();
    for (metric, _) in BY_REASON {
        if *metric == "roomcast_accept_errors_total" {
            continue;
        }
        let (code, page) = (counted.get(*metric).unwrap_or(&none), documented.get(*metric).unwrap_or(&none));
        let any = &counted[CLOSES_OF_ANY];
        let missing: Vec<&String> = code.difference(page).collect();
        assert!(missing.is_empty(), "docs/protocol.md, {metric}, lacks {missing:?}");
        let closes = [CLOSES, PUBLISHER_CLOSES].contains(metric);
        let gone: Vec<&String> = page.difference(code).filter(|reason| !closes || !any.contains(*reason)).collect();
        // A publisher that is closed by a drain has a client's reason.
        let gone: Vec<&String> = gone.into_iter().filter(|reason| !counted[CLOSES].contains(*reason)).collect();
        assert!(gone.is_empty(), "docs/protocol.md, {metric}: nobody counts {gone:?}");
    }
    let closes = documented[CLOSES].union(&documented[PUBLISHER_CLOSES]).cloned().collect::<BTreeSet<String>>();
    let missing: Vec<&String> = counted[CLOSES_OF_ANY].difference(&closes).collect();
    assert!(missing.is_empty(), "docs/protocol.md, {CLOSES} or {PUBLISHER_CLOSES}, lacks {missing:?}");
}

#[test]
fn every_close_code_is_in_the_table() {
    let text = read("docs/protocol.md");
    let table = text.split_once("\n## Close codes\n").unwrap().1.split("\n## ").next().unwrap();
    let closing = Regex::new(r#"Closing::new\((\d+), "([^"]+)"\)"#).unwrap();
    let mut count = 0;
    for (_, source) in sources() {
        for captures in closing.captures_iter(&source) {
            let (code, reason) = (&captures[1], format!("`{}`", &captures[2]));
            let is_told = |row: &str| row.contains(&reason) && (row.contains(code) || row.starts_with("| none |"));
            // The client reads another text than the one that is counted.
            let is_told_otherwise = |row: &str| {
                matches!(&captures[2], "transport error" | "unauthenticated")
                    && (row.contains(code) || row.contains("1000"))
            };
            assert!(table.lines().any(|row| is_told(row) || is_told_otherwise(row)), "{code} {reason}");
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
    let codes = Regex::new(r"=> (1\d\d\d),").unwrap();
    let violations = read("src/proto/ws.rs");
    let body = violations.split_once("fn close_code").unwrap().1.split("fn label").next().unwrap();
    for captures in codes.captures_iter(body) {
        assert!(table.contains(&format!("| {} |", &captures[1])), "{}", &captures[1]);
    }
}

/// Fenced blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    text.split(&*begin).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

#[test]
fn every_line_that_is_shown_is_one() {
    let text = read("docs/protocol.md");
    let mut count = 0;
    for line in blocks(&text, "jsonl").iter().flat_map(|block| block.lines()) {
        let parsed = Parser::new().parse(line.as_bytes(), &Limits::default());
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        count += 1;
    }
    assert!(count >= 15, "{count}");
}

#[test]
fn every_route_is_in_the_table() {
    let text = read("docs/protocol.md");
    for (method, path, _) in api::ROUTES {
        assert!(text.contains(&format!("| `{method} {path}` |")), "{method} {path}");
    }
}

#[test]
fn pages_name_metrics_and_reasons_that_are_there() {
    let mut metrics: BTreeSet<&str> = Counters::METRICS.iter().map(|metric| metric.name).collect();
    metrics.extend(BY_REASON.iter().chain(BY_ROOMS).map(|(name, _)| *name));
    let programs: String = sources().into_iter().map(|(_, text)| text).collect();
    let counted = counted();
    let metric = Regex::new(r#"\b(roomcast_[a-z0-9_]+_(?:total|bytes|now|polling|open))\b"#).unwrap();
    let labelled = Regex::new(r#"(roomcast_\w+)|\{reason="([^"]+)"\}"#).unwrap();
    for page in ["README.md", "docs/config.md", "docs/protocol.md"] {
        let text = read(page);
        for captures in metric.captures_iter(&text) {
            let name = captures.get(1).unwrap().as_str();
            assert!(metrics.contains(name) || programs.contains(&format!("\"{name}\"")), "{page}: {name}");
        }
        let mut latest = String::new();
        for captures in labelled.captures_iter(&text) {
            let Some(reason) = captures.get(2).map(|reason| reason.as_str()) else {
                // A label belongs to the metric before it.
                latest = captures[1].to_owned();
                continue;
            };
            let is_counted = |metric: &str| counted.get(metric).is_some_and(|reasons| reasons.contains(reason));
            let closes = latest.contains("_closes_") && (is_counted(CLOSES_OF_ANY) || is_counted(CLIENT_ERRORS));
            assert!(closes || is_counted(&latest), "{page}: {latest} {reason}");
        }
    }
}
