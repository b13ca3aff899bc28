//! Wiring: cores, rings, listeners, signals, drain. The one place where everything meets.

pub mod logging;
mod manager;
pub mod reload;
mod watchdog;

use self::manager::Inherited;
use self::watchdog::Watchdog;
use crate::base::clock::Millis;
use crate::base::ids::Topology;
use crate::config::{Config, Steer};
use crate::ingest::publisher::Desk;
use crate::net::pulse::Pulses;
use crate::net::wake::Bells;
use crate::net::{self, Step, cpus, executor, listener};
use crate::ops::access::Access;
use crate::ops::admin;
use crate::ops::metrics::{CoreMetrics, Exporter};
use crate::ops::site::Facts;
use crate::session::admission::Admission;
use crate::session::budget::Budget;
use crate::session::identity::Identity;
use crate::session::inboxes;
use crate::shard::Shard;
use crate::shard::tap::{self, Taps};
use crate::{mesh, shard};
use reload::{Outcome, Reloader, Reread};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The most descriptors for which the kernel's table is made at the start: 2 MB.
const DESCRIPTORS_RESERVED: u64 = 1 << 18;
/// Connections between two cores on their way to the core of their session: few are, and only for a moment.
const HANDOVER_SLOTS: usize = 64;

/// Where the process listens, ports picked.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// For clients.
    pub listen: SocketAddr,
    /// For publishers.
    pub ingest: SocketAddr,
    /// For operators.
    pub admin: SocketAddr,
}

/// Serves until SIGTERM or SIGINT, drains, and returns. On SIGHUP the config is read again by `reread`.
///
/// # Errors
/// A sentence for the operator: what could not be had, and by which key it is set.
pub fn run(config: Config, reread: Option<Reread>, ports_file: Option<PathBuf>) -> Result<(), String> {
    run_and(config, reread, |Addresses { listen, ingest, admin }| match ports_file {
        Some(file) => write_ports(&file, &[("listen", listen), ("ingest", ingest), ("admin", admin)]),
        None => Ok(()),
    })
}

/// The same, and calls `ready_then` when all ports are open; an error of it ends the process.
///
/// # Errors
/// As [`run`], and those of `ready_then`.
pub fn run_and(
    mut config: Config,
    reread: Option<Reread>,
    ready_then: impl FnOnce(Addresses) -> Result<(), String>,
) -> Result<(), String> {
    logging::install(&config.log)?;
    let mut reread = reread;
    let inherited = Inherited::take()?;
    if let Some(Inherited { address, .. }) = inherited {
        tracing::info!(%address, "clients come in by the service manager's socket, not by server.listen");
        config.server.listen = address;
        config.check_exposure().map_err(|error| format!("the socket of LISTEN_FDS: {error}"))?;
        if config.server.steer != Steer::Hash {
            tracing::warn!("server.steer does not hold for the service manager's sockets: the kernel spreads clients");
        }
        // Whatever the file says, also when it is read again.
        reread = reread.map(|reread| -> Reread {
            Box::new(move || {
                let mut config = reread()?;
                config.server.listen = address;
                Ok(config)
            })
        });
    }
    // Before any thread starts: every thread inherits the mask, and none but this one is told.
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|error| format!("cannot listen for signals: {error}"))?;
    let identity = reload::identity(&config).map_err(|error| error.to_string())?;
    match net::sys::raise_descriptor_limit() {
        Ok(limit) => {
            if let Err(error) = net::sys::reserve_descriptors(limit.min(DESCRIPTORS_RESERVED)) {
                tracing::debug!(%error, "the table of descriptors will grow with the number of clients");
            }
        }
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
    let cpus = cpus::allowed();
    let cores = if config.server.cores == 0 { cpus.len() } else { config.server.cores };
    if cores > cpus.len() {
        tracing::warn!(cores, processors = cpus.len(), "more cores than processors: they are not pinned and share");
    }
    let (clients, shares_clients) = match (&inherited, config.server.steer) {
        (Some(inherited), _) => inherited.deal(cores)?,
        (None, Steer::Hash) => (bind("clients", "server.listen", config.server.listen, cores)?, false),
        (None, Steer::Cpu) => (bind_steered(config.server.listen, cores, &cpus)?, false),
    };
    // The cores have their own descriptors of them, and close them when they drain.
    drop(inherited);
    let publishers = bind("publishers", "ingest.listen", config.ingest.listen, cores)?;
    let address = |listeners: &[TcpListener]| {
        listeners[0].local_addr().map_err(|error| format!("cannot read back a listener's address: {error}"))
    };
    let (listen, ingest) = (address(&clients)?, address(&publishers)?);
    let ingest_token = config.ingest_token().map_err(|error| error.to_string())?;
    // Removed at the end of this function.
    let (neighbours, _socket_file) = match config.unix_socket() {
        Some((path, mode)) => {
            let (listener, file) = bind_unix(&path, mode)?;
            (Some(listener), Some(file))
        }
        None => (None, None),
    };

    let exporter = Exporter::install()?;
    let draining = Arc::new(AtomicBool::new(false));
    let ready = Arc::new(AtomicBool::new(false));
    let taps = Arc::new(Taps::default());
    let facts = Facts {
        exporter: exporter.clone(),
        taps: taps.clone(),
        ready: ready.clone(),
        draining: draining.clone(),
        started: Instant::now(),
        access: Access {
            token: config.api_token().map_err(|error| error.to_string())?,
            is_local: config.ops.listen.ip().to_canonical().is_loopback(),
            hosts: config.ops.hosts.iter().map(|name| name.as_str().into()).collect(),
        },
        options: config.ops_options(),
    };
    let (api, cores_of_api) = api_connection().map_err(|error| format!("cannot make a pair of sockets: {error}"))?;
    let admin = start_admin(config.ops.listen, facts, cores_of_api)?;

    let shared = Arc::new(net::Shared {
        bells: Bells::new(cores).map_err(|error| format!("cannot make an eventfd: {error}"))?,
        origin: net::sys::monotonic(),
        draining: AtomicBool::new(false),
        drain: net::DrainProgress::new(cores),
        horizons: net::Horizons::new(cores),
        pulses: Pulses::new(cores),
        polling: AtomicUsize::new(0),
        budget: Budget::new(cores, config.limits.outboxes_bytes_max),
        inboxes: Arc::new(inboxes::Budget::new(cores, config.limits.inboxes_bytes_max)),
        admission: Admission::new(config.admission_options()),
        settings: net::Published::new(Step::Start),
    });
    let config = Arc::new(config);
    let topology = Topology::new(cores, u128::from_ne_bytes(random()?));
    let ports = mesh::connect(cores, config.mesh_options(cores));
    let first_epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64 >> 8);
    let (up, started) = mpsc::channel();
    let mut handles = Vec::new();
    let handovers = mesh::planes(cores, HANDOVER_SLOTS);
    let ends = clients.into_iter().zip(publishers).zip(ports).zip(handovers);
    let mut extra = Some(net::Extra { neighbours, api: Some(api) });
    for (index, (((clients, publishers), port), handovers)) in ends.enumerate() {
        let (extra, ingest_token) = (extra.take().unwrap_or_default(), ingest_token.clone());
        let seed = random()?;
        let (config, topology, shared, up) = (config.clone(), topology.clone(), shared.clone(), up.clone());
        let identity = identity.clone();
        let tap = tap::View::new(taps.clone());
        let cpu = (cores <= cpus.len()).then(|| cpus[index]);
        let metrics = exporter.add_core();
        let main = move || async move {
            // A core that dies takes its rooms with it: better no process than a silent half of one.
            let alarm = Alarm;
            let desk = Desk::new(config.ingest_options(), config.flat_namespaces()).with_token(ingest_token);
            let ends = (port, handovers, clients, shares_clients, publishers, extra);
            let seen = (metrics, tap);
            match start_core(index, &config, topology, ends, desk, identity, shared, seen, seed, first_epoch) {
                Ok(core) => {
                    // The receiver waits for one word from each core.
                    let _ = up.send(Ok(()));
                    core.run();
                }
                Err(error) => drop(up.send(Err(error))),
            }
            std::mem::forget(alarm);
        };
        handles.push(executor::spawn(&format!("core-{index}"), cpu, main)?);
    }
    for _ in 0..cores {
        started.recv().map_err(|_| "a core ended before it was ready".to_owned())??;
    }

    ready.store(true, Ordering::SeqCst);
    let addresses = Addresses { listen, ingest, admin };
    if config.is_development() {
        tracing::warn!(
            "no --config: this is the open development config, in which every client may join every room; it serves \
             loopback only"
        );
    }
    if std::env::var_os("REDIS_URL").is_some_and(|url| !url.is_empty()) {
        tracing::warn!("REDIS_URL is set, but this version serves from one server only: it does not use Redis");
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), mode = "single-server", cores, %listen, %ingest, %admin,
        "roomcast is ready"
    );
    ready_then(addresses)?;
    let _watchdog = match manager::watchdog() {
        Some(patience) => Some(Watchdog::start(shared.clone(), patience, manager::alive)?),
        None => None,
    };
    let status = format!("serving clients on {listen}, cores: {cores}");
    manager::ready(&status);

    let mut reloader = Reloader::new(reread, config.as_ref().clone(), shared.clone(), cores);
    let signal = loop {
        match signals.forever().next() {
            Some(SIGHUP) => {
                manager::reloading();
                manager::ready(&match reloader.reload() {
                    Outcome::Refused(why) => format!("{status}; the last reload was refused: {why}"),
                    Outcome::Done { .. } | Outcome::Nothing => status.clone(),
                });
            }
            Some(SIGINT) => break "SIGINT",
            _ => break "SIGTERM",
        }
    };
    let drain_ms_max = reloader.config().server.drain_ms_max;
    tracing::info!(signal, drain_ms_max, "draining");
    let drain_max = Duration::from_millis(drain_ms_max);
    manager::stopping(drain_max, &format!("draining, for {drain_max:?} at most"));
    draining.store(true, Ordering::SeqCst);
    shared.draining.store(true, Ordering::SeqCst);
    shared.bells.ring_all();
    // Who signals again does not want to wait.
    std::thread::spawn(move || {
        if signals.forever().any(|signal| signal != SIGHUP) {
            std::process::exit(1);
        }
    });
    for handle in handles {
        executor::join(handle)?;
    }
    tracing::info!("drained");
    Ok(())
}

/// Ends the process if it is dropped by a panic.
struct Alarm;

impl Drop for Alarm {
    fn drop(&mut self) {
        tracing::error!("a core has died; the process ends");
        std::process::abort();
    }
}

/// A core's ends of what leads to it.
type Ends = (
    mesh::Port<shard::messages::Up, shard::messages::Down>,
    mesh::Plane<net::HandOver>,
    TcpListener,
    bool,
    TcpListener,
    net::Extra,
);

#[allow(clippy::too_many_arguments)] // The wiring of one core, called once.
fn start_core(
    index: usize,
    config: &Config,
    topology: Topology,
    (port, handovers, clients, shares_clients, publishers, extra): Ends,
    desk: Desk,
    identity: Option<Arc<Identity>>,
    shared: Arc<net::Shared>,
    (mut metrics, tap): (CoreMetrics, tap::View),
    seed: [u8; 32],
    first_epoch: u64,
) -> Result<net::Core, String> {
    let namespaces = config.namespaces().map_err(|error| error.to_string())?;
    let now = Millis((net::sys::monotonic() - shared.origin).as_millis() as u64);
    let options = config.shard_options(topology.cores());
    let mut shard = Shard::new(port, topology, namespaces, options, seed, now, first_epoch);
    shard.set_identity(identity);
    shard.tap = tap;
    let setup = net::Setup {
        options: config.net_options(),
        shard,
        desk,
        clients,
        shares_clients,
        publishers,
        extra,
        handovers,
        shared,
        publish_counters: Box::new(move |shard| metrics.publish(shard)),
    };
    net::Core::new(setup).map_err(|error| {
        format!(
            "core {index} cannot set up its io_uring: {error}; roomcast needs Linux 6.1 or later with io_uring allowed \
             (sysctl kernel.io_uring_disabled=0)"
        )
    })
}

/// The HTTP API's connection: a core's end, which looks like any publisher's, and the API's.
fn api_connection() -> std::io::Result<(TcpStream, UnixStream)> {
    let (core, api) = UnixStream::pair()?;
    core.set_nonblocking(true)?;
    Ok((OwnedFd::from(core).into(), api))
}

fn start_admin(address: SocketAddr, facts: Facts, cores: UnixStream) -> Result<SocketAddr, String> {
    let (ready, bound) = mpsc::channel();
    let ready = move |result| drop(ready.send(result));
    executor::spawn("control", None, move || admin::serve(address, facts, cores, ready))?;
    bound.recv().map_err(|_| "the operators' executor ended before it was ready".to_owned())?
}

fn bind(whom: &str, key: &str, address: SocketAddr, cores: usize) -> Result<Vec<TcpListener>, String> {
    listener::bind(address, cores).map_err(|error| {
        format!(
            "cannot listen for {whom} on {address} ({key}): {error}; is another process there? port 0 picks a free one"
        )
    })
}

/// Listeners of clients, each of which gets the connections that come in on its core's processor.
fn bind_steered(address: SocketAddr, cores: usize, cpus: &[usize]) -> Result<Vec<TcpListener>, String> {
    let key = "server.steer = \"cpu\"";
    let Some(cpus) = cpus.get(..cores) else {
        return Err(format!(
            "{key}: {cores} cores on {} processors are not pinned, so that no connection belongs to one; set \
             server.cores to {0} at most, or server.steer to \"hash\"",
            cpus.len()
        ));
    };
    if address.port() != 0 {
        listener::wait_until_free(address).map_err(|error| {
            format!(
                "cannot listen for clients on {address} alone (server.listen), as {key} needs: {error}; is another \
                 process there?"
            )
        })?;
    }
    let listeners = bind("clients", "server.listen", address, cores)?;
    listener::steer(&listeners, cpus).map_err(|error| {
        format!("{key}: the kernel does not take the program: {error}; set server.steer to \"hash\"")
    })?;
    Ok(listeners)
}

fn bind_unix(path: &Path, mode: u32) -> Result<(TcpListener, listener::SocketFile), String> {
    listener::bind_unix(path, mode)
        .map_err(|error| format!("cannot listen for publishers on {} (ingest.unix): {error}", path.display()))
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| format!("the system's random source fails: {error}"))?;
    Ok(bytes)
}

/// Tells where the process listens, as JSON. Whoever sees the file sees all of it.
///
/// # Errors
/// A sentence for the operator: why it cannot be written.
pub fn write_ports(file: &Path, ports: &[(&str, SocketAddr)]) -> Result<(), String> {
    let members: Vec<String> = ports.iter().map(|(name, address)| format!("\"{name}\":\"{address}\"")).collect();
    let text = format!("{{{}}}\n", members.join(","));
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".tmp");
    std::fs::write(&unfinished, text)
        .and_then(|()| std::fs::rename(&unfinished, file))
        .map_err(|error| format!("cannot write --ports-file {}: {error}", file.display()))
}
