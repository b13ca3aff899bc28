//! Where log lines go: to standard error, for people on a terminal, as JSON otherwise.

use crate::config::{Log, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Installs the process's log. A second call changes nothing.
///
/// # Errors
/// `log.level` is no filter.
pub fn install(options: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&options.level)
        .map_err(|error| format!("log.level = {:?} is no filter such as \"info\": {error}", options.level))?;
    let human = match options.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only if one is installed, as in tests that run several servers in one process.
    let _ = if human {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    Ok(())
}
