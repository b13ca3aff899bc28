//! What a connection costs that is joined to a room and says nothing.

use crate::{Target, cpu, sockets};

/// Connections that are opened before the first look, so that tables and pools have their first size.
const WARM_UP: usize = 200;

/// Opens `connections` and prints the growth of the server's user memory for each.
pub fn run(target: &Target, connections: usize) -> Result<(), String> {
    let mut clients = Vec::new();
    for index in 0..WARM_UP {
        clients.push(sockets::connect(target, index % 50)?);
    }
    let before = cpu::memory(target.pid)?;
    for index in 0..connections {
        clients.push(sockets::connect(target, index % 50)?);
    }
    let after = cpu::memory(target.pid)?;
    println!(
        "{:?} {connections} idle connections, each in one room: {:.0} B of user memory each",
        target.mode,
        (after as f64 - before as f64) / connections as f64
    );
    Ok(())
}
