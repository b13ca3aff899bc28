//! Command line of the bench: each subcommand is a module that declares its own options.

mod cpu;
mod floor;
mod load;
mod suite;

use clap::{Parser, Subcommand};
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
    /// A server without protocol work, to hold others against: it sends ready frames to the members of rooms.
    Floor(floor::Options),
    /// Measures all contenders in all scenarios and writes the results.
    Suite(suite::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Load(options) => load::run(&options),
        Command::Floor(options) => floor::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Suite(options) => suite::run(&options).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("roomcast-bench: {error}");
        ExitCode::FAILURE
    })
}
