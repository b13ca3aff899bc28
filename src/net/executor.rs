//! The only module that knows the runtime: pinned executors. A successor of glommio is a change of this file (and of
//! `ops`, whose control-plane sockets are glommio's too).
#![allow(unsafe_code)]

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement};
use std::future::Future;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Memory that an executor registers for its own IO. It moves eight bytes at a time; the default is 10 MB and more.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// glommio 0.9 parks an executor although a task is runnable if the preempt timer fires between its polling for events
/// and its running of tasks, as happens whenever the kernel takes the processor away for that long: a stall for ever.
/// So the timer never fires. Nobody misses it: a core's executor has one task, and those of the operators' port are
/// short.
const PREEMPT: Duration = Duration::from_secs(365 * 24 * 3600);

/// A running executor.
pub type Handle = ExecutorJoinHandle<()>;

/// Starts a thread named `name` that runs `main` to its end, pinned to the processor `cpu` if one is given.
///
/// # Errors
/// The kernel refuses a thread, the pinning or an `io_uring`.
pub fn spawn<F, T>(name: &str, cpu: Option<usize>, main: F) -> Result<Handle, String>
where
    F: FnOnce() -> T + Send + 'static,
    T: Future<Output = ()> + 'static,
{
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .name(name)
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(PREEMPT)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .spawn(main)
        .map_err(|error| format!("cannot start the executor {name}: {error}"))
}

/// Waits for an executor's end.
///
/// # Errors
/// It panicked.
pub fn join(handle: Handle) -> Result<(), String> {
    handle.join().map_err(|error| error.to_string())
}

/// A connected socket for the calling thread's executor.
#[must_use]
pub fn adopt(stream: UnixStream) -> glommio::net::UnixStream {
    // SAFETY: the descriptor is owned and given away here.
    unsafe { glommio::net::UnixStream::from_raw_fd(stream.into_raw_fd()) }
}
