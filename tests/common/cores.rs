//! Cores whose turns a test takes itself, one after the other in one thread, with real sockets: nothing depends on how
//! fast the machine is. Does not know what is tested.

use roomcast::base::clock::Millis;
use roomcast::base::ids::Topology;
use roomcast::config::Config;
use roomcast::ingest::publisher::Desk;
use roomcast::mesh;
use roomcast::net::pulse::Pulses;
use roomcast::net::wake::Bells;
use roomcast::net::{self, listener, sys};
use roomcast::session::admission::Admission;
use roomcast::session::budget::Budget;
use roomcast::session::inboxes;
use roomcast::shard::Shard;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

/// The cores of a server, and where it listens.
pub struct Cores {
    pub cores: Vec<net::Core>,
    pub listen: SocketAddr,
    pub ingest: SocketAddr,
}

impl Cores {
    /// `count` cores with this config, at free ports of loopback.
    pub fn start(count: usize, config: &str) -> Cores {
        let config = Config::parse(config, "test.toml").unwrap();
        let bind = || listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), count).unwrap();
        let (clients, publishers) = (bind(), bind());
        let (listen, ingest) = (clients[0].local_addr().unwrap(), publishers[0].local_addr().unwrap());
        let shared = Arc::new(net::Shared {
            bells: Bells::new(count).unwrap(),
            origin: sys::monotonic(),
            draining: AtomicBool::new(false),
            drain: net::DrainProgress::new(count),
            horizons: net::Horizons::new(count),
            pulses: Pulses::new(count),
            polling: AtomicUsize::new(0),
            budget: Budget::new(count, config.limits.outboxes_bytes_max),
            inboxes: Arc::new(inboxes::Budget::new(count, 0)),
            admission: Admission::new(config.admission_options()),
            settings: net::Published::new(net::Step::Start),
        });
        let topology = Topology::new(count, 7);
        let ports = mesh::connect(count, config.mesh_options(count));
        let ends = clients.into_iter().zip(publishers).zip(ports).zip(mesh::planes(count, 16));
        let core = |(((clients, publishers), port), handovers)| {
            let (namespaces, options) = (config.namespaces().unwrap(), config.shard_options(count));
            let setup = net::Setup {
                options: config.net_options(),
                shard: Shard::new(port, topology.clone(), namespaces, options, [1; 32], Millis(0), 1),
                desk: Desk::new(config.ingest_options(), config.flat_namespaces()),
                clients,
                shares_clients: false,
                publishers,
                extra: net::Extra::default(),
                handovers,
                shared: shared.clone(),
                publish_counters: Box::new(|_| {}),
            };
            net::Core::new(setup).unwrap()
        };
        Cores { cores: ends.map(core).collect(), listen, ingest }
    }

    /// Each core takes one turn.
    pub fn turn(&mut self) {
        for core in &mut self.cores {
            core.turn();
        }
    }
}
