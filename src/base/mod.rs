//! Vocabulary shared by every layer: ids, events, frames, time, counters. Knows no protocol, no runtime and no socket.

pub mod class;
pub mod clock;
pub mod counters;
pub mod event;
pub mod frame;
pub mod histogram;
pub mod ids;
pub mod paged;
pub mod rate;
pub mod secret;
pub mod sketch;
pub mod slab;
pub mod wheel;
