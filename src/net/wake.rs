//! Sleeping and waking of cores: a flag for each core, and an eventfd that is written only while its core sleeps.

use super::sys::eventfd;
use crate::base::ids::CoreId;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// One core's bell.
#[derive(Debug)]
struct Bell {
    /// True from before the core's last look for work until it wakes.
    sleeping: AtomicBool,
    eventfd: File,
}

/// The bells of all cores.
#[derive(Debug)]
pub struct Bells(Vec<Bell>);

impl Bells {
    /// A bell for each of `cores` cores.
    ///
    /// # Errors
    /// No descriptor or no memory is left.
    pub fn new(cores: usize) -> io::Result<Bells> {
        let bell = || Ok(Bell { sleeping: AtomicBool::new(false), eventfd: File::from(eventfd()?) });
        (0..cores).map(|_| bell()).collect::<io::Result<Vec<Bell>>>().map(Bells)
    }

    /// A descriptor of the core's eventfd.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn eventfd(&self, core: CoreId) -> io::Result<OwnedFd> {
        self.0[core.index()].eventfd.as_fd().try_clone_to_owned()
    }

    /// Wakes `core` if it sleeps. What it shall find must be in place before. Returns whether it slept.
    pub fn ring(&self, core: CoreId) -> bool {
        let bell = &self.0[core.index()];
        // Pairs with the fence in `lie_down`: either the sleeper sees our message, or we see that it sleeps.
        fence(Ordering::SeqCst);
        if !bell.sleeping.load(Ordering::Relaxed) || !bell.sleeping.swap(false, Ordering::Relaxed) {
            return false;
        }
        // The counter overflows at 2^64 - 1: no write blocks or fails.
        (&bell.eventfd).write_all(&1u64.to_ne_bytes()).expect("an eventfd takes eight bytes");
        true
    }

    /// Wakes every core, asleep or not: for what is not a message.
    pub fn ring_all(&self) {
        for bell in &self.0 {
            (&bell.eventfd).write_all(&1u64.to_ne_bytes()).expect("an eventfd takes eight bytes");
        }
    }

    /// Announces that `core` is about to sleep; it looks for work once more after this.
    pub fn lie_down(&self, core: CoreId) {
        self.0[core.index()].sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// `core` is awake.
    pub fn get_up(&self, core: CoreId) {
        self.0[core.index()].sleeping.store(false, Ordering::Relaxed);
    }
}
