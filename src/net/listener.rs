//! Listening sockets: one per core on the same port, so that the kernel spreads connections over cores.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

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
