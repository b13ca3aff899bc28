//! The end of a core: what is under way is finished and delivered, then clients are sent away one after the other, so
//! that they don't all come to another server at once. Does not know what they were there for.

use super::conn::Role;
use super::core::{CLIENTS, Core, DRAIN_END, DRAIN_STEP, LISTENERS};
use crate::base::clock::Millis;
use crate::base::ids::SlotRef;
use crate::shard::GOING_AWAY;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Steps in which clients are sent away are half as long to half as much longer than this: cores that began at the same
/// moment, and clients that come back after a fixed time, are not in step.
const STEP_MS: u64 = 20;

/// How many cores have not got past each stage of the drain yet. The stages keep the promise that whatever a publisher
/// has handed over reaches the clients before these are sent away.
#[derive(Debug)]
pub struct DrainProgress {
    /// Cores that still handle publishers' lines.
    publishing: AtomicUsize,
    /// Cores that may still have to order events.
    ordering: AtomicUsize,
    /// Cores that may still have sessions that poll. Connections that bring requests stay until there is none, as one
    /// of them may bring the poll that fetches a session's last word, for whatever core.
    polling: AtomicUsize,
    /// Cores that still have connections. A core goes on until there is none: others may need the rooms that it owns.
    open: AtomicUsize,
}

impl DrainProgress {
    /// No core has begun.
    #[must_use]
    pub fn new(cores: usize) -> DrainProgress {
        let all = || AtomicUsize::new(cores);
        DrainProgress { publishing: all(), ordering: all(), polling: all(), open: all() }
    }
}

/// How far a core is.
#[derive(Debug)]
pub(super) struct Drain {
    stage: Stage,
    /// Clients are sent away from here on, whatever is left to be done for them.
    clients_at: Millis,
    /// From here on nobody's request is waited for.
    hang_up_at: Millis,
    /// Those who are sent away next, the last one first.
    due: Vec<Due>,
    /// How many more may be sent away now, in thousandths.
    credit: u64,
    /// Thousandths of a client that each millisecond allows for.
    pace: u64,
    /// When clients were sent away last.
    stepped: Millis,
    /// True once the core has told the others that it has no sessions that poll.
    polled: bool,
    /// True once the core has told the others that it has no connections.
    reported: bool,
}

/// What a draining core waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its publishers' whole lines are handled and answered.
    Publishing,
    /// All cores have got there, and what they published is ordered.
    Ordering,
    /// All cores have got there, and what they ordered is delivered and sent.
    Delivering,
    /// Clients are sent away, step by step.
    Closing,
}

/// Who is sent away.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// A connection with what it carries.
    Conn(SlotRef),
    /// A session with what carries it, if anything does: one that polls may be between two polls.
    Session(SlotRef),
}

impl Core {
    pub(super) fn begin_drain(&mut self) {
        for number in LISTENERS {
            if self.watched[number as usize] {
                self.ring.cancel_listener(number, number == CLIENTS && self.shares_clients);
            } else {
                self.close_listener(number);
            }
        }
        let mut clients = 0;
        for at in self.conns.iter().map(|(at, _)| at).collect::<Vec<_>>() {
            let is_stranger = self.api != Some(at);
            if let Role::Publisher(publisher) = &mut self.conns[at.slot].role {
                // Nothing more is taken from it. Whole lines that are here are handled and answered, and it is told.
                // The API needs no word.
                publisher.stop(is_stranger);
                self.conns[at.slot].paused = true;
                self.hold_up(at);
            } else {
                clients += 1;
            }
        }
        // A third of the time for what is under way, a third for closing one client after the other, the rest for the
        // last ones' answers.
        let third = self.options.drain_ms_max / 3;
        let pace = self.drain_pace(clients, third);
        let (clients_at, hang_up_at) = (self.now.after(third), self.now.after(2 * third));
        // Early enough for the receipts to be written before clients and publishers are sent away.
        self.shard.hurry_asks(self.now.after(third / 2));
        self.drain = Some(Drain {
            stage: Stage::Publishing,
            clients_at,
            hang_up_at,
            due: Vec::new(),
            credit: 0,
            pace,
            stepped: self.now,
            polled: false,
            reported: false,
        });
        self.timers.arm(self.now, DRAIN_STEP);
        self.timers.arm(self.now.after(self.options.drain_ms_max), DRAIN_END);
    }

    /// Thousandths of a client a millisecond, which are clients a second: as the operator says, but fast enough to be
    /// done in time.
    fn drain_pace(&self, clients: u64, within_ms: u64) -> u64 {
        let needed = (clients * 1000).div_ceil(within_ms.max(1));
        let cores = self.shard.topology().cores() as u64;
        match u64::from(self.options.drain_clients_per_s).div_ceil(cores) {
            // One in each step at least: a few clients are no storm.
            0 => needed.max(1000 / STEP_MS),
            wanted if wanted < needed => {
                tracing::warn!(
                    core = self.shard.core().index(),
                    clients,
                    per_s = needed,
                    "clients are sent away faster than server.drain_clients_per_s, or server.drain_ms_max were too \
                     short for all of them"
                );
                needed
            }
            wanted => wanted,
        }
    }

    /// Moves the drain to its next stage when the time has come.
    pub(super) fn drain_on(&mut self) {
        let Some(drain) = &self.drain else { return };
        let (progress, port) = (&self.shared.drain, &self.shard.port);
        let done = |stage: &AtomicUsize| stage.load(Ordering::SeqCst) == 0;
        let late = self.now >= drain.clients_at;
        let (passed, next) = match drain.stage {
            Stage::Publishing if self.shard.counters.publishers == 0 && self.api.is_none() || late => {
                (Some(&progress.publishing), Stage::Ordering)
            }
            Stage::Ordering if done(&progress.publishing) && port.up.is_at_rest() || late => {
                (Some(&progress.ordering), Stage::Delivering)
            }
            Stage::Delivering
                if done(&progress.ordering) && port.down.is_at_rest() && self.shard.outboxes.dirty_len() == 0
                    || late =>
            {
                (None, Stage::Closing)
            }
            _ => return,
        };
        if passed.is_some_and(|stage| stage.fetch_sub(1, Ordering::SeqCst) == 1) {
            self.shared.bells.ring_all();
        }
        if let Some(drain) = &mut self.drain {
            drain.stage = next;
            drain.stepped = self.now;
        }
    }

    /// True if an answer's connection ends with it: no request is to come that matters.
    pub(super) fn hangs_up(&self) -> bool {
        self.drain
            .as_ref()
            .is_some_and(|drain| self.now >= drain.hang_up_at || self.shared.drain.polling.load(Ordering::SeqCst) == 0)
    }

    pub(super) fn drain_step(&mut self) {
        let step = STEP_MS / 2 + self.shard.random() % (STEP_MS + 1);
        self.timers.arm(self.now.after(step), DRAIN_STEP);
        let Some(drain) = &mut self.drain else { unreachable!("only a drain has steps") };
        if drain.stage != Stage::Closing {
            return;
        }
        // Not more than a second's worth, whatever has held us up.
        drain.credit = (drain.credit + drain.pace * self.now.since(drain.stepped)).min(drain.pace.max(1) * 1000);
        drain.stepped = self.now;
        if self.shard.counters.sessions_polling == 0 && !std::mem::replace(&mut drain.polled, true) {
            // Others see it with their next step.
            self.shared.drain.polling.fetch_sub(1, Ordering::SeqCst);
        }
        while let Some(drain) = &mut self.drain
            && drain.credit >= 1000
        {
            let Some(due) = drain.due.pop() else {
                if self.list_due() {
                    continue;
                }
                break;
            };
            if self.send_away(due)
                && let Some(drain) = &mut self.drain
            {
                drain.credit -= 1000;
            }
        }
    }

    /// Lists all who are still to be sent away, in an order that nobody can guess: clients of one address, or of one
    /// page, came in one after the other. False if that is nobody at present.
    fn list_due(&mut self) -> bool {
        let hangs_up = self.hangs_up();
        let conns = self.conns.iter().filter(|(_, conn)| match &conn.role {
            Role::WebSocket { session, .. } => self.shard.hears(*session),
            Role::Publisher(_) => true,
            // Its response ends the connection of one that has a request under way.
            Role::Http(http) => http.is_idle() && (hangs_up || !http.was_served()),
            // Of the others the end has begun, or comes with that of the session that they would carry.
            Role::Probe { .. } | Role::Closing { .. } | Role::Lingering { .. } | Role::TurnedAway | Role::Dead => false,
        });
        let mut due: Vec<Due> = conns.map(|(at, _)| Due::Conn(at)).collect();
        due.extend(self.shard.polling_sessions().map(Due::Session));
        for last in (1..due.len()).rev() {
            due.swap(last, (self.shard.random() % (last as u64 + 1)) as usize);
        }
        let any = !due.is_empty();
        if let Some(drain) = &mut self.drain {
            drain.due = due;
        }
        any
    }

    /// False if there was nobody to be sent away.
    fn send_away(&mut self, due: Due) -> bool {
        let at = match due {
            Due::Session(session) => {
                let hears = self.shard.hears(session);
                self.shard.shut(session, GOING_AWAY);
                return hears;
            }
            Due::Conn(at) => at,
        };
        let Some(conn) = self.conns.get(at) else { return false };
        match &conn.role {
            Role::WebSocket { session, .. } => {
                let session = *session;
                return self.send_away(Due::Session(session));
            }
            Role::Http(http) if http.is_idle() => self.finish(at, GOING_AWAY.label),
            Role::Publisher(_) => self.finish(at, GOING_AWAY.label),
            Role::Http(_) | Role::Probe { .. } | Role::Closing { .. } | Role::Lingering { .. } => return false,
            Role::TurnedAway | Role::Dead => return false,
        }
        true
    }

    pub(super) fn drain_end(&mut self) {
        let left: Vec<SlotRef> = self.conns.iter().map(|(at, _)| at).collect();
        for at in left {
            self.finish(at, GOING_AWAY.label);
        }
    }

    /// True when this core and all others have closed their last connection.
    pub(super) fn is_over(&mut self) -> bool {
        let Some(drain) = &mut self.drain else { return false };
        if self.conns.is_empty() && !std::mem::replace(&mut drain.reported, true) {
            let before = self.shared.drain.open.fetch_sub(1, Ordering::SeqCst);
            if before == 1 {
                self.shared.bells.ring_all();
            }
        }
        drain.reported && self.shared.drain.open.load(Ordering::SeqCst) == 0
    }
}
