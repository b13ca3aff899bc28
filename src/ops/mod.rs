//! What operators see: metrics, health, the HTTP API and a page, on their own port and executor, away from the data
//! plane.

pub mod access;
pub mod admin;
pub mod alias;
pub mod api;
pub mod board;
pub mod clerk;
pub mod live;
pub mod metrics;
pub mod page;
pub mod places;
pub mod reply;
pub mod site;
