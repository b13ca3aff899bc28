//! HTTP/1.1 request heads, bodies, responses and the WebSocket opening handshake as values. Does not know sockets,
//! routes or who may ask for what.

mod body;
mod query;
mod response;

use std::fmt;

use httparse::Header;
use tungstenite::handshake::derive_accept_key;

pub use self::body::{Body, BodyError, BodyStep};
pub use self::query::query_pairs;
pub use self::response::{CONTINUE, Connection, Response, reason_phrase, write_upgrade_response};

/// Headers that a request may have: generous for a browser behind proxies, and 2 KB of scratch space on the stack.
pub const HEADERS_MAX: usize = 64;
const _: () = assert!(HEADERS_MAX * size_of::<Header<'_>>() == 2048);
/// Parameters that a query may have. Rules read it with each of a client's events: with the 4,000 that fit into a head,
/// an event of a few bytes cost as much as a hundred others.
pub const PARAMETERS_MAX: usize = 64;

/// A request without its body. Everything in it is borrowed from the buffer it was parsed from.
#[derive(Clone, Copy, Debug)]
pub struct Head<'h, 'b> {
    /// As it was sent: methods are case-sensitive.
    pub method: &'b str,
    /// The target up to the `?`, not percent-decoded. Starts with `/`, or is `*`.
    pub path: &'b str,
    /// What follows the `?`, not decoded (see [`query_pairs`]); empty if there is none.
    pub query: &'b str,
    /// The version's digit after the point: 1, or 0 from old clients and from proxies, of which nginx speaks HTTP/1.0
    /// to upstreams unless told otherwise.
    pub minor_version: u8,
    /// In the order sent. Values are trimmed, free of control characters, and not always UTF-8.
    pub headers: &'h [Header<'b>],
}

/// What [`parse_head`] found at the start of the buffer.
#[derive(Clone, Copy, Debug)]
pub enum HeadStep<'h, 'b> {
    /// Not all of the head is there, nothing wrong so far.
    Incomplete,
    /// A whole head.
    Complete {
        /// Bytes of the buffer that it takes, with the empty line. The body, or the first frame, follows.
        bytes: usize,
        /// What they say.
        head: Head<'h, 'b>,
    },
}

/// Reads the request head at the start of `buffer`, which is everything received and not consumed yet. `headers` is
/// scratch space: `[httparse::EMPTY_HEADER; HEADERS_MAX]`.
///
/// # Errors
/// The head takes more than `head_bytes_max` bytes or has more headers than `headers` has room for, or it is not
/// HTTP/1.1 or HTTP/1.0 (RFC 9112). Nothing that comes after it on the connection can be understood.
pub fn parse_head<'h, 'b>(
    buffer: &'b [u8],
    headers: &'h mut [Header<'b>],
    head_bytes_max: usize,
) -> Result<HeadStep<'h, 'b>, HeadError> {
    let headers_max = headers.len();
    // Only this part is looked at, so that the verdict does not depend on how much arrived in one read.
    let window = &buffer[..buffer.len().min(head_bytes_max)];
    let mut request = httparse::Request::new(headers);
    let bytes = match request.parse(window) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if window.len() < head_bytes_max => return Ok(HeadStep::Incomplete),
        Ok(httparse::Status::Partial) => return Err(HeadError::TooLong { max: head_bytes_max }),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders { max: headers_max }),
        Err(httparse::Error::Version) if names_a_version(window, &request) => return Err(HeadError::Version),
        Err(error) => return Err(HeadError::Malformed(error)),
    };
    // It may be read as the end of a line (RFC 9112, section 2.2), and httparse does. A proxy in front of us that does
    // not has seen other headers than we would (request smuggling).
    let head = &window[..bytes];
    if memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r') {
        return Err(HeadError::BareLineFeed);
    }
    // httparse knows no other than these two.
    let minor_version = request.version.filter(|minor| *minor <= 1).ok_or(HeadError::Version)?;
    let (path, query) = request.path.and_then(split_target).ok_or(HeadError::Target)?;
    if query.bytes().filter(|byte| *byte == b'&').count() >= PARAMETERS_MAX {
        return Err(HeadError::TooManyParameters { max: PARAMETERS_MAX });
    }
    let method = request.method.unwrap_or_default();
    let head = Head { method, path, query, minor_version, headers: request.headers };
    match (head.values("host").count(), minor_version) {
        (1, _) | (0, 0) => {}
        _ => return Err(HeadError::Host),
    }
    Ok(HeadStep::Complete { bytes, head })
}

impl<'b> Head<'_, 'b> {
    /// The values of every header called `name`, whatever its case.
    pub fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &'b [u8]> {
        self.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// The value of the first header called `name`, whatever its case. Bytes, so that a value that is not UTF-8 is not
    /// mistaken for one that is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.values(name).next()
    }

    /// The elements of the list-valued header `name` (RFC 9110, section 5.6.1), over all of its lines.
    pub fn tokens(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|token| !token.is_empty())
    }

    /// True if the list-valued header `name` contains `token`, whatever their case.
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|t| t.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// False if the connection is to be closed after the response (RFC 9112, section 9.3).
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        !self.has_token("connection", "close")
            && (self.minor_version >= 1 || self.has_token("connection", "keep-alive"))
    }

    /// What the response says about the connection, if the server has no wish of its own to close it.
    #[must_use]
    pub fn connection(&self) -> Connection {
        match (self.keep_alive(), self.minor_version) {
            (false, _) => Connection::Close,
            (true, 0) => Connection::KeepAlive,
            (true, _) => Connection::Persistent,
        }
    }
}

/// Where a request's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// After this many bytes; 0 if there is no body.
    Bytes(u64),
    /// With the last chunk (RFC 9112, section 7.1).
    Chunked,
}

/// Where the body of the request ends (RFC 9112, section 6.3).
///
/// # Errors
/// The head leaves it open or says it twice. A proxy in front of us may have read it the other way, so that what it
/// took for a body would be a request to us (request smuggling): answer, then close the connection.
pub fn body_length(head: &Head<'_, '_>) -> Result<BodyLength, HeadError> {
    let mut length = None;
    for value in head.values("content-length").flat_map(|value| value.split(|&byte| byte == b',')) {
        let bytes = parse_length(value.trim_ascii()).ok_or(HeadError::ContentLength)?;
        if length.is_some_and(|before| before != bytes) {
            return Err(HeadError::ContentLengths);
        }
        length = Some(bytes);
    }
    if head.header("transfer-encoding").is_none() {
        return Ok(BodyLength::Bytes(length.unwrap_or(0)));
    }
    // RFC 9112, section 6.1: a proxy of that version has passed on what it does not understand.
    if head.minor_version == 0 {
        return Err(HeadError::CodingInHttp10);
    }
    if length.is_some() {
        return Err(HeadError::LengthAndCoding);
    }
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let (mut codings, mut chunked, mut last_is_chunked) = (0, 0, false);
    for coding in head.tokens("transfer-encoding") {
        codings += 1;
        last_is_chunked = is_chunked(coding);
        chunked += usize::from(last_is_chunked);
    }
    match (codings, chunked, last_is_chunked) {
        (1, 1, true) => Ok(BodyLength::Chunked),
        // Only the coding before it is foreign: well-formed, but not for us.
        (_, 1, true) => Err(HeadError::CodingUnknown),
        _ => Err(HeadError::CodingOpenEnded),
    }
}

/// True if the client waits for [`CONTINUE`] before it sends the body (RFC 9110, section 10.1.1). It waits a while
/// only, so that the body may come without.
///
/// # Errors
/// It expects something that nobody has defined yet.
pub fn expects_continue(head: &Head<'_, '_>) -> Result<bool, HeadError> {
    if head.minor_version == 0 {
        return Ok(false);
    }
    if head.tokens("expect").any(|expectation| !expectation.eq_ignore_ascii_case(b"100-continue")) {
        return Err(HeadError::ExpectationUnknown);
    }
    Ok(head.tokens("expect").next().is_some())
}

/// A client's valid wish to speak WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The value of `Sec-WebSocket-Accept` that proves we understood.
    pub accept: String,
    /// The first subprotocol that the client offers. It is taken, as its messages' meaning is not ours to judge:
    /// browsers give up if they offered some and none was taken.
    pub protocol: Option<String>,
}

/// Checks the client's opening handshake (RFC 6455, section 4.2.1). Extensions are left unanswered.
///
/// # Errors
/// The first requirement that the request does not meet; its [`HeadError::headers`] tell the client what would be
/// taken.
pub fn websocket_upgrade(head: &Head<'_, '_>) -> Result<Upgrade, HeadError> {
    if head.method != "GET" {
        return Err(HeadError::NotGet);
    }
    // Before the headers, as a proxy that speaks HTTP/1.0 usually lacks them as well.
    if head.minor_version == 0 {
        return Err(HeadError::UpgradeInHttp10);
    }
    if !head.has_token("upgrade", "websocket") {
        return Err(HeadError::NoUpgrade("Upgrade: websocket"));
    }
    if !head.has_token("connection", "upgrade") {
        return Err(HeadError::NoUpgrade("Connection: Upgrade"));
    }
    if only(head.values("sec-websocket-version")) != Some(b"13") {
        return Err(HeadError::WebSocketVersion);
    }
    let key = only(head.values("sec-websocket-key")).filter(|key| is_websocket_key(key));
    let key = key.ok_or(HeadError::WebSocketKey)?;
    // A proxy that forwards a body here would have us read it as frames.
    if body_length(head)? != BodyLength::Bytes(0) {
        return Err(HeadError::UpgradeWithBody);
    }
    let protocol = head.tokens("sec-websocket-protocol").next().and_then(|name| std::str::from_utf8(name).ok());
    Ok(Upgrade { accept: derive_accept_key(key), protocol: protocol.map(ToOwned::to_owned) })
}

/// A request that is not served, and whose fault that is: always the client's, or a proxy's between us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// Not HTTP at all, or broken.
    Malformed(httparse::Error),
    /// The request target is neither a path nor an absolute URL.
    Target,
    /// Another version of HTTP.
    Version,
    /// RFC 9112, section 3.2: exactly one `Host` header.
    Host,
    /// The head is longer than we take.
    TooLong {
        /// Bytes allowed.
        max: usize,
    },
    /// More headers than we take.
    TooManyHeaders {
        /// Headers allowed.
        max: usize,
    },
    /// More parameters in the query than we take.
    TooManyParameters {
        /// Parameters allowed.
        max: usize,
    },
    /// `Content-Length` is no number.
    ContentLength,
    /// There are several `Content-Length`s, and they differ.
    ContentLengths,
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndCoding,
    /// A `Transfer-Encoding` that does not tell where the body ends.
    CodingOpenEnded,
    /// A `Transfer-Encoding` other than `chunked`.
    CodingUnknown,
    /// A `Transfer-Encoding` in a request by HTTP/1.0, which has none.
    CodingInHttp10,
    /// An `Expect` other than `100-continue`.
    ExpectationUnknown,
    /// A WebSocket handshake by HTTP/1.0, which cannot upgrade.
    UpgradeInHttp10,
    /// A WebSocket handshake by a method other than `GET`.
    NotGet,
    /// This header is missing from a WebSocket handshake.
    NoUpgrade(&'static str),
    /// `Sec-WebSocket-Version` is not 13.
    WebSocketVersion,
    /// `Sec-WebSocket-Key` is not 16 bytes in base64.
    WebSocketKey,
    /// A WebSocket handshake with a body.
    UpgradeWithBody,
    /// A WebSocket handshake by a page of an origin that may not.
    Origin,
    /// A line that ends with a line feed alone.
    BareLineFeed,
}

impl HeadError {
    /// The status to answer with.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            HeadError::Origin => 403,
            HeadError::NotGet => 405,
            HeadError::ExpectationUnknown => 417,
            HeadError::NoUpgrade(_) | HeadError::UpgradeInHttp10 | HeadError::WebSocketVersion => 426,
            HeadError::TooLong { .. } | HeadError::TooManyHeaders { .. } => 431,
            HeadError::CodingUnknown => 501,
            HeadError::Version => 505,
            _ => 400,
        }
    }

    /// Headers that the answer must carry beside the usual ones, for [`Response::headers`].
    #[must_use]
    pub fn headers(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            HeadError::NotGet => &[("Allow", "GET")],
            // RFC 9110, section 15.5.22 wants `Upgrade` (and so `Connection`), RFC 6455, section 4.4 the version.
            HeadError::NoUpgrade(_) | HeadError::UpgradeInHttp10 | HeadError::WebSocketVersion => {
                &[("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
            }
            _ => &[],
        }
    }

    /// A metrics label: one word in `snake_case`, one per variant.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            HeadError::Malformed(_) => "malformed",
            HeadError::Target => "target",
            HeadError::Version => "http_version",
            HeadError::Host => "host",
            HeadError::TooLong { .. } => "too_long",
            HeadError::TooManyHeaders { .. } => "too_many_headers",
            HeadError::TooManyParameters { .. } => "too_many_parameters",
            HeadError::ContentLength => "content_length",
            HeadError::ContentLengths => "content_lengths",
            HeadError::LengthAndCoding => "length_and_coding",
            HeadError::CodingOpenEnded => "coding_open_ended",
            HeadError::CodingUnknown => "coding_unknown",
            HeadError::CodingInHttp10 => "coding_in_http_1_0",
            HeadError::ExpectationUnknown => "expectation",
            HeadError::UpgradeInHttp10 => "upgrade_in_http_1_0",
            HeadError::NotGet => "not_get",
            HeadError::NoUpgrade(_) => "no_upgrade",
            HeadError::WebSocketVersion => "websocket_version",
            HeadError::WebSocketKey => "websocket_key",
            HeadError::UpgradeWithBody => "upgrade_with_body",
            HeadError::Origin => "origin",
            HeadError::BareLineFeed => "bare_line_feed",
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadError::Malformed(error) => write!(f, "the request is malformed: {error}"),
            HeadError::Target => f.write_str("the request target is neither a path nor an absolute URL"),
            HeadError::Version => f.write_str("only HTTP/1.1 and HTTP/1.0 are spoken here"),
            HeadError::Host => f.write_str("the request must have exactly one Host header"),
            HeadError::TooLong { max } => write!(f, "the request head has more than {max} bytes"),
            HeadError::TooManyHeaders { max } => write!(f, "the request has more than {max} headers"),
            HeadError::TooManyParameters { max } => write!(f, "the query has more than {max} parameters"),
            HeadError::ContentLength => f.write_str("Content-Length is not a number of bytes"),
            HeadError::ContentLengths => f.write_str("the request has several Content-Length values that differ"),
            HeadError::LengthAndCoding => f.write_str("the request has both Content-Length and Transfer-Encoding"),
            HeadError::CodingOpenEnded => f.write_str("Transfer-Encoding must end in a single \"chunked\""),
            HeadError::CodingUnknown => f.write_str("the only Transfer-Encoding understood is \"chunked\""),
            HeadError::CodingInHttp10 => f.write_str("HTTP/1.0 has no Transfer-Encoding"),
            HeadError::ExpectationUnknown => f.write_str("the only expectation understood is \"100-continue\""),
            HeadError::UpgradeInHttp10 => f.write_str(
                "a WebSocket handshake must use HTTP/1.1: let proxies speak it (nginx: proxy_http_version 1.1)",
            ),
            HeadError::NotGet => f.write_str("a WebSocket handshake must use GET"),
            HeadError::NoUpgrade(header) => {
                write!(f, "\"{header}\" is missing: use a WebSocket client, and let proxies pass this header on")
            }
            HeadError::WebSocketVersion => f.write_str("Sec-WebSocket-Version must be 13"),
            HeadError::WebSocketKey => f.write_str("Sec-WebSocket-Key must be 16 bytes in base64"),
            HeadError::UpgradeWithBody => f.write_str("a WebSocket handshake must not have a body"),
            HeadError::Origin => {
                f.write_str("pages of this origin may not open a WebSocket here: the server's cors.origins lacks it")
            }
            HeadError::BareLineFeed => f.write_str("a line of the request's head ends without a carriage return"),
        }
    }
}

impl std::error::Error for HeadError {}

/// True if httparse stopped at a version that it does not know, false if it stopped at something else in that place.
fn names_a_version(buffer: &[u8], request: &httparse::Request<'_, '_>) -> bool {
    let (Some(method), Some(path)) = (request.method, request.path) else { return false };
    let line = buffer.trim_ascii_start();
    let version = line.get(method.len() + 1 + path.len() + 1..).unwrap_or_default();
    version.strip_prefix(b"HTTP/").and_then(<[u8]>::first).is_some_and(u8::is_ascii_digit)
}

/// Path and query of a request target (RFC 9112, section 3.2), whose forms are `/path`, `http://host/path`, `*`, and,
/// for CONNECT only, `host:port`.
fn split_target(target: &str) -> Option<(&str, &str)> {
    if target == "*" {
        return Some((target, ""));
    }
    let local = if target.starts_with('/') {
        target
    } else {
        let (scheme, rest) = target.split_once("://")?;
        if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        &rest[rest.find(['/', '?']).unwrap_or(rest.len())..]
    };
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    Some((if path.is_empty() { "/" } else { path }, query))
}

/// Digits only: `parse` alone would take a `+`, which others may read otherwise.
fn parse_length(value: &[u8]) -> Option<u64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    digits.then(|| str::from_utf8(value).ok()?.parse().ok()).flatten()
}

/// The only item, or nothing if there are more.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

/// A character of a token (RFC 9110, section 5.6.2): names of methods and headers consist of them.
#[must_use]
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// 16 bytes in base64 are 22 characters and `==`. Whether the four spare bits are zero is not looked at: the Node
/// server that clients speak to today does not either.
fn is_websocket_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use httparse::EMPTY_HEADER;
    use proptest::prelude::*;

    const MAX: usize = 8192;
    /// A token (RFC 9110, section 5.6.2).
    const HEADER_NAME: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}";
    const HEADER_VALUE: &str = "([!-~]([ -~]{0,30}[!-~])?)?";

    /// What a test wants to know of a head, free of lifetimes.
    #[derive(Clone, Debug, PartialEq)]
    struct Parsed {
        bytes: usize,
        line: (String, String, String),
        headers: Vec<(String, Vec<u8>)>,
    }

    /// `None` while incomplete.
    fn parse(buffer: &[u8], max: usize) -> Result<Option<Parsed>, HeadError> {
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        Ok(match parse_head(buffer, &mut headers, max)? {
            HeadStep::Incomplete => None,
            HeadStep::Complete { bytes, head } => Some(Parsed {
                bytes,
                line: (head.method.into(), head.path.into(), head.query.into()),
                headers: head.headers.iter().map(|h| (h.name.into(), h.value.into())).collect(),
            }),
        })
    }

    /// Asks `question` of a GET request with these header lines (and a Host).
    fn ask<T>(lines: &[&str], question: impl FnOnce(&Head<'_, '_>) -> T) -> T {
        ask_line("GET /ws HTTP/1.1", lines, question)
    }

    fn ask_line<T>(request_line: &str, lines: &[&str], question: impl FnOnce(&Head<'_, '_>) -> T) -> T {
        let text = format!(
            "{request_line}\r\nHost: a\r\n{}\r\n",
            lines.iter().map(|l| format!("{l}\r\n")).collect::<String>()
        );
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        match parse_head(text.as_bytes(), &mut headers, MAX) {
            Ok(HeadStep::Complete { bytes, head }) => {
                assert_eq!(bytes, text.len());
                question(&head)
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn request_lines() {
        let yes = [
            ("GET / HTTP/1.1", "GET", "/", ""),
            ("GET /socket.io/?EIO=4&transport=websocket HTTP/1.1", "GET", "/socket.io/", "EIO=4&transport=websocket"),
            ("POST /api/emit? HTTP/1.1", "POST", "/api/emit", ""),
            ("GET /a?b?c HTTP/1.1", "GET", "/a", "b?c"),
            ("GET /a%20b HTTP/1.1", "GET", "/a%20b", ""),
            ("GET /a://b HTTP/1.1", "GET", "/a://b", ""),
            ("get / HTTP/1.1", "get", "/", ""),
            ("OPTIONS * HTTP/1.1", "OPTIONS", "*", ""),
            ("GET http://host:3000/a?b HTTP/1.1", "GET", "/a", "b"),
            ("GET HTTP://host HTTP/1.1", "GET", "/", ""),
            ("GET http://host?b=/c HTTP/1.1", "GET", "/", "b=/c"),
            ("POST /socket.io/?EIO=4 HTTP/1.0", "POST", "/socket.io/", "EIO=4"),
        ];
        for (line, method, path, query) in yes {
            ask_line(line, &[], |head| {
                assert_eq!((head.method, head.path, head.query), (method, path, query), "{line}");
                assert_eq!(head.minor_version, u8::from(!line.ends_with('0')), "{line}");
            });
        }
        assert!(parse(b"GET / HTTP/1.0\r\n\r\n", MAX).unwrap().is_some(), "HTTP/1.0 had no Host");
        let no: [(&str, u16, &str); 41] = [
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400, "host"),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "http_version"),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "http_version"),
            ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505, "http_version"),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_version"),
            ("\r\nGET / HTTP/3\r\n\r\n", 505, "http_version"),
            ("GET / HTTP/x\r\n\r\n", 400, "malformed"),
            ("GET / FTP/1.1\r\n\r\n", 400, "malformed"),
            ("GET /\r\n\r\n", 400, "malformed"),
            ("GET  / HTTP/1.1\r\n\r\n", 400, "malformed"),
            ("\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03", 400, "malformed"),
            ("CONNECT host:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"),
            ("GET relative HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"),
            ("GET ://a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1\r\n\r\n", 400, "host"),
            ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400, "host"),
            // Each of these has been read in two ways by two servers.
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "bare_line_feed"),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "bare_line_feed"),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400, "bare_line_feed"),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bare_line_feed"),
            ("GET / HTTP/1.1\nHost: a\n\n", 400, "bare_line_feed"),
            ("GET / HTTP/1.1\r\nHost: a\r\nA: b\nTransfer-Encoding: chunked\r\n\r\n", 400, "bare_line_feed"),
            ("GET / HTTP/1.1\r\nHost: a\r\nA: b\rTransfer-Encoding: chunked\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1\r\n\tTransfer-Encoding: chunked\r\nHost: a\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n chunked\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer\0-Encoding: chunked\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\0\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n", 400, "malformed"),
            ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
            ("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, "malformed"),
            ("GET / HTTP/1.1\tx\r\nHost: a\r\n\r\n", 400, "malformed"),
        ];
        for (text, status, label) in no {
            let error = parse(text.as_bytes(), MAX).expect_err(text);
            assert_eq!((error.status(), error.label()), (status, label), "{text}");
        }
    }

    #[test]
    fn heads_are_bounded() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody";
        let bytes = text.len() - 4;
        assert_eq!(parse(text, bytes).unwrap().unwrap().bytes, bytes);
        for len in 0..=text.len() {
            let expected = if len < bytes - 1 { Ok(None) } else { Err(HeadError::TooLong { max: bytes - 1 }) };
            assert_eq!(parse(&text[..len], bytes - 1), expected, "{len} bytes there");
        }
        let headers = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(n));
        assert_eq!(parse(headers(63).as_bytes(), MAX).unwrap().unwrap().headers.len(), 64);
        let error = parse(headers(64).as_bytes(), MAX).unwrap_err();
        assert_eq!((error, error.status()), (HeadError::TooManyHeaders { max: 64 }, 431));
        let parameters = |n: usize| format!("GET /?a{} HTTP/1.1\r\nHost: a\r\n\r\n", "&".repeat(n - 1));
        assert!(parse(parameters(64).as_bytes(), MAX).unwrap().is_some());
        let error = parse(parameters(65).as_bytes(), MAX).unwrap_err();
        assert_eq!((error, error.status()), (HeadError::TooManyParameters { max: 64 }, 400));
    }

    #[test]
    fn headers_are_found_whatever_their_case() {
        let lines = ["ORIGIN:  https://a.b \t", "connection: keep-alive,, Upgrade", "Connection:\tTE", "X: \u{e9}"];
        ask(&lines, |head| {
            assert_eq!(head.header("Origin"), Some(b"https://a.b".as_slice()));
            assert_eq!(head.header("x"), Some("é".as_bytes()));
            assert_eq!(head.header("cookie"), None);
            let tokens: Vec<_> = head.tokens("Connection").collect();
            assert_eq!(tokens, [b"keep-alive".as_slice(), b"Upgrade", b"TE"]);
            assert!(head.has_token("connection", "upgrade") && head.has_token("connection", "te"));
            assert!(!head.has_token("connection", "keep"), "a part of a token is none");
            assert!(head.keep_alive());
        });
    }

    #[test]
    fn connections_of_rfc_9112_section_9_3() {
        use Connection::{Close, KeepAlive, Persistent};
        for (version, lines, expected) in [
            ("1.1", &[][..], Persistent),
            ("1.1", &["Connection: keep-alive"], Persistent),
            ("1.1", &["Connection: Close"], Close),
            ("1.1", &["Connection: keep-alive", "Connection: TE, close"], Close),
            ("1.0", &[], Close),
            ("1.0", &["Connection: Keep-Alive"], KeepAlive),
            ("1.0", &["Connection: TE, keep-alive"], KeepAlive),
            ("1.0", &["Connection: keep-alive, close"], Close),
            ("1.0", &["Keep-Alive: timeout=5"], Close),
        ] {
            ask_line(&format!("GET / HTTP/{version}"), lines, |head| {
                assert_eq!(head.connection(), expected, "{version} {lines:?}");
                assert_eq!(head.keep_alive(), expected != Close, "{version} {lines:?}");
            });
        }
    }

    #[test]
    fn expectations_of_rfc_9110_section_10_1_1() {
        let unknown = Err(HeadError::ExpectationUnknown);
        for (version, lines, expected) in [
            ("1.1", &[][..], Ok(false)),
            ("1.1", &["Expect:"], Ok(false)),
            ("1.1", &["Expect: 100-continue"], Ok(true)),
            ("1.1", &["expect: 100-Continue"], Ok(true)),
            ("1.1", &["Expect: 100-continue, 100-continue"], Ok(true)),
            ("1.1", &["Expect: 200-ok"], unknown),
            ("1.1", &["Expect: 100-continue", "Expect: coffee"], unknown),
            ("1.1", &["Expect: 100-continue;q=1"], unknown),
            ("1.0", &["Expect: 100-continue"], Ok(false)),
            ("1.0", &["Expect: coffee"], Ok(false)),
        ] {
            let is = ask_line(&format!("POST / HTTP/{version}"), lines, expects_continue);
            assert_eq!(is, expected, "{version} {lines:?}");
        }
        assert_eq!(HeadError::ExpectationUnknown.status(), 417);
    }

    #[test]
    fn body_lengths_of_rfc_9112_section_6_3() {
        use BodyLength::*;
        use HeadError::*;
        let rows: [(&[&str], Result<BodyLength, HeadError>); 36] = [
            (&[], Ok(Bytes(0))),
            (&["Content-Length: 0"], Ok(Bytes(0))),
            (&["content-length: 42"], Ok(Bytes(42))),
            (&["Content-Length: 18446744073709551615"], Ok(Bytes(u64::MAX))),
            (&["Content-Length: 42", "Content-Length: 42"], Ok(Bytes(42))),
            (&["Content-Length: 42, 42"], Ok(Bytes(42))),
            (&["Transfer-Encoding: chunked"], Ok(Chunked)),
            (&["transfer-encoding: Chunked"], Ok(Chunked)),
            (&["Content-Length: 42", "Content-Length: 43"], Err(ContentLengths)),
            (&["Content-Length: 42, 43"], Err(ContentLengths)),
            (&["Content-Length: +42"], Err(ContentLength)),
            (&["Content-Length: -1"], Err(ContentLength)),
            (&["Content-Length: 4 2"], Err(ContentLength)),
            (&["Content-Length: 0x10"], Err(ContentLength)),
            (&["Content-Length:"], Err(ContentLength)),
            (&["Content-Length: 42,"], Err(ContentLength)),
            (&["Content-Length: 18446744073709551616"], Err(ContentLength)),
            (&["Content-Length: 5", "Transfer-Encoding: chunked"], Err(LengthAndCoding)),
            (&["Transfer-Encoding: chunked", "Content-Length: 0"], Err(LengthAndCoding)),
            (&["Transfer-Encoding: xchunked"], Err(CodingOpenEnded)),
            (&["Transfer-Encoding: identity"], Err(CodingOpenEnded)),
            (&["Transfer-Encoding:"], Err(CodingOpenEnded)),
            (&["Transfer-Encoding: chunked, gzip"], Err(CodingOpenEnded)),
            (&["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], Err(CodingOpenEnded)),
            (&["Transfer-Encoding: gzip, chunked"], Err(CodingUnknown)),
            (&["Transfer-Encoding: identity, chunked"], Err(CodingUnknown)),
            (&["Transfer-Encoding: identity", "Transfer-Encoding: chunked"], Err(CodingUnknown)),
            (&["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], Err(CodingOpenEnded)),
            (&["Transfer-Encoding: chunked, chunked"], Err(CodingOpenEnded)),
            (&["Transfer-Encoding: chunked;q=1"], Err(CodingOpenEnded)),
            (&["Transfer-Encoding: \"chunked\""], Err(CodingOpenEnded)),
            (&["Transfer-Encoding: chunked\u{a0}"], Err(CodingOpenEnded)),
            (&["Transfer-Encoding: chunk"], Err(CodingOpenEnded)),
            (&["Content-Length: \u{ff14}"], Err(ContentLength)),
            (&["Content-Length: 42", "Content-Length: 042"], Ok(Bytes(42))),
            (&["Content-Length: 42", "Content-Length: x"], Err(ContentLength)),
        ];
        for (lines, expected) in rows {
            assert_eq!(ask(lines, body_length), expected, "{lines:?}");
            // The same by HTTP/1.0, but for the one thing that it does not have.
            let expected = match expected {
                Ok(Chunked) | Err(LengthAndCoding | CodingOpenEnded | CodingUnknown) => Err(CodingInHttp10),
                other => other,
            };
            assert_eq!(ask_line("POST / HTTP/1.0", lines, body_length), expected, "{lines:?} by HTTP/1.0");
        }
        assert_eq!(CodingInHttp10.status(), 400);
    }

    const UPGRADE: [&str; 4] = [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ];

    #[test]
    fn handshakes_of_rfc_6455_section_4_2_1() {
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
        assert_eq!(ask(&UPGRADE, websocket_upgrade), Ok(Upgrade { accept: accept.clone(), protocol: None }));
        let firefox =
            ["Connection: keep-alive, Upgrade", "Upgrade: WebSocket", UPGRADE[2], UPGRADE[3], "Content-Length: 0"];
        assert_eq!(ask(&firefox, websocket_upgrade), Ok(Upgrade { accept: accept.clone(), protocol: None }));
        let protocols = "Sec-WebSocket-Protocol: chat.v2, chat";
        let offered = [UPGRADE[0], UPGRADE[1], UPGRADE[2], UPGRADE[3], protocols];
        let protocol = Some("chat.v2".to_owned());
        assert_eq!(ask(&offered, websocket_upgrade), Ok(Upgrade { accept, protocol }));

        // The place of a line, what stands there instead, the verdict.
        let rows: [(usize, &[&str], HeadError, u16); 18] = [
            (0, &[], HeadError::NoUpgrade("Upgrade: websocket"), 426),
            (0, &["Upgrade: h2c"], HeadError::NoUpgrade("Upgrade: websocket"), 426),
            (1, &[], HeadError::NoUpgrade("Connection: Upgrade"), 426),
            (1, &["Connection: close"], HeadError::NoUpgrade("Connection: Upgrade"), 426),
            (2, &[], HeadError::WebSocketKey, 400),
            (2, &["Sec-WebSocket-Key:"], HeadError::WebSocketKey, 400),
            (2, &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ="], HeadError::WebSocketKey, 400),
            (2, &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQAA"], HeadError::WebSocketKey, 400),
            (2, &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ!="], HeadError::WebSocketKey, 400),
            (2, &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25=ZQ=="], HeadError::WebSocketKey, 400),
            (2, &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQAA=="], HeadError::WebSocketKey, 400),
            (2, &[UPGRADE[2], UPGRADE[2]], HeadError::WebSocketKey, 400),
            (3, &[], HeadError::WebSocketVersion, 426),
            (3, &["Sec-WebSocket-Version: 8"], HeadError::WebSocketVersion, 426),
            (3, &["Sec-WebSocket-Version: 13, 8"], HeadError::WebSocketVersion, 426),
            (3, &[UPGRADE[3], UPGRADE[3]], HeadError::WebSocketVersion, 426),
            (3, &[UPGRADE[3], "Content-Length: 1"], HeadError::UpgradeWithBody, 400),
            (3, &[UPGRADE[3], "Transfer-Encoding: chunked"], HeadError::UpgradeWithBody, 400),
        ];
        for (place, instead, error, status) in rows {
            let lines = [&UPGRADE[..place], instead, &UPGRADE[place + 1..]].concat();
            assert_eq!(ask(&lines, websocket_upgrade), Err(error), "{lines:?}");
            assert_eq!(error.status(), status, "{lines:?}");
        }
        let post = ask_line("POST /ws HTTP/1.1", &UPGRADE, websocket_upgrade).unwrap_err();
        assert_eq!((post, post.status(), post.headers()), (HeadError::NotGet, 405, [("Allow", "GET")].as_slice()));
        let old = ask_line("GET /ws HTTP/1.0", &UPGRADE, websocket_upgrade).unwrap_err();
        assert_eq!((old, old.status()), (HeadError::UpgradeInHttp10, 426));
        assert!(HeadError::WebSocketVersion.headers().contains(&("Sec-WebSocket-Version", "13")));
    }

    #[test]
    fn each_error_has_a_sentence_a_label_and_a_known_status() {
        use HeadError::*;
        let all = [
            Malformed(httparse::Error::Token),
            Target,
            Version,
            Host,
            TooLong { max: MAX },
            TooManyHeaders { max: HEADERS_MAX },
            TooManyParameters { max: PARAMETERS_MAX },
            ContentLength,
            ContentLengths,
            LengthAndCoding,
            CodingOpenEnded,
            CodingUnknown,
            CodingInHttp10,
            ExpectationUnknown,
            UpgradeInHttp10,
            NotGet,
            NoUpgrade("Upgrade: websocket"),
            WebSocketVersion,
            WebSocketKey,
            UpgradeWithBody,
            Origin,
            BareLineFeed,
        ];
        let labels: std::collections::HashSet<_> = all.iter().map(HeadError::label).collect();
        assert_eq!(labels.len(), all.len());
        for error in all {
            assert!(!error.to_string().is_empty() && !reason_phrase(error.status()).is_empty(), "{error:?}");
        }
    }

    /// Bytes that get further into a parser than random ones do.
    fn plausible() -> impl Strategy<Value = Vec<u8>> {
        let pieces = [
            "GET ",
            "POST ",
            "/",
            "/a?b=c",
            "*",
            " ",
            "HTTP/1.1",
            "HTTP/1.0",
            "HTTP/2",
            "\r\n",
            "\n",
            "\r",
            ":",
            "Host: a\r\n",
            "Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\n",
            "A: b, c\r\n",
            "Content-Length: 1\r\n",
            "\t",
            "\0",
            "é",
            "x",
        ];
        let piece = prop_oneof![
            8 => prop::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
            1 => any::<u8>().prop_map(|byte| vec![byte]),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_head_is_incomplete_until_it_is_whole(
            method in "[A-Z]{1,8}",
            path in "/[!-<>@-~]{0,30}",
            query in "[!-~]{0,30}",
            headers in prop::collection::vec((HEADER_NAME, HEADER_VALUE), 0..20),
            rest in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut text = format!("{method} {path}?{query} HTTP/1.1\r\nhOsT: a\r\n");
            let headers: Vec<_> = headers.into_iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")).collect();
            for (name, value) in &headers {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            text.push_str("\r\n");
            let mut buffer = text.clone().into_bytes();
            buffer.extend_from_slice(&rest);
            for len in 0..text.len() {
                prop_assert_eq!(parse(&buffer[..len], MAX), Ok(None), "{} of {} bytes", len, text.len());
            }
            let mut all = vec![("hOsT".to_owned(), b"a".to_vec())];
            all.extend(headers.into_iter().map(|(name, value)| (name, value.into_bytes())));
            let expected = Parsed { bytes: text.len(), line: (method, path, query), headers: all };
            prop_assert_eq!(parse(&buffer, MAX), Ok(Some(expected.clone())));
            prop_assert_eq!(parse(&buffer[..text.len()], text.len()), Ok(Some(expected)), "the bound is inclusive");
        }

        #[test]
        fn the_verdict_does_not_depend_on_how_the_bytes_are_split(bytes in plausible(), max in 1usize..100) {
            let verdicts: Vec<_> = (0..=bytes.len()).map(|len| parse(&bytes[..len], max)).collect();
            let first = verdicts.iter().position(|verdict| *verdict != Ok(None)).unwrap_or(bytes.len());
            for verdict in &verdicts[first..] {
                prop_assert_eq!(verdict, &verdicts[first]);
            }
            if let Ok(Some(parsed)) = &verdicts[first] {
                prop_assert!(parsed.bytes == first && first <= max);
            }
        }

        #[test]
        fn header_values_never_panic(
            value in "[ -~\u{80}-\u{ff}]{0,30}",
            name in "Content-Length|Transfer-Encoding|Connection|Upgrade|Sec-WebSocket-(Key|Version)",
        ) {
            let line = format!("{name}: {value}");
            let _ = ask(&[&line], body_length);
            let _ = ask(&[&UPGRADE[..], &[&line]].concat(), websocket_upgrade);
        }
    }
}
