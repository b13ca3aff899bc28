//! What cores take over when the operator has the config read again: all of it in one turn, between two messages. Does
//! not know the config.

use super::Options;
use super::conn::Role;
use super::core::Core;
use crate::base::ids::SlotRef;
use crate::base::secret::Secret;
use crate::ingest::publisher;
use crate::session::identity::Identity;
use crate::shard::{self, Namespace};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

/// One step of changing the settings of all cores. The next one is published when all cores have taken this one, so
/// that no core hears of a namespace that it does not know.
#[derive(Debug)]
pub enum Step {
    /// There is nothing to change: those that the cores were made with hold.
    Start,
    /// These hold from now on.
    Take(Box<Settings>),
    /// All cores have taken the last ones: names of namespaces that are new in them may be said.
    Open {
        /// The namespaces that all cores know.
        count: usize,
        /// Gets a word from each core that has heard of it.
        taken: Sender<()>,
    },
}

/// Settings that change under way.
#[derive(Debug)]
pub struct Settings {
    /// Of clients' connections. The endpoints are the former ones, in their order, but for their bounds.
    pub options: Options,
    /// Of the shard.
    pub shard: shard::Options,
    /// Of publishers' connections.
    pub ingest: publisher::Options,
    /// See [`publisher::Desk::new`].
    pub flat: Vec<bool>,
    /// What publishers say who come in over the network.
    pub ingest_token: Option<Secret>,
    /// How clients are identified.
    pub identity: Option<Arc<Identity>>,
    /// For each core a copy of its own, which it takes out: see
    /// [`Shard::set_namespaces`](shard::Shard::set_namespaces).
    pub namespaces: Box<[Mutex<Vec<Namespace>>]>,
    /// The namespaces, from the first, that all cores knew before.
    pub open: usize,
    /// Gets a word from each core that has taken them.
    pub taken: Sender<()>,
}

impl Core {
    /// Takes over what was published since the last turn.
    pub(super) fn take_settings(&mut self) {
        let Some(step) = self.shared.settings.newer_than(&mut self.settings) else { return };
        match &*step {
            Step::Start => {}
            Step::Take(settings) => self.take(settings),
            Step::Open { count, taken } => {
                self.shard.open_namespaces(*count);
                let _ = taken.send(());
            }
        }
    }

    fn take(&mut self, settings: &Settings) {
        let Settings { options, shard, ingest, flat, ingest_token, identity, namespaces, open, taken } = settings;
        self.options = options.clone();
        self.desk.change(*ingest, flat.clone(), ingest_token.clone());
        self.shard.set_options(*shard);
        let mut own = namespaces[self.shard.core().index()].lock().unwrap_or_else(PoisonError::into_inner);
        self.shard.set_namespaces(std::mem::take(&mut *own));
        // The step before may have been passed over, as this one is newer.
        self.shard.open_namespaces(*open);
        self.shard.set_identity(identity.clone());
        // What it said about a bound that is gone would be old when there is one again.
        self.shared.budget.set_largest(self.shard.core().index(), None);
        self.count_who_is_there();
        // Nobody waits for it who has lost patience.
        let _ = taken.send(());
    }

    /// Gives those a place who came in while connections were not counted.
    fn count_who_is_there(&mut self) {
        if !self.shared.admission.counts_connections() {
            return;
        }
        let without = self.conns.iter().filter(|(_, conn)| {
            conn.place.is_none() && matches!(conn.role, Role::Http(_) | Role::WebSocket { .. } | Role::Probe { .. })
        });
        for at in without.map(|(at, _)| at).collect::<Vec<SlotRef>>() {
            // Whoever has no address any more is about to go.
            let Ok(peer) = self.conns[at.slot].stream.peer_addr() else { continue };
            let peer = peer.ip().to_canonical();
            if !self.options.trusted_proxies.trusts(peer) {
                self.conns[at.slot].place = self.shared.admission.count(peer).map(Box::new);
            }
        }
    }
}
