//! Finished bytes, shared by every socket that gets them. Does not know how they were made.

use std::ops::Deref;
use std::sync::Arc;

/// How a member's transport wants an event. Fixed when the socket joins; each one in use costs an event one encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Socket.IO v5 packets in WebSocket messages. Long-polling takes the packets out of the messages as it joins them
    /// into a response, so that a session's upgrade changes nothing about its memberships.
    SocketIo = 0,
    /// `{"type":…,"data":…}` in one WebSocket text message.
    RawNested = 1,
    /// `{"type":…, fields of data}` in one WebSocket text message.
    RawFlat = 2,
}

impl Encoding {
    /// Every encoding, by position.
    pub const ALL: [Encoding; 3] = [Encoding::SocketIo, Encoding::RawNested, Encoding::RawFlat];
    /// How many there are.
    pub const COUNT: usize = Encoding::ALL.len();

    /// True if whoever gets an event in this encoding can be asked to acknowledge it.
    #[must_use]
    pub fn can_acknowledge(self) -> bool {
        match self {
            Encoding::SocketIo => true,
            Encoding::RawNested | Encoding::RawFlat => false,
        }
    }

    /// Position in per-encoding tables.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Bytes ready for the socket. A clone is one more reference, never a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Arc<[u8]>);

impl Frame {
    /// Copies `bytes` once, into their shared place.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Frame {
        Frame(Arc::from(bytes))
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
