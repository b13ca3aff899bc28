//! Batched sends through `io_uring`. Knows neither members nor frames: descriptors, bytes and what became of them.
#![allow(unsafe_code)]

use io_uring::types::Fd;
use io_uring::{IoUring, opcode};
use std::io;
use std::os::fd::RawFd;

/// The most sends of one batch, which are one call to the kernel.
pub const SENDS_MAX: usize = 1024;

/// What a send came to before the kernel has said so; no error number is that large.
const UNFINISHED: i32 = i32::MIN;

/// One send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Where to: a non-blocking socket. If it is none, the kernel says so.
    pub to: RawFd,
    /// What.
    pub bytes: &'a [u8],
}

/// The ring of one thread.
pub struct Ring(IoUring);

impl Ring {
    /// A ring for the calling thread.
    ///
    /// # Errors
    /// The kernel has no `io_uring`, forbids it, or is older than 6.1.
    pub fn new() -> io::Result<Ring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(2 * SENDS_MAX as u32)
            .build(SENDS_MAX as u32)?;
        Ok(Ring(ring))
    }

    /// Sends a batch, at most [`SENDS_MAX`]; `results` gets for each what `send(2)` would return: bytes, or a negative
    /// error number. Sends to different sockets only: the kernel would try the second one even if the first had no
    /// space.
    ///
    /// # Panics
    /// If the batch is too large.
    pub fn send(&mut self, batch: &[Outgoing<'_>], results: &mut Vec<i32>) {
        assert!(batch.len() <= SENDS_MAX);
        results.clear();
        results.resize(batch.len(), UNFINISHED);
        let mut queue = self.0.submission();
        for (index, outgoing) in batch.iter().enumerate() {
            let length = u32::try_from(outgoing.bytes.len()).unwrap_or(u32::MAX);
            let entry = opcode::Send::new(Fd(outgoing.to), outgoing.bytes.as_ptr(), length)
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                .build()
                .user_data(index as u64);
            // SAFETY: the kernel reads the bytes until it completes the send. `batch` keeps them borrowed, and this
            // function returns only after the last completion; nothing in between unwinds: what can fail here aborts.
            let pushed = unsafe { queue.push(&entry) };
            if pushed.is_err() {
                // The queue has a place for each send of a batch, and is empty whenever this function is called.
                std::process::abort();
            }
        }
        drop(queue);
        let mut unfinished = batch.len();
        while unfinished > 0 {
            self.enter(unfinished);
            for completion in self.0.completion() {
                if let Some(result) = results.get_mut(completion.user_data() as usize) {
                    *result = completion.result();
                    unfinished -= 1;
                }
            }
        }
    }

    /// Submits, and waits for `want` completions.
    fn enter(&mut self, want: usize) {
        match self.0.submit_and_wait(want) {
            Ok(_) => {}
            // Interrupted, or short of memory, or completions must be taken first: the caller does, and comes again.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM)) => {}
            // Anything else is a mistake of this file; sends may be under way, so that their bytes must not be freed.
            Err(error) => {
                eprintln!("io_uring_enter: {error}");
                std::process::abort();
            }
        }
    }
}
