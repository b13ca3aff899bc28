//! Rooms: the owner's side (order, attached cores, what the room keeps) and the member core's side (who is in, which
//! rooms get most). Speaks no protocol.

pub mod busiest;
pub mod members;
pub mod owner;
pub mod snapshot;
pub mod traffic;
