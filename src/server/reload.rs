//! Has a running server take over its config file as it stands now: all of it that can change under way, or nothing.
//! Does not know what the signal is, nor how cores apply what they get.

use super::logging;
use crate::config::{Config, ConfigError, Update};
use crate::net::{self, Settings, Step};
use crate::ops::metrics;
use crate::session::identity::Identity;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Reads the config file again, with what the command line and the environment put over it. The error is a sentence for
/// the operator.
pub type Reread = Box<dyn Fn() -> Result<Config, String> + Send>;

/// A core takes the settings over in its next turn, which is a matter of milliseconds. One that does not has other
/// troubles; nobody else should wait for it any longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of reading the config again.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server was started without a file.
    Nothing,
    /// The file holds, but for the keys that need a restart.
    Done {
        /// Those, as the log names them.
        restart: Vec<String>,
    },
    /// The former config holds, for this reason.
    Refused(String),
}

/// What is needed to change the config of running cores.
pub struct Reloader {
    reread: Option<Reread>,
    /// The config that holds.
    present: Config,
    shared: Arc<net::Shared>,
    cores: usize,
    /// The namespaces, from the first, that all cores know.
    open: usize,
}

impl Reloader {
    /// Of cores that run with `present`. Without `reread` there is nothing to reload.
    #[must_use]
    pub fn new(reread: Option<Reread>, present: Config, shared: Arc<net::Shared>, cores: usize) -> Reloader {
        metrics::config_holds();
        let open = present.rules().len();
        Reloader { reread, present, shared, cores, open }
    }

    /// The config that holds.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.present
    }

    /// Reads the config file and all files that it names, and has the cores take over what they say; logs and counts
    /// what came of it. Returns when all cores go by it.
    pub fn reload(&mut self) -> Outcome {
        let Some(reread) = &self.reread else {
            tracing::warn!("there is nothing to reload: the server was started without a config file (--config)");
            return Outcome::Nothing;
        };
        let started = Instant::now();
        match reread().and_then(|config| self.take_over(config).map_err(|error| error.to_string())) {
            Ok(Update { config, changed, restart }) => {
                for key in &restart {
                    tracing::warn!(%key, "a change in the config file needs a restart to take effect");
                }
                self.present = config;
                metrics::config_holds();
                metrics::count_reload("ok", restart.len());
                let ms = started.elapsed().as_millis() as u64;
                let (changed, restart_needed) = (changed.join(", "), restart.len());
                tracing::info!(changed, restart_needed, ms, "the config was reloaded");
                Outcome::Done { restart }
            }
            Err(error) => {
                metrics::count_reload("refused", 0);
                tracing::error!("the config was not reloaded, the former one stays: {error}");
                Outcome::Refused(error)
            }
        }
    }

    /// Everything that can fail comes first.
    fn take_over(&mut self, new: Config) -> Result<Update, ConfigError> {
        let update = new.over(&self.present)?;
        let config = &update.config;
        let identity = identity(config)?;
        let ingest_token = config.ingest_token()?;
        let compiled: Result<Vec<_>, _> = (0..self.cores).map(|_| config.namespaces()).collect();
        let namespaces = compiled.unwrap_or_else(|error| unreachable!("the rules were checked: {error}"));
        logging::set_level(&config.log);
        self.shared.admission.set_options(config.admission_options());
        self.shared.budget.set_bytes_max(config.limits.outboxes_bytes_max);
        self.shared.inboxes.set_bytes_max(config.limits.inboxes_bytes_max);
        let is_taken = self.publish(|taken| {
            Step::Take(Box::new(Settings {
                options: config.net_options(),
                shard: config.shard_options(self.cores),
                ingest: config.ingest_options(),
                flat: config.flat_namespaces(),
                ingest_token,
                identity,
                namespaces: namespaces.into_iter().map(Mutex::new).collect(),
                open: self.open,
                taken,
            }))
        });
        let count = config.rules().len();
        if is_taken && count > self.open {
            self.open = count;
            self.publish(|taken| Step::Open { count, taken });
        }
        Ok(update)
    }

    /// Has all cores take a step. False if not all have done so in time.
    fn publish(&self, step: impl FnOnce(Sender<()>) -> Step) -> bool {
        let (taken, words) = mpsc::channel();
        self.shared.settings.publish(step(taken));
        self.shared.bells.ring_all();
        let until = Instant::now() + PATIENCE;
        for core in 0..self.cores {
            if words.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
                tracing::error!(missing = self.cores - core, "some cores have not taken the config over yet");
                return false;
            }
        }
        true
    }
}

/// Reads the keys that clients' tokens are verified by.
///
/// # Errors
/// The first one that is bad.
pub(super) fn identity(config: &Config) -> Result<Option<Arc<Identity>>, ConfigError> {
    let Some((identity, warnings)) = config.identity()? else { return Ok(None) };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(Some(Arc::new(identity)))
}
