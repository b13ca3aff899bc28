//! WebSocket frames byte by byte, for saying what no library would say. Written from RFC 6455 alone: it shares no code
//! with the server.

use super::{LIMIT, Server, read_response};
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CONTINUATION: u8 = 0;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The request of a WebSocket handshake.
pub fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A client's frame, masked.
pub fn frame(last: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![u8::from(last) << 7 | opcode];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A whole text message.
pub fn text(text: &str) -> Vec<u8> {
    frame(true, TEXT, text.as_bytes())
}

/// A server's frame at the start of `bytes`: its first byte, its payload, and its length; `None` while it is not whole.
pub fn parse(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
    assert_eq!(second & 0x80, 0, "a server must not mask (RFC 6455 section 5.1)");
    let (length, head) = match second {
        126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).unwrap(), 10),
        short => (usize::from(short), 2),
    };
    Some((first, bytes.get(head..head + length)?, head + length))
}

/// A connection on which a test writes its own bytes.
pub struct Wire {
    pub(super) reader: BufReader<TcpStream>,
}

impl Wire {
    /// Connects and sends nothing.
    #[track_caller]
    pub fn connect(server: &Server) -> Wire {
        Wire::connect_to(server.listen)
    }

    /// Connects to clients' port at `address` and sends nothing.
    #[track_caller]
    pub fn connect_to(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Wire { reader: BufReader::new(stream) }
    }

    /// Connects and shakes hands at `path`.
    #[track_caller]
    pub fn open(server: &Server, path: &str) -> Wire {
        let mut wire = Wire::connect(server);
        wire.write(handshake(path));
        wire.upgraded();
        wire
    }

    /// Reads the answer to a handshake, which must be the right one.
    #[track_caller]
    pub fn upgraded(&mut self) {
        let response = read_response(&mut self.reader).unwrap();
        assert_eq!(response.status, 101, "{}", response.head);
        // The example of RFC 6455 section 1.3.
        assert!(response.head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{}", response.head);
    }

    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// The next frame: opcode and payload. Servers send whole messages.
    #[track_caller]
    pub fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut bytes = Vec::new();
        loop {
            if let Some((first, payload, _)) = parse(&bytes) {
                assert_eq!(first & 0xf0, 0x80, "the server's frames are final and without extension bits");
                return (first & 0x0f, payload.to_vec());
            }
            let mut byte = [0];
            self.reader.read_exact(&mut byte).unwrap_or_else(|error| panic!("no frame: {error}"));
            bytes.push(byte[0]);
        }
    }

    /// The next frame, which must be a text message.
    #[track_caller]
    pub fn text(&mut self) -> String {
        let (opcode, payload) = self.frame();
        assert_eq!(opcode, TEXT, "{}", String::from_utf8_lossy(&payload));
        String::from_utf8(payload).unwrap()
    }

    /// The code of the close frame that must come next.
    #[track_caller]
    pub fn close_code(&mut self) -> u16 {
        let (opcode, payload) = self.frame();
        assert_eq!(opcode, CLOSE, "{}", String::from_utf8_lossy(&payload));
        payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))
    }

    /// A second handle on the connection, for another thread.
    pub fn stream(&self) -> TcpStream {
        self.reader.get_ref().try_clone().unwrap()
    }

    /// Closes the connection at once, without a word of goodbye. One that is only dropped stays open as long as a
    /// process that is just being started elsewhere in the tests has it.
    pub fn close(self) {
        self.reader.get_ref().shutdown(Shutdown::Both).unwrap();
    }

    /// The server must close the connection without a further byte.
    #[track_caller]
    pub fn ends(&mut self) {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).unwrap_or_else(|error| panic!("the connection did not end: {error}"));
        assert!(rest.is_empty(), "still came: {}", String::from_utf8_lossy(&rest));
    }
}
