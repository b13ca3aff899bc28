//! Listening sockets: one per core on the same port, so that the kernel spreads connections over cores; those that a
//! service manager has opened; and a Unix socket, which one core listens on.

use super::{steer, sys};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Binds `cores` listeners to `address`; port 0 picks a free port, the same for all.
///
/// # Errors
/// The address is not ours, is in use, or no descriptor is left.
pub fn bind(address: SocketAddr, cores: usize) -> io::Result<Vec<TcpListener>> {
    let first = bind_one(address)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..cores {
        listeners.push(bind_one(address)?);
    }
    Ok(listeners)
}

/// Has new connections land on the core that their packets come in on: listener `i` of `listeners`, in the order of
/// [`bind`], takes those that come in on processor `cpus[i]`. What comes in on another one is spread by the kernel.
///
/// # Errors
/// The kernel refuses the program.
pub fn steer(listeners: &[TcpListener], cpus: &[usize]) -> io::Result<()> {
    debug_assert_eq!(listeners.len(), cpus.len());
    listeners.first().map_or(Ok(()), |first| sys::steer(first, &steer::program(cpus)))
}

/// Whether one could listen at `address` and be alone there.
///
/// # Errors
/// Somebody listens there, the address is not ours, or it is not for us to listen there.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    // Without SO_REUSEPORT it gets the address only if it is alone. It does not listen, so nobody is cut off.
    let probe = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    probe.set_reuse_address(true)?;
    probe.bind(&SockAddr::from(address))
}

/// Waits until nobody listens at `address`. Listeners of one address and user share a group, in which the kernel counts
/// them: a former process's would be counted first, and ours get other numbers as they go.
///
/// # Errors
/// Somebody listens there and goes on, or the address is not ours.
pub fn wait_until_free(address: SocketAddr) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match probe(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < 2 * TRIES => tries += 1,
            result => return result,
        }
        #[allow(clippy::disallowed_methods, reason = "at the start, before there are cores")]
        std::thread::sleep(CUT_OFF / TRIES as u32);
    }
}

/// A dead process's listeners are gone after this, even on a busy machine.
const CUT_OFF: Duration = Duration::from_secs(1);
/// Times that a listener may cut us off and still be there.
const TRIES: usize = 10;

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted connections inherit it: every send is a finished batch, and must not wait for an earlier one's ACK.
    socket.set_tcp_nodelay(true)?;
    // Likewise: a publisher whose host has gone must not hold a descriptor for ever.
    socket.set_keepalive(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    // The kernel cuts it to net.core.somaxconn.
    socket.listen(i32::MAX)?;
    Ok(socket.into())
}

/// Takes over a listening TCP socket that somebody else has opened, with its address. Its connections get what
/// [`bind`]'s get.
///
/// # Errors
/// It is something else.
pub fn adopt(descriptor: OwnedFd) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::from(descriptor);
    let is_tcp = matches!(socket.domain()?, Domain::IPV4 | Domain::IPV6) && socket.r#type()? == Type::STREAM;
    if !is_tcp || !socket.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no listening TCP socket"));
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.set_nonblocking(true)?;
    // Again: whoever opened it may have asked for a short backlog.
    socket.listen(i32::MAX)?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Gives each of `cores` cores one of `listeners`, of which there are at least one and at most as many as cores: its
/// own, or one that it shares.
///
/// # Errors
/// No descriptor is left.
pub fn share(listeners: &[TcpListener], cores: usize) -> io::Result<Vec<TcpListener>> {
    (0..cores).map(|core| listeners[core % listeners.len()].try_clone()).collect()
}

/// The file of a Unix socket that we listen on. Dropped, it is removed, unless another one has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: whether it is still ours.
    identity: (u64, u64),
}

/// Listens on a Unix socket at `path` with the file mode `mode`. A file that a dead process has left there is replaced.
/// The listener is a Unix socket in spite of its type; see [`Extra`](super::Extra).
///
/// # Errors
/// Another process listens there, something else than a socket is there, or the folder lets us make none.
pub fn bind_unix(path: &Path, mode: u32) -> io::Result<(TcpListener, SocketFile)> {
    let address = SockAddr::unix(path)?;
    if let Ok(metadata) = fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        if somebody_listens(&address)? {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address)?;
    let identity = identity_of(path)?;
    let file = SocketFile { path: path.to_owned(), identity };
    // Nobody can connect before `listen`: there is no moment at which others may.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(i32::MAX)?;
    Ok((OwnedFd::from(socket).into(), file))
}

/// The kernel takes a moment to take down the `io_uring`s of a process that has died, and its listeners with them: so
/// long one can still connect, and is cut off then. One that lives does not cut off.
fn somebody_listens(address: &SockAddr) -> io::Result<bool> {
    for _ in 0..TRIES {
        let mut probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // One whose backlog is full must not hold us up.
        probe.set_nonblocking(true)?;
        match probe.connect(address) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            // It is busy, or not for us to connect to.
            Err(_) => return Ok(true),
        }
        probe.set_nonblocking(false)?;
        probe.set_read_timeout(Some(CUT_OFF))?;
        match probe.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            _ => return Ok(true),
        }
    }
    Ok(true)
}

fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity_of(&self.path).is_ok_and(|identity| identity == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the publishers' socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn only_a_listening_tcp_socket_is_taken_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (adopted, its_address) = adopt(listener.into()).unwrap();
        assert_eq!(its_address, address);
        let stream = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = adopted.accept().unwrap();
        assert!(accepted.nodelay().unwrap(), "as with a listener of our own");
        for cores in [1, 3] {
            let addresses = share(std::slice::from_ref(&adopted), cores).unwrap();
            assert!(addresses.iter().all(|listener| listener.local_addr().unwrap() == address));
            assert_eq!(addresses.len(), cores);
        }
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let unix = UnixStream::pair().unwrap().0;
        let file = fs::File::open("/dev/null").unwrap();
        let others = [stream.into(), datagrams.into(), OwnedFd::from(bound), unix.into(), file.into()];
        for (number, other) in others.into_iter().enumerate() {
            assert!(adopt(other).is_err(), "{number}");
        }
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = std::env::temp_dir().join(format!("roomcast-listener-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("socket");
        for mode in [0o600, 0o660, 0o666] {
            let (_listener, _file) = bind_unix(&path, mode).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
            UnixStream::connect(&path).unwrap();
        }
        let live = bind_unix(&path, 0o600).unwrap();
        assert_eq!(bind_unix(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        assert!(!path.exists(), "the file goes with the listener");
        // Nobody removes this one's file.
        drop(UnixListener::bind(&path).unwrap());
        let (listener, file) = bind_unix(&path, 0o600).unwrap();
        // A successor's is not ours to remove.
        fs::remove_file(&path).unwrap();
        let successor = UnixListener::bind(&path).unwrap();
        drop((listener, file));
        UnixStream::connect(&path).unwrap();
        drop(successor);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert_eq!(bind_unix(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_dir_all(folder).unwrap();
    }
}
