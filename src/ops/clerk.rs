//! Speaks the line protocol for the HTTP API: gives each line an id, and each receipt to whoever waits for it. Does not
//! know what the lines say, nor the connection that carries them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// One conversation with the cores, for all requests.
#[derive(Debug, Default)]
pub struct Clerk(RefCell<Desk>);

#[derive(Debug, Default)]
struct Desk {
    /// Lines to be sent.
    out: Vec<u8>,
    sender: Option<Waker>,
    /// Received bytes without a line's end.
    rest: Vec<u8>,
    last_id: u64,
    /// Lines whose receipts somebody waits for.
    waiting: HashMap<u64, Waiting>,
    /// True once the cores talk no more.
    closed: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    receipt: Option<String>,
    waker: Option<Waker>,
}

/// A line's receipt to come, without its id: its other members and the brace that ends it. `None` if none will come, as
/// the process ends.
#[derive(Debug)]
pub struct Receipt {
    clerk: Rc<Clerk>,
    id: u64,
}

impl Clerk {
    /// Sends the line `{"id":…,` and `rest`, which must be the rest of a JSON object in one line.
    #[must_use]
    pub fn ask(self: &Rc<Clerk>, rest: &str) -> Receipt {
        assert!(rest.ends_with('}') && !rest.contains('\n'), "the rest of one line");
        let desk = &mut *self.0.borrow_mut();
        desk.last_id += 1;
        let id = desk.last_id;
        desk.waiting.insert(id, Waiting::default());
        if !desk.closed {
            desk.out.extend_from_slice(format!("{{\"id\":{id},{rest}\n").as_bytes());
            if let Some(sender) = desk.sender.take() {
                sender.wake();
            }
        }
        Receipt { clerk: self.clone(), id }
    }

    /// Bytes that [`Clerk::ask`] adds to a line's rest, at most.
    pub const ID_BYTES_MAX: usize = r#"{"id":18446744073709551615,"#.len();

    /// What is to be sent next; `None` once there will be no more.
    pub fn poll_lines(&self, context: &Context<'_>) -> Poll<Option<Vec<u8>>> {
        let desk = &mut *self.0.borrow_mut();
        if desk.closed {
            return Poll::Ready(None);
        }
        if desk.out.is_empty() {
            desk.sender = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Some(std::mem::take(&mut desk.out)))
    }

    /// Takes what the cores have sent.
    ///
    /// # Panics
    /// If it is not made of receipts of our lines.
    pub fn received(&self, bytes: &[u8]) {
        let desk = &mut *self.0.borrow_mut();
        let mut rest = std::mem::take(&mut desk.rest);
        rest.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(length) = memchr::memchr(b'\n', &rest[at..]) {
            desk.file(&rest[at..at + length]);
            at += length + 1;
        }
        rest.drain(..at);
        desk.rest = rest;
    }

    /// The cores talk no more: nobody needs to wait.
    pub fn close(&self) {
        let desk = &mut *self.0.borrow_mut();
        desk.closed = true;
        desk.sender.take().into_iter().for_each(Waker::wake);
        desk.waiting.values_mut().filter_map(|waiting| waiting.waker.take()).for_each(Waker::wake);
    }
}

impl Desk {
    fn file(&mut self, receipt: &[u8]) {
        let text = std::str::from_utf8(receipt).expect("receipts are JSON");
        let numbered = text.strip_prefix("{\"id\":").and_then(|text| text.split_once(','));
        let (id, rest) = numbered.expect("a receipt begins with its id");
        let id: u64 = id.parse().unwrap_or_else(|_| panic!("every line has a number as its id, not {id}"));
        // Whoever asked may have left.
        let Some(waiting) = self.waiting.get_mut(&id) else { return };
        waiting.receipt = Some(rest.to_owned());
        waiting.waker.take().into_iter().for_each(Waker::wake);
    }
}

impl Future for Receipt {
    type Output = Option<String>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<String>> {
        let desk = &mut *self.clerk.0.borrow_mut();
        let Some(waiting) = desk.waiting.get_mut(&self.id) else { unreachable!("it stands there until it is dropped") };
        match waiting.receipt.take() {
            Some(receipt) => Poll::Ready(Some(receipt)),
            None if desk.closed => Poll::Ready(None),
            None => {
                waiting.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.clerk.0.borrow_mut().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;

    #[test]
    fn each_gets_its_own_receipt() {
        let clerk = Rc::new(Clerk::default());
        let lines = || future::block_on(future::poll_fn(|context| clerk.poll_lines(context)));
        let (first, second, gone) = (clerk.ask("\"a\":1}"), clerk.ask("\"b\":2}"), clerk.ask("\"c\":3}"));
        assert_eq!(lines().unwrap(), b"{\"id\":1,\"a\":1}\n{\"id\":2,\"b\":2}\n{\"id\":3,\"c\":3}\n");
        drop(gone);
        clerk.received(b"{\"id\":3,\"ok\":true}\n{\"id\":2,\"ok\":true}\n{\"id\":1,");
        assert_eq!(future::block_on(second).unwrap(), "\"ok\":true}");
        clerk.received(b"\"ok\":false}\n");
        assert_eq!(future::block_on(first).unwrap(), "\"ok\":false}");
        let last = clerk.ask("\"d\":4}");
        clerk.close();
        assert_eq!(future::block_on(last), None);
        assert_eq!(future::block_on(clerk.ask("\"e\":5}")), None);
        assert_eq!(lines(), None);
        assert!(clerk.0.borrow().waiting.is_empty());
    }
}
