//! What there is on the operators' port: metrics, health, the HTTP API and its aliases, the page, each for whom it is.
//! Does not know connections.

use super::access::Access;
use super::alias::{self, Alias};
use super::api::{self, Api, Call, Request};
use super::board::Board;
use super::clerk::Clerk;
use super::live::{Live, Watcher, Watchers};
use super::metrics::Exporter;
use super::page;
use super::reply::{Reply, quoted};
use crate::base::clock::Millis;
use crate::proto::http::{self, Head, Upgrade};
use crate::shard::tap::Taps;
use std::cell::{Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the port tells about, and for whom.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The metrics.
    pub exporter: Exporter,
    /// Set once all cores are up.
    pub ready: Arc<AtomicBool>,
    /// Set once the process stops.
    pub draining: Arc<AtomicBool>,
    /// When it started.
    pub started: Instant,
    /// Who may use the API.
    pub access: Access,
    /// What is watched of the events.
    pub taps: Arc<Taps>,
    /// The operator's choices.
    pub options: Options,
}

/// The operator's choices.
#[derive(Clone, Debug)]
pub struct Options {
    /// What health calls the server.
    pub service: Box<str>,
    /// The API's aliases.
    pub aliases: Vec<Alias>,
    /// Longest line that the cores take.
    pub line_bytes_max: usize,
}

/// Besides the API; by GET, for everybody.
pub const OTHERS: [&str; 4] = ["/metrics", "/health", "/health/live", "/health/ready"];

/// The routes with what answers them.
#[derive(Debug)]
pub struct Site {
    facts: Facts,
    api: Api,
    board: RefCell<Board>,
    watchers: Watchers,
    /// The start, since 1970.
    started: Duration,
}

/// A request for a live connection that is granted.
#[derive(Debug)]
pub struct Opening {
    /// What the response says.
    pub upgrade: Upgrade,
    /// What is spoken then.
    pub live: Live,
    /// Held as long as it is.
    pub watcher: Watcher,
}

/// A request that will be answered, once its body is here.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    what: What,
    /// What the path's last part says, if the route leaves that open.
    rest: Box<str>,
    query: Box<str>,
    /// Longest body.
    pub body_bytes_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Metrics,
    Health,
    Live,
    Ready,
    Page(page::File),
    Api(Call),
    /// The alias's position.
    Alias(usize),
}

/// Between two looks at the numbers, at least.
const LOOK_MS_MIN: u64 = 500;
/// Prometheus text exposition format 0.0.4.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Site {
    /// `clerk` speaks with the cores.
    #[must_use]
    pub fn new(facts: Facts, clerk: Rc<Clerk>) -> Site {
        let api = Api { clerk, line_bytes_max: facts.options.line_bytes_max };
        let started =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(facts.started.elapsed());
        Site { facts, api, board: RefCell::default(), watchers: Watchers::default(), started }
    }

    /// Takes the numbers for the page, unless that was done just now: cores publish theirs ten times a second, so that
    /// a rate over less than some of these intervals means nothing.
    pub fn look(&self) {
        // Never back, whatever becomes of the system's clock.
        let at = (self.started + self.facts.started.elapsed()).as_millis() as u64;
        let board = &mut *self.board.borrow_mut();
        if board.taken_at().is_none_or(|before| at >= before + LOOK_MS_MIN) {
            board.take(&self.facts.exporter.render(), at, self.trouble().unwrap_or("ready"));
        }
    }

    /// The numbers for the page.
    pub fn board(&self) -> Ref<'_, Board> {
        self.board.borrow()
    }

    /// Whether anybody looks at the page.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.watchers.count() > 0
    }

    /// The clock of live connections.
    #[must_use]
    pub fn now(&self) -> Millis {
        Millis(self.facts.started.elapsed().as_millis() as u64)
    }

    /// Opens a live connection for the page.
    ///
    /// # Errors
    /// The answer, if this is no WebSocket, comes from another page, or too many are open.
    pub fn open(&self, head: &Head<'_, '_>) -> Result<Opening, Reply> {
        self.facts.access.check_page(head)?;
        let upgrade = http::websocket_upgrade(head).map_err(|error| Reply {
            headers: error.headers().to_vec(),
            ..Reply::error(error.status(), &error.to_string())
        })?;
        let Some(watcher) = self.watchers.enter() else {
            return Err(Reply::error(503, "the page is open too often already; close it elsewhere"));
        };
        self.look();
        let (service, version) = (quoted(&self.facts.options.service), env!("CARGO_PKG_VERSION"));
        let started = self.started.as_millis();
        let past = self.board().past();
        let about = format!(",\"service\":{service},\"version\":\"{version}\",\"started\":{started}{past}");
        let live = Live::new(&self.facts.access, head, self.facts.taps.clone(), &about, self.now());
        Ok(Opening { upgrade, live, watcher })
    }

    /// Finds what a request is for, and whether its sender may ask.
    ///
    /// # Errors
    /// The answer, if it is none of our requests, or not for its sender.
    pub fn begin(&self, head: &Head<'_, '_>) -> Result<Plan, Reply> {
        let aliases = &self.facts.options.aliases;
        if let Some(index) = aliases.iter().position(|alias| *alias.path == *head.path) {
            let alias = &aliases[index];
            let access = &self.facts.access;
            let may_ask = if alias.kind == alias::Kind::Health { access.check_name(head) } else { access.check(head) };
            may_ask.map_err(alias::dressed)?;
            check_method(alias.method(), head).map_err(alias::dressed)?;
            let takes_body = alias.kind == alias::Kind::SocketEvent;
            let body_bytes_max = if takes_body { self.facts.options.line_bytes_max } else { 0 };
            return Ok(plan(What::Alias(index), "", head, body_bytes_max));
        }
        let what = match head.path {
            "/metrics" => What::Metrics,
            "/health" => What::Health,
            "/health/live" => What::Live,
            "/health/ready" => What::Ready,
            path if path == "/api" || path.starts_with("/api/") => {
                self.facts.access.check(head)?;
                let Some((method, call, rest)) = api::route(path) else {
                    let message = format!("there is nothing at {path}; /api/openapi.json describes the API");
                    return Err(Reply::error(404, &message));
                };
                check_method(method, head)?;
                return Ok(plan(What::Api(call), rest, head, self.api.body_bytes_max(call)));
            }
            path => match page::File::at(path) {
                Some(file) => What::Page(file),
                None => return Err(Reply::text(404, "There are /, /metrics, /health and /api/ here.\n")),
            },
        };
        self.facts.access.check_name(head)?;
        if !matches!(head.method, "GET" | "HEAD") {
            return Err(Reply::text(405, "Use GET.\n").with("Allow", "GET, HEAD"));
        }
        Ok(plan(what, "", head, 0))
    }

    /// Answers a request.
    pub async fn serve(&self, plan: &Plan, body: &[u8]) -> Reply {
        let service = &*self.facts.options.service;
        match plan.what {
            What::Metrics => Reply { kind: METRICS, ..Reply::text(200, self.facts.exporter.render()) },
            What::Health => self.health(),
            What::Live => Reply::json(200, r#"{"status":"alive"}"#),
            What::Ready => match self.trouble() {
                None => Reply::json(200, r#"{"status":"ready"}"#),
                Some(trouble) => Reply::json(503, format!("{{\"status\":\"{trouble}\"}}")),
            },
            What::Page(file) => file.reply(),
            What::Api(call) => self.api.serve(call, Request { rest: &plan.rest, query: &plan.query, body }).await,
            What::Alias(index) => {
                let alias = &self.facts.options.aliases[index];
                match alias.kind {
                    alias::Kind::SocketEvent => alias.send_event(&self.api, body).await,
                    alias::Kind::SocketStats => alias.stats(&self.api).await,
                    alias::Kind::Health => alias.health(service, self.trouble()),
                }
            }
        }
    }

    fn health(&self) -> Reply {
        let (status, word) = self.trouble().map_or((200, "healthy"), |trouble| (503, trouble));
        let uptime = self.facts.started.elapsed().as_secs();
        let (service, version) = (quoted(&self.facts.options.service), env!("CARGO_PKG_VERSION"));
        let text =
            format!(r#"{{"status":"{word}","service":{service},"version":"{version}","uptime_seconds":{uptime}}}"#);
        Reply::json(status, text)
    }

    /// Why the server takes no clients, if it takes none.
    fn trouble(&self) -> Option<&'static str> {
        if self.facts.draining.load(Ordering::Relaxed) {
            return Some("draining");
        }
        (!self.facts.ready.load(Ordering::Relaxed)).then_some("starting")
    }
}

fn plan(what: What, rest: &str, head: &Head<'_, '_>, body_bytes_max: usize) -> Plan {
    Plan { what, rest: rest.into(), query: head.query.into(), body_bytes_max }
}

fn check_method(method: &'static str, head: &Head<'_, '_>) -> Result<(), Reply> {
    if head.method == method || method == "GET" && head.method == "HEAD" {
        return Ok(());
    }
    let allowed = if method == "GET" { "GET, HEAD" } else { method };
    Err(Reply::error(405, &format!("the method here is {method}")).with("Allow", allowed))
}
