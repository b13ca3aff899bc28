//! The loop of one core: reap, read, publish, deliver, flush, sleep. Each step has a budget, so that none starves the
//! others; the loop sleeps only when there is nothing left to do.

use super::conn::{Conn, Role};
use super::drain::{Drain, DrainProgress};
use super::flush::JOIN_BYTES_MAX;
use super::http::{HandOver, Http};
use super::order::{Horizons, Parking};
use super::published::Published;
use super::pulse::Pulses;
use super::ring::{Completion, Ring, SENDS_MAX};
use super::settings::Step;
use super::wake::Bells;
use super::{Options, sys};
use crate::base::clock::{Micros, Millis};
use crate::base::counters;
use crate::base::ids::{CoreId, SlotRef};
use crate::base::slab::Slab;
use crate::base::wheel::Wheel;
use crate::ingest::publisher::{Desk, Progress, Publisher};
use crate::mesh::Plane;
use crate::session::admission::Admission;
use crate::session::budget::Budget;
use crate::session::inboxes::{self, Inboxes};
use crate::shard::{Action, Closing, OVER_BUDGET, SLOW_CONSUMER, Shard};
use socket2::Socket;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Connections read per turn: 128 reads of 1 µs and their handling are the turn's share of 500 µs.
const READS_PER_TURN: usize = 128;
/// And they end, as do those of connections that are new, when this is over: rules may make a message dear.
const READ_TIME_MAX: Duration = Duration::from_micros(250);
/// One read's buffer, shared by all connections of the core: a burst of 300 lines of 200 bytes, as much as the default
/// receive buffer of a loopback connection delivers at once.
const READ_BYTES: usize = 64 << 10;
/// Publishers' bytes per turn, over all publishers.
const PUBLISH_BYTES_PER_TURN: usize = 64 << 10;
/// Frames appended to outboxes per turn: 10 ns each.
const DELIVERIES_PER_TURN: usize = 16 << 10;
/// While more sessions than this wait to be flushed, nothing new is taken from publishers and other cores, unless one
/// send takes whatever waits for any of them: then more frames make the same number of sends.
const FLUSH_BACKLOG_MAX: usize = SENDS_MAX;
/// A core whose last pause was shorter than this looks for more work for so long before it sleeps.
const SPIN: Duration = Duration::from_micros(30);
/// A close frame that is not answered within this is not waited for any longer.
const CLOSE_MS_MAX: u64 = 3_000;
/// A peer that has been sent everything, and the end, is waited for this long.
const LINGER_MS_MAX: u64 = 1_000;
/// Publishers accepted per turn, on each of their listeners: they are few, and each is worth many clients.
const PUBLISHERS_PER_TURN: usize = 64;
/// While clients that are in are not all heard in a turn, only one in so many of `accepts_per_turn` comes in: what a
/// new client says next must find room in the turns as well.
const ACCEPTS_DIVISOR: usize = 4;
/// How long accepting pauses when descriptors or memory have run out.
const ACCEPT_PAUSE_MS: u64 = 100;
/// Arrivals are noted until nobody has polled for this long: turning that on and off costs the kernel more than it.
const STAMPING_MS: u64 = 60_000;

pub(super) const CLIENTS: u32 = 0;
const PUBLISHERS: u32 = 1;
/// Publishers of this host, by their Unix socket: one core listens, and deals them out.
const NEIGHBOURS: u32 = 2;
pub(super) const LISTENERS: [u32; 3] = [CLIENTS, PUBLISHERS, NEIGHBOURS];
/// Timer keys beyond all slots: the core's own deadlines.
const ACCEPT_AGAIN: SlotRef = SlotRef { slot: u32::MAX, generation: 0 };
pub(super) const DRAIN_STEP: SlotRef = SlotRef { slot: u32::MAX, generation: 1 };
pub(super) const DRAIN_END: SlotRef = SlotRef { slot: u32::MAX, generation: 2 };

/// What the cores of a process share.
#[derive(Debug)]
pub struct Shared {
    /// For waking each other.
    pub bells: Bells,
    /// When the cores' clock began, on `CLOCK_MONOTONIC`.
    pub origin: Duration,
    /// Set by the signal to stop.
    pub draining: AtomicBool,
    /// How far the cores are with draining.
    pub drain: DrainProgress,
    /// How far the cores are with what came in.
    pub horizons: Horizons,
    /// Whether the cores turn.
    pub pulses: Pulses,
    /// Who may come in.
    pub admission: Arc<Admission>,
    /// How many cores have sessions that poll: while there are any, connections note when their bytes came in.
    pub polling: AtomicUsize,
    /// What has changed since the cores were made.
    pub settings: Published<Step>,
    /// What the cores' outboxes take, and may take.
    pub budget: Budget,
    /// What the cores' clients have sent and is not handled, and how much that may be.
    pub inboxes: Arc<inboxes::Budget>,
}

/// What a core is made of.
pub struct Setup {
    /// Bounds and endpoints.
    pub options: Options,
    /// The core's rooms and sessions.
    pub shard: Shard,
    /// What its publishers share.
    pub desk: Desk,
    /// Where clients come in.
    pub clients: TcpListener,
    /// True if that is where other cores' clients come in as well.
    pub shares_clients: bool,
    /// Where publishers come in.
    pub publishers: TcpListener,
    /// What only one of the cores has.
    pub extra: Extra,
    /// For handing connections to the cores of their sessions.
    pub handovers: Plane<HandOver>,
    /// What the cores share.
    pub shared: Arc<Shared>,
    /// Gets the core's counters now and then, and before it sleeps.
    pub publish_counters: Box<dyn FnMut(&mut Shard)>,
}

/// What only one of the cores has. Unix sockets look like TCP ones here: nobody asks a publisher's connection for more
/// than to be read, written and shut.
#[derive(Debug, Default)]
pub struct Extra {
    /// Where publishers of this host come in, who need no token; a Unix socket.
    pub neighbours: Option<TcpListener>,
    /// The HTTP API's connection, as a publisher without a token; one end of a pair of Unix sockets.
    pub api: Option<TcpStream>,
}

/// One core.
pub struct Core {
    pub(super) options: Options,
    pub(super) shard: Shard,
    pub(super) desk: Desk,
    /// `None` once the core drains: what would wait in the backlog goes elsewhere.
    listeners: [Option<TcpListener>; LISTENERS.len()],
    /// True for each listener while the kernel reports what comes in there.
    pub(super) watched: [bool; LISTENERS.len()],
    /// True for each listener where connections may wait.
    knocked: [bool; LISTENERS.len()],
    /// True until [`ACCEPT_AGAIN`]: there is nothing to hold connections with.
    accept_paused: bool,
    /// True if other cores accept from the clients' listener as well.
    pub(super) shares_clients: bool,
    /// True from the first turn that has seen the signal to stop.
    leaving: bool,
    /// The core that gets the next publisher of this host.
    next_neighbour: usize,
    /// The HTTP API's connection, while it is open. It is not counted among publishers.
    pub(super) api: Option<SlotRef>,
    pub(super) shared: Arc<Shared>,
    publish_counters: Box<dyn FnMut(&mut Shard)>,
    pub(super) ring: Ring,
    pub(super) conns: Slab<Conn>,
    /// Connections that can be read.
    readable: VecDeque<SlotRef>,
    /// Those that can be read and have not sent a request yet: they have turns of their own, so that nobody who is in
    /// waits for all who want to come in.
    arrivals: VecDeque<SlotRef>,
    /// True if there was more to read than the last turn could.
    behind: bool,
    /// Publishers with lines that wait for the next turn.
    loaded: VecDeque<SlotRef>,
    /// Publishers with lines that wait for space in the rings or for an answer.
    held_up: Vec<SlotRef>,
    /// Connections with a whole request that is to be served.
    pub(super) requests: VecDeque<SlotRef>,
    /// Connections to and from other cores.
    pub(super) handovers: Plane<HandOver>,
    /// Requests that wait for what came before them on other cores.
    pub(super) parking: Parking,
    /// The time that the core's horizon moves to when so many more connections, and so many more arrivals, have been
    /// read.
    mark: Option<(u64, usize, usize)>,
    /// Whatever came in on this core before this has been read. Nanoseconds on the cores' clock.
    pub(super) settled: u64,
    /// Connections of clients that have not said anything yet.
    pub(super) unheard: usize,
    /// Connections that were told that there is no place for them, and have not ended yet.
    pub(super) turned_away: usize,
    /// While sessions poll here, and some time after.
    stamper: Option<Socket>,
    /// When sessions polled here last.
    polled: Millis,
    pub(super) completions: Vec<Completion>,
    /// The time for responses, and the second that it says.
    pub(super) date: (u64, String),
    /// One polling response's body, kept for its memory.
    pub(super) payload: Vec<u8>,
    scratch: Vec<u8>,
    pub(super) flush: super::flush::Workspace,
    pub(super) now: Millis,
    /// Deadlines of connections, and the core's own.
    pub(super) timers: Wheel<SlotRef>,
    fired: Vec<SlotRef>,
    pub(super) drain: Option<Drain>,
    counted: Millis,
    /// The version of the settings that hold here.
    pub(super) settings: u64,
    /// When the core looked at the budget of outboxes.
    budgeted: Millis,
    /// When the turn before began, if it did something: the next one's beginning is its end.
    busy_since: Option<u64>,
}

impl Core {
    /// Must be called on the executor's thread, as the ring belongs to it.
    ///
    /// # Errors
    /// The kernel refuses the ring.
    pub fn new(setup: Setup) -> io::Result<Core> {
        let Setup {
            options,
            shard,
            desk,
            clients,
            shares_clients,
            publishers,
            extra,
            handovers,
            shared,
            publish_counters,
        } = setup;
        let ring = Ring::new(shared.bells.eventfd(shard.core())?)?;
        // Whoever made them: the core must not wait in an accept.
        for listener in [Some(&clients), Some(&publishers), extra.neighbours.as_ref()].into_iter().flatten() {
            listener.set_nonblocking(true)?;
        }
        let mut core = Core {
            options,
            shard,
            desk,
            listeners: [Some(clients), Some(publishers), extra.neighbours],
            watched: [false; LISTENERS.len()],
            knocked: [false; LISTENERS.len()],
            accept_paused: false,
            shares_clients,
            leaving: false,
            next_neighbour: 0,
            api: None,
            shared,
            publish_counters,
            ring,
            conns: Slab::new(),
            readable: VecDeque::new(),
            arrivals: VecDeque::new(),
            behind: false,
            loaded: VecDeque::new(),
            held_up: Vec::new(),
            requests: VecDeque::new(),
            handovers,
            parking: Parking::default(),
            mark: None,
            settled: 0,
            unheard: 0,
            turned_away: 0,
            stamper: None,
            polled: Millis(0),
            completions: Vec::new(),
            date: (0, String::new()),
            payload: Vec::new(),
            scratch: vec![0; READ_BYTES],
            flush: super::flush::Workspace::default(),
            now: Millis(0),
            timers: Wheel::new(Millis(0)),
            fired: Vec::new(),
            drain: None,
            counted: Millis(0),
            settings: 0,
            budgeted: Millis(0),
            busy_since: None,
        };
        core.now = core.clock();
        core.shard.inboxes = Inboxes::new(core.shared.inboxes.clone(), core.shard.core());
        core.look_at_the_wall_clock();
        if let [Some(clients), ..] = &core.listeners {
            core.shared.horizons.listens(core.shard.core(), clients.as_raw_fd());
        }
        core.watch_listeners();
        core.api = extra.api.map(|stream| core.take_publisher(stream, Publisher::new()));
        Ok(core)
    }

    /// Runs until the process drains and the last core has closed its last connection.
    ///
    /// It blocks its thread and does not yield to the executor, where it is alone.
    pub fn run(mut self) {
        let mut idle_since: Option<Duration> = None;
        // How long the last time without work was.
        let mut gap = Duration::MAX;
        loop {
            let worked = self.turn();
            if self.is_over() {
                self.count_now();
                self.shared.pulses.end(self.shard.core());
                return;
            }
            if worked {
                if let Some(since) = idle_since.take() {
                    gap = sys::monotonic() - since;
                }
                continue;
            }
            let now = sys::monotonic();
            let since = *idle_since.get_or_insert(now);
            // Work that comes in short intervals mostly goes on like that.
            if gap < SPIN && now - since < SPIN {
                std::hint::spin_loop();
                continue;
            }
            // Before the last look, so that what it finds is not behind a stale figure.
            self.count_now();
            if !self.keep_budget() && self.lie_down() {
                self.shard.counters.sleeps += 1;
                self.shared.horizons.sleeps(self.shard.core(), self.unheard);
                self.ring.wait();
                self.shared.horizons.wakes(self.shard.core());
            }
            self.get_up();
        }
    }

    fn clock(&self) -> Millis {
        Millis(self.clock_ns() / 1_000_000)
    }

    /// Nanoseconds since the cores' clock began.
    pub(super) fn clock_ns(&self) -> u64 {
        (sys::monotonic() - self.shared.origin).as_nanos() as u64
    }

    /// For what is measured.
    fn instant(&self, now: Duration) -> Micros {
        Micros((now - self.shared.origin).as_nanos() as u64 / 1000)
    }

    /// One round of everything. False if there was nothing to do.
    pub fn turn(&mut self) -> bool {
        let began = self.clock_ns();
        if let Some(since) = self.busy_since.take() {
            self.shard.counters.histograms.turn.note_ns(began - since);
        }
        let worked = self.work(began);
        self.busy_since = worked.then_some(began);
        worked
    }

    fn work(&mut self, began: u64) -> bool {
        self.now = Millis(began / 1_000_000);
        self.shard.counters.turns += 1;
        self.shared.pulses.beat(self.shard.core());
        // Once for the whole turn: what is accepted below is still served, or nothing is accepted.
        self.leaving = self.shared.draining.load(Ordering::Relaxed);
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.reap(&mut completions);
        let mut worked = !completions.is_empty();
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        worked |= self.accept_some();
        // What waits in the backlog may have come in before.
        if !self.has_backlog() && !self.leaves_a_backlog() {
            self.mark.get_or_insert((began, self.readable.len(), self.arrivals.len()));
        }
        // Sends report what else happened into the list that a turn takes; it must not lose its memory.
        if self.completions.is_empty() {
            self.completions = completions;
        }
        if self.leaving && self.drain.is_none() {
            self.begin_drain();
        }
        self.take_settings();
        self.fire_timers();
        self.shard.advance(self.now);
        worked |= self.act();
        self.drain_on();
        worked |= self.read_some();
        if let Some((until, 0, 0)) = self.mark {
            self.settled = until;
        }
        self.handovers.flush();
        worked |= self.take_in();
        worked |= self.serve_some();
        let outboxes = &mut self.shard.outboxes;
        let backlogged = outboxes.dirty_len() > FLUSH_BACKLOG_MAX;
        if !backlogged {
            outboxes.watch_backlog();
        }
        if !backlogged || outboxes.backlog() <= JOIN_BYTES_MAX as u32 {
            self.shard.set_instant(self.instant(sys::monotonic()));
            worked |= self.publish_some();
            worked |= self.shard.receive(DELIVERIES_PER_TURN, self.now) < DELIVERIES_PER_TURN;
        }
        // Before anything is sent, as a WebSocket may have just taken over a session.
        worked |= self.act();
        worked |= self.flush_some() > 0;
        if self.shard.awaits_sends() {
            self.shard.sent(self.instant(sys::monotonic()));
        }
        if self.now != self.budgeted {
            self.budgeted = self.now;
            worked |= self.keep_budget();
        }
        worked |= self.act();
        self.shard.port.flush();
        let (shared, counters) = (&self.shared, &mut self.shard.counters);
        let mut wake = |core| counters.wakes += u64::from(shared.bells.ring(core));
        self.shard.port.take_touched(&mut wake);
        self.handovers.take_touched(&mut wake);
        // What came before the mark has been read, and what belongs to other cores is in their rings.
        if let Some((until, 0, 0)) = self.mark
            && !self.handovers.is_blocked()
        {
            self.mark = None;
            self.shared.horizons.advance(self.shard.core(), until);
        }
        if self.now.since(self.counted) >= 100 {
            self.count_now();
        }
        let read = self.readable.is_empty() && self.arrivals.is_empty() && self.loaded.is_empty();
        let served = self.requests.is_empty() && self.parking.is_empty();
        worked || !read || !served || self.has_backlog() || self.is_blocked()
    }

    /// True while messages wait for space in rings: the receivers work on it, and this core looks again at once.
    fn is_blocked(&self) -> bool {
        !self.shard.may_publish() || self.shard.has_emits() || self.handovers.is_blocked()
    }

    /// Announces sleep and looks for work once more. True if there is none.
    fn lie_down(&mut self) -> bool {
        self.shared.bells.lie_down(self.shard.core());
        let due = self.shard.timers.next_deadline().into_iter().chain(self.timers.next_deadline()).min();
        if let Some(due) = due {
            self.ring.deadline(due, self.shared.origin);
        }
        self.ring.enable_signal()
            && self.shard.port.is_idle()
            && self.handovers.is_idle()
            && (self.drain.is_some() || !self.shared.draining.load(Ordering::SeqCst))
    }

    fn get_up(&mut self) {
        self.ring.disable_signal();
        self.shared.bells.get_up(self.shard.core());
        // Somebody may have set it meanwhile, and deadlines that hang on it may be due.
        self.look_at_the_wall_clock();
    }

    /// Tells the shard what time it is outside. Read before our own clock, so that nothing comes too early for the time
    /// between the two.
    fn look_at_the_wall_clock(&mut self) {
        let wall_ns = sys::realtime_ns();
        self.shard.set_wall_clock(wall_ns.saturating_sub(self.clock_ns()) / 1_000_000);
    }

    /// Has slow consumers cut if all cores' outboxes take too much. True while that is not done: then no core sleeps.
    fn keep_budget(&mut self) -> bool {
        let Core { shard, shared, .. } = self;
        let more = shard.keep_budget(&shared.budget);
        if more {
            for core in 0..shard.topology().cores() {
                shard.counters.wakes += u64::from(shared.bells.ring(CoreId::new(core)));
            }
        }
        more
    }

    fn count_now(&mut self) {
        self.counted = self.now;
        self.look_at_the_wall_clock();
        self.watch_polling();
        self.shard.update_gauges();
        self.shard.counters.kernel_retries = self.ring.retries;
        self.shard.counters.connections_unheard = self.unheard as u64;
        (self.publish_counters)(&mut self.shard);
    }

    /// Has arrivals noted as long as sessions poll.
    pub(super) fn watch_polling(&mut self) {
        if self.shard.counters.sessions_polling > 0 {
            self.polled = self.now;
            if self.stamper.is_none() {
                // Without it requests go by the times at which they were read.
                self.stamper = sys::stamper().map_err(|error| tracing::debug!(%error, "arrivals are not noted")).ok();
                self.shared.polling.fetch_add(usize::from(self.stamper.is_some()), Ordering::Relaxed);
            }
        } else if self.now.since(self.polled) > STAMPING_MS && self.stamper.take().is_some() {
            self.shared.polling.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Knocked { listener, armed } => {
                self.watched[listener as usize] = armed;
                self.knocked[listener as usize] = true;
                if !self.leaving {
                    self.watch_listeners();
                } else if !armed {
                    self.close_listener(listener);
                }
            }
            Completion::Accepted { listener, stream } => self.accepted(listener, stream),
            Completion::AcceptEnded { listener, error } => self.accept_ended(listener, error.as_ref()),
            Completion::Readable { at, armed, hangup } => {
                let Some(at) = self.resolve(at) else { unreachable!("a slot outlives its polls") };
                let conn = &mut self.conns[at.slot];
                conn.polls_read = armed;
                conn.readable = true;
                conn.hangup |= hangup;
                if matches!(conn.role, Role::Dead) {
                    return self.bury(at);
                }
                if !armed {
                    conn.polls_read = true;
                    self.ring.poll_read(&self.conns[at.slot].stream, at);
                }
                self.queue(at);
            }
            Completion::Writable { at } => {
                let Some(at) = self.resolve(at) else { unreachable!("a slot outlives its polls") };
                let conn = &mut self.conns[at.slot];
                conn.polls_write = false;
                match &conn.role {
                    Role::Dead => self.bury(at),
                    Role::WebSocket { session, .. } | Role::Closing { session, .. } => {
                        self.shard.outboxes.unblock(session.slot);
                    }
                    Role::Http(_) => self.send_http(at),
                    Role::Publisher(_) => self.write_receipts(at),
                    Role::Probe { .. } | Role::Lingering { .. } | Role::TurnedAway => {}
                }
            }
            Completion::Deadline => {}
        }
    }

    /// The full reference of a slot whose generation the ring cut to 24 bits.
    fn resolve(&self, at: SlotRef) -> Option<SlotRef> {
        self.conns.at(at.slot).filter(|full| full.generation & 0x00ff_ffff == at.generation)
    }

    fn watch_listeners(&mut self) {
        for number in LISTENERS {
            let is_shared = number == CLIENTS && self.shares_clients;
            if let Some(listener) = &self.listeners[number as usize]
                && !(is_shared && self.accept_paused)
                && !std::mem::replace(&mut self.watched[number as usize], true)
            {
                if is_shared {
                    // One after the other, one in a turn: the next one is asked for in the next turn.
                    self.ring.accept(listener, number);
                } else {
                    self.ring.poll_listener(listener, number);
                }
            }
        }
    }

    /// True while connections wait that can be accepted.
    fn has_backlog(&self) -> bool {
        self.knocked.contains(&true) && !self.accept_paused && !self.leaving
    }

    /// Accepts connections, some of them: the others wait in the kernel, as long as they must. So handshakes cost those
    /// who are in a bounded part of each turn, and nothing is kept here for whoever is not in yet.
    fn accept_some(&mut self) -> bool {
        if !self.has_backlog() {
            return false;
        }
        let mut any = false;
        for number in LISTENERS {
            let mut budget = if number == CLIENTS { self.accepts_allowed() } else { PUBLISHERS_PER_TURN };
            while self.knocked[number as usize] && budget > 0 && !self.accept_paused {
                budget -= 1;
                any |= self.accept_one(number);
            }
            self.shard.counters.accepts_paced += u64::from(number == CLIENTS && self.knocked[number as usize]);
        }
        any
    }

    /// How many clients may come in now: fewer while those are not heard that came in before.
    fn accepts_allowed(&self) -> usize {
        let per_turn = self.options.accepts_per_turn;
        let most = if self.behind { per_turn.div_ceil(ACCEPTS_DIVISOR) } else { per_turn };
        most.saturating_sub(self.arrivals.len())
    }

    /// False if there was none.
    fn accept_one(&mut self, number: u32) -> bool {
        let Some(listener) = &self.listeners[number as usize] else {
            self.knocked[number as usize] = false;
            return false;
        };
        let error = match sys::accept(listener) {
            Ok(stream) => {
                self.accepted(number, stream);
                return true;
            }
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EAGAIN) => self.knocked[number as usize] = false,
            Some(libc::EINTR) => {}
            _ => self.accept_failed(&error),
        }
        false
    }

    fn accept_failed(&mut self, error: &io::Error) {
        self.shard.counters.count(counters::ACCEPT_ERRORS, super::error_label(error));
        // Connections wait in the backlog until there is something to hold them with. Anything else is one that was
        // gone before it was accepted.
        if let Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) = error.raw_os_error()
            && !std::mem::replace(&mut self.accept_paused, true)
        {
            self.timers.arm(self.now.after(ACCEPT_PAUSE_MS), ACCEPT_AGAIN);
        }
    }

    /// True while connections wait at a listener that several cores share. Whose they will be is not said before one of
    /// them has accepted them, so none of them has read whatever came in.
    fn leaves_a_backlog(&self) -> bool {
        let [clients, ..] = &self.listeners;
        self.shares_clients && clients.as_ref().is_some_and(|listener| sys::any_readable(&[listener.as_raw_fd()]))
    }

    fn accepted(&mut self, listener: u32, stream: TcpStream) {
        self.shard.counters.accepted += 1;
        if self.drain.is_some() {
            return;
        }
        match listener {
            NEIGHBOURS => return self.deal_out(stream),
            PUBLISHERS => {
                self.shard.counters.publishers += 1;
                let at = self.take_publisher(stream, self.desk.stranger());
                let Role::Publisher(publisher) = &self.conns[at.slot].role else { unreachable!("made just now") };
                if publisher.is_locked() {
                    self.set_timer(at, self.options.handshake_ms_max);
                }
                return;
            }
            _ => {}
        }
        let place = match self.place_for(&stream) {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return self.turn_away(stream),
            // It is gone already.
            Err(_) => return,
        };
        self.shard.counters.connections += 1;
        self.unheard += 1;
        let mut http = Box::<Http>::default();
        if self.shared.polling.load(Ordering::Relaxed) > 0 {
            http.stamped = sys::stamp_arrivals(&stream, true).is_ok();
        }
        let mut conn = Conn::new(stream, Role::Http(http));
        conn.place = place;
        let at = self.watch(conn);
        self.set_timer(at, self.options.handshake_ms_max);
    }

    /// Gives each core its share of the publishers that this one accepts.
    fn deal_out(&mut self, stream: TcpStream) {
        let core = CoreId::new(self.next_neighbour);
        self.next_neighbour = (self.next_neighbour + 1) % self.shard.topology().cores();
        if core == self.shard.core() {
            self.take_neighbour(stream);
        } else {
            self.handovers.send(core, HandOver::Neighbour(stream));
        }
    }

    /// A publisher of this host is this core's.
    pub(super) fn take_neighbour(&mut self, stream: TcpStream) {
        if self.drain.is_none() {
            self.shard.counters.publishers += 1;
            self.take_publisher(stream, Publisher::new());
        }
    }

    fn take_publisher(&mut self, stream: TcpStream, publisher: Publisher) -> SlotRef {
        self.watch(Conn::new(stream, Role::Publisher(Box::new(publisher))))
    }

    fn watch(&mut self, conn: Conn) -> SlotRef {
        let at = self.conns.insert(conn);
        self.watch_new(at);
        // Its first bytes are mostly here already: they are read in this turn.
        self.conns[at.slot].readable = true;
        self.queue(at);
        at
    }

    /// Has the kernel report when there is something to read on a connection that is new here.
    pub(super) fn watch_new(&mut self, at: SlotRef) {
        self.ring.poll_read(&self.conns[at.slot].stream, at);
        self.conns[at.slot].polls_read = true;
    }

    fn accept_ended(&mut self, listener: u32, error: Option<&io::Error>) {
        self.watched[listener as usize] = false;
        if self.leaving {
            self.close_listener(listener);
        } else if let Some(error) = error {
            self.accept_failed(error);
        }
        if !self.leaving {
            self.watch_listeners();
        }
    }

    /// Does what the shard wants done outside.
    fn act(&mut self) -> bool {
        let mut acted = false;
        while let Some(action) = self.shard.poll_action() {
            acted = true;
            match action {
                Action::Close { transport, closing, text } => self.begin_close(transport, closing, text.as_deref()),
                Action::Abort { transport, closing } => self.abort(transport, closing),
                Action::Resume { transport } => {
                    if let Some(conn) = self.conns.get_mut(transport) {
                        conn.paused = false;
                        match conn.role {
                            Role::Http(_) => self.requests.push_back(transport),
                            _ => self.queue(transport),
                        }
                    }
                }
                Action::EndPoll { transport } => self.end_poll(transport),
                Action::EndPost { transport } => self.end_post(transport),
                Action::Upgraded { transport } => self.upgraded(transport),
                Action::Ended { session } => self.shard.closed(session),
                Action::Receipt { to, room, offset } => {
                    self.with_publisher(to.publisher, |publisher| publisher.receipt(to, room, offset));
                }
                Action::Operated { to, sockets, refused } => {
                    self.with_publisher(to.publisher, |publisher| publisher.operated(to, sockets, refused));
                }
                Action::Found { to, core, facts } => {
                    self.with_publisher(to.publisher, |publisher| publisher.found(to, core, facts));
                }
                Action::Acknowledged { to, acks } => {
                    self.with_publisher(to.publisher, |publisher| publisher.acknowledged(to, acks));
                }
            }
        }
        acted
    }

    /// Hands an answer to a publisher and sends what is complete with it at the turn's end.
    fn with_publisher(&mut self, at: SlotRef, hand: impl FnOnce(&mut Publisher)) {
        let Some(conn) = self.conns.get_mut(at) else { return };
        let Role::Publisher(publisher) = &mut conn.role else { return };
        hand(publisher);
        self.hold_up(at);
    }

    /// Has the publisher looked at in the next turn.
    pub(super) fn hold_up(&mut self, at: SlotRef) {
        if !self.held_up.contains(&at) {
            self.held_up.push(at);
        }
    }

    pub(super) fn queue(&mut self, at: SlotRef) {
        let conn = &mut self.conns[at.slot];
        if !std::mem::replace(&mut conn.queued, true) {
            match &conn.role {
                Role::Http(http) if !http.heard => self.arrivals.push_back(at),
                _ => self.readable.push_back(at),
            }
        }
    }

    /// Reads from connections that have something, some of them: first those that are in, then arrivals.
    fn read_some(&mut self) -> bool {
        let (count, arrivals) = (self.readable.len(), self.arrivals.len());
        self.read_queue(count.min(READS_PER_TURN), |core| {
            if let Some((_, unread, _)) = &mut core.mark {
                *unread = unread.saturating_sub(1);
            }
            core.readable.pop_front()
        });
        self.behind = !self.readable.is_empty();
        self.read_queue(arrivals.min(self.options.accepts_per_turn), |core| {
            if let Some((_, _, unread)) = &mut core.mark {
                *unread = unread.saturating_sub(1);
            }
            core.arrivals.pop_front()
        });
        count > 0 || arrivals > 0
    }

    fn read_queue(&mut self, count: usize, next: impl Fn(&mut Core) -> Option<SlotRef>) {
        if count == 0 {
            return;
        }
        let started = sys::monotonic();
        for index in 0..count {
            // The clock costs 25 ns, a read and its handling 1 to 500 µs.
            let now = if index > 0 { sys::monotonic() } else { started };
            if now - started > READ_TIME_MAX {
                break;
            }
            self.shard.set_instant(self.instant(now));
            let at = next(self).expect("the caller has counted them");
            let Some(conn) = self.conns.get_mut(at) else { continue };
            conn.queued = false;
            self.guarded(at, |core| core.read(at));
        }
    }

    /// Runs what one connection's bytes cause. A panic in there closes this connection and no other.
    pub(super) fn guarded(&mut self, at: SlotRef, handle: impl FnOnce(&mut Core)) {
        // Everything that a panic may leave half done belongs to this connection, which is taken apart below.
        if catch_unwind(AssertUnwindSafe(|| handle(self))).is_err() {
            self.shard.counters.panics += 1;
            tracing::error!(core = self.shard.core().index(), "a panic while handling one connection; it is closed");
            if self.scratch.len() != READ_BYTES {
                self.scratch = vec![0; READ_BYTES];
            }
            if self.conns.get(at).is_some() {
                self.finish(at, "panic");
            }
        }
    }

    pub(super) fn read(&mut self, at: SlotRef) {
        let conn = &mut self.conns[at.slot];
        match &conn.role {
            Role::Dead => return,
            Role::Publisher(publisher) => {
                // Unhandled lines first: reading more would only move the backlog from the kernel to us.
                if conn.paused || publisher.is_loaded() || self.held_up.contains(&at) {
                    return;
                }
            }
            Role::WebSocket { session, .. } => {
                if conn.paused {
                    return;
                }
                // A client that asks faster than it reads the answers waits. When it has read, it is heard again. One
                // that only lags behind events is heard, or its pongs were not.
                if self.shard.outboxes.answers(session.slot) > self.options.outbox_bytes_max / 2 {
                    conn.paused = true;
                    return;
                }
            }
            // One request after the other.
            Role::Http(http) if http.is_serving() || http.is_stuffed() => return,
            Role::Probe { .. } if conn.paused => return,
            Role::Http(_) | Role::Probe { .. } | Role::Closing { .. } | Role::Lingering { .. } | Role::TurnedAway => {}
        }
        // What waits is handled before more is read.
        if std::mem::take(&mut self.conns[at.slot].backlog) {
            self.received(at, &mut []);
            if self.conns.get(at).is_some_and(|conn| conn.readable) {
                self.queue(at);
            }
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let conn = &mut self.conns[at.slot];
        let result = if let Role::Http(http) = &mut conn.role
            && http.stamped
        {
            sys::receive_stamped(&conn.stream, &mut scratch).map(|(bytes, arrived)| {
                http.arrived = arrived;
                bytes
            })
        } else {
            (&conn.stream).read(&mut scratch)
        };
        match result {
            Ok(0) => self.ended(at),
            Ok(bytes) => {
                // A short read has emptied the socket; whatever comes later is reported anew. Not so an end that was
                // there.
                let more = bytes == scratch.len() || self.conns[at.slot].hangup;
                self.conns[at.slot].readable = more;
                self.received(at, &mut scratch[..bytes]);
                if more && self.conns.get(at).is_some() {
                    self.queue(at);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.conns[at.slot].readable = false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.queue(at),
            Err(error) => {
                let label = super::error_label(&error);
                self.shard.counters.count(counters::SOCKET_ERRORS, label);
                self.finish(at, label);
            }
        }
        self.scratch = scratch;
    }

    fn received(&mut self, at: SlotRef, bytes: &mut [u8]) {
        match &self.conns[at.slot].role {
            Role::Publisher(_) => drop(self.publisher_work(at, bytes, PUBLISH_BYTES_PER_TURN)),
            Role::Http(_) | Role::WebSocket { .. } | Role::Probe { .. } | Role::Closing { .. } => {
                self.client_bytes(at, bytes);
            }
            Role::Lingering { .. } | Role::TurnedAway | Role::Dead => {}
        }
    }

    /// The peer has sent its last byte.
    fn ended(&mut self, at: SlotRef) {
        self.conns[at.slot].readable = false;
        match &mut self.conns[at.slot].role {
            Role::Publisher(publisher) => {
                publisher.end();
                let _ = self.publisher_work(at, &mut [], PUBLISH_BYTES_PER_TURN);
            }
            Role::Http(http) => {
                let label = http.end_label();
                self.finish(at, label);
            }
            Role::Probe { .. } => self.finish(at, ""),
            Role::WebSocket { .. } => self.finish(at, "transport close"),
            Role::Closing { .. } | Role::Lingering { .. } | Role::TurnedAway => self.finish(at, ""),
            Role::Dead => {}
        }
    }

    /// Lets publishers go on whose lines wait.
    fn publish_some(&mut self) -> bool {
        let mut budget = PUBLISH_BYTES_PER_TURN;
        let mut worked = false;
        for at in std::mem::take(&mut self.held_up) {
            self.guarded(at, |core| worked |= core.publisher_work(at, &mut [], budget));
        }
        for _ in 0..self.loaded.len() {
            if budget == 0 || !self.shard.may_publish() {
                break;
            }
            let Some(at) = self.loaded.pop_front() else { break };
            self.guarded(at, |core| worked |= core.publisher_work(at, &mut [], PUBLISH_BYTES_PER_TURN / 4));
            budget = budget.saturating_sub(PUBLISH_BYTES_PER_TURN / 4);
        }
        worked
    }

    /// Handles a publisher's lines and sends its receipts. True if something moved.
    fn publisher_work(&mut self, at: SlotRef, fresh: &mut [u8], bytes_max: usize) -> bool {
        // Taken out for the call, as it works on the shard.
        let Some(conn) = self.conns.get_mut(at) else { return false };
        let mut publisher = match std::mem::replace(&mut conn.role, Role::Dead) {
            Role::Publisher(publisher) => publisher,
            other => {
                conn.role = other;
                return false;
            }
        };
        let progress =
            catch_unwind(AssertUnwindSafe(|| publisher.work(fresh, &mut self.desk, &mut self.shard, at, bytes_max)));
        let waiting = publisher.outbox().len();
        let stopped = self.drain.is_some();
        if self.conns[at.slot].timer.is_some() && !publisher.is_locked() {
            self.cancel_timer(at);
        }
        self.conns[at.slot].role = Role::Publisher(publisher);
        let progress = match progress {
            Ok(progress) => progress,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        if waiting > 0 && !self.conns[at.slot].polls_write {
            self.write_receipts(at);
        }
        let Some(Conn { role: Role::Publisher(publisher), .. }) = self.conns.get_mut(at) else { return true };
        match progress {
            Progress::Hungry => {
                if self.conns[at.slot].readable {
                    self.queue(at);
                }
                true
            }
            Progress::Budget => {
                self.loaded.push_back(at);
                true
            }
            Progress::Paused => {
                self.hold_up(at);
                false
            }
            Progress::Done | Progress::Refused(_) => {
                if publisher.outbox().is_empty() {
                    // What it still sends is thrown away until it has read its end.
                    let label = match progress {
                        Progress::Refused(label) => label,
                        _ if stopped => "shutdown",
                        _ => "publisher left",
                    };
                    self.shard.counters.count(counters::PUBLISHER_CLOSES, label);
                    self.linger(at);
                }
                true
            }
        }
    }

    fn write_receipts(&mut self, at: SlotRef) {
        let conn = &mut self.conns[at.slot];
        let Role::Publisher(publisher) = &mut conn.role else { unreachable!("only publishers have receipts") };
        let result = loop {
            let outbox = publisher.outbox();
            if outbox.is_empty() {
                break Ok(());
            }
            match (&conn.stream).write(outbox) {
                Ok(bytes) => drop(outbox.drain(..bytes)),
                Err(error) => break Err(error),
            }
        };
        match result {
            Ok(()) => {
                // The pause, or the end, may be over.
                self.hold_up(at);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                conn.polls_write = true;
                self.ring.poll_write(&self.conns[at.slot].stream, at);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.hold_up(at),
            Err(error) => {
                let label = super::error_label(&error);
                self.shard.counters.count(counters::SOCKET_ERRORS, label);
                self.finish(at, label);
            }
        }
    }

    pub(super) fn set_timer(&mut self, at: SlotRef, after_ms: u64) {
        let timer = self.timers.arm(self.now.after(after_ms), at);
        if let Some(former) = self.conns[at.slot].timer.replace(timer) {
            self.timers.cancel(former);
        }
    }

    pub(super) fn cancel_timer(&mut self, at: SlotRef) {
        if let Some(timer) = self.conns[at.slot].timer.take() {
            self.timers.cancel(timer);
        }
    }

    fn fire_timers(&mut self) {
        let mut fired = std::mem::take(&mut self.fired);
        self.timers.advance(self.now, &mut fired);
        // All of them before the first is handled: what it causes must not cancel one that has fired.
        for at in &fired {
            if let Some(conn) = self.conns.get_mut(*at) {
                conn.timer = None;
            }
        }
        for at in fired.drain(..) {
            match at {
                ACCEPT_AGAIN => {
                    self.accept_paused = false;
                    if !self.leaving {
                        self.watch_listeners();
                    }
                }
                DRAIN_STEP => self.drain_step(),
                DRAIN_END => self.drain_end(),
                // Unless an earlier one has ended the connection or given it another deadline.
                _ if self.conns.get(at).is_some_and(|conn| conn.timer.is_none()) => self.timer_fired(at),
                _ => {}
            }
        }
        self.fired = fired;
    }

    fn timer_fired(&mut self, at: SlotRef) {
        match self.conns[at.slot].role {
            Role::Http(_) => self.http_timer_fired(at),
            Role::Publisher(_) => self.finish(at, "auth_timeout"),
            // The close is counted already.
            _ => self.finish(at, ""),
        }
    }

    /// Sends what waits and a close frame, then closes. The frame says `text`, or else the reason's own.
    fn begin_close(&mut self, at: SlotRef, closing: Closing, text: Option<&str>) {
        let Some(conn) = self.conns.get_mut(at) else { return };
        match std::mem::replace(&mut conn.role, Role::Dead) {
            Role::WebSocket { session, decoder, message_bytes_max } => {
                // Who broke the protocol is not listened to any more, not even for an answer (RFC 6455 section 7.1.7),
                // nor is who has sent more than there is room for: the answer would come behind all the rest.
                let peer_closed = matches!(closing.code, 1002 | 1003 | 1007 | 1009 | 1013);
                self.conns[at.slot].role = Role::Closing { session, decoder, message_bytes_max, peer_closed };
                self.shard.counters.count(counters::CLOSES, closing.label);
                self.push_close_frame(session, closing.code, text.unwrap_or(closing.label));
                self.set_timer(at, CLOSE_MS_MAX);
            }
            other @ Role::Probe { .. } => {
                self.conns[at.slot].role = other;
                self.close_probe(at, closing);
            }
            other => self.conns[at.slot].role = other,
        }
    }

    /// Closes at once. The kernel forgets what it has not sent: a slow consumer must not go on holding memory.
    fn abort(&mut self, at: SlotRef, closing: Closing) {
        if let Some(conn) = self.conns.get(at) {
            if matches!(closing, SLOW_CONSUMER | OVER_BUDGET)
                && let Err(error) = socket2::SockRef::from(&conn.stream).set_linger(Some(Duration::ZERO))
            {
                tracing::debug!(%error, "cannot reset a slow consumer; it is closed in good order");
            }
            // The close of a session that polls is counted already.
            let polls = matches!(conn.role, Role::Http(_) | Role::Probe { .. });
            self.finish(at, if polls { "" } else { closing.label });
        }
    }

    /// Ends a connection: its session leaves, its polls end, and then it is closed. `label` is counted unless empty.
    pub(super) fn finish(&mut self, at: SlotRef, label: &'static str) {
        self.cancel_timer(at);
        let conn = &mut self.conns[at.slot];
        let role = std::mem::replace(&mut conn.role, Role::Dead);
        conn.inbox = None;
        let is_publisher = matches!(role, Role::Publisher(_));
        match role {
            Role::Dead => return,
            Role::WebSocket { session, .. } | Role::Closing { session, .. } => {
                self.shard.closed(session);
                self.shard.counters.connections -= 1;
            }
            Role::Http(http) => {
                self.shard.counters.connections -= 1;
                self.forget_http(at, &http);
            }
            Role::Probe { session, .. } => {
                self.shard.counters.connections -= 1;
                self.shard.probe_ended(session, at);
            }
            Role::Lingering { publisher: false } => self.shard.counters.connections -= 1,
            Role::Lingering { publisher: true } => {}
            Role::TurnedAway => {
                self.shard.counters.connections -= 1;
                self.turned_away -= 1;
            }
            Role::Publisher(_) => self.forget_publisher(at),
        }
        if !label.is_empty() {
            let metric = if is_publisher { counters::PUBLISHER_CLOSES } else { counters::CLOSES };
            self.shard.counters.count(metric, label);
        }
        self.let_go(at);
    }

    /// Ends the polls of a dead connection.
    pub(super) fn let_go(&mut self, at: SlotRef) {
        self.weigh(at);
        let conn = &self.conns[at.slot];
        self.ring.cancel_polls(at, conn.polls_read, conn.polls_write);
        self.bury(at);
    }

    /// Our side has said everything. What the peer still sends is thrown away until it ends or its time is up.
    pub(super) fn linger(&mut self, at: SlotRef) {
        let conn = &mut self.conns[at.slot];
        let publisher = matches!(conn.role, Role::Publisher(_));
        match std::mem::replace(&mut conn.role, Role::Lingering { publisher }) {
            Role::WebSocket { session, .. } | Role::Closing { session, .. } => self.shard.closed(session),
            Role::Publisher(_) => self.forget_publisher(at),
            Role::Probe { session, .. } => self.shard.probe_ended(session, at),
            Role::Http(http) => self.forget_http(at, &http),
            Role::TurnedAway => unreachable!("it is read to its end already"),
            Role::Lingering { .. } | Role::Dead => {}
        }
        let conn = &mut self.conns[at.slot];
        conn.inbox = None;
        conn.paused = false;
        self.weigh(at);
        let conn = &mut self.conns[at.slot];
        if conn.stream.shutdown(Shutdown::Write).is_err() {
            // The peer is gone already.
            return self.finish(at, "");
        }
        self.await_end(at);
    }

    /// Reads what the peer still sends until it ends, or its time is up.
    pub(super) fn await_end(&mut self, at: SlotRef) {
        self.set_timer(at, LINGER_MS_MAX);
        self.queue(at);
    }

    /// A connection does not speak HTTP any more: what was under way on it is aborted.
    fn forget_http(&mut self, at: SlotRef, http: &Http) {
        self.unheard -= usize::from(!http.heard);
        if let Some(session) = http.waits_for() {
            self.shard.poll_aborted(session, at);
        }
        if let Some(session) = http.posts_to() {
            self.shard.post_aborted(session, at);
        }
    }

    /// A publisher's connection is none any more.
    fn forget_publisher(&mut self, at: SlotRef) {
        if self.api == Some(at) {
            self.api = None;
        } else {
            self.shard.counters.publishers -= 1;
        }
        self.shard.publisher_left(at);
        self.held_up.retain(|other| *other != at);
        self.loaded.retain(|other| *other != at);
    }

    /// Drops a dead connection once the kernel watches it no more: that closes it.
    fn bury(&mut self, at: SlotRef) {
        let conn = &self.conns[at.slot];
        if !conn.polls_read && !conn.polls_write {
            self.conns.remove(at);
        }
    }

    pub(super) fn close_listener(&mut self, number: u32) {
        if number == CLIENTS {
            self.shared.horizons.listens(self.shard.core(), -1);
        }
        self.listeners[number as usize] = None;
    }
}
