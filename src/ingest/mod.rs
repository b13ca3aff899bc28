//! Publishers: their bytes become events, operations and receipts. Does not know sockets; `net` moves the bytes.

pub mod publisher;
mod queries;
