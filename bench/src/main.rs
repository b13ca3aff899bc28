//! Command line of the bench: each subcommand is a module that declares its own options.

mod cpu;
mod floor;
mod load;

use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::process::ExitCode;

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put one scenario's load on a server that runs already, and say what it cost and whether every event arrived.
    Load(load::Options),
    /// The floor: a server without protocol work that sends a ready frame to each member of a room, one send for all
    /// events of one read from its publisher. It speaks just enough for raw mode.
    Floor {
        /// Clients' port.
        #[arg(long, default_value = "127.0.0.1:4000")]
        listen: SocketAddr,
        /// Publishers' port.
        #[arg(long, default_value = "127.0.0.1:4100")]
        ingest: SocketAddr,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Load(options) => load::run(&options),
        Command::Floor { listen, ingest } => floor::run(listen, ingest).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("roomcast-bench: {error}");
        ExitCode::FAILURE
    })
}
