//! roomcast: a WebSocket rooms fan-out server. `ARCHITECTURE.md` has the map and the order of the layers.

pub mod base;
pub mod cli;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod ingest;
pub mod mesh;
pub mod net;
pub mod ops;
pub mod proto;
pub mod room;
pub mod server;
pub mod session;
pub mod shard;
