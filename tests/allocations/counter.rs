//! A global allocator that counts what a thread allocates, and can say where. Does not know what is measured.
#![allow(unsafe_code)] // An allocator is an unsafe trait; this one hands everything over to the system's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::{AddAssign, Sub};

/// What was allocated. A block that grows counts as one more allocation: it may have to move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// Calls to the allocator.
    pub blocks: u64,
    /// What they asked for, in all.
    pub bytes: u64,
}

impl Sub for Allocated {
    type Output = Allocated;

    fn sub(self, other: Allocated) -> Allocated {
        Allocated { blocks: self.blocks - other.blocks, bytes: self.bytes - other.bytes }
    }
}

impl AddAssign for Allocated {
    fn add_assign(&mut self, other: Allocated) {
        self.blocks += other.blocks;
        self.bytes += other.bytes;
    }
}

/// Backtraces that are taken at most: each takes a millisecond to read.
const TRACES_MAX: usize = 3_000;

thread_local! {
    // The first two have no destructor, so that they exist as long as the thread allocates.
    static ALLOCATED: Cell<Allocated> = const { Cell::new(Allocated { blocks: 0, bytes: 0 }) };
    static TRACING: Cell<bool> = const { Cell::new(false) };
    static TRACES: RefCell<Vec<Backtrace>> = const { RefCell::new(Vec::new()) };
}

struct Counter;

#[global_allocator]
static COUNTER: Counter = Counter;

impl Counter {
    fn count(bytes: usize) {
        let Allocated { blocks, bytes: before } = ALLOCATED.get();
        ALLOCATED.set(Allocated { blocks: blocks + 1, bytes: before + bytes as u64 });
        // A backtrace allocates too.
        if TRACING.replace(false) {
            let more = TRACES.with_borrow_mut(|traces| {
                traces.push(Backtrace::force_capture());
                traces.len() < TRACES_MAX
            });
            TRACING.set(more);
        }
    }
}

// SAFETY: each call goes to the system's allocator with its arguments as they are, and its result comes back as it is.
unsafe impl GlobalAlloc for Counter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counter::count(layout.size());
        // SAFETY: the caller keeps `GlobalAlloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Counter::count(layout.size());
        // SAFETY: likewise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Counter::count(size);
        // SAFETY: likewise.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: likewise.
        unsafe { System.dealloc(block, layout) }
    }
}

/// What `work` allocates on this thread, with its result.
pub fn count<T>(work: impl FnOnce() -> T) -> (Allocated, T) {
    let before = ALLOCATED.get();
    let result = work();
    (ALLOCATED.get() - before, result)
}

/// Lines of the server's sources, the innermost first, with how often they allocate.
pub type Places = BTreeMap<String, usize>;

/// Where `work` allocates on this thread, as far as that can be told in a few seconds.
pub fn trace<T>(work: impl FnOnce() -> T) -> Places {
    TRACING.set(true);
    work();
    TRACING.set(false);
    let mut places = Places::new();
    for trace in TRACES.take() {
        let text = trace.to_string();
        let ours = text.lines().filter_map(|line| Some(line.split_once("at ./src/")?.1.trim()));
        let place: Vec<&str> = ours.take(3).collect();
        // What the test itself allocates has none.
        if !place.is_empty() {
            *places.entry(place.join(", called at ")).or_default() += 1;
        }
    }
    places
}
