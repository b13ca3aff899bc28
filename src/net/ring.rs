//! The data plane's own `io_uring`: readiness, deadlines and batched sends of one core. Does not know what the
//! bytes mean.
#![allow(unsafe_code)]

use crate::base::clock::Millis;
use crate::base::ids::SlotRef;
use io_uring::types::{Fd, TimeoutFlags, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::fs::File;
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Submission slots: the most sends that one call to the kernel carries.
pub const SENDS_MAX: usize = 256;
/// A completion that finds the queue full waits in the kernel (`IORING_FEAT_NODROP`), so this bounds memory, not work.
const COMPLETIONS: u32 = 8192;
const _: () = assert!(SENDS_MAX.is_power_of_two());

/// What the kernel reports.
#[derive(Debug)]
pub enum Completion {
    /// A connection came in that [`Ring::accept`] has asked for; [`Completion::AcceptEnded`] follows.
    Accepted {
        /// The number given to [`Ring::accept`].
        listener: u32,
        /// The connection, non-blocking.
        stream: TcpStream,
    },
    /// No more is accepted until it is asked for again.
    AcceptEnded {
        /// The number given to [`Ring::accept`].
        listener: u32,
        /// Why, unless one was accepted or it was cancelled.
        error: Option<io::Error>,
    },
    /// Connections wait to be accepted. This is reported for those that come, not for those that are left there.
    Knocked {
        /// The number given to [`Ring::poll_listener`].
        listener: u32,
        /// False if the poll must be armed again to hear more, or was ended.
        armed: bool,
    },
    /// Bytes, an end or an error can be read.
    Readable {
        /// The connection.
        at: SlotRef,
        /// False if the poll must be armed again to hear more.
        armed: bool,
        /// The end is there already, behind whatever bytes there are: it will not be reported again.
        hangup: bool,
    },
    /// The connection takes bytes again; this is reported once for each [`Ring::poll_write`].
    Writable {
        /// The connection.
        at: SlotRef,
    },
    /// A deadline has come.
    Deadline,
}

/// One send.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Where to.
    pub stream: &'a TcpStream,
    /// What, as one message.
    pub bytes: &'a [u8],
}

/// The ring of one core; it stays on the thread that made it.
pub struct Ring {
    ring: IoUring,
    /// What the core sleeps on: an eventfd that other threads write to when they want it to wake up, and the kernel if
    /// there is something to reap.
    bell: File,
    /// Deadlines that the kernel holds, each with the place that the kernel reads it from.
    deadlines: Vec<(Millis, Box<Timespec>)>,
    /// Calls to the kernel that failed for want of memory or space, and were repeated.
    pub retries: u64,
}

/// Makes a ring as a core's and throws it away, to tell whether it can be had.
///
/// # Errors
/// The kernel has no `io_uring`, forbids it, or is older than 6.1; or no descriptor is left.
pub fn probe() -> io::Result<()> {
    Ring::new(super::sys::eventfd()?).map(|_| ())
}

const KNOCK: u64 = 1;
const READ: u64 = 2;
const WRITE: u64 = 3;
const DEADLINE: u64 = 4;
const SEND: u64 = 5;
const CANCEL_KNOCK: u64 = 6;
const CANCEL_READ: u64 = 7;
const CANCEL_WRITE: u64 = 8;
const ACCEPT: u64 = 9;
const CANCEL: u64 = 10;

/// A request's name: kind, generation and slot. 24 bits of a generation are enough, as a slot is not reused while a
/// request names it.
fn token(kind: u64, at: SlotRef) -> u64 {
    kind << 56 | u64::from(at.generation & 0x00ff_ffff) << 32 | u64::from(at.slot)
}

fn token_slot(token: u64) -> SlotRef {
    SlotRef { slot: token as u32, generation: (token >> 32) as u32 & 0x00ff_ffff }
}

impl Ring {
    /// A ring for the calling thread. A write to the blocking eventfd `bell` ends [`Ring::wait`], and so does the ring.
    ///
    /// # Errors
    /// The kernel has no `io_uring`, forbids it, or is older than 6.1.
    pub fn new(bell: OwnedFd) -> io::Result<Ring> {
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETIONS)
            .build(SENDS_MAX as u32)?;
        ring.submitter().register_eventfd(bell.as_raw_fd())?;
        Ok(Ring { ring, bell: File::from(bell), deadlines: Vec::new(), retries: 0 })
    }

    /// Reports when connections come in. The core accepts them itself, as many as it wants at a time: a multishot
    /// accept takes the whole backlog at once, which may be thousands of connections and tens of milliseconds.
    pub fn poll_listener(&mut self, listener: &TcpListener, number: u32) {
        let at = SlotRef { slot: number, generation: 0 };
        let entry = opcode::PollAdd::new(Fd(listener.as_raw_fd()), libc::POLLIN as u32).multi(true).build();
        self.push(&entry.user_data(token(KNOCK, at)));
    }

    /// Accepts the next connection. Of several rings that wait at one listener, the kernel wakes the one that has
    /// waited longest: so each gets its share if each asks anew for every connection. Told by polls, all of them would
    /// wake for each.
    pub fn accept(&mut self, listener: &TcpListener, number: u32) {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let at = SlotRef { slot: number, generation: 0 };
        let (listener, nobody) = (Fd(listener.as_raw_fd()), std::ptr::null_mut());
        let entry = opcode::Accept::new(listener, nobody, std::ptr::null_mut()).flags(flags).build();
        self.push(&entry.user_data(token(ACCEPT, at)));
    }

    /// Ends [`Ring::accept`] or else [`Ring::poll_listener`], which reports once more.
    pub fn cancel_listener(&mut self, number: u32, accepts: bool) {
        let at = SlotRef { slot: number, generation: 0 };
        if accepts {
            let entry = opcode::AsyncCancel::new(token(ACCEPT, at)).build();
            self.push(&entry.user_data(token(CANCEL, at)));
        } else {
            self.cancel_poll(CANCEL_KNOCK, at);
        }
    }

    /// Reports each time that there is something new to read.
    pub fn poll_read(&mut self, stream: &TcpStream, at: SlotRef) {
        let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
        let entry = opcode::PollAdd::new(Fd(stream.as_raw_fd()), events).multi(true).build();
        self.push(&entry.user_data(token(READ, at)));
    }

    /// Reports once when there is space to write.
    pub fn poll_write(&mut self, stream: &TcpStream, at: SlotRef) {
        let entry = opcode::PollAdd::new(Fd(stream.as_raw_fd()), libc::POLLOUT as u32).build();
        self.push(&entry.user_data(token(WRITE, at)));
    }

    /// Ends the polls of a connection; each still reports once more.
    pub fn cancel_polls(&mut self, at: SlotRef, read: bool, write: bool) {
        for (kind, armed) in [(CANCEL_READ, read), (CANCEL_WRITE, write)] {
            if armed {
                self.cancel_poll(kind, at);
            }
        }
    }

    fn cancel_poll(&mut self, kind: u64, at: SlotRef) {
        let poll = match kind {
            CANCEL_KNOCK => KNOCK,
            CANCEL_READ => READ,
            _ => WRITE,
        };
        let entry = opcode::PollRemove::new(token(poll, at)).build();
        self.push(&entry.user_data(token(kind, at)));
    }

    /// Reports [`Completion::Deadline`] at `at` or earlier; `origin` is when the clock of [`Millis`] began, on
    /// `CLOCK_MONOTONIC`.
    pub fn deadline(&mut self, at: Millis, origin: std::time::Duration) {
        if self.deadlines.iter().any(|(armed, _)| *armed <= at) {
            return;
        }
        let due = origin + std::time::Duration::from_millis(at.0);
        let time = Box::new(Timespec::new().sec(due.as_secs()).nsec(due.subsec_nanos()));
        let entry = opcode::Timeout::new(&raw const *time).flags(TimeoutFlags::ABS).build();
        // The box stands in `deadlines` until the timeout completes, and a box's content does not move.
        self.deadlines.push((at, time));
        self.push(&entry.user_data(token(DEADLINE, number_of(at))));
    }

    /// Submits what is queued and appends what the kernel reports. Does not wait.
    pub fn reap(&mut self, completions: &mut Vec<Completion>) {
        let due = {
            let queue = self.ring.submission();
            !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
        };
        if due {
            self.enter(0);
        }
        self.drain(completions, &mut []);
    }

    /// Sends a batch, at most [`SENDS_MAX`]; `results` gets for each what `send(2)` would return: bytes, or a negative
    /// error number. Other reports go to `completions`.
    ///
    /// # Panics
    /// If the batch is too large.
    pub fn send(&mut self, batch: &[Outgoing<'_>], results: &mut Vec<i32>, completions: &mut Vec<Completion>) {
        assert!(batch.len() <= SENDS_MAX);
        results.clear();
        results.resize(batch.len(), UNFINISHED);
        for (index, outgoing) in batch.iter().enumerate() {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            let bytes = outgoing.bytes;
            let length = u32::try_from(bytes.len()).expect("a send is far shorter than 4 GB");
            let entry = opcode::Send::new(Fd(outgoing.stream.as_raw_fd()), bytes.as_ptr(), length).flags(flags).build();
            self.push(&entry.user_data(token(SEND, SlotRef { slot: index as u32, generation: 0 })));
        }
        // The kernel reads the bytes only until it completes a send. This function returns after the last completion,
        // and `batch` keeps the bytes borrowed until then; nothing in between unwinds past a send under way.
        let mut unfinished = batch.len();
        while unfinished > 0 {
            self.enter(1);
            unfinished -= self.drain(completions, results);
        }
    }

    /// Asks for a signal on the eventfd at the next report. False if something is to be reaped already.
    pub fn enable_signal(&mut self) -> bool {
        self.ring.completion().enable_eventfd();
        self.enter(0);
        self.ring.completion().is_empty() && !self.ring.submission().taskrun()
    }

    /// No more signals: the core looks by itself.
    pub fn disable_signal(&mut self) {
        self.ring.completion().disable_eventfd();
    }

    /// Sleeps until there is something to reap, or the bell has rung; signals must be enabled. Nothing is done here for
    /// what is reported: a connection stays in the listener's backlog until [`Ring::reap`], where others can see it.
    pub fn wait(&mut self) {
        // An eventfd gives eight bytes. It cannot fail; if it did, the core would look for work more often, not less.
        if let Err(error) = self.bell.read_exact(&mut [0; 8]) {
            tracing::error!(%error, "cannot sleep on the eventfd");
        }
    }

    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: every entry names a descriptor that its caller keeps open until the request is over (sends:
            // `send`; polls and accepts: the connection or listener is dropped after its last completion), and memory
            // that lives as long: of sends the borrowed batch, of deadlines a box in `self.deadlines`.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            self.enter(0);
        }
    }

    /// Submits, and waits for `want` completions.
    fn enter(&mut self, want: usize) {
        loop {
            // A DEFER_TASKRUN ring runs its completions inside this call, and only if events are asked for.
            let submitted = self.ring.submission().len() as u32;
            let flags = 1; // IORING_ENTER_GETEVENTS
            // SAFETY: no argument is passed; the entries are sound by `push`.
            let entered = unsafe { self.ring.submitter().enter::<libc::sigset_t>(submitted, want as u32, flags, None) };
            match entered {
                Ok(_) => {
                    if self.ring.submission().is_empty() {
                        return;
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // Memory is short, or completions wait to be drained: the caller drains, then comes again.
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => {
                        self.retries += 1;
                        if want > 0 || !self.ring.completion().is_empty() {
                            return;
                        }
                        std::thread::yield_now();
                    }
                    // Anything else (EBADF, EINVAL, EFAULT on the ring itself) means that this file is wrong.
                    _ => panic!("io_uring_enter: {error}"),
                },
            }
        }
    }

    /// Empties the completion queue; returns how many of `results` it filled.
    fn drain(&mut self, completions: &mut Vec<Completion>, results: &mut [i32]) -> usize {
        let mut finished = 0;
        let mut again: Vec<(u64, SlotRef)> = Vec::new();
        let deadlines = &mut self.deadlines;
        for entry in self.ring.completion() {
            let at = token_slot(entry.user_data());
            match entry.user_data() >> 56 {
                SEND => {
                    results[at.slot as usize] = entry.result();
                    finished += 1;
                }
                READ => {
                    let ends = i32::from(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR);
                    let hangup = entry.result() > 0 && entry.result() & ends != 0;
                    completions.push(Completion::Readable { at, armed: cqueue::more(entry.flags()), hangup });
                }
                WRITE => completions.push(Completion::Writable { at }),
                KNOCK => {
                    let armed = cqueue::more(entry.flags());
                    completions.push(Completion::Knocked { listener: at.slot, armed });
                }
                ACCEPT => {
                    let (result, listener) = (entry.result(), at.slot);
                    if result >= 0 {
                        // SAFETY: a successful accept hands over a new descriptor, and this completion is its only
                        // mention.
                        let stream = unsafe { TcpStream::from_raw_fd(result) };
                        completions.push(Completion::Accepted { listener, stream });
                    }
                    let failed = result < 0 && result != -libc::ECANCELED;
                    let error = failed.then(|| io::Error::from_raw_os_error(-result));
                    completions.push(Completion::AcceptEnded { listener, error });
                }
                DEADLINE => {
                    let same = |due: Millis| token_slot(token(DEADLINE, number_of(due))) == at;
                    deadlines.retain(|(due, _)| !same(*due));
                    completions.push(Completion::Deadline);
                }
                // The poll was just reporting something, and a multishot poll goes on after that.
                kind @ (CANCEL_KNOCK | CANCEL_READ | CANCEL_WRITE) if entry.result() == -libc::EALREADY => {
                    again.push((kind, at))
                }
                CANCEL | CANCEL_KNOCK | CANCEL_READ | CANCEL_WRITE => {}
                other => unreachable!("request kind {other}"),
            }
        }
        for (kind, at) in again {
            self.cancel_poll(kind, at);
        }
        finished
    }
}

/// No `send(2)` returns this.
const UNFINISHED: i32 = i32::MIN;

fn number_of(due: Millis) -> SlotRef {
    SlotRef { slot: due.0 as u32, generation: (due.0 >> 32) as u32 }
}
