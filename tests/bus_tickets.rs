//! Bus tickets (system 2) with the official Socket.IO client: whoever looks at a route knows its seats, exactly.
//!
//! What the system asks for, and where it is shown (functions of `tests/clients/bus_tickets.js`):
//!
//! * namespace `/seats`; `subscribe_route` → room `route:{routeId}`, answer `subscribed {routeId, message}`: `routes`
//! * `unsubscribe_route` → `unsubscribed`: `routes`
//! * `get_seat_availability` → the current state of every seat, by the seat number as key: `routes`; exact while
//!   updates come in on several connections: `concurrent`
//! * errors come as event `error {message}`: `routes`
//! * `seat_update` with all its fields and kinds: `routes`
//! * JWT, CORS limited to the front end with credentials, monitoring: `production`
//! * connections limited per IP, messages per client: `limits`
//! * several servers through Redis: not in this version, which says so: `housing_society.rs`
//! * load tests, 10,000 connections, 1,000 events/s, < 10 ms: `bench`, as no test may depend on speed
//! * clients resubscribe after a reconnect: `reconnect`
//! * a double subscription must not double the events: `routes`, `reconnect`

mod common;

use common::{Server, example_for_many, example_with, node};

on_one_and_two_cores!(
    routes_and_their_seats,
    clients_come_back_and_have_missed_nothing,
    availability_is_exact_while_updates_come,
    production_asks_who_is_there,
    limits_hold_for_addresses_and_clients,
);

fn routes_and_their_seats(cores: usize) {
    node("bus_tickets.js", &Server::start(&example_for_many("bus-tickets.toml"), cores), &["routes"]);
}

fn clients_come_back_and_have_missed_nothing(cores: usize) {
    node("bus_tickets.js", &Server::example("bus-tickets.toml", cores), &["reconnect"]);
}

fn availability_is_exact_while_updates_come(cores: usize) {
    node("bus_tickets.js", &Server::start(&example_for_many("bus-tickets.toml"), cores), &["concurrent"]);
}

fn production_asks_who_is_there(cores: usize) {
    node("bus_tickets.js", &Server::example("bus-tickets.toml", cores), &["production"]);
}

fn limits_hold_for_addresses_and_clients(cores: usize) {
    let small = [("connections_per_ip_max", "5"), ("events_per_socket_per_s", "1"), ("events_per_socket_burst", "3")];
    node("bus_tickets.js", &Server::start(&example_with("bus-tickets.toml", &small), cores), &["limits"]);
}
