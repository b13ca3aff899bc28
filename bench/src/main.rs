//! Load generator: measures what one delivery costs a server, closed loop, so that nothing is dropped.

mod cpu;
mod firehose;
mod floor;
mod idle;
mod sockets;
mod suite;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Closed loop: rooms × members sockets, a fixed number of events under way.
    Firehose {
        #[command(flatten)]
        target: Target,
        /// Rooms.
        #[arg(long, default_value_t = 5)]
        rooms: usize,
        /// Sockets in each room.
        #[arg(long, default_value_t = 200)]
        members: usize,
        /// Events published and not yet received by all.
        #[arg(long, default_value_t = 64)]
        outstanding: usize,
        /// Bytes of an event's data.
        #[arg(long, default_value_t = 200)]
        bytes: usize,
        /// Events to publish.
        #[arg(long, default_value_t = 20_000)]
        events: usize,
    },
    /// Memory of connections that are joined to one of 50 rooms and say nothing.
    Idle {
        #[command(flatten)]
        target: Target,
        /// Connections.
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
    },
    /// A server without protocol work, to hold others against: it sends ready frames to the members of rooms.
    Floor(floor::Options),
    /// Measures all contenders in all scenarios and writes the results.
    Suite(suite::Options),
}

/// The server under test.
#[derive(Args, Clone, Debug)]
struct Target {
    /// Clients' port.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Publishers' port.
    #[arg(long, default_value = "127.0.0.1:3100")]
    ingest: SocketAddr,
    /// Process whose CPU time and memory are counted.
    #[arg(long)]
    pid: u32,
    /// What clients speak.
    #[arg(long, value_enum, default_value_t = Mode::Raw)]
    mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// JSON objects at `/ws`.
    Raw,
    /// Socket.IO over WebSocket.
    SocketIo,
    /// Socket.IO over HTTP long-polling, each client with one connection, on which its poll waits. `idle` only.
    Polling,
}

fn main() -> Result<(), String> {
    match Arguments::parse().command {
        Command::Firehose { target, rooms, members, outstanding, bytes, events } => {
            if target.mode == Mode::Polling {
                return Err("firehose reads WebSocket frames; polling is for idle".to_owned());
            }
            firehose::run(&target, &firehose::Load { rooms, members, outstanding, bytes, events })
        }
        Command::Idle { target, connections } => idle::run(&target, connections),
        Command::Floor(options) => floor::run(&options),
        Command::Suite(options) => suite::run(&options),
    }
}
