//! Names and numbers that identify things, each with one checked constructor. Does not know where the things live.

use siphasher::sip::SipHasher13;
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

/// Most cores that one process runs on: a core's number takes two bytes of a socket id, and `u16::MAX` stays free.
pub const CORES_MAX: usize = 1024;

/// One pinned executor thread, numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreId(u16);

impl CoreId {
    /// # Panics
    /// If `index` is not below [`CORES_MAX`]: cores are counted by us, not by others.
    #[must_use]
    pub fn new(index: usize) -> CoreId {
        assert!(index < CORES_MAX, "core {index} of at most {CORES_MAX}");
        CoreId(index as u16)
    }

    /// The core's position in every per-core table.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Position of a namespace in the configured list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceId(pub u16);

/// A namespace that sockets can be in: the configured one, and for a configured pattern which of its names is meant.
/// Two instances of one pattern share rules and nothing else. Nobody keeps a list of instances: one exists exactly as
/// long as something names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceRef<'a> {
    /// The configured namespace.
    pub id: NamespaceId,
    /// The whole name, if a pattern matched it; `None` if the configured namespace has one name only.
    pub instance: Option<&'a str>,
}

impl From<NamespaceId> for NamespaceRef<'_> {
    fn from(id: NamespaceId) -> Self {
        NamespaceRef { id, instance: None }
    }
}

/// A slot of a core's table and the generation of its tenant: a reference that outlives the tenant resolves to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotRef {
    /// Position in the table.
    pub slot: u32,
    /// Incremented each time the slot gets a new tenant.
    pub generation: u32,
}

/// Position of an event in its room's order, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset(pub u64);

/// Names one order of a room: it changes when the owner lost the previous order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

/// Why a string is not a room's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRoomName {
    /// The empty string: it would read like "every room".
    Empty,
    /// More bytes than the configured bound.
    TooLong {
        /// Bytes given.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A character below U+0020, or U+007F: it has no place in logs and metrics.
    ControlCharacter,
}

impl fmt::Display for BadRoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRoomName::Empty => {
                f.write_str("the room name is empty; leave out \"room\" to reach the whole namespace")
            }
            BadRoomName::TooLong { bytes, max } => {
                write!(f, "the room name has {bytes} bytes; at most {max} are allowed")
            }
            BadRoomName::ControlCharacter => f.write_str("the room name contains a control character"),
        }
    }
}

/// Begins a room's text inside an instance, and ends the instance there. Neither rooms nor namespaces have control
/// characters in their names, so that nobody can spell such a text.
const INSTANCE_MARK: char = '\0';

/// The name of a room inside its namespace. The empty name is the namespace's own room, which no publisher can spell.
///
/// Inside an instance of a pattern the text is `\0/workspace-7\0room`: with it hashes, owners and groups of two
/// instances are apart. Only this type knows that; everybody else sees `room`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

impl RoomName {
    /// Checks `name` against `bytes_max` and the rules of [`BadRoomName`].
    ///
    /// # Errors
    /// The first rule that `name` breaks.
    pub fn new(name: &str, bytes_max: usize) -> Result<RoomName, BadRoomName> {
        if name.is_empty() {
            return Err(BadRoomName::Empty);
        }
        if name.len() > bytes_max {
            return Err(BadRoomName::TooLong { bytes: name.len(), max: bytes_max });
        }
        if name.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err(BadRoomName::ControlCharacter);
        }
        Ok(RoomName(Arc::from(name)))
    }

    /// The namespace's own room: every socket of the namespace is in it.
    #[must_use]
    pub fn whole_namespace() -> RoomName {
        RoomName(Arc::from(""))
    }

    /// The room of this name inside `instance`; the name itself where there is none.
    ///
    /// # Panics
    /// If the name is inside an instance already.
    #[must_use]
    fn within(self, instance: Option<&str>) -> RoomName {
        assert!(self.instance().is_none(), "{self:?} has its place");
        let Some(instance) = instance else { return self };
        debug_assert!(!instance.contains(INSTANCE_MARK), "{instance:?}");
        let mut text = String::with_capacity(instance.len() + self.0.len() + 2);
        text.push(INSTANCE_MARK);
        text.push_str(instance);
        text.push(INSTANCE_MARK);
        text.push_str(&self.0);
        RoomName(text.into())
    }

    /// The instance that the room is in, and the name there.
    fn split(&self) -> (Option<&str>, &str) {
        match self.0.strip_prefix(INSTANCE_MARK) {
            None => (None, &self.0),
            Some(rest) => {
                let (instance, name) = rest.split_once(INSTANCE_MARK).expect("an instance has an end");
                (Some(instance), name)
            }
        }
    }

    /// The name as publishers and rules spell it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.split().1
    }

    /// The instance of a pattern that the room is in; see [`NamespaceRef::instance`].
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        self.split().0
    }

    /// True for [`RoomName::whole_namespace`].
    #[must_use]
    pub fn is_whole_namespace(&self) -> bool {
        self.as_str().is_empty()
    }
}

/// A room in its namespace, with the hash that decides its owner, computed once.
#[derive(Clone, Debug)]
pub struct RoomKey {
    /// The room's name, inside the namespace's instance if it has any.
    pub name: RoomName,
    /// `hash(namespace, name)` under the process's [`Topology`].
    pub hash: u64,
    /// The room's namespace.
    pub namespace: NamespaceId,
}

impl PartialEq for RoomKey {
    fn eq(&self, other: &RoomKey) -> bool {
        self.hash == other.hash && self.namespace == other.namespace && self.name == other.name
    }
}

impl Eq for RoomKey {}

/// Stands for a key in certain rooms, as a hash under the process's [`Topology`]: two that differ have the same mark
/// once in 2⁶⁴, which nobody can bring about who does not know the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyMark(pub u64);

/// How rooms map to cores. Every core holds a copy; all copies agree.
#[derive(Clone, Debug)]
pub struct Topology {
    cores: u16,
    hasher: SipHasher13,
}

impl Topology {
    /// A topology of `cores` cores. `seed` must be unknown to clients, so that they cannot load one owner.
    ///
    /// # Panics
    /// If `cores` is 0 or above [`CORES_MAX`].
    #[must_use]
    pub fn new(cores: usize, seed: u128) -> Topology {
        assert!((1..=CORES_MAX).contains(&cores), "{cores} cores");
        Topology { cores: cores as u16, hasher: SipHasher13::new_with_key(&seed.to_ne_bytes()) }
    }

    /// How many cores there are.
    #[must_use]
    pub fn cores(&self) -> usize {
        usize::from(self.cores)
    }

    /// The key of room `name` in `namespace`.
    #[must_use]
    pub fn key<'a>(&self, namespace: impl Into<NamespaceRef<'a>>, name: RoomName) -> RoomKey {
        let NamespaceRef { id: namespace, instance } = namespace.into();
        let name = name.within(instance);
        let mut hasher = self.hasher;
        hasher.write_u16(namespace.0);
        hasher.write(name.0.as_bytes());
        let hash = hasher.finish();
        RoomKey { name, hash, namespace }
    }

    /// The mark of a key in `rooms`, whose order counts.
    #[must_use]
    pub fn mark<'a>(&self, rooms: impl IntoIterator<Item = &'a RoomKey>, key: &str) -> KeyMark {
        let mut hasher = self.hasher;
        for room in rooms {
            hasher.write_u64(room.hash);
        }
        hasher.write(key.as_bytes());
        KeyMark(hasher.finish())
    }

    /// The core that orders the room's events. A name that is shaped like a socket id belongs to the core in that id,
    /// so that a socket's own room needs no membership entry anywhere.
    #[must_use]
    pub fn owner(&self, key: &RoomKey) -> CoreId {
        match SocketId::parse(key.name.as_str()).and_then(|sid| sid.core(self.cores())) {
            Some(core) => core,
            // The upper half: the lower bits place the room in its owner's hash table.
            None => CoreId(((key.hash >> 32) % u64::from(self.cores)) as u16),
        }
    }
}

const SID_BYTES: usize = 15;
const SID_CHARS: usize = 20;
const _: () = assert!(SID_BYTES * 8 == SID_CHARS * 6);
const SID_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The public id of a socket or session: 20 characters of `A-Z a-z 0-9 - _`, as the Node server's ids look. It carries
/// the core and the slot of its bearer, blinded by its random part, and 72 random bits that make it unguessable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId([u8; SID_BYTES]);

impl SocketId {
    /// The id of the tenant of `slot` on `core`; `random` must come from a cryptographic generator.
    #[must_use]
    pub fn new(core: CoreId, slot: u32, random: [u8; 9]) -> SocketId {
        let mut bytes = [0; SID_BYTES];
        bytes[6..].copy_from_slice(&random);
        bytes[..2].copy_from_slice(&core.0.to_be_bytes());
        bytes[2..6].copy_from_slice(&slot.to_be_bytes());
        blind(&mut bytes);
        SocketId(bytes)
    }

    /// Reads the 20-character form; anything else is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<SocketId> {
        if text.len() != SID_CHARS {
            return None;
        }
        let mut bytes = [0; SID_BYTES];
        for (group, out) in text.as_bytes().chunks_exact(4).zip(bytes.chunks_exact_mut(3)) {
            let mut word = 0u32;
            for &c in group {
                let six = match c {
                    b'A'..=b'Z' => c - b'A',
                    b'a'..=b'z' => c - b'a' + 26,
                    b'0'..=b'9' => c - b'0' + 52,
                    b'-' => 62,
                    b'_' => 63,
                    _ => return None,
                };
                word = word << 6 | u32::from(six);
            }
            out.copy_from_slice(&word.to_be_bytes()[1..]);
        }
        Some(SocketId(bytes))
    }

    /// The core in the id, if a process of `cores` cores has it.
    #[must_use]
    pub fn core(&self, cores: usize) -> Option<CoreId> {
        let mut bytes = self.0;
        blind(&mut bytes);
        let core = u16::from_be_bytes([bytes[0], bytes[1]]);
        (usize::from(core) < cores).then_some(CoreId(core))
    }

    /// The slot in the id. Its tenant is the bearer only if the whole id matches.
    #[must_use]
    pub fn slot(&self) -> u32 {
        let mut bytes = self.0;
        blind(&mut bytes);
        u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]])
    }

    /// The 20-character form.
    #[must_use]
    pub fn to_chars(self) -> [u8; SID_CHARS] {
        let mut text = [0; SID_CHARS];
        for (group, out) in self.0.chunks_exact(3).zip(text.chunks_exact_mut(4)) {
            let word = u32::from_be_bytes([0, group[0], group[1], group[2]]);
            for (i, c) in out.iter_mut().enumerate() {
                *c = SID_ALPHABET[(word >> (18 - 6 * i) & 63) as usize];
            }
        }
        text
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_chars().iter().try_for_each(|&c| fmt::Write::write_char(f, char::from(c)))
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Mixes the random part into the location part. Its own inverse, as the random part stays as it is.
fn blind(bytes: &mut [u8; SID_BYTES]) {
    let mut seed = [0; 8];
    seed.copy_from_slice(&bytes[7..]);
    // One round of a multiply-shift mixer spreads every random byte over the six bytes that it covers.
    let mask = (u64::from_be_bytes(seed) ^ u64::from(bytes[6])).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mask = (mask ^ mask >> 32).to_be_bytes();
    for (byte, m) in bytes[..6].iter_mut().zip(mask) {
        *byte ^= m;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_ids_read_back_and_look_like_ids() {
        for (core, slot, random) in [(0, 0, [0; 9]), (1, 77, [0xff; 9]), (1023, u32::MAX, [1, 2, 3, 4, 5, 6, 7, 8, 9])]
        {
            let sid = SocketId::new(CoreId::new(core), slot, random);
            let text = sid.to_string();
            assert_eq!(text.len(), 20);
            assert_eq!(SocketId::parse(&text), Some(sid));
            assert_eq!(sid.core(CORES_MAX), Some(CoreId::new(core)));
            assert_eq!(sid.slot(), slot);
            assert_eq!(sid.core(core), None, "a core beyond the process's is nobody's");
        }
        assert_eq!(SocketId::parse("user:42"), None);
        assert_eq!(SocketId::parse("twenty characters ok"), None);
    }

    #[test]
    fn the_owner_of_a_socket_id_room_is_the_core_in_the_id() {
        let topology = Topology::new(7, 1);
        for core in 0..7 {
            let sid = SocketId::new(CoreId::new(core), 5, [core as u8; 9]).to_string();
            let key = topology.key(NamespaceId(0), RoomName::new(&sid, 200).unwrap());
            assert_eq!(topology.owner(&key), CoreId::new(core));
        }
    }

    #[test]
    fn rooms_of_two_instances_are_apart_and_look_alike() {
        let topology = Topology::new(3, 1);
        let key = |instance, name: RoomName| topology.key(NamespaceRef { id: NamespaceId(4), instance }, name);
        let room = || RoomName::new("room", 200).unwrap();
        let keys: Vec<RoomKey> = [None, Some("/w-7"), Some("/w-70"), Some("/w")]
            .into_iter()
            .flat_map(|instance| [key(instance, room()), key(instance, RoomName::whole_namespace())])
            .collect();
        for (at, one) in keys.iter().enumerate() {
            assert_eq!(keys.iter().position(|other| other == one), Some(at));
            assert_eq!(keys.iter().position(|other| other.hash == one.hash), Some(at), "{one:?}");
            assert_eq!((one.name.as_str(), one.name.is_whole_namespace()), [("room", false), ("", true)][at % 2]);
            assert_eq!(one.name.instance(), [None, Some("/w-7"), Some("/w-70"), Some("/w")][at / 2]);
        }
        let sid = SocketId::new(CoreId::new(2), 5, [9; 9]).to_string();
        let own = key(Some("/w-7"), RoomName::new(&sid, 200).unwrap());
        assert_eq!(topology.owner(&own), CoreId::new(2), "a socket's own room is where the socket is");
    }

    #[test]
    fn room_names_are_bounded_and_printable() {
        assert_eq!(RoomName::new("", 200), Err(BadRoomName::Empty));
        assert_eq!(RoomName::new("a\0b", 200), Err(BadRoomName::ControlCharacter));
        assert_eq!(RoomName::new("abcd", 3), Err(BadRoomName::TooLong { bytes: 4, max: 3 }));
        assert_eq!(RoomName::new("straße:7", 200).unwrap().as_str(), "straße:7");
    }
}
