//! Who may come in: connections of each client address at a time, and handshakes a second of each address and of all.
//! The one table that cores share. Does not know connections or requests, only addresses and the time.
//!
//! It is exact on all cores together, as it is one: parts of a bound given to each core would refuse a client whose
//! connections the kernel has put on few cores, and let in too many of one that is lucky. A handshake costs some 20 µs,
//! a lock that is rarely contended 50 ns; what clients do after their handshake never comes here.

use crate::base::clock::Millis;
use crate::base::rate::Rate;
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks, so that cores rarely wait for each other: many more than cores.
const PARTS: usize = 256;
/// A part with fewer addresses is not worth tidying.
const TIDY_LEN_MIN: usize = 64;

/// Bounds of clients' addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Connections of one address at a time; `None` for any number.
    pub connections_per_ip_max: Option<u32>,
    /// Handshakes of one address.
    pub handshakes_per_ip: Option<Rate>,
    /// Handshakes of all.
    pub handshakes: Option<Rate>,
}

/// What counts as one client address: an IPv4 address, or the 64 bits of an IPv6 address that name a network, as each
/// subscriber has at least one of those to himself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(Ipv6Addr);

impl From<IpAddr> for Network {
    fn from(ip: IpAddr) -> Network {
        Network(match ip.to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)),
        })
    }
}

/// A handshake too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// Of this address.
    FromAddress {
        /// The next one may come then.
        retry_ms: u64,
    },
    /// Of all.
    InAll {
        /// The next one may come then.
        retry_ms: u64,
    },
}

/// The table. Used through an [`Arc`], as places refer to it.
#[derive(Debug)]
pub struct Admission {
    /// Of [`Options`]; 0 for any number.
    connections_per_ip_max: AtomicU32,
    /// Of [`Options`]; see [`Rate::to_bits`], 0 for no bound.
    handshakes_per_ip: AtomicU64,
    /// What is known of addresses, in parts by their hash.
    parts: Box<[Mutex<Part>]>,
    hasher: RandomState,
    /// False while the handshakes of all are not bounded: then nobody needs to lock.
    counts_all: AtomicBool,
    all: Mutex<All>,
}

/// The handshakes of all clients.
#[derive(Debug, Default)]
struct All {
    rate: Option<Rate>,
    /// See [`Rate`].
    full_at: u64,
}

#[derive(Debug, Default)]
struct Part {
    addresses: HashMap<Network, Known>,
    /// Number of addresses at which those are looked for that nothing need be known of any more.
    tidy_len: usize,
}

/// What is known of an address.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    connections: u32,
    /// Of its handshakes: see [`Rate`].
    full_at: u64,
}

/// A place among the connections of an address. It is free again when this is dropped, so that nothing that ends a
/// connection, or hands it to another core, can forget or repeat it.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    network: Network,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut part = self.admission.part(self.network);
        let Entry::Occupied(mut known) = part.addresses.entry(self.network) else {
            unreachable!("an address with a place is known")
        };
        known.get_mut().connections -= 1;
        // There is no clock here: what is known of its handshakes is tidied up later.
        if known.get().connections == 0 && known.get().full_at == 0 {
            known.remove();
        }
    }
}

impl Admission {
    /// A table without addresses.
    #[must_use]
    pub fn new(options: Options) -> Arc<Admission> {
        let table = Admission {
            connections_per_ip_max: AtomicU32::new(0),
            handshakes_per_ip: AtomicU64::new(0),
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            counts_all: AtomicBool::new(false),
            all: Mutex::default(),
        };
        table.set_options(options);
        Arc::new(table)
    }

    /// From here on these bounds hold. Nobody loses a place, nor gets one: see [`Admission::count`]. Who is bounded by
    /// another rate than before has all of its burst.
    pub fn set_options(&self, options: Options) {
        let Options { connections_per_ip_max, handshakes_per_ip, handshakes } = options;
        self.connections_per_ip_max.store(connections_per_ip_max.unwrap_or(0), Ordering::SeqCst);
        let bits = handshakes_per_ip.map_or(0, Rate::to_bits);
        if self.handshakes_per_ip.swap(bits, Ordering::SeqCst) != bits {
            // What is remembered counts in the former rate's ticks. Whoever locks a part after this sees the new rate.
            for part in &self.parts {
                let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
                part.addresses.values_mut().for_each(|known| known.full_at = 0);
                part.addresses.retain(|_, known| known.connections > 0);
            }
        }
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.rate != handshakes {
            *all = All { rate: handshakes, full_at: 0 };
        }
        self.counts_all.store(handshakes.is_some(), Ordering::SeqCst);
    }

    /// False if connections are not bounded: there are no places then.
    #[must_use]
    pub fn counts_connections(&self) -> bool {
        self.connections_per_ip_max.load(Ordering::Relaxed) > 0
    }

    /// A place for a connection from `ip`; `None` if the address has as many as it may.
    #[must_use]
    pub fn connect(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        // Connections have begun to be counted, or no longer are, since it was asked whether they are.
        let max = match self.connections_per_ip_max.load(Ordering::Relaxed) {
            0 => u32::MAX,
            max => max,
        };
        self.take_place(ip, max)
    }

    /// A place for a connection from `ip` that is there already, when connections begin to be counted: how many the
    /// address may have is a bound for the next one.
    #[must_use]
    pub fn count(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        self.take_place(ip, u32::MAX)
    }

    fn take_place(self: &Arc<Self>, ip: IpAddr, max: u32) -> Option<Place> {
        let network = Network::from(ip);
        let mut part = self.part(network);
        let known = part.addresses.entry(network).or_default();
        if known.connections >= max {
            return None;
        }
        known.connections += 1;
        Some(Place { admission: self.clone(), network })
    }

    /// Admits a handshake of a client at `ip`.
    ///
    /// # Errors
    /// It is one too many, and counts for nothing.
    pub fn handshake(&self, ip: IpAddr, now: Millis) -> Result<(), TooMany> {
        if self.handshakes_per_ip.load(Ordering::Relaxed) == 0 {
            return self.one_of_all(now);
        }
        let network = Network::from(ip);
        let mut part = self.part(network);
        // Read while the part is locked: see `set_options`.
        let Some(rate) = Rate::from_bits(self.handshakes_per_ip.load(Ordering::SeqCst)) else {
            return self.one_of_all(now);
        };
        part.tidy(rate, now);
        let full_at = part.addresses.get(&network).map_or(0, |known| known.full_at);
        let full_at = rate.take(full_at, now).map_err(|retry_ms| TooMany::FromAddress { retry_ms })?;
        // While the part is locked: an address must not lose what it has for want of what all have.
        self.one_of_all(now)?;
        part.addresses.entry(network).or_default().full_at = full_at;
        Ok(())
    }

    fn one_of_all(&self, now: Millis) -> Result<(), TooMany> {
        if !self.counts_all.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rate) = all.rate else { return Ok(()) };
        all.full_at = rate.take(all.full_at, now).map_err(|retry_ms| TooMany::InAll { retry_ms })?;
        Ok(())
    }

    /// The part of the table where the address is. A panic elsewhere leaves no part half done.
    fn part(&self, network: Network) -> MutexGuard<'_, Part> {
        let index = self.hasher.hash_one(network) as usize % PARTS;
        self.parts[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Addresses of which something is known: for tests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).addresses.len()).sum()
    }

    /// True if nothing is known of any address: for tests.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Part {
    /// Forgets addresses without connections whose whole burst is there, now and then: each address pays with one look
    /// for those that came before it. So the table holds at most twice the addresses of the last second of `rate`.
    fn tidy(&mut self, rate: Rate, now: Millis) {
        if self.addresses.len() < self.tidy_len.max(TIDY_LEN_MIN) {
            return;
        }
        self.addresses.retain(|_, known| known.connections > 0 || !rate.is_full(known.full_at, now));
        self.tidy_len = 2 * self.addresses.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn connections(max: u32) -> Arc<Admission> {
        Admission::new(Options { connections_per_ip_max: Some(max), ..Options::default() })
    }

    #[test]
    fn what_is_one_address() {
        let rows = [
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("::1", "::ffff:0.0.0.0", false),
            ("::1", "0.0.0.0", false),
            ("64:ff9b::192.0.2.1", "192.0.2.1", false),
        ];
        for (one, other, same) in rows {
            assert_eq!(Network::from(ip(one)) == Network::from(ip(other)), same, "{one} {other}");
            let table = connections(1);
            let place = table.connect(ip(one)).expect(one);
            assert_eq!(table.connect(ip(other)).is_none(), same, "{one} {other}");
            drop(place);
            assert!(table.connect(ip(other)).is_some() && table.is_empty());
        }
    }

    #[test]
    fn bounds_change_under_way() {
        let client = ip("192.0.2.1");
        let table = connections(2);
        let held: Vec<Place> = (0..3).filter_map(|_| table.connect(client)).collect();
        assert_eq!(held.len(), 2);
        table.set_options(Options { connections_per_ip_max: Some(3), ..Options::default() });
        let third = table.connect(client).expect("there are more now");
        table.set_options(Options { connections_per_ip_max: Some(1), ..Options::default() });
        assert!(table.connect(client).is_none(), "those that are there stay");
        drop((held, third));
        // One that was there before connections were counted, and one more.
        let (former, more) = (table.count(client).unwrap(), table.count(client).unwrap());
        assert!(table.connect(client).is_none());
        drop((former, more));
        assert!(table.connect(client).is_some() && table.is_empty());

        // A rate's ticks are shorter the higher it is: what is remembered must not outlast it.
        let now = Millis(1_000_000);
        let rates = |per_s| Options {
            handshakes_per_ip: Rate::new(per_s, 1),
            handshakes: Rate::new(2 * per_s, 2),
            ..Options::default()
        };
        for per_s in [1000, 1, 1000, 1] {
            table.set_options(rates(per_s));
            table.handshake(client, now).unwrap_or_else(|_| panic!("the first one at {per_s} a second"));
            assert_eq!(table.handshake(client, now), Err(TooMany::FromAddress { retry_ms: 1000 / u64::from(per_s) }));
            table.set_options(rates(per_s));
            assert!(table.handshake(client, now).is_err(), "the same bounds forget nothing");
            table.handshake(ip("192.0.2.2"), now).unwrap();
            assert!(matches!(table.handshake(ip("192.0.2.3"), now), Err(TooMany::InAll { .. })));
        }
        table.set_options(Options::default());
        assert_eq!(table.handshake(client, now), Ok(()));
        assert!(table.is_empty());
    }

    #[test]
    fn places_are_exact_on_many_cores() {
        let table = connections(100);
        let client = ip("192.0.2.1");
        let held: Vec<Place> = std::thread::scope(|scope| {
            let cores: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut held = Vec::new();
                        for turn in 0..10_000 {
                            held.extend(table.connect(client));
                            // Another address is not concerned.
                            drop(table.connect(ip("192.0.2.2")).expect("its only place"));
                            if turn % 3 == 0 {
                                held.pop();
                            }
                        }
                        held.extend(std::iter::from_fn(|| table.connect(client)));
                        held
                    })
                })
                .collect();
            cores.into_iter().flat_map(|core| core.join().unwrap()).collect()
        });
        assert_eq!(held.len(), 100);
        assert!(table.connect(client).is_none());
        drop(held);
        assert!(table.is_empty());
    }

    #[test]
    fn handshakes_are_exact_on_many_cores() {
        let options =
            Options { handshakes_per_ip: Rate::new(10, 70), handshakes: Rate::new(10, 100), ..Options::default() };
        for (addresses, admitted) in [(1, 70), (2, 100)] {
            let table = Admission::new(options);
            let admit = |turn: u8| table.handshake(IpAddr::from([192, 0, 2, turn % addresses]), Millis(5)).is_ok();
            let core = || (0..250).filter(|turn| admit(*turn)).count();
            let taken: usize = std::thread::scope(|scope| {
                let cores: Vec<_> = (0..4).map(|_| scope.spawn(core)).collect();
                cores.into_iter().map(|core| core.join().unwrap()).sum()
            });
            assert_eq!(taken, admitted, "{addresses} addresses");
        }
    }

    #[test]
    fn a_refused_handshake_counts_for_nothing() {
        let options = Options { handshakes_per_ip: Rate::new(1, 2), handshakes: Rate::new(2, 3), ..Options::default() };
        let table = Admission::new(options);
        let (a, b) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let steps = [
            (0, a, Ok(())),
            (0, a, Ok(())),
            // What one address is refused, others still have.
            (0, a, Err(TooMany::FromAddress { retry_ms: 1000 })),
            (0, b, Ok(())),
            // What is refused to all is not taken from the address.
            (0, b, Err(TooMany::InAll { retry_ms: 500 })),
            (499, b, Err(TooMany::InAll { retry_ms: 1 })),
            (500, b, Ok(())),
            (500, b, Err(TooMany::FromAddress { retry_ms: 500 })),
            (500, ip("2001:db8::1"), Err(TooMany::InAll { retry_ms: 500 })),
            (1000, a, Ok(())),
        ];
        for (index, (now, client, expected)) in steps.into_iter().enumerate() {
            assert_eq!(table.handshake(client, Millis(now)), expected, "step {index}");
        }
        let open = Admission::new(Options::default());
        assert!(!open.counts_connections() && (0..1000).all(|_| open.handshake(a, Millis(0)).is_ok()));
        assert!(open.is_empty(), "nothing is known of anybody without bounds");
    }

    #[test]
    fn addresses_are_forgotten() {
        let table = Admission::new(Options {
            connections_per_ip_max: Some(1),
            handshakes_per_ip: Rate::new(10, 1),
            ..Options::default()
        });
        let address = |index: u32| IpAddr::V4(Ipv4Addr::from_bits(index));
        let place = table.connect(address(0)).unwrap();
        // 100,000 addresses a second, of which each is worth remembering for a tenth.
        for index in 0..1_000_000 {
            assert_eq!(table.handshake(address(index), Millis(u64::from(index) / 100)), Ok(()));
        }
        let most = 2 * 10_000 + PARTS * TIDY_LEN_MIN;
        assert!(table.len() <= most, "{} addresses", table.len());
        assert!(table.connect(address(0)).is_none(), "who is connected is not forgotten");
        drop(place);
    }

    proptest! {
        #[test]
        fn an_address_has_as_many_places_as_it_holds(
            max in 1u32..5,
            steps in prop::collection::vec((0u8..4, any::<bool>()), 0..200),
        ) {
            let table = connections(max);
            let mut held: [Vec<Place>; 4] = Default::default();
            for (client, comes) in steps {
                let places = &mut held[usize::from(client)];
                if comes {
                    let place = table.connect(IpAddr::from([192, 0, 2, client]));
                    prop_assert_eq!(place.is_some(), places.len() < max as usize);
                    places.extend(place);
                } else {
                    places.pop();
                }
                prop_assert_eq!(table.len(), held.iter().filter(|places| !places.is_empty()).count());
            }
        }
    }
}
