//! How often clients may say something. Does not know what they say.
//!
//! Four bytes for each socket and each session, beside their own tables and only if there is a limit: most servers have
//! none, and a socket has no four bytes to spare.

use super::Shard;
use crate::base::clock::Millis;
use crate::base::ids::SlotRef;
use crate::base::paged::PagedVec;
use crate::base::rate::Rate;
use crate::session::LimitOptions;

/// What is remembered of who has said how much.
#[derive(Debug)]
pub(super) struct Rates {
    limits: Option<Limits>,
    /// By the sockets' slots: see [`Rate::take_short`].
    sockets: PagedVec<u32>,
    /// By the sessions' slots.
    sessions: PagedVec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    events: Rate,
    /// A socket begins with a burst of its own. So each attempt to connect costs a session a burst, or coming and going
    /// would be the way around the limit; all of its namespaces can be connected to at once, and once more.
    connects: Rate,
}

impl Rates {
    pub(super) fn new(options: &LimitOptions) -> Rates {
        let bursts = 2 * options.namespaces_per_session_max as u32;
        let limits = options.events_per_socket.map(|events| Limits { events, connects: events.with_bursts(bursts) });
        Rates { limits, sockets: PagedVec::default(), sessions: PagedVec::default() }
    }

    /// From here on these limits hold. Whoever is there has all of its burst: what was remembered counts in the former
    /// rate's ticks.
    pub(super) fn renew(
        &mut self,
        options: &LimitOptions,
        sessions: impl Iterator<Item = SlotRef>,
        sockets: impl Iterator<Item = SlotRef>,
        now: Millis,
    ) {
        *self = Rates::new(options);
        sessions.for_each(|at| self.session_begins(at, now));
        sockets.for_each(|at| self.socket_begins(at, now));
    }

    /// A session is new at its slot.
    pub(super) fn session_begins(&mut self, at: SlotRef, now: Millis) {
        if let Some(limits) = self.limits {
            set(&mut self.sessions, at.slot, limits.connects.short_full_now(now));
        }
    }

    /// A socket is new at its slot.
    pub(super) fn socket_begins(&mut self, at: SlotRef, now: Millis) {
        if let Some(limits) = self.limits {
            set(&mut self.sockets, at.slot, limits.events.short_full_now(now));
        }
    }
}

impl Shard {
    /// False if an event of the socket, or what was to be one, is one too many.
    pub(super) fn may_say(&mut self, socket: SlotRef) -> bool {
        let Some(Limits { events, .. }) = self.rates.limits else { return true };
        take(events, 1, &mut self.rates.sockets[socket.slot as usize], self.now)
    }

    /// False if the session's attempt to connect to a namespace, known or not, is one too many.
    pub(super) fn may_connect(&mut self, session: SlotRef) -> bool {
        let Some(Limits { events, connects }) = self.rates.limits else { return true };
        take(connects, events.burst(), &mut self.rates.sessions[session.slot as usize], self.now)
    }
}

fn take(rate: Rate, count: u32, full_at: &mut u32, now: Millis) -> bool {
    let taken = rate.take_short(*full_at, count, now);
    *full_at = taken.unwrap_or(*full_at);
    taken.is_some()
}

fn set(table: &mut PagedVec<u32>, slot: u32, value: u32) {
    while table.len() <= slot as usize {
        table.push(0);
    }
    table[slot as usize] = value;
}
