//! A machine of several cores in one thread, without sockets: publishers' lines go in, and what waits for each client
//! is taken as the data plane takes it, joined for one send. Nothing is read by anybody.

use roomcast::base::clock::Millis;
use roomcast::base::ids::{NamespaceId, SlotRef, Topology};
use roomcast::config::Config;
use roomcast::ingest::publisher::{Desk, Progress, Publisher};
use roomcast::mesh;
use roomcast::proto::raw::Shape;
use roomcast::session::Kind;
use roomcast::shard::{Flow, Handshake, Shard};
use std::net::{IpAddr, Ipv4Addr};

/// Clients that have a plain WebSocket.
pub const RAW: Kind = Kind::Raw { namespace: NamespaceId(0), shape: Shape::Nested };

/// As much as one turn of a core delivers.
const DELIVERIES_PER_TURN: usize = 16 << 10;

pub struct Machine {
    now: Millis,
    pub cores: Vec<Core>,
    clients: u32,
}

pub struct Core {
    pub shard: Shard,
    desk: Desk,
    publisher: Publisher,
    /// One send's bytes, kept for their memory.
    joined: Vec<u8>,
    frames: Vec<u32>,
}

impl Machine {
    /// Without clients. `config` is what stands in a config's file.
    pub fn new(cores: usize, config: &str) -> Machine {
        let config = Config::parse(config, "test.toml").unwrap();
        let now = Millis(1_000);
        let topology = Topology::new(cores, 7);
        let core = |(core, port)| Core {
            shard: Shard::new(
                port,
                topology.clone(),
                config.namespaces().unwrap(),
                config.shard_options(cores),
                [core as u8; 32],
                now,
                1,
            ),
            desk: Desk::new(config.ingest_options(), config.flat_namespaces()),
            publisher: Publisher::new(),
            joined: Vec::new(),
            frames: Vec::new(),
        };
        let cores = mesh::connect(cores, config.mesh_options(cores)).into_iter().enumerate().map(core).collect();
        Machine { now, cores, clients: 0 }
    }

    /// A client of this core joins these rooms, and reads the answers.
    pub fn join(&mut self, core: usize, kind: Kind, rooms: &[String]) {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let handshake = Handshake { kind, polls: false, query: "", bearer: None, ip, message_bytes_max: 10_000 };
        let transport = SlotRef { slot: self.clients, generation: 0 };
        self.clients += 1;
        let session = self.cores[core].shard.open(transport, handshake, self.now);
        let connect = (kind == Kind::SocketIo).then(|| "40".to_owned());
        for text in connect.into_iter().chain(rooms.iter().map(|room| subscribe(kind, room))) {
            self.rest();
            let _: Flow = self.cores[core].shard.text(session, &text, self.now);
        }
        self.rest();
    }

    /// A publisher's lines come in on a core, as many at a time as one read gives.
    pub fn publish(&mut self, core: usize, lines: &[u8]) {
        let Core { shard, desk, publisher, .. } = &mut self.cores[core];
        let progress = publisher.work(lines, desk, shard, SlotRef { slot: 0, generation: 0 }, usize::MAX);
        assert_eq!(progress, Progress::Hungry, "the lines are whole, and there is room for them");
        assert!(publisher.outbox().is_empty(), "{}", String::from_utf8_lossy(publisher.outbox()));
    }

    /// One turn's work of a core between reading and sending: it orders, encodes, delivers. False if there was nothing.
    pub fn deliver(&mut self, core: usize) -> bool {
        let shard = &mut self.cores[core].shard;
        let worked = shard.receive(DELIVERIES_PER_TURN, self.now) < DELIVERIES_PER_TURN;
        while shard.poll_action().is_some() {}
        shard.port.take_touched(|_| {});
        worked
    }

    /// Delivers on all cores until there is nothing more to do.
    pub fn deliver_all(&mut self) {
        let mut worked = true;
        while std::mem::take(&mut worked) {
            for core in 0..self.cores.len() {
                worked |= self.deliver(core);
            }
        }
    }

    /// Takes what waits for each client of a core, as one send would get it. Returns how many sends and bytes it was.
    pub fn take(&mut self, core: usize) -> (usize, usize) {
        let Core { shard: Shard { outboxes, .. }, joined, frames, .. } = &mut self.cores[core];
        let (mut sends, mut bytes) = (0, 0);
        while let Some((session, _)) = outboxes.next_dirty() {
            joined.clear();
            frames.clear();
            let taken = outboxes.take(session, u32::MAX, frames).expect("nobody lags");
            frames.iter().for_each(|&frame| joined.extend_from_slice(outboxes.frame(frame)));
            outboxes.settle(session, taken, frames, joined.len());
            sends += 1;
            bytes += joined.len();
        }
        (sends, bytes)
    }

    /// Lets everything come to rest.
    pub fn rest(&mut self) {
        self.deliver_all();
        for core in 0..self.cores.len() {
            self.take(core);
        }
    }
}

/// A client's message that asks for a room.
pub fn subscribe(kind: Kind, room: &str) -> String {
    match kind {
        Kind::SocketIo => format!(r#"42["subscribe",{{"room":"{room}"}}]"#),
        _ => format!(r#"{{"type":"subscribe","data":{{"room":"{room}"}}}}"#),
    }
}
