//! HTTP/1.1 responses as bytes. Does not know what was asked, nor who may read the answer.

use std::io::Write;

use super::Upgrade;

/// Appends the response that opens a WebSocket (RFC 6455, section 4.2.2). Frames follow it.
pub fn write_upgrade_response(out: &mut Vec<u8>, upgrade: &Upgrade) {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    write_header(out, "Sec-WebSocket-Accept", &upgrade.accept);
    if let Some(protocol) = &upgrade.protocol {
        write_header(out, "Sec-WebSocket-Protocol", protocol);
    }
    out.extend_from_slice(b"\r\n");
}

/// The interim response that a client waits for if [`expects_continue`](super::expects_continue).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a response says about its connection (RFC 9112, section 9.3). [`Head::connection`](super::Head::connection) is
/// the client's wish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// It stays open, which goes without saying in HTTP/1.1.
    #[default]
    Persistent,
    /// It stays open, said aloud: a client of HTTP/1.0 expects the contrary.
    KeepAlive,
    /// It ends with this response.
    Close,
}

/// A response with all of its body.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// For its words see [`reason_phrase`].
    pub status: u16,
    /// Left out if the body is empty.
    pub content_type: &'a str,
    /// Empty for a 204.
    pub body: &'a [u8],
    /// Further headers. Control characters in values become spaces.
    pub headers: &'a [(&'a str, &'a str)],
    /// Further headers as lines, each ended by `\r\n`: those of [`Cors`](crate::proto::cors::Cors).
    pub raw_headers: &'a str,
    /// Now, as RFC 9110, section 5.6.7 writes it; empty for a server without a clock.
    pub date: &'a str,
    /// What becomes of the connection.
    pub connection: Connection,
    /// True for an answer to HEAD: the head of what GET would give, with the length of a body that is not sent.
    pub head_only: bool,
}

impl<'a> Response<'a> {
    /// Without further headers, on a connection that stays open.
    #[must_use]
    pub fn new(status: u16, content_type: &'a str, body: &'a [u8]) -> Response<'a> {
        let connection = Connection::Persistent;
        Response { status, content_type, body, headers: &[], raw_headers: "", date: "", connection, head_only: false }
    }

    /// Appends it. A 204 has no `Content-Length` (RFC 9110, section 8.6).
    ///
    /// # Panics
    /// If the status is 204 and there is a body, or if a line of `raw_headers` is not ended.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Response { status, body, raw_headers, .. } = *self;
        assert!(status != 204 || body.is_empty(), "a 204 with a body of {} bytes", body.len());
        assert!(raw_headers.is_empty() || raw_headers.ends_with("\r\n"), "the last line is not ended: {raw_headers}");
        write!(out, "HTTP/1.1 {status} {}\r\n", reason_phrase(status)).expect("a Vec takes any bytes");
        if !body.is_empty() {
            write_header(out, "Content-Type", self.content_type);
        }
        if status != 204 {
            write!(out, "Content-Length: {}\r\n", body.len()).expect("a Vec takes any bytes");
        }
        if !self.date.is_empty() {
            write_header(out, "Date", self.date);
        }
        for (name, value) in self.headers {
            write_header(out, name, value);
        }
        out.extend_from_slice(raw_headers.as_bytes());
        match self.connection {
            Connection::Persistent => {}
            Connection::KeepAlive => write_header(out, "Connection", "keep-alive"),
            Connection::Close => write_header(out, "Connection", "close"),
        }
        out.extend_from_slice(b"\r\n");
        if !self.head_only {
            out.extend_from_slice(body);
        }
    }
}

/// The words that go with a status that we use (RFC 9110, section 15); empty, as is allowed, for any other.
#[must_use]
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Header values may come from clients (an echoed `Origin`), and a line break in one would start a header or a body of
/// their choice: control characters become spaces.
fn write_header(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses() {
        let written = |response: Response<'_>| {
            let mut out = Vec::new();
            response.write(&mut out);
            String::from_utf8(out).unwrap()
        };
        let text = Response::new(400, "text/plain", b"no");
        let raw_headers = "Access-Control-Allow-Origin: *\r\nVary: Origin\r\n";
        let rows = [
            (
                Response { headers: &[("Cache-Control", "no-store")], ..Response::new(200, "application/json", b"{}") },
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
                 Cache-Control: no-store\r\n\r\n{}",
            ),
            (
                Response { connection: Connection::Close, headers: &[("A", "b"), ("C", "d")], raw_headers, ..text },
                "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nA: b\r\nC: d\r\n\
                 Access-Control-Allow-Origin: *\r\nVary: Origin\r\nConnection: close\r\n\r\nno",
            ),
            (
                Response { connection: Connection::KeepAlive, ..text },
                "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\
                 Connection: keep-alive\r\n\r\nno",
            ),
            (
                Response { head_only: true, ..text },
                "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n",
            ),
            (Response::new(404, "text/plain", b""), "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            (
                Response { raw_headers: "A: b\r\n", ..Response::new(204, "", b"") },
                "HTTP/1.1 204 No Content\r\nA: b\r\n\r\n",
            ),
            (
                Response { headers: &[("A", "x\r\nSet-Cookie: a")], ..Response::new(200, "", b"") },
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA: x  Set-Cookie: a\r\n\r\n",
            ),
        ];
        for (response, expected) in rows {
            assert_eq!(written(response), expected);
        }
        let mut out = Vec::new();
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
        write_upgrade_response(&mut out, &Upgrade { accept, protocol: None });
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        for status in [200, 204, 400, 401, 403, 404, 405, 408, 413, 417, 426, 429, 431, 500, 501, 503, 505] {
            assert!(!reason_phrase(status).is_empty(), "{status}");
        }
    }
}
