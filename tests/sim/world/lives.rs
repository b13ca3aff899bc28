//! The oracle of polled sessions' lives: what a session has open, when it must end, and that it ends then, not a
//! millisecond earlier or later. It knows what the driver hands to shards and how much time has passed; no packets that
//! wait, no rooms.

use super::{CONNECT_TIMEOUT_MS, PING_INTERVAL_MS, PING_TIMEOUT_MS, UPGRADE_TIMEOUT_MS};
use roomcast::base::clock::Millis;
use roomcast::base::counters;
use roomcast::base::ids::{SlotRef, SocketId};
use roomcast::session::Kind;
use roomcast::shard::{OVER_BUDGET, SLOW_CONSUMER, Shard};

/// A session that the server has closed while no poll waited is kept for the next one this long (engine.io 6.6).
const LINGER_MS: u64 = 30_000;
/// A poll of a client that is about to upgrade waits no longer than this (engine.io 6.6).
const UPGRADING_POLL_MS: u64 = 100;

/// Whether a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    No,
    /// It is kept until then, for a poll to be told.
    Lingers(Millis),
    /// For this reason.
    Yes(&'static str),
}

#[derive(Debug)]
pub(super) struct Life {
    pub core: usize,
    pub at: SlotRef,
    pub sid: SocketId,
    /// False once it has upgraded.
    pub polls: bool,
    /// Connections, as the driver knows them.
    pub poll: Option<SlotRef>,
    pub post: Option<SlotRef>,
    pub probe: Option<Probe>,
    /// The WebSocket that it has upgraded to.
    pub socket: Option<SlotRef>,
    pub end: End,
    /// It has lingered.
    pub lingered: bool,
    /// The client has not answered the last ping.
    pinged: bool,
    /// When it is pinged, or gone.
    beat_at: Millis,
    connect_by: Millis,
}

/// A WebSocket that may take over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub conn: SlotRef,
    pub probed: bool,
    /// The client has upgraded while a POST was being handled.
    pub upgrades: bool,
    give_up_at: Millis,
    /// A poll that waits is answered then.
    noop_at: Millis,
}

#[derive(Debug, Default)]
pub(super) struct Lives {
    list: Vec<Life>,
    now: Millis,
    /// WebSockets whose time to upgrade has just come to its end.
    given_up: Vec<SlotRef>,
    /// Sessions that were cut for being slow while they polled, by core.
    slow: Vec<u64>,
}

impl Lives {
    pub(super) fn new(cores: usize, now: Millis) -> Lives {
        Lives { now, slow: vec![0; cores], ..Lives::default() }
    }

    pub(super) fn begin(&mut self, core: usize, at: SlotRef, sid: SocketId, poll: SlotRef) {
        self.list.push(Life {
            core,
            at,
            sid,
            polls: true,
            poll: Some(poll),
            post: None,
            probe: None,
            socket: None,
            end: End::No,
            lingered: false,
            pinged: false,
            beat_at: self.now.after(PING_INTERVAL_MS),
            connect_by: self.now.after(CONNECT_TIMEOUT_MS),
        });
    }

    pub(super) fn of(&mut self, core: usize, at: SlotRef) -> &mut Life {
        let life = self.list.iter_mut().rev().find(|life| life.core == core && life.at == at);
        life.expect("the driver tells of each session")
    }

    pub(super) fn by_sid(&self, sid: &SocketId) -> &Life {
        self.list.iter().find(|life| life.sid == *sid).expect("the driver tells of each session")
    }

    /// Sessions that have not ended yet, for whatever is done to them from outside.
    pub(super) fn living(&self) -> impl Iterator<Item = &Life> {
        self.list.iter().filter(|life| life.end == End::No)
    }

    /// Sessions that linger for a poll.
    pub(super) fn lingering(&self) -> impl Iterator<Item = &Life> {
        self.list.iter().filter(|life| matches!(life.end, End::Lingers(_)))
    }

    /// Something that the client said was handed to the shard.
    pub(super) fn said(&mut self, core: usize, at: SlotRef, text: &str) {
        let now = self.now;
        let life = self.of(core, at);
        match text.as_bytes()[0] {
            _ if life.end != End::No => {}
            b'1' => life.ends("client left"),
            b'3' if life.pinged => (life.pinged, life.beat_at) = (false, now.after(PING_INTERVAL_MS)),
            b'4' if text.starts_with("40") => life.connect_by = Millis::NEVER,
            _ => {}
        }
    }

    /// A poll waits; true if that is as it should be.
    pub(super) fn polled(&mut self, core: usize, at: SlotRef, conn: SlotRef) -> bool {
        let now = self.now;
        let life = self.of(core, at);
        if !life.polls {
            return false;
        }
        if life.poll.is_some() {
            life.ends("overlapping polls");
            return false;
        }
        life.poll = Some(conn);
        if let Some(probe) = life.probe.as_mut().filter(|probe| probe.probed) {
            probe.noop_at = now.after(UPGRADING_POLL_MS);
        }
        true
    }

    /// The waiting poll got everything.
    pub(super) fn answered(&mut self, core: usize, at: SlotRef) {
        let life = self.of(core, at);
        life.poll = None;
        if let End::Lingers(_) = life.end {
            life.end = End::Yes("told");
        }
    }

    /// A connection that a GET or POST of the session is on is gone.
    pub(super) fn aborted(&mut self, core: usize, at: SlotRef, conn: SlotRef) {
        let life = self.of(core, at);
        let (poll, post) = (life.poll.take_if(|poll| *poll == conn), life.post.take_if(|post| *post == conn));
        if poll.or(post).is_some() {
            life.ends("transport error");
        }
    }

    /// A POST begins; true if that is as it should be.
    pub(super) fn post_begins(&mut self, core: usize, at: SlotRef, conn: SlotRef) -> bool {
        let life = self.of(core, at);
        if !life.polls {
            return false;
        }
        if life.post.is_some() {
            life.ends("overlapping posts");
            return false;
        }
        life.post = Some(conn);
        true
    }

    /// The POST is over. True if the WebSocket takes over with that.
    pub(super) fn post_ends(&mut self, core: usize, at: SlotRef, conn: SlotRef) -> bool {
        let life = self.of(core, at);
        if life.post != Some(conn) {
            return false;
        }
        life.post = None;
        let upgrades = life.probe.is_some_and(|probe| probe.upgrades);
        if upgrades {
            life.upgraded();
        }
        upgrades
    }

    /// The POST is refused before all of it has come.
    pub(super) fn post_dropped(&mut self, core: usize, conn: SlotRef) {
        let posts = self.list.iter_mut().find(|life| life.core == core && life.post == Some(conn));
        if let Some(life) = posts {
            life.post = None;
        }
    }

    /// A WebSocket was opened for the session; true if it may take over.
    pub(super) fn probe_begins(&mut self, core: usize, at: SlotRef, conn: SlotRef) -> bool {
        let give_up_at = self.now.after(UPGRADE_TIMEOUT_MS);
        let life = self.of(core, at);
        if !life.polls || life.probe.is_some() || life.end != End::No {
            return false;
        }
        life.probe = Some(Probe { conn, probed: false, upgrades: false, give_up_at, noop_at: Millis::NEVER });
        true
    }

    /// The client has asked whether the WebSocket works.
    pub(super) fn probed(&mut self, core: usize, at: SlotRef) {
        let now = self.now;
        let probe = self.of(core, at).probe.as_mut().expect("only what may take over is asked");
        (probe.probed, probe.noop_at) = (true, now);
    }

    pub(super) fn probe_ends(&mut self, core: usize, at: SlotRef, conn: SlotRef) {
        self.of(core, at).probe.take_if(|probe| probe.conn == conn);
    }

    /// The server closes the session for its own reasons.
    pub(super) fn shut(&mut self, core: usize, at: SlotRef) {
        let now = self.now;
        self.of(core, at).closed_by_server(now);
    }

    /// The shard says that the session is over and has no transport.
    pub(super) fn ended(&mut self, shard: &Shard, at: SlotRef) {
        let core = shard.core().index();
        if self.of(core, at).end != End::No {
            return;
        }
        self.of(core, at).ends(SLOW_CONSUMER.label);
        self.slow[core] += 1;
        let labels = [SLOW_CONSUMER.label, OVER_BUDGET.label];
        let slow = |(metric, reason, _): &&(&str, &str, u64)| *metric == counters::CLOSES && labels.contains(reason);
        let counted: u64 = shard.counters.by_reason.iter().filter(slow).map(|(_, _, count)| *count).sum();
        assert!(self.slow[core] <= counted, "a session ended for no reason: {:?}", self.of(core, at));
    }

    /// The time to upgrade is over for this WebSocket, says the shard.
    pub(super) fn gives_up(&mut self, conn: SlotRef) {
        let place = self.given_up.iter().position(|other| *other == conn);
        self.given_up.swap_remove(place.unwrap_or_else(|| panic!("{conn:?} had more time to upgrade")));
    }

    /// The next moment at which something must happen to a session.
    pub(super) fn next_due(&self) -> Option<Millis> {
        let due = |life: &Life| match life.end {
            End::No => {
                let upgrade = life.probe.filter(|probe| !probe.upgrades).map_or(Millis::NEVER, |p| p.give_up_at);
                Some(life.beat_at.min(life.connect_by).min(upgrade))
            }
            End::Lingers(until) => Some(until),
            End::Yes(_) => None,
        };
        self.list.iter().filter_map(due).min()
    }

    /// Time has moved on, for the shards as well; what they want done because of it is not done yet.
    pub(super) fn advance(&mut self, now: Millis, shards: &[Shard]) {
        if now == self.now {
            return;
        }
        self.now = now;
        for life in &mut self.list {
            match life.end {
                End::Yes(_) => continue,
                End::Lingers(until) => {
                    if until <= now {
                        life.end = End::Yes("lingered");
                    }
                    continue;
                }
                End::No => {}
            }
            if life.connect_by <= now {
                life.closed_by_server(now);
                continue;
            }
            if life.beat_at <= now {
                if life.pinged {
                    life.ends("ping timeout");
                    continue;
                }
                (life.pinged, life.beat_at) = (true, life.beat_at.after(PING_TIMEOUT_MS));
            }
            if let Some(probe) = life.probe.take_if(|probe| probe.give_up_at <= now && !probe.upgrades) {
                self.given_up.push(probe.conn);
            }
            if let Some(probe) = life.probe.as_mut().filter(|probe| probe.noop_at <= now) {
                probe.noop_at = Millis::NEVER;
                let waits = life.poll.is_some() && shards[life.core].outboxes.is_empty(life.at.slot);
                assert!(!waits, "a poll is in the way of an upgrade: {life:?}");
            }
        }
    }

    /// Sessions can be found exactly while they live. To be called when all that shards want done is done.
    pub(super) fn check(&self, shards: &[Shard]) {
        assert!(self.given_up.is_empty(), "{:?} had no more time to upgrade", self.given_up);
        for life in &self.list {
            let found = shards[life.core].find(&life.sid, Kind::SocketIo);
            let expected = (!matches!(life.end, End::Yes(_))).then_some(life.at);
            assert_eq!(found, expected, "at {:?}: {life:?}", self.now);
        }
    }
}

impl Life {
    pub(super) fn ends(&mut self, why: &'static str) {
        if self.end == End::No {
            self.end = End::Yes(why);
            self.probe = None;
        }
    }

    pub(super) fn upgraded(&mut self) {
        self.socket = self.probe.take().map(|probe| probe.conn);
        (self.polls, self.poll) = (false, None);
    }

    fn closed_by_server(&mut self, now: Millis) {
        if self.end == End::No {
            self.lingered = self.polls && self.poll.is_none();
            self.end =
                if self.lingered { End::Lingers(now.after(LINGER_MS)) } else { End::Yes("closed by the server") };
            self.probe = None;
        }
    }
}
