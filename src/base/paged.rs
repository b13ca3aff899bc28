//! A vector that grows by pages and never moves what it holds: growing costs neither a copy nor twice the memory, which
//! matters where the number of entries is the number of clients.

use std::ops::{Index, IndexMut};

/// Entries per page. A page of small entries is some tens of KB: large enough for the page table to stay in the cache
/// at a million clients, small enough to waste nothing on a server with ten.
const PAGE: usize = 512;
const SHIFT: u32 = PAGE.trailing_zeros();
const _: () = assert!(PAGE.is_power_of_two());

/// A vector that never moves its entries and never shrinks.
#[derive(Debug)]
pub struct PagedVec<T> {
    pages: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for PagedVec<T> {
    fn default() -> PagedVec<T> {
        PagedVec { pages: Vec::new(), len: 0 }
    }
}

impl<T> PagedVec<T> {
    /// Entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends an entry.
    pub fn push(&mut self, value: T) {
        if self.len.is_multiple_of(PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        // The last page has room: it was made above, or is not full.
        if let Some(page) = self.pages.last_mut() {
            page.push(value);
        }
        self.len += 1;
    }

    /// The entry at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.pages.get(index >> SHIFT)?.get(index & (PAGE - 1))
    }

    /// The entry at `index`, to change it.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.pages.get_mut(index >> SHIFT)?.get_mut(index & (PAGE - 1))
    }

    /// Every entry in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flatten()
    }
}

impl<T> Index<usize> for PagedVec<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        &self.pages[index >> SHIFT][index & (PAGE - 1)]
    }
}

impl<T> IndexMut<usize> for PagedVec<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.pages[index >> SHIFT][index & (PAGE - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stay_where_they_are() {
        let mut vec = PagedVec::default();
        vec.push(0);
        let first = &raw const vec[0];
        (1..2_000).for_each(|n| vec.push(n));
        assert_eq!(first, &raw const vec[0]);
        assert!(vec.iter().copied().eq(0..2_000));
        assert_eq!((vec.len(), vec.get(1_999), vec.get(2_000)), (2_000, Some(&1_999), None));
    }
}
