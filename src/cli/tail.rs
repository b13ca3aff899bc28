//! `roomcast tail`: joins rooms over a raw endpoint and prints what comes. A plain blocking WebSocket client that says
//! `{"type":"subscribe","data":{"room":…}}`, as the development config wants it; knows nothing else of the server.

use std::io::Write;
use std::net::TcpStream;

use tungstenite::handshake::HandshakeError;
use tungstenite::http::Uri;
use tungstenite::{Message, WebSocket};

use super::args::Tail;
use super::publish::connect;
use super::say;
use crate::proto::json;

/// Prints events until the connection ends, or nobody reads `out` any more.
///
/// # Errors
/// The server cannot be reached, refuses a room, or ends the connection.
pub(super) fn run(tail: &Tail, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), String> {
    let mut socket = open(&tail.url)?;
    for room in &tail.rooms {
        let mut text = String::from("{\"type\":\"subscribe\",\"data\":{\"room\":");
        json::escape_into(&mut text, room);
        text.push_str("}}");
        socket.send(Message::text(text)).map_err(|error| ended(&error))?;
    }
    let mut awaited: Vec<&str> = tail.rooms.iter().map(String::as_str).collect();
    let mut scratch = json::Scratch::default();
    loop {
        // Pings are answered inside.
        let text = match socket.read() {
            Ok(Message::Text(text)) => text,
            Ok(Message::Close(Some(close))) => {
                return Err(format!("the server closed the connection: {} {}", u16::from(close.code), close.reason));
            }
            Ok(Message::Close(None)) => return Err("the server closed the connection without saying why".to_owned()),
            Ok(_) => continue,
            Err(error) => return Err(ended(&error)),
        };
        let event = json::validate(text.as_bytes(), &mut scratch)
            .map_err(|error| format!("the server sent something else than JSON: {error}"))?;
        if let Some(room) = field(event, "room").filter(|_| is_type(event, "subscribed"))
            && let Some(index) = awaited.iter().position(|awaited| *awaited == room)
        {
            awaited.swap_remove(index);
            say(err, &format!("joined {room}"))?;
        } else if is_type(event, "error") {
            let reason = field(event, "message").unwrap_or_else(|| event.to_owned());
            return Err(format!("the server refuses: {reason}; its rules say who may join what"));
        } else if !say(out, &one_line(event))? {
            return Ok(());
        }
    }
}

fn is_type(event: &str, name: &str) -> bool {
    json::get(event, "type").is_some_and(|found| json::spells(found, name))
}

/// A text in the event's data, nested or flat.
fn field(event: &str, name: &str) -> Option<String> {
    let object = json::get(event, "data").filter(|data| json::kind(data) == json::Kind::Object).unwrap_or(event);
    json::get(object, name).and_then(json::unescape).map(Into::into)
}

/// In valid JSON a line break is space between values.
fn one_line(event: &str) -> String {
    event.trim().replace(['\n', '\r'], " ")
}

fn open(url: &str) -> Result<WebSocket<TcpStream>, String> {
    let address = address(url)?;
    let stream = connect(&address).map_err(|error| {
        format!(
            "cannot reach {address}: {error}; is `roomcast serve` running? It says at its start which ports it has; \
             name another with --url"
        )
    })?;
    let (socket, _) = tungstenite::client(url, stream).map_err(|error| match error {
        HandshakeError::Failure(tungstenite::Error::Http(response)) => {
            let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            format!("{url} is no raw endpoint: HTTP status {}. {}", response.status(), body.trim())
        }
        HandshakeError::Failure(error) => format!("{url} does not speak WebSocket: {error}"),
        HandshakeError::Interrupted(_) => format!("{url} does not finish the WebSocket handshake"),
    })?;
    // A room may be silent for hours. The server's pings are its own business.
    socket.get_ref().set_read_timeout(None).map_err(|error| format!("cannot set up the connection: {error}"))?;
    Ok(socket)
}

/// HOST:PORT of a `ws:` URL.
fn address(url: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("--url {url}: {why}, as in ws://127.0.0.1:3000/ws");
    let uri: Uri = url.parse().map_err(|error| wrong(&format!("not a URL ({error}); it must look")))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("ws"), Some(host)) => Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80))),
        (Some("wss"), _) => Err(wrong("this client speaks no TLS; name the server's own port")),
        _ => Err(wrong("must begin with ws:// and a host")),
    }
}

fn ended(error: &tungstenite::Error) -> String {
    format!("the connection ended: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

    /// Runs `tail` on the rooms `a` and `b"` against `server`; returns standard output, standard error and the result.
    fn against(
        server: impl FnOnce(&mut WebSocket<TcpStream>) + Send + 'static,
    ) -> (String, String, Result<(), String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
            for room in [r#""a""#, r#""b\"""#] {
                let wanted = format!("{{\"type\":\"subscribe\",\"data\":{{\"room\":{room}}}}}");
                assert_eq!(socket.read().unwrap(), Message::text(wanted));
            }
            server(&mut socket);
        });
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let result = run(&Tail { url, rooms: vec!["a".into(), "b\"".into()] }, &mut out, &mut err);
        server.join().unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), result)
    }

    #[test]
    fn events_are_lines() {
        let (out, err, result) = against(|socket| {
            for text in [
                r#"{"type":"subscribed","data":{"room":"a"}}"#,
                "{\"type\":\"x\",\"data\":{\"n\":\n1.0}}",
                r#"{"type":"subscribed","room":"b\""}"#,
                r#"{"type":"subscribed","data":{"room":"a"}}"#,
            ] {
                socket.send(Message::text(text)).unwrap();
            }
            socket.send(Message::Ping("beat".into())).unwrap();
            assert_eq!(socket.read().unwrap(), Message::Pong("beat".into()));
            socket.close(Some(CloseFrame { code: CloseCode::Away, reason: "shutdown".into() })).unwrap();
        });
        // The second answer for `a` answers nothing: an event as others.
        assert_eq!(
            out,
            "{\"type\":\"x\",\"data\":{\"n\": 1.0}}\n{\"type\":\"subscribed\",\"data\":{\"room\":\"a\"}}\n"
        );
        assert_eq!(err, "joined a\njoined b\"\n");
        assert_eq!(result, Err("the server closed the connection: 1001 shutdown".to_owned()));
    }

    #[test]
    fn a_refusal_ends_it() {
        let (_, _, result) = against(|socket| {
            let error = r#"{"type":"error","data":{"message":"no rule allows this","event":"subscribe"}}"#;
            socket.send(Message::text(error)).unwrap();
        });
        let error = "the server refuses: no rule allows this; its rules say who may join what";
        assert_eq!(result, Err(error.to_owned()));
        let (_, _, result) = against(|_| {});
        assert!(result.unwrap_err().starts_with("the connection ended: "));
    }

    #[test]
    fn a_server_that_is_not_there_is_told() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let error = open(&format!("ws://{address}/ws")).unwrap_err();
        assert!(error.starts_with(&format!("cannot reach {address}: Connection refused")), "{error}");
        assert!(error.contains("is `roomcast serve` running?"), "{error}");
    }

    #[test]
    fn urls() {
        for (url, host) in [("ws://h:1/ws", "h:1"), ("ws://h", "h:80"), ("ws://[::1]:5/a?b=c", "[::1]:5")] {
            assert_eq!(address(url).as_deref(), Ok(host), "{url}");
        }
        for (url, word) in
            [("wss://h/ws", "TLS"), ("http://h", "ws://"), ("127.0.0.1:3000", "ws://"), ("", "URL"), ("/ws", "ws")]
        {
            assert!(address(url).unwrap_err().contains(word), "{url}");
        }
    }
}
