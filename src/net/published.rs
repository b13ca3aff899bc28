//! A value that one thread publishes and the cores pick up: looking whether there is a newer one costs a core one load.
//! Does not know the value.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The newest of a row of values.
#[derive(Debug)]
pub struct Published<T> {
    /// Counts the values, the first one is 1.
    version: AtomicU64,
    value: Mutex<Arc<T>>,
}

impl<T> Published<T> {
    /// The first value.
    #[must_use]
    pub fn new(value: T) -> Published<T> {
        Published { version: AtomicU64::new(1), value: Mutex::new(Arc::new(value)) }
    }

    /// A newer value. Cores that sleep must be woken after this.
    pub fn publish(&self, value: T) {
        let mut present = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        *present = Arc::new(value);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The value, if it is newer than `seen`, which becomes its version. Nothing is older than version 0.
    pub fn newer_than(&self, seen: &mut u64) -> Option<Arc<T>> {
        if self.version.load(Ordering::Relaxed) == *seen {
            return None;
        }
        let present = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = self.version.load(Ordering::Acquire);
        Some(present.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reader_sees_each_value_once() {
        let published = Published::new("a");
        let (mut one, mut two) = (0, 0);
        assert_eq!(published.newer_than(&mut one).as_deref(), Some(&"a"));
        assert_eq!(published.newer_than(&mut one), None);
        published.publish("b");
        published.publish("c");
        for seen in [&mut one, &mut two] {
            assert_eq!(published.newer_than(seen).as_deref(), Some(&"c"));
            assert_eq!(published.newer_than(seen), None);
        }
    }
}
