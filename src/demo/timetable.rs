//! The simulated day: what happens to trains and seats, in the order of time, and the publishers' line for each of it.
//! The same seed makes the same days. Knows no clock and no socket.

use super::buses::{self, SeatEvent, SeatKind};
use super::places::{ROUTES, SEATS, seat_number};
use super::trains::{self, Change, Note, NoteKind, Status, StopEvent, Train};
use serde::Serialize;
use std::ops::{Add, Sub};

/// A time of a simulated day, in seconds from its midnight. It may be beyond the next midnight: the day ends with its
/// last train.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SimTime(pub u32);

impl SimTime {
    /// So many minutes after midnight, or a span of so many.
    #[must_use]
    pub const fn of_minutes(minutes: u32) -> SimTime {
        SimTime(minutes * 60)
    }

    /// As clocks show it.
    #[must_use]
    pub fn hh_mm(self) -> String {
        format!("{:02}:{:02}", self.0 / 3600 % 24, self.0 / 60 % 60)
    }
}

impl Add for SimTime {
    type Output = SimTime;

    fn add(self, span: SimTime) -> SimTime {
        SimTime(self.0 + span.0)
    }
}

impl Sub for SimTime {
    type Output = SimTime;

    fn sub(self, span: SimTime) -> SimTime {
        SimTime(self.0 - span.0)
    }
}

/// Something that clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: SimTime,
    /// What.
    pub what: What,
}

/// What clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// In the namespace `/seats`.
    Seat(SeatEvent),
    /// To those on the train, and mostly to those on the station's board.
    Stop(StopEvent),
    /// To few.
    Note(Note),
}

/// The day, event by event.
pub struct Day {
    number: u32,
    trains: Vec<Train>,
    events: Vec<Event>,
    /// How many of them have been taken.
    taken: usize,
}

impl Day {
    /// Day `number`, from 1, of the world that `seed` makes.
    #[must_use]
    pub fn new(seed: u64, number: u32) -> Day {
        let trains = trains::timetable(seed);
        let mut events = Vec::new();
        for (index, train) in trains.iter().enumerate() {
            let (stops, notes) = trains::day_of(seed, number, index as u16, train);
            events.extend(stops.into_iter().map(|(at, event)| Event { at, what: What::Stop(event) }));
            events.extend(notes.into_iter().map(|(at, note)| Event { at, what: What::Note(note) }));
        }
        for route in 0..ROUTES.len() as u8 {
            let seats = buses::day_of(seed, number, route);
            events.extend(seats.into_iter().map(|(at, event)| Event { at, what: What::Seat(event) }));
        }
        // What happens to one train or one seat keeps its order.
        events.sort_by_key(|event| event.at);
        Day { number, trains, events, taken: 0 }
    }

    /// Which day it is.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// When the first event is, taken or not.
    #[must_use]
    pub fn begins(&self) -> SimTime {
        self.events.first().map_or(SimTime(0), |event| event.at)
    }

    /// When the next event is; `None` once the day is over.
    #[must_use]
    pub fn next_at(&self) -> Option<SimTime> {
        self.events.get(self.taken).map(|event| event.at)
    }

    /// Takes the next events that are not later than `now`, and not more than `max`.
    pub fn events_until(&mut self, now: SimTime, max: usize) -> Vec<Event> {
        let rest = &self.events[self.taken..];
        let count = rest.partition_point(|event| event.at <= now).min(max);
        self.taken += count;
        rest[..count].to_vec()
    }

    /// The publishers' line for an event of this day, without its end. `timestamp`: when it is sent, in RFC 3339.
    #[must_use]
    pub fn line(&self, event: &Event, id: u64, timestamp: &str) -> String {
        match event.what {
            What::Seat(seat) => seat_line(&seat, id, timestamp),
            What::Stop(stop) => self.stop_line(event.at, stop, id, timestamp),
            What::Note(note) => self.note_line(event.at, note, id, timestamp),
        }
    }

    fn stop_line(&self, at: SimTime, event: StopEvent, id: u64, timestamp: &str) -> String {
        let train = &self.trains[usize::from(event.train)];
        let stop = &train.stops[usize::from(event.stop)];
        let [first, .., last] = &train.stops[..] else { unreachable!("a train has two stops") };
        let mut rooms = vec![format!("train:{}", train.number)];
        if event.on_board {
            rooms.push(format!("station:{}", stop.station.code));
        }
        // One key for both rooms: by it a train's room keeps the last event of each of its stops, a station's of each
        // train.
        let key = Some(format!("{}@{}", train.number, stop.station.code));
        let minutes = SimTime::of_minutes(u32::from(event.late));
        line(
            id,
            "/",
            rooms,
            key,
            stop_event(event.change),
            &StopData {
                train_no: &train.number,
                train: &train.name,
                from: first.station.name,
                to: last.station.name,
                station: stop.station.code,
                station_name: stop.station.name,
                stop: event.stop,
                stops: train.stops.len(),
                scheduled: stop.departs.hh_mm(),
                expected: (stop.departs + minutes).hh_mm(),
                delay_min: event.late,
                platform: event.platform,
                status: match event.status {
                    Status::Expected => "expected",
                    Status::Arrived => "arrived",
                    Status::Departed => "departed",
                    Status::Cancelled => "cancelled",
                },
                at: at.hh_mm(),
                day: self.number,
                timestamp,
            },
        )
    }

    fn note_line(&self, at: SimTime, note: Note, id: u64, timestamp: &str) -> String {
        let train = &self.trains[usize::from(note.train)];
        let (number, name) = (&train.number, &train.name);
        let (coach, berth) = (format!("S{}", note.coach), note.berth);
        let (event, room, text) = match note.kind {
            NoteKind::VacantBerth => {
                ("VACANT_BERTH", format!("train:{number}:TTE"), format!("{coach}/{berth} is vacant from here on"))
            }
            NoteKind::NoShow => {
                ("NO_SHOW", format!("train:{number}:TTE"), format!("{coach}/{berth}: the passenger has not boarded"))
            }
            NoteKind::RacUpgrade => {
                ("RAC_UPGRADE", format!("train:{number}:TTE"), format!("{coach}/{berth} goes to RAC {}", berth % 9 + 1))
            }
            NoteKind::ChartPrepared => {
                ("CHART_PREPARED", "role:TTE".to_owned(), format!("{number} {name}: the chart is prepared"))
            }
            NoteKind::BerthConfirmed => (
                "BERTH_CONFIRMED",
                format!("user:{DEMO_USER}"),
                format!("Your berth on {number} {name} is confirmed: {coach}/{berth}"),
            ),
        };
        let to = room.clone();
        let data = NoteData { to: &to, train_no: number, coach: &coach, berth, text: &text, at: at.hh_mm(), timestamp };
        line(id, "/", vec![room], None, event, &data)
    }
}

/// The one user who is told something alone: whoever shows the page.
pub const DEMO_USER: &str = "IR0001";

/// The name of what happens to a seat.
#[must_use]
pub fn seat_event(kind: SeatKind) -> &'static str {
    match kind {
        SeatKind::Available => "seat_available",
        SeatKind::Reserved => "seat_reserved",
        SeatKind::Confirmed => "seat_confirmed",
        SeatKind::Cancelled => "seat_cancelled",
        SeatKind::Suspended => "seat_suspended",
    }
}

fn stop_event(change: Change) -> &'static str {
    match change {
        Change::Scheduled => "SCHEDULED",
        Change::Delay => "DELAY_UPDATE",
        Change::Platform => "PLATFORM_CHANGE",
        Change::Arrival => "STATION_ARRIVAL",
        Change::Departure => "STATION_DEPARTURE",
        Change::Cancelled => "CANCELLED",
    }
}

fn seat_line(event: &SeatEvent, id: u64, timestamp: &str) -> String {
    debug_assert!(event.seat < SEATS);
    let route = &ROUTES[usize::from(event.route)];
    let ticket = event.passenger.map(|passenger| format!("T{}", passenger.ticket));
    let paid = matches!(event.kind, SeatKind::Confirmed | SeatKind::Cancelled);
    let data = SeatData {
        route_id: route.id,
        seat_number: &seat_number(event.seat),
        event_type: seat_event(event.kind),
        ticket_id: ticket.as_deref(),
        pnr_number: event.passenger.filter(|_| paid).map(|passenger| format!("{:010}", passenger.ticket)),
        timestamp,
        metadata: SeatMetadata {
            from_city: route.from,
            to_city: route.to,
            price: route.price_of(event.seat),
            gender: event.passenger.map(|passenger| if passenger.is_woman { "F" } else { "M" }),
            departure: event.departs.hh_mm(),
        },
    };
    line(id, "/seats", vec![format!("route:{}", route.id)], None, "seat_update", &data)
}

/// A line of the publishers' protocol.
pub(super) fn line(
    id: u64,
    ns: &str,
    rooms: Vec<String>,
    key: Option<String>,
    event: &str,
    data: &impl Serialize,
) -> String {
    let line = Line { id, ns, rooms, key, event, data };
    simd_json::to_string(&line).unwrap_or_else(|error| unreachable!("texts and numbers are JSON: {error}"))
}

#[derive(Serialize)]
struct Line<'a, D: Serialize> {
    id: u64,
    ns: &'a str,
    /// None: the whole namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rooms: Vec<String>,
    /// None: the room's class knows where it stands in the data, or nobody keeps the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    event: &'a str,
    data: &'a D,
}

/// What the bus company's `seat_update` carries.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SeatData<'a> {
    route_id: &'a str,
    seat_number: &'a str,
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pnr_number: Option<String>,
    timestamp: &'a str,
    metadata: SeatMetadata<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SeatMetadata<'a> {
    from_city: &'a str,
    to_city: &'a str,
    price: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    gender: Option<&'a str>,
    departure: String,
}

/// All that is known of a train at a stop: whoever has the last one has everything.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StopData<'a> {
    train_no: &'a str,
    train: &'a str,
    from: &'a str,
    to: &'a str,
    station: &'a str,
    station_name: &'a str,
    stop: u8,
    stops: usize,
    scheduled: String,
    expected: String,
    delay_min: u16,
    platform: u8,
    status: &'a str,
    at: String,
    day: u32,
    timestamp: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NoteData<'a> {
    to: &'a str,
    train_no: &'a str,
    coach: &'a str,
    berth: u8,
    text: &'a str,
    at: String,
    timestamp: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::line::Parser;
    use std::collections::HashMap;

    #[test]
    fn a_day_is_taken_in_its_order_and_no_event_twice() {
        let mut day = Day::new(7, 1);
        let all = day.events.clone();
        assert!(all.len() > 20_000, "{}", all.len());
        let mut taken = Vec::new();
        let mut now = day.begins();
        while let Some(next) = day.next_at() {
            assert!(day.events_until(next - SimTime(1), 100).is_empty());
            now = now.max(next);
            let events = day.events_until(now, 100);
            assert!(!events.is_empty() && events.len() <= 100 && events.iter().all(|event| event.at <= now));
            taken.extend(events);
            now = now + SimTime(600);
        }
        assert_eq!(taken, all);
        assert_eq!(Day::new(7, 1).events, all);
        assert_ne!(Day::new(7, 2).events, all);
    }

    /// The server takes each line as it is, and each kind goes where it should.
    #[test]
    fn every_line_is_a_good_one() {
        let mut day = Day::new(7, 1);
        let events = day.events_until(SimTime(u32::MAX), usize::MAX);
        let mut first_of: HashMap<String, String> = HashMap::new();
        for (id, event) in events.iter().enumerate() {
            let line = day.line(event, id as u64, "2026-10-01T10:00:00.000000Z");
            if id % 50 == 0 {
                Parser::new().parse(line.as_bytes(), &Default::default()).unwrap();
            }
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            let kind = line["data"]["eventType"].as_str().or(line["event"].as_str()).unwrap().to_owned();
            first_of.entry(kind).or_insert_with(|| {
                format!("{} {} {} {}", line["ns"].as_str().unwrap(), line["rooms"], line["key"], line["data"])
            });
        }
        for (kind, words) in [
            ("seat_reserved", &["/seats ", "route:", "\"ticketId\":\"T", "\"gender\":\"", "\"price\":"][..]),
            ("seat_confirmed", &["\"pnrNumber\":\""]),
            ("seat_cancelled", &["\"pnrNumber\":\""]),
            ("seat_suspended", &["\"departure\":\""]),
            ("seat_available", &["\"fromCity\":\"Pune\""]),
            ("SCHEDULED", &["/ ", "train:", "@", "\"status\":\"expected\""]),
            ("DELAY_UPDATE", &["\"delayMin\":"]),
            ("PLATFORM_CHANGE", &["station:", "\"platform\":"]),
            ("STATION_ARRIVAL", &["station:", "\"status\":\"arrived\""]),
            ("STATION_DEPARTURE", &["station:", "\"status\":\"departed\""]),
            ("CANCELLED", &["\"status\":\"cancelled\""]),
            ("VACANT_BERTH", &[":TTE"]),
            ("NO_SHOW", &[":TTE"]),
            ("RAC_UPGRADE", &[":TTE"]),
            ("CHART_PREPARED", &["[\"role:TTE\"]"]),
            ("BERTH_CONFIRMED", &["[\"user:IR0001\"]"]),
        ] {
            let line = first_of.remove(kind).unwrap_or_else(|| panic!("no {kind} all day"));
            assert!(words.iter().all(|word| line.contains(word)), "{kind}: {line}");
        }
        assert!(first_of.is_empty(), "{first_of:?}");
    }

    #[test]
    fn clocks_go_on_after_midnight() {
        for (seconds, shown) in [(0, "00:00"), (59, "00:00"), (8 * 3600 + 60, "08:01"), (25 * 3600, "01:00")] {
            assert_eq!(SimTime(seconds).hh_mm(), shown);
        }
    }
}
