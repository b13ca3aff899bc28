//! With `server.steer = "cpu"` a connection lands on the core of the processor that its packets come in on. Over
//! loopback that is the processor of the client's thread. Needs two processors.

mod common;

use common::{OPEN, RawClient, Server, Signal, TempDir, wait_until};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

const CLIENTS: usize = 24;

fn config(steer: &str) -> String {
    format!("server.steer = \"{steer}\"\n{OPEN}")
}

/// The first two processors that this process may use, on which two cores are pinned. Says so loudly if there are none.
fn two_processors() -> Option<[usize; 2]> {
    let allowed = sched_getaffinity(None).unwrap();
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let two = cpus.next().zip(cpus.next()).map(|(first, second)| [first, second]);
    if two.is_none() {
        eprintln!("SKIPPED: one processor only, on which there is nothing to steer");
    }
    two
}

/// Connections from a thread on this processor.
fn connect_from(cpu: usize, address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connect = move || {
        let mut one = CpuSet::new();
        one.set(cpu);
        sched_setaffinity(None, &one).unwrap();
        (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
    };
    std::thread::spawn(connect).join().unwrap()
}

fn accepted(server: &Server) -> [usize; 2] {
    ["0", "1"].map(|core| server.metric_where("roomcast_connections_accepted_total", &[("core", core)]) as usize)
}

/// Connects from each processor in turn and expects all connections on its core.
#[track_caller]
fn each_lands_on_its_core(server: &Server, cpus: [usize; 2]) {
    let mut expected = accepted(server);
    for (core, cpu) in cpus.into_iter().enumerate() {
        let clients = connect_from(cpu, server.listen, CLIENTS);
        expected[core] += CLIENTS;
        wait_until("all were accepted", || accepted(server).iter().sum::<usize>() == expected.iter().sum::<usize>());
        assert_eq!(accepted(server), expected, "{CLIENTS} connections from processor {cpu}");
        drop(clients);
    }
}

#[test]
fn a_connection_lands_on_the_core_of_its_processor() {
    let Some(cpus) = two_processors() else { return };
    let server = Server::start(&config("cpu"), 2);
    each_lands_on_its_core(&server, cpus);
    // Rooms care for nothing of it.
    let mut client = RawClient::in_room(&server, "a");
    common::Publisher::connect(&server).line(r#"{"room":"a","event":"x"}"#);
    assert_eq!(client.next(), r#"{"type":"x"}"#);
}

#[test]
fn without_steering_the_kernel_spreads_connections() {
    let Some([cpu, _]) = two_processors() else { return };
    let server = Server::start(&config("hash"), 2);
    let before = accepted(&server);
    // All on one core by chance: once in 2^99.
    let _clients = connect_from(cpu, server.listen, 100);
    wait_until("all were accepted", || accepted(&server).iter().sum::<usize>() == before.iter().sum::<usize>() + 100);
    assert!(accepted(&server).iter().zip(before).all(|(now, before)| *now > before), "{:?}", accepted(&server));
}

/// The kernel numbers the listeners of a port, and a dead process's go one by one.
#[test]
fn a_restart_after_a_kill_steers_as_well() {
    let Some(cpus) = two_processors() else { return };
    let mut server = Server::start(&config("cpu"), 2);
    for _ in 0..3 {
        let address = server.listen;
        let _clients = connect_from(cpus[0], address, CLIENTS);
        server.kill();
        server = Server::setup(&config("cpu"), 2).listen(address).start();
        each_lands_on_its_core(&server, cpus);
    }
    assert!(server.stop(Signal::TERM).success());
}

#[test]
fn what_cannot_be_steered_does_not_start() {
    let serve = |cores: usize, listen: &str| {
        let dir = TempDir::new();
        fs::write(dir.path("config.toml"), config("cpu")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
        command.args(["serve", "--cores", &cores.to_string(), "--listen", listen]);
        command.args(["--ingest", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]).arg(dir.path("config.toml"));
        let log = dir.path("log");
        let mut child = command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        let mut status = None;
        wait_until("it ends, or serves although it should not", || {
            status = child.try_wait().unwrap();
            status.is_some() || fs::read_to_string(&log).unwrap().contains("is ready")
        });
        let _ = child.kill();
        child.wait().unwrap();
        (status.and_then(|status| status.code()), fs::read_to_string(&log).unwrap())
    };
    let allowed = sched_getaffinity(None).unwrap();
    let processors = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).count();
    let (code, err) = serve(processors + 1, "127.0.0.1:0");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("server.steer = \"cpu\"") && err.contains(&format!("server.cores to {processors}")), "{err}");
    // Another server's listeners would share the port, and count.
    let other = Server::start(&config("cpu"), 1);
    let (code, err) = serve(1, &other.listen.to_string());
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains(&other.listen.to_string()) && err.contains("server.listen"), "{err}");
}
