//! A day of bookings: which seats of which bus people take, hold, pay for and give back. Does not know how anybody is
//! told.

use super::dice::Dice;
use super::places::SEATS;
use super::timetable::SimTime;

/// A route's buses: the first is on sale from 04:00 on, each further one when the one before has left.
const FIRST_MINUTE: u32 = 4 * 60;
const SALE_MINUTES: u32 = 90;
const BUSES: u32 = 15;
/// Sale ends so long before the bus leaves.
const CLOSED_MINUTES: u32 = 2;

/// Something that happens to a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeatEvent {
    /// The route's place in the list of routes.
    pub route: u8,
    /// Counted from the front and from the left.
    pub seat: u8,
    /// What it is from now on.
    pub kind: SeatKind,
    /// Whose it is, unless nobody's.
    pub passenger: Option<Passenger>,
    /// When the bus leaves.
    pub departs: SimTime,
}

/// What a seat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatKind {
    /// Anybody may take it.
    Available,
    /// Somebody is about to pay.
    Reserved,
    /// Somebody has paid.
    Confirmed,
    /// Somebody has given it back; it is soon available.
    Cancelled,
    /// Nobody may take it.
    Suspended,
}

/// Who takes a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passenger {
    /// `true`: she; `false`: he. The operator seats strangers by it.
    pub is_woman: bool,
    /// The ticket's number.
    pub ticket: u32,
}

/// A route's day in the order of time.
#[must_use]
pub fn day_of(seed: u64, day: u32, route: u8) -> Vec<(SimTime, SeatEvent)> {
    let mut events = Vec::new();
    for bus in 0..BUSES {
        let opens = SimTime::of_minutes(FIRST_MINUTE + bus * SALE_MINUTES);
        // Trains have the numbers below.
        let thing = 100_000 + u32::from(route) * 1000 + bus;
        let mut dice = Dice::new(seed, day, thing);
        // Some buses leave full, some do not.
        let patience_minutes = dice.between(38, 64);
        for seat in 0..SEATS {
            let sale = Sale { route, seat, opens, departs: opens + SimTime::of_minutes(SALE_MINUTES) };
            sale.run(patience_minutes, thing * 1000, &mut dice, &mut events);
        }
    }
    // What happens to one seat keeps its order.
    events.sort_by_key(|(at, _)| *at);
    events
}

/// The sale of one seat.
struct Sale {
    route: u8,
    seat: u8,
    opens: SimTime,
    departs: SimTime,
}

impl Sale {
    /// `patience_minutes`: how long a seat waits for a buyer, in the mean. Tickets have numbers from `tickets` on.
    fn run(&self, patience_minutes: u32, tickets: u32, dice: &mut Dice, events: &mut Vec<(SimTime, SeatEvent)>) {
        let closes = self.departs - SimTime::of_minutes(CLOSED_MINUTES);
        let seconds = |dice: &mut Dice, first: u32, last: u32| SimTime(dice.between(first * 60, last * 60));
        let mut tell = |at, kind, passenger| {
            let (route, seat, departs) = (self.route, self.seat, self.departs);
            events.push((at, SeatEvent { route, seat, kind, passenger, departs }));
        };
        // A new bus comes up seat by seat, from the front.
        let mut at = self.opens + SimTime(u32::from(self.seat));
        tell(at, SeatKind::Available, None);
        for nth in 0.. {
            at = at + seconds(dice, 1, 2 * patience_minutes);
            if at >= closes {
                break;
            }
            if dice.percent(5) {
                tell(at, SeatKind::Suspended, None);
                at = at + seconds(dice, 6, 18);
            } else {
                let ticket = tickets + u32::from(self.seat) * 10 + nth % 10;
                let passenger = Some(Passenger { is_woman: dice.percent(45), ticket });
                tell(at, SeatKind::Reserved, passenger);
                at = at + seconds(dice, 1, 6);
                if at >= closes {
                    break;
                }
                if dice.percent(80) {
                    tell(at, SeatKind::Confirmed, passenger);
                    if !dice.percent(12) {
                        break;
                    }
                    at = at + seconds(dice, 4, 25);
                    if at >= closes {
                        break;
                    }
                    tell(at, SeatKind::Cancelled, passenger);
                    at = at + seconds(dice, 1, 3);
                }
            }
            if at >= closes {
                break;
            }
            tell(at, SeatKind::Available, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::places::ROUTES;
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_seat_is_never_confirmed_before_it_is_reserved() {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for route in 0..ROUTES.len() as u8 {
            let events = day_of(7, 1, route);
            assert!(events.is_sorted_by_key(|(at, _)| *at));
            let mut seats: Vec<Option<SeatEvent>> = vec![None; usize::from(SEATS)];
            for (at, event) in events {
                assert!(at < event.departs && event.route == route);
                let before = seats[usize::from(event.seat)].replace(event);
                let same_bus = before.filter(|before| before.departs == event.departs);
                // The first that is heard of a seat of a bus is that it may be had.
                let kind_before = same_bus.map(|before| before.kind);
                let allowed = match event.kind {
                    SeatKind::Available => kind_before.is_none_or(|kind| {
                        matches!(kind, SeatKind::Reserved | SeatKind::Cancelled | SeatKind::Suspended)
                    }),
                    SeatKind::Reserved | SeatKind::Suspended => kind_before == Some(SeatKind::Available),
                    SeatKind::Confirmed => kind_before == Some(SeatKind::Reserved),
                    SeatKind::Cancelled => kind_before == Some(SeatKind::Confirmed),
                };
                assert!(allowed, "{:?} after {before:?}", event);
                match event.kind {
                    SeatKind::Confirmed | SeatKind::Cancelled => {
                        assert_eq!(event.passenger, same_bus.unwrap().passenger);
                    }
                    SeatKind::Reserved => assert!(event.passenger.is_some()),
                    SeatKind::Available | SeatKind::Suspended => assert_eq!(event.passenger, None),
                }
                *counts.entry(super::super::timetable::seat_event(event.kind)).or_default() += 1;
            }
        }
        assert!(counts.len() == 5 && counts.values().all(|count| *count > 100), "{counts:?}");
        // Most seats of most buses are sold, and some are not.
        let sold = counts["seat_confirmed"] - counts["seat_cancelled"];
        let all = ROUTES.len() * usize::from(SEATS) * BUSES as usize;
        assert!((all / 2..all * 98 / 100).contains(&sold), "{sold} of {all}: {counts:?}");
    }

    #[test]
    fn days_differ_and_repeat() {
        assert_eq!(day_of(7, 1, 0), day_of(7, 1, 0));
        assert_ne!(day_of(7, 1, 0), day_of(7, 2, 0));
        assert_ne!(day_of(7, 1, 0), day_of(8, 1, 0));
    }
}
