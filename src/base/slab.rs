//! A table of slots whose references carry a generation, so that a late reference to a former tenant finds nothing.

use super::ids::SlotRef;
use super::paged::PagedVec;

/// Slots with generations. A freed slot is reused; its generation tells old references from new ones.
#[derive(Debug)]
pub struct Slab<T> {
    entries: PagedVec<Entry<T>>,
    free_head: u32,
    len: u32,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    /// True state of the slot: a tenant, or the next free slot.
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Tenant(T),
    Free { next: u32 },
}

const NONE: u32 = u32::MAX;

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { entries: PagedVec::default(), free_head: NONE, len: 0 }
    }
}

impl<T> Slab<T> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Slab<T> {
        Slab::default()
    }

    /// Tenants now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True when there is no tenant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves `value` in.
    pub fn insert(&mut self, value: T) -> SlotRef {
        self.insert_with(|_| value)
    }

    /// Moves in what `make` returns; `make` is told the reference that the value will have.
    ///
    /// # Panics
    /// At 2³² - 1 tenants.
    pub fn insert_with(&mut self, make: impl FnOnce(SlotRef) -> T) -> SlotRef {
        self.len += 1;
        if self.free_head == NONE {
            let slot = u32::try_from(self.entries.len()).expect("fewer than 2^32 slots");
            assert_ne!(slot, NONE);
            let at = SlotRef { slot, generation: 0 };
            self.entries.push(Entry { generation: 0, state: State::Tenant(make(at)) });
            return at;
        }
        let slot = self.free_head;
        let entry = &mut self.entries[slot as usize];
        let State::Free { next } = entry.state else { unreachable!("slot {slot} is on the free list") };
        self.free_head = next;
        let at = SlotRef { slot, generation: entry.generation };
        entry.state = State::Tenant(make(at));
        at
    }

    /// The tenant that `at` names, if it still lives there.
    #[must_use]
    pub fn get(&self, at: SlotRef) -> Option<&T> {
        match self.entries.get(at.slot as usize) {
            Some(Entry { generation, state: State::Tenant(value) }) if *generation == at.generation => Some(value),
            _ => None,
        }
    }

    /// Like [`Slab::get`], to change it.
    pub fn get_mut(&mut self, at: SlotRef) -> Option<&mut T> {
        match self.entries.get_mut(at.slot as usize) {
            Some(Entry { generation, state: State::Tenant(value) }) if *generation == at.generation => Some(value),
            _ => None,
        }
    }

    /// The reference of the present tenant of `slot`.
    #[must_use]
    pub fn at(&self, slot: u32) -> Option<SlotRef> {
        match self.entries.get(slot as usize) {
            Some(Entry { generation, state: State::Tenant(_) }) => Some(SlotRef { slot, generation: *generation }),
            _ => None,
        }
    }

    /// Moves the tenant out; every reference to it is void from now on.
    pub fn remove(&mut self, at: SlotRef) -> Option<T> {
        self.get(at)?;
        let entry = &mut self.entries[at.slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        let state = std::mem::replace(&mut entry.state, State::Free { next: self.free_head });
        self.free_head = at.slot;
        self.len -= 1;
        match state {
            State::Tenant(value) => Some(value),
            State::Free { .. } => unreachable!("looked up above"),
        }
    }

    /// Slots that have ever had a tenant: those of all tenants are below.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Every tenant with its reference, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (SlotRef, &T)> {
        self.entries.iter().enumerate().filter_map(|(slot, entry)| match &entry.state {
            State::Tenant(value) => Some((SlotRef { slot: slot as u32, generation: entry.generation }, value)),
            State::Free { .. } => None,
        })
    }
}

/// The tenant of a slot that the caller knows to be taken.
impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, slot: u32) -> &T {
        match &self.entries[slot as usize].state {
            State::Tenant(value) => value,
            State::Free { .. } => panic!("slot {slot} is free"),
        }
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, slot: u32) -> &mut T {
        match &mut self.entries[slot as usize].state {
            State::Tenant(value) => value,
            State::Free { .. } => panic!("slot {slot} is free"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_former_tenants_reference_finds_nothing() {
        let mut slab = Slab::new();
        let a = slab.insert("a");
        let b = slab.insert("b");
        assert_eq!(slab.remove(a), Some("a"));
        assert_eq!(slab.remove(a), None);
        let c = slab.insert("c");
        assert_eq!(c.slot, a.slot, "slots are reused");
        assert_eq!(slab.get(a), None);
        assert_eq!(slab.get(c), Some(&"c"));
        assert_eq!(slab.iter().map(|(_, v)| *v).collect::<Vec<_>>(), ["c", "b"]);
        assert_eq!((slab.len(), slab.at(b.slot)), (2, Some(b)));
    }
}
