//! Codecs: bytes to values and back. Knows no session and no socket.

pub mod cors;
pub mod engineio;
pub mod forwarded;
pub mod http;
pub mod json;
pub mod line;
pub mod raw;
pub mod socketio;
pub mod ws;
