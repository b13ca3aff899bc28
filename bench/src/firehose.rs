//! Closed loop: the next event is published when one has reached all sockets of its room.

use crate::sockets::{self, Client};
use crate::{Target, cpu};
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::time::Instant;

/// What is published.
#[derive(Debug)]
pub struct Load {
    pub rooms: usize,
    pub members: usize,
    pub outstanding: usize,
    pub bytes: usize,
    pub events: usize,
}

/// Runs the load and prints figures. Every socket must get every event of its room, once and in order.
pub fn run(target: &Target, load: &Load) -> Result<(), String> {
    let mut clients: Vec<Client> = Vec::new();
    for room in 0..load.rooms {
        for _ in 0..load.members {
            clients.push(sockets::connect(target, room)?);
        }
    }
    let mut publisher = sockets::publisher(target.ingest)?;
    let mut poll = Poll::new().map_err(|error| error.to_string())?;
    for (index, client) in clients.iter().enumerate() {
        client.stream.set_nonblocking(true).map_err(|error| error.to_string())?;
        poll.registry()
            .register(&mut mio::unix::SourceFd(&client.stream.as_raw_fd()), Token(index), Interest::READABLE)
            .map_err(|error| error.to_string())?;
    }
    let filler = "x".repeat(load.bytes.saturating_sub(20));
    // By event: how many members still miss it.
    let mut missing: Vec<usize> = vec![load.members; load.events];
    let (mut published, mut complete, mut deliveries) = (0, 0, 0u64);
    let mut events = Events::with_capacity(1024);
    let mut chunk = vec![0; 256 << 10];
    let mut lines = Vec::new();
    let (cpu_before, started) = (cpu::used(target.pid)?, Instant::now());
    while complete < load.events {
        lines.clear();
        while published < load.events && published < complete + load.outstanding {
            // Sequence numbers count within a room, from 1.
            let (room, seq) = (published % load.rooms, published / load.rooms + 1);
            writeln!(lines, r#"{{"room":"r{room}","event":"e","data":{{"seq":{seq},"x":"{filler}"}}}}"#)
                .map_err(|error| error.to_string())?;
            published += 1;
        }
        publisher.write_all(&lines).map_err(|error| error.to_string())?;
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other.map_err(|error| error.to_string())?,
        }
        for event in &events {
            let client = &mut clients[event.token().0];
            loop {
                let bytes = match (&client.stream).read(&mut chunk) {
                    Ok(0) => return Err("the server closed a connection".to_owned()),
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.to_string()),
                };
                let Client { buffer, last, room, .. } = client;
                let mut count = |payload: &[u8]| {
                    let Some(seq) = sequence(payload) else { return Ok(()) };
                    if seq != *last + 1 {
                        return Err(format!("event {seq} came after {last}"));
                    }
                    *last = seq;
                    deliveries += 1;
                    let index = (seq as usize - 1) * load.rooms + *room;
                    missing[index] -= 1;
                    complete += usize::from(missing[index] == 0);
                    Ok(())
                };
                if buffer.is_empty() {
                    let taken = sockets::frames(&chunk[..bytes], &mut count)?;
                    buffer.extend_from_slice(&chunk[taken..bytes]);
                } else {
                    buffer.extend_from_slice(&chunk[..bytes]);
                    let taken = sockets::frames(buffer, &mut count)?;
                    buffer.drain(..taken);
                }
                if bytes < chunk.len() {
                    break;
                }
            }
        }
    }
    let (wall, cpu) = (started.elapsed(), cpu::used(target.pid)? - cpu_before);
    println!(
        "{:?} {} sockets in {} rooms, {} B, {} outstanding: {deliveries} deliveries in {:.2} s = {:.0} deliveries/s, \
         {:.0} ns CPU per delivery (process and ksoftirqd), CPU {:.0} %",
        target.mode,
        clients.len(),
        load.rooms,
        load.bytes,
        load.outstanding,
        wall.as_secs_f64(),
        deliveries as f64 / wall.as_secs_f64(),
        cpu.as_nanos() as f64 / deliveries as f64,
        100.0 * cpu.as_secs_f64() / wall.as_secs_f64(),
    );
    Ok(())
}

/// The number behind `"seq":`.
fn sequence(payload: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(payload, b"\"seq\":")? + 6;
    let digits = payload[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}
