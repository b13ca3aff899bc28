//! A day of trains: the timetable, which is the same every day, and what becomes of it on one. Does not know how
//! anybody is told.

use super::dice::Dice;
use super::places::{LINES, Line, Station, station_of};
use super::timetable::SimTime;

/// Trains of each line in each direction.
const TRAINS_PER_DIRECTION: u32 = 100;
/// The first one leaves at 04:10, the last one before 23:10.
const FIRST_MINUTE: u32 = 4 * 60 + 10;
const SERVICE_MINUTES: u32 = 19 * 60;
/// How long a train stands at its first station, and at the others.
const FIRST_DWELL_MINUTES: u32 = 8;
const DWELL_MINUTES: u32 = 3;
/// Stations with fewer platforms see no fast train stop.
const FAST_PLATFORMS_MIN: u8 = 5;
/// A train is known so long before it leaves its first station, and on a station's board before it comes there.
const KNOWN_MINUTES: u32 = 75;
const ON_BOARD_MINUTES: u32 = 60;

/// A train as it stands in the timetable.
#[derive(Debug, PartialEq, Eq)]
pub struct Train {
    /// Five digits, unique.
    pub number: String,
    /// What it is called.
    pub name: String,
    /// From the first station to the last one, at least two.
    pub stops: Vec<Stop>,
}

/// A train at a station.
#[derive(Debug, PartialEq, Eq)]
pub struct Stop {
    /// Where.
    pub station: &'static Station,
    /// When it comes.
    pub arrives: SimTime,
    /// When it goes; at the last station when it came.
    pub departs: SimTime,
    /// Where it should stand.
    pub platform: u8,
}

/// Something that happens to a train, with what is known of the stop from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopEvent {
    /// Its place in the list of trains.
    pub train: u16,
    /// Which of its stops.
    pub stop: u8,
    /// What has happened.
    pub change: Change,
    /// How much later than planned it comes and goes, in minutes.
    pub late: u16,
    /// Where it stands.
    pub platform: u8,
    /// Where it is.
    pub status: Status,
    /// True: those on the station's board are told as well, not only those on the train.
    pub on_board: bool,
}

/// What has happened to a train at a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is known, or comes onto the station's board.
    Scheduled,
    /// It will be later, or less late.
    Delay,
    /// It will stand elsewhere.
    Platform,
    /// It is there.
    Arrival,
    /// It has gone.
    Departure,
    /// It does not run today.
    Cancelled,
}

/// Where a train is, as seen from one of its stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not there yet.
    Expected,
    /// There.
    Arrived,
    /// Gone; at its last stop it never is.
    Departed,
    /// Never there.
    Cancelled,
}

/// Something that few are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// About which train.
    pub train: u16,
    /// What is said.
    pub kind: NoteKind,
    /// The coach and the berth in it.
    pub coach: u8,
    /// From 1.
    pub berth: u8,
}

/// What is said to few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// To the train's examiners: nobody lies there.
    VacantBerth,
    /// To the train's examiners: who should lie there has not come.
    NoShow,
    /// To the train's examiners: somebody may move there.
    RacUpgrade,
    /// To the examiners of all trains: the list of passengers is final.
    ChartPrepared,
    /// To one passenger: it is yours.
    BerthConfirmed,
}

/// All trains, in no order.
#[must_use]
pub fn timetable(seed: u64) -> Vec<Train> {
    let mut trains = Vec::new();
    for (index, line) in LINES.iter().enumerate() {
        for back in [false, true] {
            for nth in 0..TRAINS_PER_DIRECTION {
                let direction = 2 * index as u32 + u32::from(back);
                trains.push(train(seed, line, direction, nth));
            }
        }
    }
    trains
}

fn train(seed: u64, line: &Line, direction: u32, nth: u32) -> Train {
    let id = direction * TRAINS_PER_DIRECTION + nth;
    // Day 0 is none of the days that run.
    let mut dice = Dice::new(seed, 0, id);
    let kind = ["Express", "Superfast", "Mail", "Passenger", "Intercity"][dice.below(5) as usize];
    let fast = kind == "Superfast";
    let pace_percent = if fast { 88 } else { dice.between(96, 112) };
    let name = line.names[dice.below(line.names.len() as u32) as usize];
    let mut way: Vec<(&Station, u32)> = line.stops.iter().map(|(code, gap)| (station_of(code), *gap)).collect();
    if direction % 2 == 1 {
        way.reverse();
        // The gap was from the one before, which is the next one now.
        for at in (1..way.len()).rev() {
            way[at].1 = way[at - 1].1;
        }
        way[0].1 = 0;
    }
    let last = way.len() - 1;
    let mut minute = FIRST_MINUTE + nth * SERVICE_MINUTES / TRAINS_PER_DIRECTION + dice.below(6);
    let mut stops: Vec<Stop> = Vec::new();
    for (at, (station, gap)) in way.into_iter().enumerate() {
        minute += gap * pace_percent / 100;
        let platform = dice.between(1, u32::from(station.platforms)) as u8;
        if at > 0 && at < last && fast && station.platforms < FAST_PLATFORMS_MIN {
            continue;
        }
        let (arrives, departs) = match at {
            0 => (minute - FIRST_DWELL_MINUTES, minute),
            _ if at == last => (minute, minute),
            _ => (minute, minute + DWELL_MINUTES),
        };
        minute = departs;
        let (arrives, departs) = (SimTime::of_minutes(arrives), SimTime::of_minutes(departs));
        stops.push(Stop { station, arrives, departs, platform });
    }
    Train { number: format!("{}", 11_001 + direction * 1000 + nth * 2), name: format!("{name} {kind}"), stops }
}

/// What happens to a train, before it is known which of it is news.
#[derive(Clone, Copy)]
enum Happening {
    Known,
    OnBoard(usize),
    Late { from: usize, minutes: u32 },
    Platform { stop: usize, platform: u8 },
    Arrives(usize),
    Departs(usize),
    Cancelled,
}

/// Things with their times, in the order of time.
pub type Timed<T> = Vec<(SimTime, T)>;

/// A train's day in the order of time: what is told of its stops, and what is told to few.
#[must_use]
pub fn day_of(seed: u64, day: u32, index: u16, train: &Train) -> (Timed<StopEvent>, Timed<Note>) {
    let mut dice = Dice::new(seed, day, u32::from(index));
    let mut notes = Vec::new();
    let mut happenings = happenings(train, &mut dice);
    let mut note = |at: SimTime, kind, dice: &mut Dice| {
        let (coach, berth) = (dice.between(1, 9) as u8, dice.between(1, 72) as u8);
        notes.push((at, Note { train: index, kind, coach, berth }));
    };
    let is_cancelled = happenings.iter().any(|(_, happening)| matches!(happening, Happening::Cancelled));
    if !is_cancelled && dice.percent(15) {
        let before = SimTime::of_minutes(dice.between(20, 30));
        note(train.stops[0].departs - before, NoteKind::ChartPrepared, &mut dice);
    }
    for &(at, happening) in &happenings {
        let Happening::Departs(stop) = happening else { continue };
        let leg = train.stops[stop + 1].arrives - train.stops[stop].departs;
        for _ in 0..2 {
            if dice.percent(60) {
                let kind = [NoteKind::VacantBerth, NoteKind::NoShow, NoteKind::RacUpgrade][dice.below(3) as usize];
                note(at + SimTime(dice.below(leg.0)), kind, &mut dice);
            }
        }
        if dice.percent(1) {
            note(at + SimTime(dice.below(leg.0)), NoteKind::BerthConfirmed, &mut dice);
        }
    }
    happenings.sort_by_key(|(at, _)| *at);
    notes.sort_by_key(|(at, _)| *at);
    (told(index, train, &happenings), notes)
}

fn happenings(train: &Train, dice: &mut Dice) -> Timed<Happening> {
    let minutes = SimTime::of_minutes;
    let (first, last) = (&train.stops[0], train.stops.len() - 1);
    let known = first.departs - minutes(KNOWN_MINUTES);
    let mut happenings = vec![(known, Happening::Known)];
    for (index, stop) in train.stops.iter().enumerate() {
        let on_board = stop.departs - minutes(ON_BOARD_MINUTES);
        if on_board > known {
            // Not all at once that leave at one time.
            happenings.push((on_board + SimTime(dice.below(60)), Happening::OnBoard(index)));
        }
    }
    if dice.percent(1) {
        happenings.push((first.departs - minutes(dice.between(25, 45)), Happening::Cancelled));
        return happenings;
    }
    let mut late = if dice.percent(20) { dice.between(3, 25) } else { 0 };
    if late > 0 {
        let told = first.departs - minutes(dice.between(15, 40));
        happenings.push((told, Happening::Late { from: 0, minutes: late }));
    }
    for (index, stop) in train.stops.iter().enumerate() {
        if index > 0 {
            let left = train.stops[index - 1].departs;
            let leg = stop.arrives - left;
            let before = late;
            match dice.below(100) {
                0..20 => late += dice.between(2, 9),
                // No faster than half of the time.
                20..55 => late = late.saturating_sub(dice.between(1, 4).min(leg.0 / 120)),
                _ => {}
            }
            if late != before {
                // Before it comes, late or not.
                let told = left + minutes(before) + SimTime(leg.0 * dice.between(20, 45) / 100);
                happenings.push((told, Happening::Late { from: index, minutes: late }));
            }
        }
        let arrives = stop.arrives + minutes(late) + SimTime(dice.below(50));
        if dice.percent(8) && stop.station.platforms > 1 {
            let others = u32::from(stop.station.platforms) - 1;
            let platform = (u32::from(stop.platform) + dice.below(others)) % (others + 1) + 1;
            let told = arrives - minutes(dice.between(4, 20));
            happenings.push((told, Happening::Platform { stop: index, platform: platform as u8 }));
        }
        happenings.push((arrives, Happening::Arrives(index)));
        if index < last {
            let departs = stop.departs + minutes(late) + SimTime(50 + dice.below(10));
            happenings.push((departs, Happening::Departs(index)));
        }
    }
    happenings
}

/// What is known of a stop.
#[derive(Clone, Copy)]
struct Known {
    late: u32,
    platform: u8,
    status: Status,
}

/// Goes through what happens in its order, and says what is news.
fn told(index: u16, train: &Train, happenings: &[(SimTime, Happening)]) -> Timed<StopEvent> {
    let mut stops: Vec<Known> =
        train.stops.iter().map(|stop| Known { late: 0, platform: stop.platform, status: Status::Expected }).collect();
    let mut events = Vec::new();
    let mut tell = |at: SimTime, stop: usize, change, known: Known| {
        let on_board = at + SimTime::of_minutes(ON_BOARD_MINUTES) >= train.stops[stop].departs;
        let Known { late, platform, status } = known;
        let late = late as u16;
        events.push((at, StopEvent { train: index, stop: stop as u8, change, late, platform, status, on_board }));
    };
    for &(at, happening) in happenings {
        match happening {
            Happening::Known => stops.iter().enumerate().for_each(|(j, stop)| tell(at, j, Change::Scheduled, *stop)),
            Happening::OnBoard(j) => tell(at, j, Change::Scheduled, stops[j]),
            Happening::Late { from, minutes } => {
                for (j, stop) in stops.iter_mut().enumerate().skip(from) {
                    stop.late = minutes;
                    tell(at, j, Change::Delay, *stop);
                }
            }
            Happening::Platform { stop: j, platform } => {
                stops[j].platform = platform;
                tell(at, j, Change::Platform, stops[j]);
            }
            Happening::Arrives(j) => {
                stops[j].status = Status::Arrived;
                tell(at, j, Change::Arrival, stops[j]);
            }
            Happening::Departs(j) => {
                stops[j].status = Status::Departed;
                tell(at, j, Change::Departure, stops[j]);
            }
            Happening::Cancelled => {
                for (j, stop) in stops.iter_mut().enumerate() {
                    stop.status = Status::Cancelled;
                    tell(at, j, Change::Cancelled, *stop);
                }
            }
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn trains_have_numbers_of_their_own_and_come_in_the_order_of_their_stops() {
        let trains = timetable(7);
        assert_eq!(trains.len(), 1000);
        assert_eq!(trains, timetable(7));
        let numbers: HashSet<_> = trains.iter().map(|train| &train.number).collect();
        assert_eq!(numbers.len(), trains.len());
        for train in &trains {
            assert!(train.number.len() == 5 && train.stops.len() >= 2, "{train:?}");
            assert!(train.stops.is_sorted_by(|a, b| a.arrives <= a.departs && a.departs < b.arrives), "{train:?}");
            assert!(train.stops.iter().all(|stop| (1..=stop.station.platforms).contains(&stop.platform)));
            let stations: HashSet<_> = train.stops.iter().map(|stop| stop.station.code).collect();
            assert_eq!(stations.len(), train.stops.len());
        }
    }

    /// Of every train of some days: each stop is expected, then reached, then left, one stop after the other, and a
    /// train that is cancelled goes nowhere.
    #[test]
    fn trains_arrive_in_order() {
        let trains = timetable(7);
        let (mut delays, mut moves, mut cancelled) = (0, 0, 0);
        for day in 1..=2 {
            for (index, train) in trains.iter().enumerate() {
                let (events, notes) = day_of(7, day, index as u16, train);
                assert!(events.is_sorted_by_key(|(at, _)| *at) && notes.is_sorted_by_key(|(at, _)| *at));
                let mut status = vec![Status::Expected; train.stops.len()];
                let mut reached = Vec::new();
                for (at, event) in &events {
                    let (j, stop) = (usize::from(event.stop), &train.stops[usize::from(event.stop)]);
                    assert!((1..=stop.station.platforms).contains(&event.platform));
                    match event.change {
                        Change::Scheduled => assert_eq!(event.status, status[j]),
                        Change::Delay => {
                            delays += 1;
                            assert!(event.status == Status::Expected && status[j] == Status::Expected, "{train:?}");
                        }
                        Change::Platform => {
                            moves += 1;
                            assert!(event.status == Status::Expected, "{event:?}");
                        }
                        Change::Arrival => {
                            assert_eq!((status[j], event.status), (Status::Expected, Status::Arrived));
                            assert!(status[..j].iter().all(|status| *status == Status::Departed), "{train:?}");
                            let expected = stop.arrives + SimTime::of_minutes(u32::from(event.late));
                            assert!(*at >= expected && at.0 < expected.0 + 60, "{at:?} {event:?}");
                            reached.push(j);
                        }
                        Change::Departure => {
                            assert_eq!((status[j], event.status), (Status::Arrived, Status::Departed))
                        }
                        Change::Cancelled => {
                            cancelled += 1;
                            assert_eq!((status[j], event.status), (Status::Expected, Status::Cancelled));
                        }
                    }
                    status[j] = event.status;
                }
                let goes = status[0] != Status::Cancelled;
                assert_eq!(reached.len(), if goes { train.stops.len() } else { 0 });
                assert!(goes || notes.is_empty());
            }
        }
        assert!(delays > 1000 && moves > 100 && cancelled > 10, "{delays} {moves} {cancelled}");
    }

    #[test]
    fn days_differ_and_repeat() {
        let trains = timetable(7);
        let day = |seed, day| -> Vec<_> { (0..50).map(|at| day_of(seed, day, at, &trains[usize::from(at)])).collect() };
        assert_eq!(day(7, 1), day(7, 1));
        assert_ne!(day(7, 1), day(7, 2));
        assert_ne!(day(7, 1), day(8, 1));
    }
}
