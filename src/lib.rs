//! roomcast: a WebSocket rooms fan-out server. `ARCHITECTURE.md` has the map; a module imports only from those above it in
//! this list.

pub mod base;
pub mod ingest;
pub mod mesh;
pub mod net;
pub mod ops;
pub mod proto;
pub mod room;
pub mod session;
pub mod shard;
