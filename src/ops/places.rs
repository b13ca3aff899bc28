//! The places for connections on the operators' port: who gives way when all are taken. Does not know sockets.
//!
//! A scraper must find a place however many others hold one and say nothing. So whoever has been waited for longest
//! goes, and nobody whose request is being answered. It does not matter who has asked for something before: if those
//! who have not went first, a newcomer would go for the next one as soon as all others have asked once.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// All places.
#[derive(Debug)]
pub struct Places {
    max: usize,
    taken: RefCell<Vec<Rc<Holder>>>,
    /// How often somebody began to be waited for.
    turn: Cell<u64>,
}

/// A place; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Rc<Places>,
    holder: Rc<Holder>,
}

#[derive(Debug, Default)]
struct Holder {
    /// Since which turn the client is waited for; `None` while it is being answered.
    waits: Cell<Option<u64>>,
    /// True once it has given way.
    pushed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What [`Places::take`] found.
#[derive(Debug)]
#[must_use]
pub enum Found {
    /// A free place.
    Free(Place),
    /// The place of another, which is told by [`Place::pushed`].
    Pushed(Place),
    /// None: everybody is being answered.
    None,
}

impl Places {
    /// `max` of them.
    #[must_use]
    pub fn new(max: usize) -> Rc<Places> {
        Rc::new(Places { max, taken: RefCell::default(), turn: Cell::new(0) })
    }

    /// Takes a place for a client that is waited for from now on.
    pub fn take(self: &Rc<Places>) -> Found {
        let mut taken = self.taken.borrow_mut();
        let pushes = taken.len() >= self.max;
        if pushes {
            let waiting = taken.iter().enumerate().filter_map(|(at, holder)| Some((holder.waits.get()?, at)));
            let Some((_, at)) = waiting.min() else { return Found::None };
            let holder = taken.swap_remove(at);
            holder.pushed.set(true);
            holder.waker.take().into_iter().for_each(Waker::wake);
        }
        let place = Place { places: self.clone(), holder: Rc::default() };
        place.wait();
        taken.push(place.holder.clone());
        if pushes { Found::Pushed(place) } else { Found::Free(place) }
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.borrow().len()
    }
}

impl Place {
    fn wait(&self) {
        let turn = self.places.turn.get();
        self.places.turn.set(turn + 1);
        self.holder.waits.set(Some(turn));
    }

    /// The client's request is here: it is not waited for.
    pub fn asked(&self) {
        self.holder.waits.set(None);
    }

    /// The client is answered, and waited for again.
    pub fn answered(&self) {
        self.wait();
    }

    /// Waits until the place is another's.
    pub async fn pushed(&self) {
        poll_fn(|context| {
            if self.holder.pushed.get() {
                return Poll::Ready(());
            }
            self.holder.waker.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.borrow_mut().retain(|holder| !Rc::ptr_eq(holder, &self.holder));
    }
}

/// Says that something happens, however often it does, once in a while.
#[derive(Debug)]
pub struct Complaint {
    every: Duration,
    last: Option<Instant>,
    count: u64,
}

impl Complaint {
    /// At most once in `every`.
    #[must_use]
    pub fn new(every: Duration) -> Complaint {
        Complaint { every, last: None, count: 0 }
    }

    /// It has happened. If it is to be said now: how often it has since it was said last.
    #[must_use]
    pub fn count(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.last.is_some_and(|last| now.duration_since(last) < self.every) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;

    fn take(places: &Rc<Places>) -> (char, Option<Place>) {
        match places.take() {
            Found::Free(place) => ('f', Some(place)),
            Found::Pushed(place) => ('p', Some(place)),
            Found::None => ('-', None),
        }
    }

    fn is_pushed(place: &Place) -> bool {
        future::block_on(future::poll_once(place.pushed())).is_some()
    }

    #[test]
    fn who_gives_way() {
        // What three have done in this order, by number: a for asked, d for done; then who goes, one after the other.
        for (before, goes) in [
            ("", &[0, 1, 2][..]),
            ("0a0d", &[1, 2, 0]),
            ("1a1d0a0d", &[2, 1, 0]),
            ("0a0d1a1d0a0d", &[2, 1, 0]),
            ("0a0d1a1d2a2d0a0d", &[1, 2, 0]),
            ("0a", &[1, 2]),
            ("0a0d0a1a", &[2]),
            ("0a1a2a", &[]),
        ] {
            let places = Places::new(3);
            let three: Vec<Place> = (0..3).map(|_| take(&places).1.unwrap()).collect();
            for step in before.as_bytes().chunks(2) {
                let place = &three[usize::from(step[0] - b'0')];
                if step[1] == b'a' { place.asked() } else { place.answered() }
            }
            let mut late = Vec::new();
            for index in goes {
                assert!(!is_pushed(&three[*index]), "{before}: {index}");
                let (how, place) = take(&places);
                assert_eq!(how, 'p', "{before}");
                assert!(is_pushed(&three[*index]), "{before}: {index}");
                // These are busy: they give way to nobody.
                late.extend(place.inspect(Place::asked));
                assert_eq!(places.taken(), 3);
            }
            assert_eq!(take(&places).0, '-', "{before}");
            // Who was pushed out frees nothing, the others do.
            drop(three);
            assert_eq!(places.taken(), late.len());
            drop(late);
            assert_eq!(places.taken(), 0);
            assert_eq!(take(&places).0, 'f');
        }
    }

    #[test]
    fn who_waits_is_woken() {
        let places = Places::new(1);
        let (_, first) = take(&places);
        let first = first.unwrap();
        let mut waiting = Box::pin(first.pushed());
        let woken = std::sync::Arc::new(Flag::default());
        let waker = Waker::from(woken.clone());
        let mut context = std::task::Context::from_waker(&waker);
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        let second = take(&places);
        assert!(woken.0.load(std::sync::atomic::Ordering::Relaxed));
        assert!(waiting.as_mut().poll(&mut context).is_ready());
        drop(second);
    }

    #[derive(Default)]
    struct Flag(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Flag {
        fn wake(self: std::sync::Arc<Flag>) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn a_flood_is_said_once_in_a_while() {
        let (start, mut complaint) = (Instant::now(), Complaint::new(Duration::from_secs(10)));
        let said: Vec<Option<u64>> =
            [0, 0, 1, 9, 10, 11, 30].map(|seconds| complaint.count(start + Duration::from_secs(seconds))).to_vec();
        assert_eq!(said, [Some(1), None, None, None, Some(4), None, Some(2)]);
    }
}
