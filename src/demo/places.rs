//! Where the demo's trains and buses go: stations, lines and routes, as they are on a map. Does not know when anything
//! runs.

/// A railway station.
#[derive(Debug, PartialEq, Eq)]
pub struct Station {
    /// As boards and rooms name it.
    pub code: &'static str,
    /// As people name it.
    pub name: &'static str,
    /// It has platforms 1 to this.
    pub platforms: u8,
}

/// A railway line, which trains run along in both directions.
pub struct Line {
    /// Stations with the minutes from the one before.
    pub stops: &'static [(&'static str, u32)],
    /// What its trains are called.
    pub names: &'static [&'static str],
}

/// A bus route.
#[derive(Debug)]
pub struct Route {
    /// As rooms and clients name it.
    pub id: &'static str,
    /// Where it begins.
    pub from: &'static str,
    /// Where it ends.
    pub to: &'static str,
    /// What a seat costs, in rupees, before its place in the bus makes it dearer.
    pub price: u32,
}

const fn station(code: &'static str, name: &'static str, platforms: u8) -> Station {
    Station { code, name, platforms }
}

/// All stations. Few platforms: fast trains do not stop.
pub const STATIONS: [Station; 16] = [
    station("CSMT", "Mumbai CSMT", 18),
    station("DR", "Dadar", 8),
    station("TNA", "Thane", 10),
    station("KYN", "Kalyan Jn", 8),
    station("LNL", "Lonavala", 3),
    station("PUNE", "Pune Jn", 6),
    station("DD", "Daund Jn", 4),
    station("SUR", "Solapur Jn", 5),
    station("NK", "Nashik Road", 4),
    station("MMR", "Manmad Jn", 6),
    station("BSR", "Vasai Road", 7),
    station("ST", "Surat", 6),
    station("BRC", "Vadodara Jn", 7),
    station("ADI", "Ahmedabad Jn", 12),
    station("PNVL", "Panvel", 7),
    station("RN", "Ratnagiri", 3),
];

/// All lines.
pub const LINES: [Line; 5] = [
    Line {
        stops: &[("CSMT", 0), ("DR", 12), ("TNA", 20), ("KYN", 22), ("LNL", 68), ("PUNE", 58), ("DD", 62)],
        names: &["Deccan", "Sahyadri", "Indrayani", "Mandovi", "Koyna"],
    },
    Line {
        stops: &[("CSMT", 0), ("DR", 12), ("TNA", 20), ("KYN", 22), ("NK", 112), ("MMR", 54)],
        names: &["Godavari", "Panchavati", "Tapovan", "Sevagram"],
    },
    Line {
        stops: &[("DR", 0), ("BSR", 38), ("ST", 150), ("BRC", 92), ("ADI", 84)],
        names: &["Gujarat", "Tapti", "Karnavati", "Sabarmati", "Vasant"],
    },
    Line {
        stops: &[("CSMT", 0), ("TNA", 30), ("PNVL", 38), ("RN", 190)],
        names: &["Konkan", "Jan Shatabdi", "Malvan", "Sagar"],
    },
    Line {
        stops: &[("ST", 0), ("BSR", 148), ("KYN", 46), ("LNL", 68), ("PUNE", 58), ("SUR", 176)],
        names: &["Siddheshwar", "Bhima", "Maharashtra", "Hirakani"],
    },
];

const fn route(id: &'static str, from: &'static str, to: &'static str, price: u32) -> Route {
    Route { id, from, to, price }
}

/// All bus routes.
pub const ROUTES: [Route; 12] = [
    route("pune-mumbai", "Pune", "Mumbai", 450),
    route("mumbai-pune", "Mumbai", "Pune", 450),
    route("mumbai-goa", "Mumbai", "Goa", 1200),
    route("goa-mumbai", "Goa", "Mumbai", 1200),
    route("pune-nashik", "Pune", "Nashik", 520),
    route("nashik-pune", "Nashik", "Pune", 520),
    route("mumbai-nashik", "Mumbai", "Nashik", 480),
    route("pune-kolhapur", "Pune", "Kolhapur", 560),
    route("kolhapur-pune", "Kolhapur", "Pune", 560),
    route("mumbai-surat", "Mumbai", "Surat", 640),
    route("surat-ahmedabad", "Surat", "Ahmedabad", 590),
    route("pune-goa", "Pune", "Goa", 980),
];

/// Rows of seats in a bus.
pub const SEAT_ROWS: u8 = 10;
/// The seats of a row from left to right; the aisle is in the middle.
pub const SEAT_LETTERS: [char; 4] = ['A', 'B', 'C', 'D'];
/// Seats of a bus.
pub const SEATS: u8 = SEAT_ROWS * SEAT_LETTERS.len() as u8;

/// What is on the door of a seat, counted from the front and from the left.
#[must_use]
pub fn seat_number(seat: u8) -> String {
    let letters = SEAT_LETTERS.len() as u8;
    format!("{}{}", seat / letters + 1, SEAT_LETTERS[usize::from(seat % letters)])
}

impl Route {
    /// What this seat costs, in rupees: windows and the front are dearer.
    #[must_use]
    pub fn price_of(&self, seat: u8) -> u32 {
        let letters = SEAT_LETTERS.len() as u8;
        let window = if matches!(seat % letters, 0 | 3) { 40 } else { 0 };
        let front = if seat / letters < 3 { 60 } else { 0 };
        self.price + window + front
    }
}

/// The station of that code.
///
/// # Panics
/// If there is none: codes come from this file.
#[must_use]
pub fn station_of(code: &str) -> &'static Station {
    STATIONS.iter().find(|station| station.code == code).unwrap_or_else(|| panic!("no station {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_line_goes_to_stations_that_there_are() {
        for line in &LINES {
            let codes: HashSet<_> = line.stops.iter().map(|(code, _)| station_of(code).code).collect();
            assert_eq!(codes.len(), line.stops.len());
            assert!(line.stops[0].1 == 0 && line.stops[1..].iter().all(|(_, minutes)| *minutes >= 10));
        }
        let everywhere: HashSet<_> = LINES.iter().flat_map(|line| line.stops).map(|(code, _)| code).collect();
        assert_eq!(everywhere.len(), STATIONS.len());
    }

    #[test]
    fn seats_have_numbers_of_their_own() {
        assert_eq!((seat_number(0).as_str(), seat_number(SEATS - 1).as_str()), ("1A", "10D"));
        let numbers: HashSet<_> = (0..SEATS).map(seat_number).collect();
        assert_eq!(numbers.len(), usize::from(SEATS));
        let route = &ROUTES[0];
        assert_eq!((route.price_of(0), route.price_of(1), route.price_of(39)), (550, 510, 490));
        let ids: HashSet<_> = ROUTES.iter().map(|route| route.id).collect();
        assert_eq!(ids.len(), ROUTES.len());
    }
}
