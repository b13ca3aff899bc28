//! Clients over HTTP, request by request: connections on which a test writes its own bytes, and Engine.IO's
//! long-polling on top. Shares no code with the server.

use super::wire::{self, Wire};
use super::{LIMIT, Response, Server, read_response};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};

/// Between two packets of a body.
pub const SEPARATOR: char = '\x1e';

pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
}

pub fn post(target: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The body of a refusal by Engine.IO, by its code.
pub fn refusal(code: usize) -> String {
    let message = ["Transport unknown", "Session ID unknown", "Bad handshake method", "Bad request"][code];
    format!(r#"{{"code":{code},"message":"{message}"}}"#)
}

/// A connection on which a test writes its own requests.
pub struct Http {
    reader: BufReader<TcpStream>,
}

impl Http {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Http {
        Http::of(TcpStream::connect(address).unwrap())
    }

    /// From another address of this host.
    #[track_caller]
    pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Http {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::from(SocketAddr::from((source, 0)))).unwrap();
        socket.connect(&SockAddr::from(address)).unwrap();
        Http::of(TcpStream::from(socket))
    }

    fn of(stream: TcpStream) -> Http {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Http { reader: BufReader::new(stream) }
    }

    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Writes to a server that may have closed.
    pub fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// The next response.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        read_response(&mut self.reader).unwrap_or_else(|error| panic!("no response within {LIMIT:?}: {error}"))
    }

    /// Writes a request and reads the response.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.write(request);
        self.response()
    }

    /// The server must close the connection without a further byte.
    #[track_caller]
    pub fn ends(&mut self) {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).unwrap_or_else(|error| panic!("the connection did not end: {error}"));
        assert!(rest.is_empty(), "still came: {}", String::from_utf8_lossy(&rest));
    }

    /// The server must have answered nothing so far.
    #[track_caller]
    pub fn has_nothing(&mut self) {
        assert!(self.reader.buffer().is_empty(), "came: {}", String::from_utf8_lossy(self.reader.buffer()));
        let stream = self.reader.get_ref();
        stream.set_nonblocking(true).unwrap();
        let mut bytes = [0; 1024];
        match stream.peek(&mut bytes) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            Ok(count) => panic!("came: {}", String::from_utf8_lossy(&bytes[..count])),
        }
        stream.set_nonblocking(false).unwrap();
    }

    /// Closes the connection at once. One that is only dropped stays open as long as a process that is just being
    /// started elsewhere in the tests has it.
    pub fn close(self) {
        self.reader.get_ref().shutdown(Shutdown::Both).unwrap();
    }

    /// A second handle on the connection, for another thread.
    pub fn stream(&self) -> TcpStream {
        self.reader.get_ref().try_clone().unwrap()
    }
}

impl From<Http> for Wire {
    /// What follows the handshake's response.
    fn from(http: Http) -> Wire {
        Wire { reader: http.reader }
    }
}

/// An Engine.IO session over long-polling: one connection for polls, one for POSTs, both kept alive.
pub struct Polling {
    polls: Http,
    posts: Http,
    address: SocketAddr,
    pub sid: String,
    /// Where the session's requests go.
    pub target: String,
}

impl Polling {
    /// Opens a session at an endpoint.
    #[track_caller]
    pub fn open(server: &Server, endpoint: &str) -> Polling {
        let target = format!("{endpoint}?EIO=4&transport=polling");
        let mut polls = Http::connect(server.listen);
        let response = polls.ask(get(&target));
        let sid = sid_of(&response.body, '0');
        let (posts, target) = (Http::connect(server.listen), format!("{target}&sid={sid}"));
        Polling { polls, posts, address: server.listen, sid, target }
    }

    /// A Socket.IO client in the namespace `/`, and its socket's id.
    #[track_caller]
    pub fn socket_io(server: &Server) -> (Polling, String) {
        let mut session = Polling::open(server, "/socket.io/");
        session.post(&["40"]);
        let socket = sid_of(session.poll().strip_prefix('4').unwrap(), '0');
        (session, socket)
    }

    /// A Socket.IO client in a room of [`super::OPEN`].
    #[track_caller]
    pub fn in_room(server: &Server, room: &str) -> Polling {
        let (mut session, _) = Polling::socket_io(server);
        session.join(room);
        session
    }

    /// Joins a room of [`super::OPEN`].
    #[track_caller]
    pub fn join(&mut self, room: &str) {
        self.post(&[&format!(r#"420["subscribe",{{"room":"{room}"}}]"#)]);
        let answers = [format!(r#"42["subscribed",{{"room":"{room}"}}]"#), r#"430["ok"]"#.to_owned()];
        assert_eq!(self.packets(2), answers);
    }

    /// Packets of one POST, which must be taken.
    #[track_caller]
    pub fn post(&mut self, packets: &[&str]) {
        let response = self.posts.ask(post(&self.target, &packets.join("\x1e")));
        assert_eq!((response.status, response.body.as_str()), (200, "ok"));
    }

    /// What one poll gives.
    #[track_caller]
    pub fn poll(&mut self) -> String {
        self.polls.write(get(&self.target));
        self.polled()
    }

    /// Polls until there are `count` packets.
    #[track_caller]
    pub fn packets(&mut self, count: usize) -> Vec<String> {
        let mut packets = Vec::new();
        while packets.len() < count {
            packets.extend(self.poll().split(SEPARATOR).map(str::to_owned));
        }
        assert_eq!(packets.len(), count, "{packets:?}");
        packets
    }

    /// Has a poll wait. It does when this returns: the server has answered a later request of the session.
    #[track_caller]
    pub fn begin_poll(&mut self) {
        self.polls.write(get(&self.target));
        // A pong that nobody asked for.
        self.post(&["3"]);
    }

    /// The answer to the poll that waits.
    #[track_caller]
    pub fn polled(&mut self) -> String {
        let Response { status, body, .. } = self.polls.response();
        assert_eq!(status, 200, "{body}");
        body
    }

    /// A new connection to the session's server.
    #[track_caller]
    pub fn connect(&self) -> Http {
        Http::connect(self.address)
    }

    /// A new connection on which a WebSocket that names the session is opened.
    #[track_caller]
    pub fn websocket(&self) -> Wire {
        let mut wire = Wire::connect_to(self.address);
        wire.write(wire::handshake(&self.target.replace("polling", "websocket")));
        wire.upgraded();
        wire
    }

    /// The connection of the polls.
    pub fn polls(&mut self) -> &mut Http {
        &mut self.polls
    }

    /// The server must not know the session.
    #[track_caller]
    pub fn is_gone(&self) {
        let response = self.connect().ask(get(&self.target));
        assert_eq!((response.status, response.body), (400, refusal(1)));
    }
}

/// The id in an Engine.IO or Socket.IO handshake.
#[track_caller]
fn sid_of(packet: &str, kind: char) -> String {
    let json = packet.strip_prefix(kind).unwrap_or_else(|| panic!("{packet:?}"));
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    json["sid"].as_str().unwrap().to_owned()
}
