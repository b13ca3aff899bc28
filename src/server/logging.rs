//! Where log lines go: to standard error, for people on a terminal, as JSON otherwise.

use crate::config::{Log, LogFormat};
use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;

/// Changes what is logged, once a log is installed.
static FILTER: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Installs the process's log. A second call changes nothing.
///
/// # Errors
/// `log.level` is no filter.
pub fn install(options: &Log) -> Result<(), String> {
    let filter = filter(options)?;
    let human = match options.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only if one is installed, as in tests that run several servers in one process.
    if human {
        let builder = builder.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
        let handle = builder.reload_handle();
        if builder.try_init().is_ok() {
            let _ = FILTER.set(Box::new(move |filter| drop(handle.reload(filter))));
        }
    } else {
        let builder = builder.json().flatten_event(true).with_filter_reloading();
        let handle = builder.reload_handle();
        if builder.try_init().is_ok() {
            let _ = FILTER.set(Box::new(move |filter| drop(handle.reload(filter))));
        }
    }
    Ok(())
}

/// Has the process log what `log.level` says from here on. How lines look stays.
pub fn set_level(options: &Log) {
    if let (Some(set), Ok(filter)) = (FILTER.get(), filter(options)) {
        set(filter);
    }
}

fn filter(options: &Log) -> Result<EnvFilter, String> {
    EnvFilter::try_new(&options.level)
        .map_err(|error| format!("log.level = {:?} is no filter such as \"info\": {error}", options.level))
}
