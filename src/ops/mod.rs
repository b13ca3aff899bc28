//! What operators see: metrics, health and the HTTP API, on their own port and executor, away from the data plane.

pub mod access;
pub mod admin;
pub mod alias;
pub mod api;
pub mod clerk;
pub mod metrics;
pub mod places;
pub mod reply;
pub mod site;
