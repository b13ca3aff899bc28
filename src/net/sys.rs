//! The few system calls that neither the standard library nor a safe crate of ours offers.
#![allow(unsafe_code)]

use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A new eventfd, blocking, at zero.
///
/// # Errors
/// No descriptor or no memory is left.
pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just handed it over.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has the kernel back the process's memory by small pages alone. With huge ones, a server of few clients holds 15 MB
/// more and grows in steps of 2 MB, and no load of the bench shows a gain.
///
/// # Errors
/// The kernel does not know the request.
pub fn forbid_huge_pages() -> io::Result<()> {
    // SAFETY: no pointer is passed.
    let result = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Accepts the next connection, non-blocking.
///
/// # Errors
/// None waits, or the kernel has nothing to hold it with.
pub fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: both pointers may be null: nobody wants the address.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just handed it over.
    Ok(unsafe { TcpStream::from_raw_fd(fd) })
}

/// `CLOCK_MONOTONIC` now: the clock of the ring's deadlines.
#[must_use]
pub fn monotonic() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result; the clock always exists.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0, "CLOCK_MONOTONIC exists");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// `CLOCK_REALTIME` now, in nanoseconds: the clock of the kernel's times of arrival.
#[must_use]
pub fn realtime_ns() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Has the kernel note when packets for this socket come in, or no longer. While any socket of the host wants that,
/// each packet that comes in costs the kernel a look at the clock.
///
/// # Errors
/// The kernel cannot.
pub fn stamp_arrivals(socket: &impl AsRawFd, on: bool) -> io::Result<()> {
    let flags: libc::c_uint = if on { libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE } else { 0 };
    let length = size_of_val(&flags) as libc::socklen_t;
    // SAFETY: `flags` is a valid place of the given length.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPING, (&raw const flags).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A socket without an address, so that nobody can send to it; while it lives, arrivals are noted.
///
/// # Errors
/// No descriptor is left, or the kernel cannot.
pub fn stamper() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    stamp_arrivals(&socket, true)?;
    Ok(socket)
}

/// Receives like `read`, with the time of arrival of the last bytes, if the kernel noted it: nanoseconds of
/// `CLOCK_REALTIME`.
///
/// # Errors
/// As `read`.
pub fn receive_stamped(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Option<u64>)> {
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // Room for one message of three times; aligned as the kernel wants it.
    let mut control = [0u64; 16];
    // SAFETY: all fields of a msghdr may be zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: `message` names the buffer and the control space, which both live until the call returns.
    let received = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut arrived = None;
    // SAFETY: the kernel has filled `message`; the macros stay within its control space, and the data of a message of
    // this type are three times, read here without assuming their alignment.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_TIMESTAMPING {
                let time: libc::timespec = std::ptr::read_unaligned(libc::CMSG_DATA(header).cast());
                if time.tv_sec > 0 {
                    arrived = Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64);
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok((received as usize, arrived))
}

/// True if something can be read or accepted on any of `descriptors` at this moment; negative ones are passed over.
#[must_use]
pub fn any_readable(descriptors: &[RawFd]) -> bool {
    let mut polls: Vec<libc::pollfd> =
        descriptors.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: `polls` is a valid array of that length.
    let count = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, 0) };
    count > 0
}

/// Has the kernel choose among the listeners of `listener`'s address and port by `program`, whose value is the number
/// of one in the order in which they began to listen; by its hash, if there is none of that number.
///
/// # Errors
/// The kernel refuses the program, or `listener` has not `SO_REUSEPORT`.
pub fn steer(listener: &TcpListener, program: &[libc::sock_filter]) -> io::Result<()> {
    /// In `asm-generic/socket.h`, which all processors that we run on use; libc does not have it for this target.
    const SO_ATTACH_REUSEPORT_CBPF: libc::c_int = 51;
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` names `length` valid instructions, which live until the call returns; the kernel checks and
    // copies them and writes nothing.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether something keeps the system's clock right, and by how much it may be wrong at most.
///
/// # Errors
/// The kernel does not say.
pub fn clock_discipline() -> io::Result<(bool, Duration)> {
    // SAFETY: all fields of a timex may be zero; without modes the call only reads.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is a valid place for the result.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((state.status & libc::STA_UNSYNC == 0, Duration::from_micros(state.maxerror.max(0) as u64)))
}

/// The descriptors that a service manager has handed over by `LISTEN_FDS`, closed on exec; none the second time. To be
/// called before anything else opens descriptors.
///
/// # Errors
/// They are not there, or the variables make no sense.
pub fn inherited() -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    // SAFETY: the manager opened them for this process, which `LISTEN_PID` names, and they are open: `listen_fds` looks
    // at both. They are nobody else's, as this is the only place that takes them, once, and what opens descriptors gets
    // others.
    Ok(sd_notify::listen_fds()?.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect())
}

/// Raises the soft limit of open files to the hard one, and returns it: every client takes a descriptor.
///
/// # Errors
/// The kernel refuses.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid limit.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// Has the kernel make the process's table of descriptors as large as `descriptors` need. A table that is too small
/// doubles when it is full, for which a process of several threads waits until every processor has passed a quiet
/// state: some ten milliseconds, in which the core that accepted one connection too many serves nobody. To be called
/// once the limit is raised and before there are other threads. Eight bytes each.
///
/// # Errors
/// The limit is lower, or no memory is left: then the table grows later.
pub fn reserve_descriptors(descriptors: u64) -> io::Result<()> {
    let last = libc::c_int::try_from(descriptors.saturating_sub(1)).unwrap_or(libc::c_int::MAX);
    let any = eventfd()?;
    // SAFETY: no pointer is passed; `any` is open.
    let high = unsafe { libc::fcntl(any.as_raw_fd(), libc::F_DUPFD_CLOEXEC, last) };
    if high < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just handed it over.
    drop(unsafe { OwnedFd::from_raw_fd(high) });
    Ok(())
}
