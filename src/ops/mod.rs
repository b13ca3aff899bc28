//! What operators see: metrics and health, on their own port and executor, away from the data plane.

pub mod admin;
pub mod metrics;
