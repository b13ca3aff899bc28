//! Library seats (system 3) with the official Socket.IO client and with the HTTP calls of its backend.
//!
//! What the system asks for, and where it is shown (functions of `tests/clients/library_seats.js`):
//!
//! * `join:role`, `join:library`, `join:tenant`, `join:user` and their rooms; `join:user` only one's own: `rooms`
//! * all events, from `booking:created` to `notification`: `rooms`
//! * `POST …/socket-event`, `GET …/socket-stats`, `GET /health` in exactly their shapes; paths and service name from
//!   the config: `shapes`
//! * CORS with exact origins and patterns, credentials: `cors`
//! * transports websocket and polling with automatic fallback: `transports`
//! * pingTimeout 60 s, pingInterval 25 s: `transports`
//! * clean-up on disconnect: `rooms`; reconnection: `reconnection`

mod common;

use common::{Server, example_for_many, node};

on_one_and_two_cores!(
    everybody_is_where_they_may_be,
    the_backend_gets_the_answers_that_it_knows,
    pages_of_listed_origins_and_patterns_may_ask,
    clients_find_a_transport,
    clients_come_back,
);

fn everybody_is_where_they_may_be(cores: usize) {
    node("library_seats.js", &Server::start(&example_for_many("library-seats.toml"), cores), &["rooms"]);
}

fn the_backend_gets_the_answers_that_it_knows(cores: usize) {
    node("library_seats.js", &Server::example("library-seats.toml", cores), &["shapes"]);
}

fn pages_of_listed_origins_and_patterns_may_ask(cores: usize) {
    node("library_seats.js", &Server::example("library-seats.toml", cores), &["cors"]);
}

fn clients_find_a_transport(cores: usize) {
    node("library_seats.js", &Server::example("library-seats.toml", cores), &["transports"]);
}

fn clients_come_back(cores: usize) {
    node("library_seats.js", &Server::example("library-seats.toml", cores), &["reconnection"]);
}
