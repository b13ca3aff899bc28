//! Lock-free rings between cores, generic in what they carry. Knows neither rooms nor sleeping: its user wakes the
//! cores that [`Port::take_touched`] names.
//!
//! Two planes: *up* to owners (publish, attach), *down* from owners to member cores (deliver). Handling a down message
//! never waits for anything; handling an up message may have to wait for the down plane. So the planes are acyclic, and
//! a full ring is backpressure on whoever feeds the up plane, never a deadlock.

use crate::base::ids::CoreId;
use rtrb::{Consumer, Producer, RingBuffer};
use std::collections::VecDeque;

/// Sizes of the rings.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Messages that one ring holds: one ring for each ordered pair of cores and plane.
    pub slots: usize,
}

/// One core's ends of all rings.
#[derive(Debug)]
pub struct Port<U, D> {
    me: CoreId,
    /// Messages to and from owners.
    pub up: Plane<U>,
    /// Messages to and from member cores.
    pub down: Plane<D>,
}

/// One core's ends of the rings of one plane.
#[derive(Debug)]
pub struct Plane<T> {
    me: CoreId,
    outgoing: Vec<Option<Producer<T>>>,
    incoming: Vec<Option<Consumer<T>>>,
    /// Messages to this core itself.
    local: VecDeque<T>,
    /// As many messages to itself as to another core make the plane blocked.
    slots: usize,
    /// Messages that found their ring full, by receiver, in order. Bounded by what one handled message can cause, as
    /// the core handles no more of what feeds this plane while [`Plane::is_blocked`]; clients' answers to what
    /// publishers ask are bounded by what was asked.
    waiting: Vec<VecDeque<T>>,
    /// How many messages wait, over all receivers.
    waiting_count: usize,
    /// Where the next [`Plane::receive`] looks first.
    turn: usize,
    /// Bit set: a message went into the ring to that core since the last [`Port::take_touched`].
    touched: Vec<bool>,
    /// Times a message found its ring full.
    full_count: u64,
}

/// Connects `cores` cores with each other; the port at position `i` is core `i`'s.
#[must_use]
pub fn connect<U, D>(cores: usize, options: Options) -> Vec<Port<U, D>> {
    let mut up = planes(cores, options.slots);
    let mut down = planes(cores, options.slots);
    (0..cores).map(|core| Port { me: CoreId::new(core), up: up.remove(0), down: down.remove(0) }).collect()
}

/// Connects `cores` cores by one plane of rings with `slots` messages each; the plane at position `i` is core `i`'s.
#[must_use]
pub fn planes<T>(cores: usize, slots: usize) -> Vec<Plane<T>> {
    let mut planes: Vec<Plane<T>> = (0..cores)
        .map(|core| Plane {
            me: CoreId::new(core),
            outgoing: (0..cores).map(|_| None).collect(),
            incoming: (0..cores).map(|_| None).collect(),
            local: VecDeque::new(),
            slots,
            waiting: (0..cores).map(|_| VecDeque::new()).collect(),
            waiting_count: 0,
            turn: 0,
            touched: vec![false; cores],
            full_count: 0,
        })
        .collect();
    for from in 0..cores {
        for to in (0..cores).filter(|&to| to != from) {
            let (producer, consumer) = RingBuffer::new(slots);
            planes[from].outgoing[to] = Some(producer);
            planes[to].incoming[from] = Some(consumer);
        }
    }
    planes
}

impl<U, D> Port<U, D> {
    /// The core whose port this is.
    #[must_use]
    pub fn core(&self) -> CoreId {
        self.me
    }

    /// Moves messages that waited into rings that have space again.
    pub fn flush(&mut self) {
        self.up.flush();
        self.down.flush();
    }

    /// Calls `wake` for each core that got a message since the last call.
    pub fn take_touched(&mut self, mut wake: impl FnMut(CoreId)) {
        self.up.take_touched(&mut wake);
        self.down.take_touched(&mut wake);
    }

    /// True when nothing has arrived that was not received.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.up.is_idle() && self.down.is_idle()
    }
}

impl<T> Plane<T> {
    /// Sends `message` to `to`; it is never lost and never overtakes an earlier one to the same core.
    pub fn send(&mut self, to: CoreId, message: T) {
        let index = to.index();
        let Some(ring) = self.outgoing[index].as_mut() else {
            assert_eq!(to, self.me);
            self.local.push_back(message);
            return;
        };
        if self.waiting[index].is_empty() {
            match ring.push(message) {
                Ok(()) => self.touched[index] = true,
                Err(rtrb::PushError::Full(message)) => self.wait(index, message),
            }
        } else {
            self.wait(index, message);
        }
    }

    /// The next message with its sender; senders take turns.
    pub fn receive(&mut self) -> Option<(CoreId, T)> {
        let cores = self.incoming.len();
        for step in 0..cores {
            let from = (self.turn + step) % cores;
            let message = match self.incoming[from].as_mut() {
                Some(ring) => ring.pop().ok(),
                None => self.local.pop_front(),
            };
            if let Some(message) = message {
                self.turn = (from + 1) % cores;
                return Some((CoreId::new(from), message));
            }
        }
        None
    }

    /// The next message of one sender: what the simulation shuffles by.
    pub fn receive_from(&mut self, from: CoreId) -> Option<T> {
        match self.incoming[from.index()].as_mut() {
            Some(ring) => ring.pop().ok(),
            None => self.local.pop_front(),
        }
    }

    /// True while a message waits for space in a ring. Its feeder must pause.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.waiting_count > 0 || self.local.len() >= self.slots
    }

    /// Messages in the fullest ring to this core, or those that it has for itself if these are more.
    #[must_use]
    pub fn fullest(&self) -> usize {
        self.incoming.iter().flatten().map(Consumer::slots).max().unwrap_or(0).max(self.local.len())
    }

    /// Messages that one ring holds.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Times a message found its ring full.
    #[must_use]
    pub fn full_count(&self) -> u64 {
        self.full_count
    }

    /// Calls `wake` for each core that got a message since the last call.
    pub fn take_touched(&mut self, mut wake: impl FnMut(CoreId)) {
        for (core, touched) in self.touched.iter_mut().enumerate() {
            if std::mem::take(touched) {
                wake(CoreId::new(core));
            }
        }
    }

    /// True when nothing has arrived that was not received, and nothing waits to be sent.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.is_idle() && self.waiting_count == 0
    }

    /// True when nothing has arrived that was not received.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.local.is_empty() && self.incoming.iter().flatten().all(Consumer::is_empty)
    }

    fn wait(&mut self, index: usize, message: T) {
        self.full_count += 1;
        self.waiting_count += 1;
        self.waiting[index].push_back(message);
    }

    /// Moves messages that waited into rings that have space again.
    pub fn flush(&mut self) {
        if self.waiting_count == 0 {
            return;
        }
        for (index, queue) in self.waiting.iter_mut().enumerate() {
            let Some(ring) = self.outgoing[index].as_mut() else { continue };
            while !queue.is_empty() && !ring.is_full() {
                if let Some(message) = queue.pop_front() {
                    assert!(ring.push(message).is_ok(), "this core alone fills the ring");
                    self.waiting_count -= 1;
                    self.touched[index] = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_keeps_order_and_loses_nothing() {
        let mut ports = connect::<u32, ()>(2, Options { slots: 2 });
        let mut b = ports.pop().unwrap();
        let mut a = ports.pop().unwrap();
        for n in 0..5 {
            a.up.send(b.core(), n);
        }
        assert!(a.up.is_blocked());
        assert_eq!((a.up.full_count(), a.up.fullest(), b.up.fullest(), b.up.slots()), (3, 0, 2, 2));
        let mut got = Vec::new();
        while got.len() < 5 {
            got.extend(b.up.receive().map(|(from, n)| (from.index(), n)));
            a.flush();
        }
        assert_eq!(got, [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)]);
        assert!(!a.up.is_blocked() && b.is_idle());
        let mut woken = Vec::new();
        a.take_touched(|core| woken.push(core.index()));
        a.take_touched(|core| woken.push(core.index()));
        assert_eq!(woken, [1]);
    }

    #[test]
    fn messages_to_oneself_need_no_ring() {
        let mut port = connect::<(), u32>(1, Options { slots: 1 }).remove(0);
        assert!(port.is_idle());
        for n in 0..3 {
            port.down.send(CoreId::new(0), n);
        }
        assert!(port.down.is_blocked() && !port.is_idle() && port.down.fullest() == 3);
        assert_eq!(std::iter::from_fn(|| port.down.receive()).map(|(_, n)| n).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
