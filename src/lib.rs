//! roomcast: a WebSocket rooms fan-out server. `ARCHITECTURE.md` has the map; a module imports only from those above it in
//! this list.

pub mod base;
pub mod proto;
pub mod mesh;
pub mod room;
pub mod session;
pub mod shard;
pub mod ingest;
pub mod net;
pub mod ops;
