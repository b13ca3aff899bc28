//! `roomcast demo`: the server with two of the systems that it is made for, a simulated feed, and a page that shows
//! both live; the first thing that a visitor runs. Does not know the command line.

pub mod buses;
pub mod dice;
pub mod feed;
pub mod pages;
pub mod places;
pub mod timetable;
pub mod trains;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::mpsc;

use serde::Serialize;

use self::places::{ROUTES, SEAT_LETTERS, SEAT_ROWS, STATIONS};
use self::timetable::{DEMO_USER, SimTime};
use crate::config::Config;
use crate::server::{self, Addresses};

/// The demo's config.
pub const CONFIG: &str = include_str!("demo.toml");
/// Every demo shows the same days, so that people can talk about what they see.
const SEED: u64 = 1853;
/// The first day begins when there is something to see.
const STARTS_AT: SimTime = SimTime::of_minutes(8 * 60);
/// Where the page is unless somebody wants it elsewhere; [`CONFIG`] allows it by both names.
const PAGE_PORT: u16 = 3300;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the page is served.
    pub page: SocketAddr,
    /// Where clients connect, if not where [`CONFIG`] says; so with the next two.
    pub listen: Option<SocketAddr>,
    /// Where publishers connect.
    pub ingest: Option<SocketAddr>,
    /// Where operators connect.
    pub admin: Option<SocketAddr>,
    /// Cores to run on; 0 for all.
    pub cores: usize,
    /// Simulated seconds of each second.
    pub speed: u32,
    /// Gets all ports when they are open.
    pub ports_file: Option<PathBuf>,
    /// What to log, if not what [`CONFIG`] says.
    pub log: Option<String>,
    /// How this program was called, for the lines that people copy into another terminal.
    pub program: String,
}

/// Where the page is unless somebody wants it elsewhere.
#[must_use]
pub fn default_page() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], PAGE_PORT))
}

/// Serves until SIGTERM or SIGINT, drains, and returns.
///
/// # Errors
/// A sentence for whoever has started it: what could not be had, and how to have it otherwise.
pub fn run(options: Options) -> Result<(), String> {
    let Options { page, speed, ports_file, .. } = options.clone();
    check_loopback(&options)?;
    let program = in_a_shell(&options.program).to_owned();
    let listener = TcpListener::bind(page).map_err(|error| {
        format!("cannot serve the page on {page} (--page): {error}; is another demo there? port 0 picks a free one")
    })?;
    let page = listener.local_addr().map_err(|error| format!("cannot read back the page's address: {error}"))?;
    let config = config(&options, page);
    // Dropped when the server has ended.
    let (_running, stop) = mpsc::channel();
    server::run_and(config, None, move |addresses| {
        let Addresses { listen, ingest, admin } = addresses;
        let pages = pages::Pages::new(plan(addresses, speed, &program), listen);
        start("demo-pages", move || pages.serve(&listener))?;
        let options = feed::Options { ingest, speed, seed: SEED, starts_at: STARTS_AT };
        start("demo-feed", move || feed::run(options, &stop))?;
        if let Some(file) = ports_file {
            let ports = [("listen", listen), ("ingest", ingest), ("admin", admin), ("page", page)];
            server::write_ports(&file, &ports)?;
        }
        // If nobody reads it, so be it: the page is there.
        let _ = std::io::stdout().write_all(welcome(addresses, page, speed, &program).as_bytes());
        Ok(())
    })
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(drop).map_err(|error| format!("cannot start the demo's thread {name}: {error}"))
}

/// How to call the program in a shell; by its name alone if it was called in a way that a shell might read otherwise.
fn in_a_shell(program: &str) -> &str {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if !program.is_empty() && program.bytes().all(is_plain) { program } else { "roomcast" }
}

/// It lets everybody in and tells everybody everything.
fn check_loopback(options: &Options) -> Result<(), String> {
    let Options { page, listen, ingest, admin, .. } = options;
    for (flag, address) in [
        ("--page", Some(page)),
        ("--listen", listen.as_ref()),
        ("--ingest", ingest.as_ref()),
        ("--admin", admin.as_ref()),
    ] {
        if let Some(address) = address.filter(|address| !address.ip().to_canonical().is_loopback()) {
            return Err(format!(
                "{flag} {address}: the demo lets everybody in, so it stays on this machine's own addresses, as in \
                 127.0.0.1:{}; to show it elsewhere, put a tunnel or a proxy before it",
                address.port()
            ));
        }
    }
    Ok(())
}

/// The config, for a page at this address.
fn config(options: &Options, page: SocketAddr) -> Config {
    let by_address = format!("//{page}\"");
    let text = CONFIG
        .replace(&format!("//127.0.0.1:{PAGE_PORT}\""), &by_address)
        .replace(&format!("//localhost:{PAGE_PORT}\""), &format!("//localhost:{}\"", page.port()));
    let config = Config::parse(&text, "built-in demo config");
    // Checked by a test; what was put in is an address.
    let mut config = config.unwrap_or_else(|error| unreachable!("{error}"));
    config.server.cores = options.cores;
    config.server.listen = options.listen.unwrap_or(config.server.listen);
    config.ingest.listen = options.ingest.unwrap_or(config.ingest.listen);
    config.ops.listen = options.admin.unwrap_or(config.ops.listen);
    if let Some(level) = &options.log {
        config.log.level.clone_from(level);
    }
    config
}

/// What the page must know, as JSON.
fn plan(Addresses { listen, ingest, admin }: Addresses, speed: u32, program: &str) -> String {
    let plan = Plan {
        listen: listen.to_string(),
        ingest: ingest.to_string(),
        admin: admin.to_string(),
        speed,
        program,
        user: DEMO_USER,
        rows: SEAT_ROWS,
        letters: SEAT_LETTERS.iter().collect(),
        routes: ROUTES.iter().map(|route| PlanRoute { id: route.id, from: route.from, to: route.to }).collect(),
        stations: STATIONS.iter().map(|station| PlanStation { code: station.code, name: station.name }).collect(),
        version: env!("CARGO_PKG_VERSION"),
    };
    simd_json::to_string(&plan).unwrap_or_else(|error| unreachable!("texts and numbers are JSON: {error}"))
}

#[derive(Serialize)]
struct Plan<'a> {
    listen: String,
    ingest: String,
    admin: String,
    speed: u32,
    program: &'a str,
    user: &'static str,
    rows: u8,
    letters: String,
    routes: Vec<PlanRoute>,
    stations: Vec<PlanStation>,
    version: &'static str,
}

#[derive(Serialize)]
struct PlanRoute {
    id: &'static str,
    from: &'static str,
    to: &'static str,
}

#[derive(Serialize)]
struct PlanStation {
    code: &'static str,
    name: &'static str,
}

/// What stands on the terminal.
fn welcome(addresses: Addresses, page: SocketAddr, speed: u32, program: &str) -> String {
    let Addresses { listen, ingest, admin } = addresses;
    let routes = ROUTES.len();
    format!(
        r#"
roomcast demo: a day of 1000 trains and {routes} bus routes, {speed} times as fast

  Open        http://{page}/

  clients     {listen}   Socket.IO with namespace /seats, and plain WebSocket at /ws
  publishers  {ingest}   the simulated feed writes lines here, and so can you
  operators   {admin}   /health, /metrics

Sell a seat by hand, and see it on the page:

  {program} pub --ingest {ingest} --ns /seats route:{route} seat_update \
    '{{"routeId":"{route}","seatNumber":"1A","eventType":"seat_confirmed","metadata":{{"gender":"F"}}}}'

Ctrl-C ends it.

"#,
        route = ROUTES[0].id,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            page: default_page(),
            listen: None,
            ingest: None,
            admin: None,
            cores: 1,
            speed: 60,
            ports_file: None,
            log: None,
            program: "roomcast".to_owned(),
        }
    }

    #[test]
    fn the_page_may_connect_wherever_it_is() {
        for (page, origins) in [
            ("127.0.0.1:3300", ["http://127.0.0.1:3300", "http://localhost:3300"]),
            ("127.0.0.1:45001", ["http://127.0.0.1:45001", "http://localhost:45001"]),
            ("[::1]:3300", ["http://[::1]:3300", "http://localhost:3300"]),
        ] {
            let config = config(&options(), page.parse().unwrap());
            assert_eq!(config.cors.origins, origins);
            config.check_exposure().unwrap();
            assert!(config.server.listen.port() == 3000 && config.ops.listen.port() == 3200);
        }
        let moved = Options { listen: Some(([127, 0, 0, 1], 9).into()), log: Some("debug".to_owned()), ..options() };
        let config = config(&moved, default_page());
        assert!(config.server.listen.port() == 9 && config.log.level == "debug" && config.server.cores == 1);
    }

    #[test]
    fn it_stays_on_loopback() {
        check_loopback(&Options { page: "[::1]:0".parse().unwrap(), ..options() }).unwrap();
        let everywhere: SocketAddr = "0.0.0.0:3000".parse().unwrap();
        for (flag, options) in [
            ("--page 0.0.0.0:3000", Options { page: everywhere, ..options() }),
            ("--listen 0.0.0.0:3000", Options { listen: Some(everywhere), ..options() }),
            ("--ingest 0.0.0.0:3000", Options { ingest: Some(everywhere), ..options() }),
            ("--admin 0.0.0.0:3000", Options { admin: Some(everywhere), ..options() }),
        ] {
            let error = check_loopback(&options).unwrap_err();
            assert!(error.starts_with(flag) && error.contains("127.0.0.1:3000"), "{error}");
        }
    }

    #[test]
    fn what_people_and_the_page_are_told() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let addresses = Addresses { listen: at(1), ingest: at(2), admin: at(3) };
        let said = welcome(addresses, at(4), 60, in_a_shell("target/debug/roomcast"));
        assert!(
            said.contains("http://127.0.0.1:4/") && said.contains("\n  target/debug/roomcast pub --ingest 127.0.0.1:2"),
            "{said}"
        );
        let plan: serde_json::Value =
            serde_json::from_str(&plan(addresses, 60, in_a_shell("my files/roomcast"))).unwrap();
        assert_eq!((plan["listen"].as_str(), plan["letters"].as_str()), (Some("127.0.0.1:1"), Some("ABCD")));
        assert_eq!((plan["routes"].as_array().unwrap().len(), &plan["program"]), (ROUTES.len(), &"roomcast".into()));
    }
}
