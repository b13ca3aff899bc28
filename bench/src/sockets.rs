//! Client connections: handshake and join one after the other, then frames without looking into them more than needed.

use crate::{Mode, Target};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A joined client.
pub struct Client {
    pub stream: TcpStream,
    pub buffer: Vec<u8>,
    /// Room number.
    pub room: usize,
    /// The last sequence number that came.
    pub last: u64,
}

/// Connects and joins room `r{room}`. Blocking until the server has confirmed.
pub fn connect(target: &Target, room: usize) -> Result<Client, String> {
    let mut stream = TcpStream::connect(target.listen).map_err(|error| format!("{}: {error}", target.listen))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let path = match target.mode {
        Mode::Raw => "/ws",
        Mode::SocketIo => "/socket.io/?EIO=4&transport=websocket",
        Mode::Polling => return poll(stream, room),
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        target.listen
    );
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut client = Client { stream, buffer: Vec::new(), room, last: 0 };
    wait_for(&mut client, b"\r\n\r\n")?;
    match target.mode {
        Mode::Raw => {
            say(&mut client.stream, &format!(r#"{{"type":"subscribe","room":"r{room}"}}"#))?;
        }
        Mode::SocketIo => {
            say(&mut client.stream, "40")?;
            wait_for(&mut client, b"40{")?;
            say(&mut client.stream, &format!(r#"42["subscribe",{{"room":"r{room}"}}]"#))?;
        }
        Mode::Polling => unreachable!("returned above"),
    }
    wait_for(&mut client, b"subscribed")?;
    client.buffer.clear();
    Ok(client)
}

/// Opens a session over long-polling, joins room `r{room}` and leaves a poll waiting.
fn poll(stream: TcpStream, room: usize) -> Result<Client, String> {
    let mut client = Client { stream, buffer: Vec::new(), room, last: 0 };
    let path = "/socket.io/?EIO=4&transport=polling";
    let ask = |client: &mut Client, request: String, answer: &[u8]| {
        client.stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        wait_for(client, answer)
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    ask(&mut client, get(path), b"\"sid\":\"")?;
    // A response of 300 bytes comes in one piece.
    let sid = client.buffer.get(..20).ok_or("half a handshake came")?;
    let sid = String::from_utf8_lossy(sid).into_owned();
    wait_for(&mut client, b"}")?;
    let path = format!("{path}&sid={sid}");
    ask(&mut client, post(&path, "40"), b"\r\n\r\nok")?;
    ask(&mut client, post(&path, &format!(r#"42["subscribe",{{"room":"r{room}"}}]"#)), b"\r\n\r\nok")?;
    ask(&mut client, get(&path), b"subscribed")?;
    wait_for(&mut client, b"}]")?;
    client.stream.write_all(get(&path).as_bytes()).map_err(|error| error.to_string())?;
    client.buffer.clear();
    Ok(client)
}

/// Sends a masked text frame; the mask is zero, which is a mask.
fn say(stream: &mut TcpStream, text: &str) -> Result<(), String> {
    assert!(text.len() < 126);
    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    stream.write_all(&frame).map_err(|error| error.to_string())
}

fn wait_for(client: &mut Client, needle: &[u8]) -> Result<(), String> {
    let mut chunk = [0; 1024];
    loop {
        if let Some(at) = memchr::memmem::find(&client.buffer, needle) {
            client.buffer.drain(..at + needle.len());
            return Ok(());
        }
        let bytes = client.stream.read(&mut chunk).map_err(|error| error.to_string())?;
        if bytes == 0 {
            return Err("the server closed a connection while it was joining".to_owned());
        }
        client.buffer.extend_from_slice(&chunk[..bytes]);
    }
}

/// Calls `each` with the payload of every whole server frame in `buffer`; returns how many bytes they took.
pub fn frames(buffer: &[u8], mut each: impl FnMut(&[u8]) -> Result<(), String>) -> Result<usize, String> {
    let mut at = 0;
    while let [_, length, rest @ ..] = &buffer[at..] {
        let (header, length) = match (length & 0x7f, rest) {
            (126, [high, low, ..]) => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            (127, bytes) if bytes.len() >= 8 => {
                (10, u64::from_be_bytes(bytes[..8].try_into().map_err(|_| "eight bytes")?) as usize)
            }
            (126 | 127, _) => break,
            (short, _) => (2, usize::from(short)),
        };
        let Some(payload) = buffer.get(at + header..at + header + length) else { break };
        each(payload)?;
        at += header + length;
    }
    Ok(at)
}

/// Connects the publisher.
pub fn publisher(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).map_err(|error| format!("{address}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}
