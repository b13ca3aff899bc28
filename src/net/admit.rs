//! Who is let in: asks the table that the cores share, and turns away. Does not know what clients do once they are in.

use super::conn::{Conn, Role};
use super::core::Core;
use super::http::{Manner, NO_STORE, TEXT};
use crate::base::counters::{self, limits};
use crate::base::ids::SlotRef;
use crate::proto::http::{Connection, Response};
use crate::session::admission::{Place, TooMany};
use std::io::{self, Write};
use std::net::{IpAddr, Shutdown, TcpStream};

/// When a client whose address has too many connections may try again: nobody knows when one of them ends.
const CONNECTIONS_RETRY_S: u64 = 5;
/// When a client that comes while the server drains may try again, at most.
const DRAINING_RETRY_S_MAX: u64 = 5;
/// Connections turned away that a core waits for at a time, so that they read why. Beyond, they are closed at once:
/// their descriptors are for those who may come in.
const TURNED_AWAY_MAX: usize = 256;

/// Why a session does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Denied {
    status: u16,
    label: &'static str,
    sentence: &'static str,
    retry_s: u64,
}

const TOO_MANY_CONNECTIONS: Denied = Denied {
    status: 429,
    label: limits::CONNECTIONS_PER_IP,
    sentence: "There are too many connections from your address",
    retry_s: CONNECTIONS_RETRY_S,
};

impl From<TooMany> for Denied {
    fn from(too_many: TooMany) -> Denied {
        let (status, label, sentence, retry_ms) = match too_many {
            TooMany::FromAddress { retry_ms } => {
                (429, limits::HANDSHAKES_PER_IP, "Too many sessions were begun from your address", retry_ms)
            }
            TooMany::InAll { retry_ms } => (503, limits::HANDSHAKES, "Too many sessions were begun here", retry_ms),
        };
        Denied { status, label, sentence, retry_s: retry_ms.div_ceil(1000) }
    }
}

impl Core {
    /// A place for a connection that has just come in; none if places are not counted, or if it comes from a trusted
    /// proxy, whose clients' sessions are counted instead.
    ///
    /// # Errors
    /// There is none left, or the client is gone.
    pub(super) fn place_for(&self, stream: &TcpStream) -> io::Result<Result<Option<Box<Place>>, Denied>> {
        if !self.shared.admission.counts_connections() {
            return Ok(Ok(None));
        }
        let peer = stream.peer_addr()?.ip().to_canonical();
        if self.options.trusted_proxies.trusts(peer) {
            return Ok(Ok(None));
        }
        Ok(self.place_at(peer).map(Some))
    }

    fn place_at(&self, ip: IpAddr) -> Result<Box<Place>, Denied> {
        self.shared.admission.connect(ip).map(Box::new).ok_or(TOO_MANY_CONNECTIONS)
    }

    /// Answers a connection that gets no place, whatever it is about to ask, and waits for its end without keeping
    /// anything for it.
    pub(super) fn turn_away(&mut self, stream: TcpStream) {
        let Denied { label, .. } = TOO_MANY_CONNECTIONS;
        self.shard.counters.count(counters::HTTP_REFUSED, label);
        self.look_at_the_date();
        let mut response = Vec::new();
        TOO_MANY_CONNECTIONS.write(&mut response, &self.date.1);
        // It fits into the socket's empty buffer.
        let told = matches!((&stream).write(&response), Ok(bytes) if bytes == response.len());
        if !told || stream.shutdown(Shutdown::Write).is_err() || self.turned_away == TURNED_AWAY_MAX {
            return;
        }
        self.turned_away += 1;
        self.shard.counters.connections += 1;
        let at = self.conns.insert(Conn::new(stream, Role::TurnedAway));
        self.watch_new(at);
        self.await_end(at);
    }

    /// Admits a session of a client at `ip`. One whose connection has a place needs none of its own.
    pub(super) fn admit_session(&self, at: SlotRef, ip: IpAddr) -> Result<Option<Box<Place>>, Denied> {
        let is_counted = !self.shared.admission.counts_connections() || self.conns[at.slot].place.is_some();
        let place = if is_counted { None } else { Some(self.place_at(ip)?) };
        self.shared.admission.handshake(ip, self.now)?;
        Ok(place)
    }

    /// Tells a client that its session does not begin, and when to try again.
    pub(super) fn deny(&mut self, at: SlotRef, denied: Denied, manner: &Manner) {
        self.shard.counters.count(counters::HTTP_REFUSED, denied.label);
        // A page gets to see no other header of an answer from elsewhere.
        let exposed = if manner.cors.is_empty() { "" } else { "Access-Control-Expose-Headers: Retry-After\r\n" };
        denied.respond(&format!("{}{exposed}", manner.cors), |response| {
            self.answer(at, &Response { connection: manner.connection, head_only: manner.head_only, ..*response });
        });
    }
}

impl Denied {
    /// The server stops. Another one, or the next one, may be asked in a few seconds; not by all in the same one.
    pub(super) fn draining(random: u64) -> Denied {
        let retry_s = 1 + random % DRAINING_RETRY_S_MAX;
        Denied { status: 503, label: "draining", sentence: "The server is stopping", retry_s }
    }

    fn respond(self, raw_headers: &str, give: impl FnOnce(&Response<'_>)) {
        let Denied { status, sentence, retry_s, .. } = self;
        let body = format!("{sentence}; try again in {retry_s} s.\n");
        let headers = [NO_STORE, ("Retry-After", &retry_s.to_string())];
        give(&Response { raw_headers, headers: &headers, ..Response::new(status, TEXT, body.as_bytes()) });
    }

    fn write(self, out: &mut Vec<u8>, date: &str) {
        self.respond("", |response| Response { connection: Connection::Close, date, ..*response }.write(out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_up() {
        for (retry_ms, retry_s) in [(1, 1), (1000, 1), (1001, 2), (60_000, 60)] {
            assert_eq!(Denied::from(TooMany::InAll { retry_ms }).retry_s, retry_s);
            let mut out = Vec::new();
            Denied::from(TooMany::FromAddress { retry_ms }).write(&mut out, "now");
            let text = String::from_utf8(out).unwrap();
            assert!(text.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{text}");
            assert!(text.contains(&format!("\r\nRetry-After: {retry_s}\r\n")), "{text}");
            assert!(text.ends_with(&format!(
                "\r\n\r\nToo many sessions were begun from your address; try again in {retry_s} s.\n"
            )));
        }
    }
}
