//! roomcast: a WebSocket rooms fan-out server. `ARCHITECTURE.md` has the map; a module imports only from those above it.

pub mod base;
pub mod mesh;
pub mod room;
