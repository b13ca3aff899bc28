//! The watchdog: tells the service manager that all is well as long as every core's loop turns. Does not know systemd's
//! protocol, nor what a core does in its turns.
//!
//! A core without work sleeps for as long as nothing happens, and would look dead. So the watchdog wakes all cores each
//! time it looks: a core that lives has turned by the next look, whether it had anything to do or not. One that hangs
//! in a lock, a system call or a loop without end has not, and then the manager is told nothing until it has. The
//! manager kills the process when it was told nothing for the time that its unit names (`WatchdogSec=`).

use crate::net;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Looks in the time after which the manager gives up: a machine that is held up for half of it has not missed its
/// chance.
const LOOKS: u32 = 4;
/// Looks cost each core a turn: no unit's typing error makes them a load.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// What has been seen of the cores.
#[derive(Debug)]
struct Watch {
    /// Each core's turns at the last look.
    seen: Vec<Option<u64>>,
    /// For how many looks each core has stood.
    stood: Vec<u32>,
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// All cores have turned since the last look.
    Alive,
    /// This core has not, nor in the looks before: so many in a row.
    Stands { core: usize, looks: u32 },
}

impl Watch {
    fn new(pulses: impl Iterator<Item = Option<u64>>) -> Watch {
        let seen: Vec<Option<u64>> = pulses.collect();
        Watch { stood: vec![0; seen.len()], seen }
    }

    /// Compares with the last look. Whoever looks wakes all cores after it.
    fn look(&mut self, pulses: impl Iterator<Item = Option<u64>>) -> Finding {
        for ((seen, stood), turns) in self.seen.iter_mut().zip(&mut self.stood).zip(pulses) {
            *stood = if turns.is_some() && turns == *seen { *stood + 1 } else { 0 };
            *seen = turns;
        }
        match self.stood.iter().enumerate().max_by_key(|(_, looks)| **looks) {
            Some((core, &looks)) if looks > 0 => Finding::Stands { core, looks },
            _ => Finding::Alive,
        }
    }
}

/// A running watchdog. Dropped, it ends.
#[derive(Debug)]
pub struct Watchdog {
    _stop: mpsc::Sender<()>,
}

impl Watchdog {
    /// Watches the cores from a thread of its own, and calls `feed` several times within `patience` while all of them
    /// turn.
    ///
    /// # Errors
    /// The kernel refuses a thread.
    pub fn start(
        shared: Arc<net::Shared>,
        patience: Duration,
        feed: impl Fn() + Send + 'static,
    ) -> Result<Watchdog, String> {
        let (stop, stopped) = mpsc::channel();
        let interval = (patience / LOOKS).max(INTERVAL_MIN);
        let watch = move || {
            let mut watch = Watch::new(shared.pulses.read());
            shared.bells.ring_all();
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                match watch.look(shared.pulses.read()) {
                    Finding::Alive => feed(),
                    // Once: it stands there until it is over.
                    Finding::Stands { core, looks: 1 } => {
                        tracing::error!(
                            core,
                            "the core's loop does not turn; the service manager is told nothing until it does"
                        );
                    }
                    Finding::Stands { .. } => {}
                }
                shared.bells.ring_all();
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch);
        thread.map_err(|error| format!("cannot start the watchdog: {error}"))?;
        Ok(Watchdog { _stop: stop })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(pulses: &[Option<u64>]) -> Watch {
        Watch::new(pulses.iter().copied())
    }

    #[test]
    fn all_is_well_while_every_core_turns() {
        let mut watch = watch(&[Some(0), Some(7)]);
        assert_eq!(watch.look([Some(1), Some(8)].into_iter()), Finding::Alive);
        assert_eq!(watch.look([Some(900), Some(9)].into_iter()), Finding::Alive, "how often does not matter");
    }

    #[test]
    fn one_core_that_stands_is_enough() {
        let mut watch = watch(&[Some(3), Some(3), Some(3)]);
        assert_eq!(watch.look([Some(4), Some(3), Some(4)].into_iter()), Finding::Stands { core: 1, looks: 1 });
        assert_eq!(watch.look([Some(5), Some(3), Some(5)].into_iter()), Finding::Stands { core: 1, looks: 2 });
        // Another one does not make the first one's stop forgotten.
        assert_eq!(watch.look([Some(5), Some(3), Some(6)].into_iter()), Finding::Stands { core: 1, looks: 3 });
        assert_eq!(watch.look([Some(5), Some(4), Some(7)].into_iter()), Finding::Stands { core: 0, looks: 2 });
        assert_eq!(watch.look([Some(6), Some(5), Some(8)].into_iter()), Finding::Alive, "it has come round again");
    }

    #[test]
    fn a_core_that_has_never_turned_stands() {
        let mut watch = watch(&[Some(0)]);
        assert_eq!(watch.look([Some(0)].into_iter()), Finding::Stands { core: 0, looks: 1 });
    }

    #[test]
    fn who_has_drained_is_not_waited_for() {
        let mut watch = watch(&[Some(5), Some(5)]);
        assert_eq!(watch.look([None, Some(6)].into_iter()), Finding::Alive);
        assert_eq!(watch.look([None, Some(7)].into_iter()), Finding::Alive);
        assert_eq!(watch.look([None, Some(7)].into_iter()), Finding::Stands { core: 1, looks: 1 });
        assert_eq!(watch.look([None, None].into_iter()), Finding::Alive);
    }
}
