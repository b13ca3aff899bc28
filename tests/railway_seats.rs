//! Railway seat upgrades (system 1) with the official Socket.IO client: each message goes to those who need it, and the
//! token says who that is.
//!
//! What the system asks for, and where it is shown (functions of `tests/clients/railway_seats.js`):
//!
//! * every message goes to all, 2–3 need it, 97 % less traffic: `traffic`
//! * clients connect with `query: { userId, role, trainNo }`; roles `ADMIN`, `TTE`, `PASSENGER`: `rooms`
//! * identity is a JWT; the query may only narrow what the token allows: `refusals`; without a query: `rooms`
//! * `train_{trainNo}`, `admin_dashboard`, `tte_{userId}`, `passenger_{userId}`, `global`: `rooms`
//! * `RAC_UPGRADE` to `passenger_{irctcId}`, `STATS_UPDATE` to `admin_dashboard`: `rooms`
//! * leaving is automatic on disconnect: `rooms`
//! * CORS with a list of origins, GET and POST: `cors`
//! * nobody hears what is not for him, among a thousand rooms: `isolation`

mod common;

use common::{Server, example_for_many, node};

on_one_and_two_cores!(
    each_role_is_in_its_rooms,
    the_query_only_narrows_what_the_token_allows,
    messages_go_to_those_who_need_them,
    pages_of_listed_origins_may_ask,
    a_thousand_rooms_are_apart,
);

fn each_role_is_in_its_rooms(cores: usize) {
    node("railway_seats.js", &Server::example("railway-seats.toml", cores), &["rooms"]);
}

fn the_query_only_narrows_what_the_token_allows(cores: usize) {
    node("railway_seats.js", &Server::example("railway-seats.toml", cores), &["refusals"]);
}

fn messages_go_to_those_who_need_them(cores: usize) {
    node("railway_seats.js", &Server::example("railway-seats.toml", cores), &["traffic"]);
}

fn pages_of_listed_origins_may_ask(cores: usize) {
    node("railway_seats.js", &Server::example("railway-seats.toml", cores), &["cors"]);
}

fn a_thousand_rooms_are_apart(cores: usize) {
    node("railway_seats.js", &Server::start(&example_for_many("railway-seats.toml"), cores), &["isolation"]);
}
