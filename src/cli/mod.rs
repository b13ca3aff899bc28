//! The command line: what was asked for, and the small commands besides the server. Does not know how the server works.

mod args;
mod ask;
mod check;
mod doctor;
mod publish;
mod tail;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;

use args::{Arguments, Command, Demo, Serve};

use crate::config::Config;
use crate::server::reload::Reread;
use crate::{demo, server};

/// The command line or the environment makes no sense.
const USAGE: u8 = 2;

/// Does what the process's arguments say; returns 0, 1 for a failure, 2 for a mistake on the command line.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too, with standard output and code 0. If nobody reads them, so be it.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Without standard error there is nowhere left to complain.
            let _ = writeln!(io::stderr(), "roomcast: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), String> {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    match command {
        Command::Serve(serve) => {
            // The server logs from many threads.
            drop((out, err));
            let (config, ports_file) = (configured(&serve)?, serve.ports_file.clone());
            // Flags and variables stand over the file whenever it is read.
            let reread = serve.config.is_some().then(|| Box::new(move || configured(&serve)) as Reread);
            server::run(config, reread, ports_file)
        }
        Command::Demo(Demo { listen, ingest, admin, page, cores, speed, ports_file, log }) => {
            drop((out, err));
            let cores = usize::from(cores.unwrap_or(0));
            let page = page.unwrap_or_else(demo::default_page);
            let program = std::env::args().next().unwrap_or_default();
            demo::run(demo::Options { page, listen, ingest, admin, cores, speed, ports_file, log, program })
        }
        Command::Check(check) => check::run(&check, &mut out),
        Command::Doctor(doctor) => doctor::run(&doctor, &mut out),
        Command::Pub(publish) => publish::run(&publish, &mut io::stdin().lock(), &mut out, &mut err),
        Command::Tail(tail) => tail::run(&tail, &mut out, &mut err),
    }
}

/// The config file, or the built-in one, with what flags and variables put over it.
fn configured(serve: &Serve) -> Result<Config, String> {
    let mut config = match &serve.config {
        Some(file) => Config::load(file).map_err(|error| error.to_string())?,
        None => Config::development(),
    };
    config.server.cores = serve.cores.map_or(config.server.cores, usize::from);
    config.server.listen = serve.listen.unwrap_or(config.server.listen);
    config.ingest.listen = serve.ingest.unwrap_or(config.ingest.listen);
    config.ops.listen = serve.admin.unwrap_or(config.ops.listen);
    if let Some(level) = &serve.log {
        config.log.level.clone_from(level);
    }
    config.check_exposure().map_err(|error| error.to_string())?;
    Ok(config)
}

/// Writes a line for whoever reads this command's output; false when nobody does any more.
fn say(out: &mut dyn Write, line: &str) -> Result<bool, String> {
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(format!("cannot write the output: {error}")),
    }
}
