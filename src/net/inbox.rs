//! What connections hold of what their clients have sent: counted whenever it changes, and cut where it takes more than
//! there is for all. Does not know what the bytes mean.

use super::conn::{Conn, Role};
use super::core::Core;
use crate::base::counters::{self, limits};
use crate::base::ids::SlotRef;
use crate::session::inboxes::Room;
use crate::shard::INBOXES_FULL;

impl Conn {
    /// Memory of what was received and is not handled: bytes of no whole message, fragments, a request's body.
    fn held_bytes(&self) -> u32 {
        let waiting = self.inbox.as_ref().map_or(0, |inbox| inbox.0.capacity());
        let opened = match &self.role {
            Role::WebSocket { decoder, .. } | Role::Probe { decoder, .. } | Role::Closing { decoder, .. } => {
                decoder.held_bytes()
            }
            Role::Http(http) => http.held_bytes(),
            Role::Lingering { .. } | Role::TurnedAway | Role::Publisher(_) | Role::Dead => 0,
        };
        u32::try_from(waiting + opened).unwrap_or(u32::MAX)
    }

    /// True if whole messages or a whole request wait here: then it is not the client that is waited for.
    fn waits_for_us(&self) -> bool {
        self.backlog || matches!(&self.role, Role::Http(http) if http.is_serving())
    }
}

impl Core {
    /// Counts what the connection holds now. If it has taken more and there is no room for it, the connection ends.
    pub(super) fn weigh(&mut self, at: SlotRef) {
        let Some(conn) = self.conns.get_mut(at) else { return };
        let held = conn.held_bytes();
        let before = std::mem::replace(&mut conn.held, held);
        if self.shard.inboxes.resize(before as usize, held as usize) == Room::None && !conn.waits_for_us() {
            self.refuse_rest(at);
        }
    }

    /// Ends a connection of which no more can be held, and gives back what it holds.
    fn refuse_rest(&mut self, at: SlotRef) {
        match &self.conns[at.slot].role {
            Role::Http(_) => self.refuse_request(at),
            Role::WebSocket { session, .. } => {
                let session = *session;
                self.shard.refuse_rest(session);
                self.throw_away(at);
            }
            Role::Probe { session, .. } => {
                let session = *session;
                self.shard.counters.count(counters::RULE_REFUSALS, limits::INBOXES_BYTES);
                self.end_probe(at, session, INBOXES_FULL);
            }
            // We have said goodbye.
            Role::Closing { .. } => self.throw_away(at),
            Role::Lingering { .. } | Role::TurnedAway | Role::Publisher(_) | Role::Dead => {}
        }
    }

    /// Gives back what a WebSocket holds, and listens to it no more.
    fn throw_away(&mut self, at: SlotRef) {
        let conn = &mut self.conns[at.slot];
        conn.inbox = None;
        if let Role::WebSocket { decoder, .. } | Role::Closing { decoder, .. } = &mut conn.role {
            decoder.close();
        }
        self.weigh(at);
    }
}
