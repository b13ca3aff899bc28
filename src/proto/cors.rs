//! Which pages of other origins may read our responses: the fetch standard's CORS protocol, with the headers of the npm
//! package `cors` that Socket.IO's reference server uses. Does not know requests or responses, only values of headers.

use std::fmt::{self, Write};

use super::http::is_token;

/// What operators allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Origins as browsers send them, `https://app.example`; a `*` in the host or as the port stands for a part of it,
    /// a lone `*` for any origin. Empty: no CORS headers at all.
    pub origins: Vec<String>,
    /// True: pages may send cookies along.
    pub credentials: bool,
    /// Request headers that pages may set; empty for all that they ask for.
    pub headers: Vec<String>,
    /// How long browsers may remember a preflight's answer.
    pub max_age_s: Option<u32>,
    /// True: only pages of these origins, and of the server's own, may open WebSockets, unless none are listed.
    pub check_websockets: bool,
}

/// [`Options`], ready to be asked. The default allows nothing and says nothing.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    origins: Origins,
    credentials: bool,
    headers: String,
    max_age_s: Option<u32>,
    check_websockets: bool,
}

#[derive(Clone, Debug, Default)]
enum Origins {
    /// CORS is off.
    #[default]
    Off,
    Any,
    Listed(Box<[Pattern]>),
}

/// An origin, or many.
#[derive(Clone, Debug)]
enum Pattern {
    /// Of pages without one: files, sandboxed frames.
    Null,
    /// `scheme://host:port`
    Tuple { scheme: Box<str>, host: Box<str>, port: Option<Port> },
}

#[derive(Clone, Debug)]
enum Port {
    Any,
    Exactly(Box<str>),
}

/// What the reference server sends: `Access-Control-Allow-Methods` is not what an endpoint serves, but what a browser
/// may try.
const METHODS: &str = "GET,HEAD,PUT,PATCH,POST,DELETE";

/// An entry that cannot be what was meant: the operator's mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsError {
    /// The list: `origins` or `headers`.
    pub key: &'static str,
    /// The entry's place in it, from 0.
    pub index: usize,
    /// The entry.
    pub entry: String,
    /// What is wrong with it and what to write instead.
    pub message: String,
}

impl fmt::Display for CorsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] {:?}: {}", self.key, self.index, self.entry, self.message)
    }
}

impl std::error::Error for CorsError {}

impl Cors {
    /// Reads `options`.
    ///
    /// # Errors
    /// The first entry that is no origin and no pattern of origins, or no header's name.
    pub fn new(options: &Options) -> Result<Cors, CorsError> {
        let error = |key, index, entry: &str, message| CorsError { key, index, entry: entry.to_owned(), message };
        let mut any = false;
        let mut patterns = Vec::new();
        for (index, entry) in options.origins.iter().enumerate() {
            match entry.as_str() {
                "*" => any = true,
                "null" => patterns.push(Pattern::Null),
                _ => patterns.push(pattern(entry).map_err(|message| error("origins", index, entry, message))?),
            }
        }
        for (index, name) in options.headers.iter().enumerate() {
            if name.is_empty() || !name.bytes().all(is_token) {
                let message = "must be the name of one header, as in \"Authorization\"".to_owned();
                return Err(error("headers", index, name, message));
            }
        }
        let origins = match (any, patterns.is_empty()) {
            (true, _) => Origins::Any,
            (false, true) => Origins::Off,
            (false, false) => Origins::Listed(patterns.into()),
        };
        let Options { credentials, max_age_s, check_websockets, .. } = *options;
        Ok(Cors { origins, credentials, headers: options.headers.join(","), max_age_s, check_websockets })
    }

    /// False if no origins are listed: an OPTIONS request is a request like any other then.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        !matches!(self.origins, Origins::Off)
    }

    /// True if a WebSocket may be opened by a request with these `Origin`s and this `Host`. Browsers let every page
    /// open one, with its visitor's cookies, and leave it to the server to look; programs send no `Origin`. A page of
    /// the server's own host is none of another origin, whatever the scheme: a proxy may have taken TLS off.
    #[must_use]
    pub fn allows_websocket<'a>(&self, mut origins: impl Iterator<Item = &'a [u8]>, host: Option<&[u8]>) -> bool {
        let Origins::Listed(patterns) = &self.origins else { return true };
        let is_listed = |origin: &[u8]| {
            let origin = text_of(origin, |byte| byte.is_ascii_graphic());
            origin.is_some_and(|origin| patterns.iter().any(|pattern| pattern.matches(origin)))
        };
        !self.check_websockets || origins.all(|origin| is_listed(origin) || is_own(origin, host))
    }

    /// True if the cookies of a request with these `Origin`s and this `Host` speak for their owner. Browsers send them
    /// along with what any page asks for: the page must be the server's own, or of an origin that may send cookies and
    /// read what it gets for them.
    #[must_use]
    pub fn lets_cookies_count<'a>(&self, mut origins: impl Iterator<Item = &'a [u8]>, host: Option<&[u8]>) -> bool {
        let shares = |origin| self.credentials && self.origin_lines(Some(origin), "", &mut String::new());
        origins.all(|origin| is_own(origin, host) || shares(origin))
    }

    /// The header lines of a response to a request with this `Origin`, each ended by `\r\n`.
    #[must_use]
    pub fn response_headers(&self, origin: Option<&[u8]>) -> String {
        let mut lines = String::new();
        self.origin_lines(origin, "", &mut lines);
        lines
    }

    /// The header lines of the answer, a 204, to an OPTIONS request with this `Origin` and these
    /// `Access-Control-Request-Headers`, each ended by `\r\n`.
    #[must_use]
    pub fn preflight_headers(&self, origin: Option<&[u8]>, requested_headers: Option<&[u8]>) -> String {
        let mut lines = String::new();
        let varies = if self.headers.is_empty() { "Access-Control-Request-Headers" } else { "" };
        if !self.origin_lines(origin, varies, &mut lines) {
            return lines;
        }
        line(&mut lines, "Access-Control-Allow-Methods", METHODS);
        let is_list = |byte: u8| is_token(byte) || matches!(byte, b',' | b' ' | b'\t');
        match requested_headers.and_then(|names| text_of(names, is_list)) {
            _ if !self.headers.is_empty() => line(&mut lines, "Access-Control-Allow-Headers", &self.headers),
            Some(names) => line(&mut lines, "Access-Control-Allow-Headers", names),
            None => {}
        }
        if let Some(seconds) = self.max_age_s {
            line(&mut lines, "Access-Control-Max-Age", &seconds.to_string());
        }
        lines
    }

    /// The lines about the origin, and what else the response varies by. False if the origin is not allowed: a browser
    /// then keeps the response from the page, whatever else it says.
    fn origin_lines(&self, origin: Option<&[u8]>, varies: &str, lines: &mut String) -> bool {
        // What is allowed, and whether it depends on the request. An origin has neither spaces nor control characters.
        let origin = origin.and_then(|origin| text_of(origin, |byte| byte.is_ascii_graphic()));
        let (allowed, depends) = match &self.origins {
            Origins::Off => return false,
            Origins::Any if !self.credentials => (Some("*"), false),
            // Browsers refuse `*` together with credentials, so "any" has to name each.
            Origins::Any => (origin, true),
            Origins::Listed(patterns) => {
                (origin.filter(|origin| patterns.iter().any(|pattern| pattern.matches(origin))), true)
            }
        };
        if let Some(origin) = allowed {
            line(lines, "Access-Control-Allow-Origin", origin);
        }
        // Told to those who are refused as well: a cache must not give them what another origin got, nor the reverse.
        match (depends, varies) {
            (false, "") => {}
            (true, "") => line(lines, "Vary", "Origin"),
            (false, name) => line(lines, "Vary", name),
            (true, name) => line(lines, "Vary", &format!("Origin, {name}")),
        }
        if allowed.is_some() && self.credentials {
            line(lines, "Access-Control-Allow-Credentials", "true");
        }
        allowed.is_some()
    }
}

fn line(lines: &mut String, name: &str, value: &str) {
    write!(lines, "{name}: {value}\r\n").expect("a String takes any text");
}

/// The value of a header as text, unless it is empty or has other bytes than `allowed`: it is sent back, and a line
/// break in it would begin a header of the client's choice.
fn text_of(value: &[u8], allowed: impl Fn(u8) -> bool) -> Option<&str> {
    let is_good = !value.is_empty() && value.iter().all(|byte| byte.is_ascii() && allowed(*byte));
    if is_good { std::str::from_utf8(value).ok() } else { None }
}

/// True for an `Origin` of the server's own pages, if `host` is the request's `Host`.
fn is_own(origin: &[u8], host: Option<&[u8]>) -> bool {
    let text = |value| text_of(value, |byte| byte.is_ascii_graphic());
    text(origin).zip(host.and_then(text)).is_some_and(|(origin, host)| is_of(origin, host))
}

/// True for the origin of pages that come from `host`, which is written as in a `Host` header.
fn is_of(origin: &str, host: &str) -> bool {
    let authority = format!("host://{host}");
    let (Some((scheme, page, page_port)), Some((_, host, port))) = (split(origin), split(&authority)) else {
        return false;
    };
    let usual = match scheme {
        "http" => "80",
        "https" => "443",
        _ => return false,
    };
    page.eq_ignore_ascii_case(host) && page_port.unwrap_or(usual) == port.unwrap_or(usual)
}

/// What a `*` in a host stands for.
fn is_wild(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// `scheme://host` or `scheme://host:port` in three parts, none of them checked. The host may be an IPv6 address in
/// brackets.
fn split(origin: &str) -> Option<(&str, &str, Option<&str>)> {
    let (scheme, rest) = origin.split_once("://")?;
    let host_end = match rest.strip_prefix('[') {
        Some(inside) => inside.find(']')? + 2,
        None => rest.find(':').unwrap_or(rest.len()),
    };
    let (host, port) = rest.split_at(host_end);
    match port.strip_prefix(':') {
        Some(port) => Some((scheme, host, Some(port))),
        None => port.is_empty().then_some((scheme, host, None)),
    }
}

/// Reads an entry of the list. The error says what to write.
fn pattern(entry: &str) -> Result<Pattern, String> {
    let example = "an origin is written as in \"https://app.example\", \"https://*.example.com\" or \
                   \"http://localhost:*\"";
    let Some((scheme, rest)) = entry.split_once("://") else {
        return Err(match entry {
            "" => example.to_owned(),
            _ if entry.contains('/') => format!("the scheme is missing; {example}"),
            _ => format!("the scheme is missing: write \"https://{entry}\""),
        });
    };
    if !is_scheme(scheme) {
        return Err(format!("{scheme:?} is no scheme; {example}, and only \"*\" alone stands for any scheme"));
    }
    if let Some(slash) = rest.find(['/', '?', '#']) {
        let origin = format!("{scheme}://{}", &rest[..slash]);
        return Err(format!("an origin has no path, not even a last slash: write {origin:?}"));
    }
    if !entry.is_ascii() {
        return Err("browsers send names of hosts in ASCII: write \"xn--…\"".to_owned());
    }
    let Some((_, host, port)) = split(entry) else {
        return Err(format!("what follows the ] is no port; {example}"));
    };
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| is_wild(byte) || matches!(byte, b'*' | b'_')),
    };
    if !is_host {
        return Err(format!("{host:?} is no host; {example}"));
    }
    let port = match port {
        None => None,
        Some("*") => Some(Port::Any),
        Some(port) => {
            let is_canonical = port.parse::<u16>().is_ok_and(|number| number.to_string() == port);
            if !is_canonical {
                return Err(format!("{port:?} is no port: write a number up to 65535, or * for any"));
            }
            let is_default = matches!(
                (scheme.to_ascii_lowercase().as_str(), port),
                ("http" | "ws", "80") | ("https" | "wss", "443")
            );
            if is_default {
                return Err(format!("browsers leave out the port {port} here: write \"{scheme}://{host}\""));
            }
            Some(Port::Exactly(port.into()))
        }
    };
    Ok(Pattern::Tuple { scheme: scheme.into(), host: host.into(), port })
}

impl Pattern {
    fn matches(&self, origin: &str) -> bool {
        match self {
            Pattern::Null => origin == "null",
            Pattern::Tuple { scheme, host, port } => {
                split(origin).is_some_and(|(their_scheme, their_host, their_port)| {
                    let is_port = match (port, their_port) {
                        (None, None) => true,
                        (Some(Port::Any), Some(theirs)) => {
                            !theirs.is_empty() && theirs.bytes().all(|byte| byte.is_ascii_digit())
                        }
                        (Some(Port::Exactly(ours)), Some(theirs)) => **ours == *theirs,
                        _ => false,
                    };
                    is_port && scheme.eq_ignore_ascii_case(their_scheme) && glob(host.as_bytes(), their_host.as_bytes())
                })
            }
        }
    }
}

/// True if `text` is as `pattern` says, in which each `*` stands for one or more bytes of [`is_wild`].
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Behind the last star: what follows it in the pattern, and up to where it has taken the text. Earlier stars need
    // not be tried again: what they could take in addition, the last one can take as well.
    let mut star: Option<(usize, usize)> = None;
    let (mut p, mut t) = (0, 0);
    loop {
        match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), Some(byte)) if is_wild(*byte) => {
                (p, t) = (p + 1, t + 1);
                star = Some((p, t));
            }
            (Some(ours), Some(theirs)) if *ours != b'*' && ours.eq_ignore_ascii_case(theirs) => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((after, from)) if text.get(from).is_some_and(|byte| is_wild(*byte)) => {
                    (p, t) = (after, from + 1);
                    star = Some((after, from + 1));
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(origins: &[&str]) -> Options {
        Options { origins: origins.iter().map(|origin| (*origin).to_owned()).collect(), ..Options::default() }
    }

    fn cors(origins: &[&str]) -> Cors {
        Cors::new(&options(origins)).unwrap()
    }

    const ORIGIN: Option<&[u8]> = Some(b"https://a.b");

    #[test]
    fn response_headers() {
        for (origins, credentials, origin, lines) in [
            (&[][..], false, ORIGIN, &[][..]),
            (&[], true, ORIGIN, &[]),
            (&["*"], false, ORIGIN, &["Access-Control-Allow-Origin: *"]),
            (&["*"], false, None, &["Access-Control-Allow-Origin: *"]),
            (&["https://x.y", "*"], false, ORIGIN, &["Access-Control-Allow-Origin: *"]),
            (
                &["*"],
                true,
                ORIGIN,
                &["Access-Control-Allow-Origin: https://a.b", "Vary: Origin", "Access-Control-Allow-Credentials: true"],
            ),
            (&["*"], true, None, &["Vary: Origin"]),
            (&["*"], true, Some(b"https://a.b\r\nX: y"), &["Vary: Origin"]),
            (&["*"], true, Some(b"https://a.b\0"), &["Vary: Origin"]),
            (&["*"], true, Some(b"https://a.b c"), &["Vary: Origin"]),
            (&["*"], true, Some(b"https://\xc3\xa9"), &["Vary: Origin"]),
            (&["*"], true, Some(b""), &["Vary: Origin"]),
            (&["https://a.b"], false, ORIGIN, &["Access-Control-Allow-Origin: https://a.b", "Vary: Origin"]),
            (&["https://x.y"], false, ORIGIN, &["Vary: Origin"]),
            (&["https://x.y"], true, ORIGIN, &["Vary: Origin"]),
            (&["https://x.y"], false, None, &["Vary: Origin"]),
            (
                &["https://x.y", "https://A.b"],
                true,
                ORIGIN,
                &["Access-Control-Allow-Origin: https://a.b", "Vary: Origin", "Access-Control-Allow-Credentials: true"],
            ),
            (&["null"], false, Some(b"null"), &["Access-Control-Allow-Origin: null", "Vary: Origin"]),
            (&["null"], false, ORIGIN, &["Vary: Origin"]),
        ] {
            let cors = Cors::new(&Options { credentials, ..options(origins) }).unwrap();
            let expected: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            assert_eq!(cors.response_headers(origin), expected, "{origins:?} {credentials} {origin:?}");
            assert_eq!(cors.is_enabled(), !origins.is_empty());
        }
        assert!(!Cors::default().is_enabled());
    }

    #[test]
    fn preflight_headers() {
        let methods = "Access-Control-Allow-Methods: GET,HEAD,PUT,PATCH,POST,DELETE";
        let plain = || options(&["https://*.b"]);
        let listed = || Options { headers: vec!["X-A".into(), "X-B".into()], max_age_s: Some(600), ..plain() };
        let any = || options(&["*"]);
        for (options, origin, requested, lines) in [
            (Options::default(), ORIGIN, Some(&b"x-a"[..]), vec![]),
            (
                any(),
                ORIGIN,
                None,
                vec!["Access-Control-Allow-Origin: *", "Vary: Access-Control-Request-Headers", methods],
            ),
            (
                any(),
                None,
                Some(b"x-a, x-b"),
                vec![
                    "Access-Control-Allow-Origin: *",
                    "Vary: Access-Control-Request-Headers",
                    methods,
                    "Access-Control-Allow-Headers: x-a, x-b",
                ],
            ),
            (
                plain(),
                ORIGIN,
                Some(b"x-a\r\nX-Evil: 1"),
                vec![
                    "Access-Control-Allow-Origin: https://a.b",
                    "Vary: Origin, Access-Control-Request-Headers",
                    methods,
                ],
            ),
            (
                Options { credentials: true, ..plain() },
                ORIGIN,
                Some(b"x-a,x-b"),
                vec![
                    "Access-Control-Allow-Origin: https://a.b",
                    "Vary: Origin, Access-Control-Request-Headers",
                    "Access-Control-Allow-Credentials: true",
                    methods,
                    "Access-Control-Allow-Headers: x-a,x-b",
                ],
            ),
            (
                listed(),
                ORIGIN,
                Some(b"x-c"),
                vec![
                    "Access-Control-Allow-Origin: https://a.b",
                    "Vary: Origin",
                    methods,
                    "Access-Control-Allow-Headers: X-A,X-B",
                    "Access-Control-Max-Age: 600",
                ],
            ),
            (listed(), Some(b"https://b"), Some(b"x-a"), vec!["Vary: Origin"]),
            (plain(), Some(b"https://b"), Some(b"x-a"), vec!["Vary: Origin, Access-Control-Request-Headers"]),
        ] {
            let cors = Cors::new(&options).unwrap();
            let expected: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            assert_eq!(cors.preflight_headers(origin, requested), expected, "{options:?} {origin:?} {requested:?}");
        }
    }

    #[test]
    fn origins_that_match() {
        for (pattern, yes, no) in [
            (
                "https://app.example",
                &["https://app.example", "HTTPS://App.Example"][..],
                &[
                    "http://app.example",
                    "https://app.example:8443",
                    "https://app.example/",
                    "https://app.example.",
                    "https://app.example.evil.com",
                    "https://app-example",
                    "https://xapp.example",
                    "https://app.example@evil.com",
                    "app.example",
                    "null",
                    "*",
                ][..],
            ),
            (
                "https://*.example.com",
                &["https://a.example.com", "https://a.b-c.example.com", "https://A.EXAMPLE.com"],
                &[
                    "https://example.com",
                    "https://.example.com",
                    "https://aexample.com",
                    "https://a.example.com.evil.com",
                    "https://evil.com/.example.com",
                    "https://evil.com?.example.com",
                    "https://evil.com#.example.com",
                    "https://evil.com:1.example.com",
                    "https://evil@a.example.com",
                    "https://evil.com\\.example.com",
                    "https://a.example.com:444",
                    "https://a.example.comx",
                    "http://a.example.com",
                ],
            ),
            (
                "http://localhost:*",
                &["http://localhost:1", "http://LOCALHOST:65535"],
                &[
                    "http://localhost",
                    "http://localhost:",
                    "http://localhost:a",
                    "http://localhost:1.evil.com",
                    "http://localhost:1/",
                    "http://localhost.evil.com:1",
                ],
            ),
            (
                "https://a*z.*.com:*",
                &["https://abz.x.com:1", "https://azzz.x.y.com:1"],
                &["https://az.x.com:1", "https://abz.com:1"],
            ),
            ("https://*", &["https://a", "https://a.b.c"], &["https://", "https://a:1", "http://a", "https://[::1]"]),
            ("https://a_*.b", &["https://a_1.b"], &["https://a_1_2.b", "https://a_.b"]),
            ("http://[::1]:*", &["http://[::1]:3000"], &["http://[::1]", "http://[::2]:3000", "http://[::1]x:1"]),
            ("capacitor://localhost", &["capacitor://localhost"], &["http://localhost"]),
            ("http://a:8080", &["http://a:8080"], &["http://a:80800", "http://a:08080", "http://a"]),
        ] {
            let cors = cors(&[pattern]);
            for (origins, expected) in [(yes, true), (no, false)] {
                for origin in origins {
                    let allowed = cors.response_headers(Some(origin.as_bytes())).contains("Allow-Origin");
                    assert_eq!(allowed, expected, "{pattern} {origin}");
                }
            }
        }
    }

    #[test]
    fn pages_that_may_open_websockets() {
        let asked = |origins: &[&str], check_websockets, sent: &[&str], host: Option<&str>| {
            let cors = Cors::new(&Options { check_websockets, ..options(origins) }).unwrap();
            cors.allows_websocket(sent.iter().map(|origin| origin.as_bytes()), host.map(str::as_bytes))
        };
        let (listed, host) =
            (&["https://app.example", "https://*.example.com", "http://localhost:*"][..], "ws.example");
        for (sent, host, expected) in [
            // No browser, or no page.
            (&[][..], host, true),
            (&["https://app.example"], host, true),
            (&["https://a.example.com"], host, true),
            (&["http://localhost:5173"], host, true),
            (&["https://evil.example"], host, false),
            (&["https://app.example.evil.example"], host, false),
            (&["http://app.example"], host, false),
            (&["null"], host, false),
            (&[""], host, false),
            (&["https://app.example\u{e9}"], host, false),
            (&["https://app.example", "https://app.example"], host, true),
            (&["https://app.example", "https://evil.example"], host, false),
            // The server's own pages.
            (&["https://ws.example"], host, true),
            (&["http://WS.example"], host, true),
            (&["https://ws.example"], "ws.example:443", true),
            (&["http://ws.example"], "ws.example:80", true),
            (&["http://ws.example:8080"], "ws.example:8080", true),
            (&["http://[::1]:3000"], "[::1]:3000", true),
            (&["https://ws.example"], "ws.example:80", false),
            (&["https://ws.example:8443"], host, false),
            (&["https://ws.example"], "ws.example.evil", false),
            (&["https://evil.ws.example"], host, false),
            (&["file://ws.example"], host, false),
            (&["null"], "null", false),
            (&[""], "", false),
        ] {
            assert_eq!(asked(listed, true, sent, Some(host)), expected, "{sent:?} to {host}");
            // Nobody is asked.
            for (origins, check) in [(listed, false), (&[][..], true), (&["*"][..], true)] {
                assert!(asked(origins, check, sent, Some(host)), "{sent:?} to {host}, {origins:?}");
            }
        }
        assert!(asked(&["null"], true, &["null"], None) && !asked(listed, true, &["https://ws.example"], None));
    }

    #[test]
    fn cookies_that_speak_for_their_owner() {
        let counts = |origins: &[&str], credentials, sent: &[&str], host: Option<&str>| {
            let cors = Cors::new(&Options { credentials, ..options(origins) }).unwrap();
            cors.lets_cookies_count(sent.iter().map(|origin| origin.as_bytes()), host.map(str::as_bytes))
        };
        let (listed, host) = (&["https://app.example"][..], "ws.example");
        // Whether they count for the server's own pages, and whether for listed origins with credentials.
        for (sent, host, own, shared) in [
            // No page.
            (&[][..], host, true, true),
            // The default port may stand there or not; the scheme may be that of a proxy.
            (&["https://ws.example"], host, true, true),
            (&["http://WS.example"], host, true, true),
            (&["https://ws.example"], "ws.example:443", true, true),
            (&["http://ws.example"], "ws.example:80", true, true),
            (&["https://ws.example"], "ws.example:80", false, false),
            (&["http://ws.example"], "ws.example:443", false, false),
            (&["https://ws.example:8443"], "ws.example:8443", true, true),
            (&["https://ws.example:8443"], host, false, false),
            (&["http://[::1]:3000"], "[::1]:3000", true, true),
            (&["https://app.example"], host, false, true),
            (&["https://app.example", "https://ws.example"], host, false, true),
            (&["https://ws.example", "https://evil.example"], host, false, false),
            (&["https://evil.example", "https://ws.example"], host, false, false),
            (&["https://ws.example.evil.example"], host, false, false),
            (&["https://evil.example/ws.example"], host, false, false),
            // What is no page of the server's, whatever stands behind the scheme.
            (&["file://ws.example"], host, false, false),
            (&["x:/ws.example"], host, false, false),
            (&["http://"], "", false, false),
            (&["null"], "null", false, false),
            (&[""], "", false, false),
        ] {
            for (origins, credentials, expected) in
                [(&[][..], false, own), (&[], true, own), (listed, false, own), (listed, true, shared)]
            {
                let told = counts(origins, credentials, sent, Some(host));
                assert_eq!(told, expected, "{sent:?} to {host}, {origins:?} {credentials}");
            }
        }
        assert!(counts(&["*"], true, &["https://evil.example"], Some(host)), "the operator wants it");
        assert!(!counts(&[], true, &["https://ws.example"], None) && counts(&[], true, &[], None));
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for (entry, message) in [
            ("", "an origin is written as in"),
            ("app.example", "the scheme is missing: write \"https://app.example\""),
            ("localhost:3000", "the scheme is missing: write \"https://localhost:3000\""),
            ("//app.example", "the scheme is missing; an origin is written as in"),
            ("*://app.example", "\"*\" is no scheme; an origin"),
            ("://a", "\"\" is no scheme; an origin"),
            ("https://app.example/", "an origin has no path, not even a last slash: write \"https://app.example\""),
            ("https://a:81/b?c", "an origin has no path, not even a last slash: write \"https://a:81\""),
            ("https://", "\"\" is no host; an origin"),
            ("https://a b", "\"a b\" is no host; an origin"),
            ("https://u@a", "\"u@a\" is no host; an origin"),
            ("https://a\r\nX: y", "\"a\\r\\nX\" is no host; an origin"),
            ("http://[::x]", "\"[::x]\" is no host; an origin"),
            ("http://[::1]x", "what follows the ] is no port; an origin"),
            ("https://bücher.example", "browsers send names of hosts in ASCII: write \"xn--…\""),
            ("https://a:0x1", "\"0x1\" is no port: write a number up to 65535, or * for any"),
            ("https://a:65536", "\"65536\" is no port"),
            ("https://a:8*", "\"8*\" is no port"),
            ("https://a:", "\"\" is no port"),
            ("https://a:443", "browsers leave out the port 443 here: write \"https://a\""),
            ("http://a:80", "browsers leave out the port 80 here: write \"http://a\""),
        ] {
            let error = Cors::new(&options(&["*", entry])).expect_err(entry);
            assert_eq!((error.key, error.index, error.entry.as_str()), ("origins", 1, entry));
            assert!(error.message.starts_with(message), "{entry}: {error}");
            assert!(error.to_string().starts_with(&format!("origins[1] {entry:?}: ")), "{error}");
        }
        for name in ["", "X A", "X:", "X-A, X-B", "X\r\nY"] {
            let error = Cors::new(&Options { headers: vec!["A".into(), name.into()], ..options(&["*"]) }).unwrap_err();
            assert_eq!((error.key, error.index, error.entry.as_str()), ("headers", 1, name));
        }
    }

    /// What [`glob`] does, by trying everything.
    fn slow_glob(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => {
                let wild = text.iter().take_while(|byte| is_wild(**byte)).count();
                (1..=wild).any(|bytes| slow_glob(rest, &text[bytes..]))
            }
            [byte, rest @ ..] => text.split_first().is_some_and(|(b, text)| b == byte && slow_glob(rest, text)),
        }
    }

    proptest! {
        #[test]
        fn stars_are_tried_in_every_place(pattern in "[ab_*]{0,8}", text in "[ab_]{0,10}") {
            prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), slow_glob(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn nobody_adds_a_header(
            origin in "[ab:/é \t\r\n\0]{0,6}",
            requested in "[ab,:é \t\r\n\0]{0,6}",
            origins in prop::sample::select(vec![vec!["*"], vec!["https://*"], vec![]]),
            credentials: bool,
        ) {
            let cors = Cors::new(&Options { credentials, ..options(&origins) }).unwrap();
            let lines = cors.preflight_headers(Some(origin.as_bytes()), Some(requested.as_bytes()));
            prop_assert!(lines.is_empty() || lines.ends_with("\r\n"));
            for line in lines.split_terminator("\r\n") {
                prop_assert!(line.starts_with("Access-Control-") || line.starts_with("Vary: "), "{}", line);
                prop_assert!(!line.contains(|c: char| c.is_control() && c != '\t'), "{}", line);
            }
        }

        #[test]
        fn any_entry_is_read(entry in "\\PC{0,12}|[a-z:/*\\[\\].0-9]{0,16}") {
            let _ = Cors::new(&options(&[&entry]));
        }
    }
}
