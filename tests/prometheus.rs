//! What operators are given for Prometheus and Grafana, against the real programs and a live server: the text that is
//! scraped, the scrape config, the alert rules, and every question that the dashboard asks. Needs Debian's
//! `prometheus`, which `tests/run` installs.

mod common;

use common::{OPEN, Publisher, RawClient, Server, TempDir, http, wait_until};
use roomcast::ops::metrics::{Described, Kind, all};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs `promtool` with this on its input; it must have nothing to say against it.
#[track_caller]
fn promtool(arguments: &[&str], input: &str) {
    let child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| panic!("promtool: {error}; it is in Debian's package prometheus"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    assert!(status.success(), "promtool {arguments:?}: {status}\n{said}");
}

/// A server that has had to do with all kinds of things.
fn busy_server() -> (Server, Vec<RawClient>, Publisher) {
    let config = format!("[limits]\nroom_name_bytes_max = 20\n{OPEN}");
    let server = Server::start(&config, 2);
    let mut clients: Vec<RawClient> = (0..8).map(|n| RawClient::in_room(&server, &format!("r{}", n % 2))).collect();
    let mut publisher = Publisher::connect(&server);
    publisher.ask("bad");
    assert!(clients[0].ask(r#"{"type":"subscribe","data":{"room":"a name that is too long"}}"#).contains("error"));
    assert_eq!(http(server.listen, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").status, 404);
    drop(RawClient::connect(&server));
    publish(&mut publisher, &mut clients);
    server.await_metric("roomcast_closes_total", &[], 1.0);
    (server, clients, publisher)
}

/// An event for each room, which all of its members read.
fn publish(publisher: &mut Publisher, clients: &mut [RawClient]) {
    for room in 0..2 {
        let receipt = publisher.ask(&format!(r#"{{"room":"r{room}","event":"x","data":"0123456789","id":1}}"#));
        assert_eq!(receipt["ok"], true, "{receipt}");
    }
    clients.iter_mut().for_each(|client| assert!(client.next().contains("0123456789")));
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics_the_rules_and_the_scrape_config() {
    let (server, ..) = busy_server();
    promtool(&["check", "metrics"], &server.admin_get("/metrics"));
    let [rules, config] = ["docs/alerts.yml", "docs/prometheus.yml"].map(file);
    promtool(&["check", "rules", "--lint-fatal", rules.to_str().unwrap()], "");
    promtool(&["check", "config", config.to_str().unwrap()], "");
}

#[test]
fn each_alert_fires_when_it_should_and_not_otherwise() {
    let cases = file("tests/prometheus/alerts.test.yml");
    promtool(&["test", "rules", cases.to_str().unwrap()], "");
    let (rules, cases) = (fs::read_to_string(file("docs/alerts.yml")).unwrap(), fs::read_to_string(cases).unwrap());
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        for case in ["fires", "does not fire"] {
            assert_eq!(cases.matches(&format!("name: {alert} {case}\n")).count(), 1, "{alert} {case}");
        }
    }
}

/// A Prometheus that scrapes one server. Dropped, it ends.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    /// With the scrape config and the rules of `docs/`, each second.
    fn start(server: &Server) -> Prometheus {
        let folder = TempDir::new();
        let config = fs::read_to_string(file("docs/prometheus.yml")).unwrap();
        let changed = [("15s", "1s".to_owned()), ("127.0.0.1:3200", server.admin.to_string())];
        let config = changed.iter().fold(config, |config, (from, to)| {
            assert!(config.contains(from), "{from} in {config}");
            config.replace(from, to)
        });
        fs::write(folder.path("prometheus.yml"), config).unwrap();
        fs::copy(file("docs/alerts.yml"), folder.path("alerts.yml")).unwrap();
        // A port that is free now, and nobody else's until Prometheus has it: the kernel gives ports in turn.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = fs::File::create(folder.path("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.path("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("prometheus: {error}; it is in Debian's package prometheus"));
        let mut prometheus = Prometheus { child, address, _folder: folder };
        wait_until("Prometheus answers", || {
            let log = || fs::read_to_string(prometheus._folder.path("log")).unwrap();
            assert!(prometheus.child.try_wait().unwrap().is_none(), "Prometheus has ended:\n{}", log());
            prometheus.get("/-/ready").is_some_and(|answer| answer.contains(" 200 "))
        });
        prometheus
    }

    /// An answer with its head. By HTTP/1.0, so that the connection's end is the answer's.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(common::LIMIT)).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address).as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn api(&self, path: &str) -> Value {
        let answer = self.get(path).unwrap_or_else(|| panic!("no answer to {path}"));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// What an expression gives now.
    #[track_caller]
    fn query(&self, expression: &str) -> Vec<Value> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = self.api(&format!("/api/v1/query?query={encoded}"));
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The dashboard's questions, with what its variables stand for.
fn dashboard_questions() -> Vec<(String, String)> {
    let text = fs::read_to_string(file("docs/grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "instance", "core"]);
    let mut ids = BTreeSet::new();
    let mut questions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel} has another's id");
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let question = target["expr"].as_str().unwrap();
            let question = question.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$core", ".*");
            assert!(!question.contains('$'), "{question}");
            questions.push((format!("panel {title}"), question));
        }
    }
    assert!(questions.len() > 50, "{}", questions.len());
    questions
}

/// The metrics that an expression names.
fn metrics_of<'a>(expression: &str, known: &'a [Described]) -> Vec<&'a Described> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("roomcast_") || word.starts_with("process_"));
    names
        .map(|name| {
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
                let family = name.strip_suffix(end)?;
                known.iter().find(|metric| metric.name == family && metric.kind == Kind::Histogram)
            });
            let found = of_histogram.or_else(|| known.iter().find(|metric| metric.name == name));
            found.unwrap_or_else(|| panic!("there is no metric {name}: {expression}"))
        })
        .collect()
}

#[test]
fn prometheus_answers_every_question_of_the_dashboard_and_the_alerts() {
    let (server, mut clients, mut publisher) = busy_server();
    let prometheus = Prometheus::start(&server);
    wait_until("it has scraped three times", || {
        // Something happens between scrapes.
        publish(&mut publisher, &mut clients);
        let scrapes = prometheus.query("count_over_time(roomcast_turns_total{core=\"0\"}[1m])");
        scrapes.first().is_some_and(|scrapes| scrapes["value"][1].as_str().unwrap().parse::<u64>().unwrap() >= 3)
    });
    let known = all();
    let present: BTreeSet<String> = server.samples().into_iter().map(|sample| sample.name).collect();
    let is_present = |metric: &Described| match metric.kind {
        Kind::Histogram => present.contains(&format!("{}_bucket", metric.name)),
        Kind::Counter | Kind::Gauge => present.contains(metric.name),
    };
    // Of something that may never happen there is no series.
    let may_be_missing = |metric: &Described| {
        let by_what_happens = ["reason", "outcome"];
        metric.labels.iter().any(|label| by_what_happens.contains(label))
    };
    for metric in &known {
        assert!(is_present(metric) || may_be_missing(metric), "{} is described and not there", metric.name);
    }
    for (what, question) in dashboard_questions() {
        let metrics = metrics_of(&question, &known);
        assert!(!metrics.is_empty(), "{what}: {question}");
        let answer = prometheus.query(&question);
        let is_certain = metrics.iter().all(|metric| is_present(metric));
        assert!(!answer.is_empty() || !is_certain, "{what} would be empty: {question}");
    }
    let groups = prometheus.api("/api/v1/rules");
    let rules: Vec<&Value> =
        groups["data"]["groups"].as_array().unwrap().iter().flat_map(|g| g["rules"].as_array().unwrap()).collect();
    assert!(rules.len() > 10, "{groups}");
    for rule in rules {
        metrics_of(rule["query"].as_str().unwrap(), &known);
        prometheus.query(rule["query"].as_str().unwrap());
        for annotation in ["summary", "description", "runbook"] {
            assert!(rule["annotations"][annotation].as_str().is_some_and(|text| text.len() > 10), "{rule}");
        }
        assert!(["critical", "warning", "info"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{rule}");
    }
    wait_until("all rules have been evaluated", || {
        let groups = prometheus.api("/api/v1/rules");
        let mut rules =
            groups["data"]["groups"].as_array().unwrap().iter().flat_map(|g| g["rules"].as_array().unwrap());
        rules.all(|rule| {
            assert_ne!(rule["health"], "err", "{rule}");
            rule["health"] == "ok"
        })
    });
    // Nothing is wrong with this server.
    let firing = prometheus.query("ALERTS{severity=\"critical\"}");
    assert!(firing.is_empty(), "{firing:?}");
}
