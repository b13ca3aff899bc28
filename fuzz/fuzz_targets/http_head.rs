//! Any bytes as HTTP: the head, the body behind it, the query, and what answers take over from them. A naive reading,
//! line by line as a sloppy proxy does it, must agree with ours wherever ours accepts it (request smuggling).
#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use httparse::{EMPTY_HEADER, Header};
use libfuzzer_sys::fuzz_target;
use roomcast::proto::cors::{self, Cors};
use roomcast::proto::forwarded::TrustedProxies;
use roomcast::proto::http::{
    Body, BodyError, BodyLength, BodyStep, HEADERS_MAX, Head, HeadError, HeadStep, Response, body_length,
    expects_continue, parse_head, query_pairs, websocket_upgrade, write_upgrade_response,
};
use roomcast_fuzz::{Choices, arrivals, check_error};

/// Small, so that inputs reach them.
const HEAD_BYTES_MAX: usize = 1000;
const BODY_BYTES_MAX: usize = 500;

fuzz_target!(|data: &[u8]| {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let step = parse_head(data, &mut headers, HEAD_BYTES_MAX);
    check_prefixes(data, &step);
    match step {
        Ok(HeadStep::Incomplete) => assert!(data.len() < HEAD_BYTES_MAX),
        Ok(HeadStep::Complete { bytes, head }) => {
            check_naively(&data[..bytes], &head);
            check_body(&head, &data[bytes..]);
            check_upgrade(&head);
            check_query(head.query);
            check_origins(&head);
            check_client(&head);
        }
        Err(error) => check_head_error(error),
    }
});

/// Whatever part of the bytes has arrived first, the verdict is the same in the end.
fn check_prefixes(data: &[u8], whole: &Result<HeadStep<'_, '_>, HeadError>) {
    let mut choices = Choices::of(data);
    let complete = if let Ok(HeadStep::Complete { bytes, .. }) = whole { Some(*bytes) } else { None };
    let ends = [complete.map_or(data.len(), |bytes| bytes - 1), choices.up_to(data.len()), choices.up_to(data.len())];
    for end in ends {
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        match parse_head(&data[..end], &mut headers, HEAD_BYTES_MAX) {
            Ok(HeadStep::Incomplete) => {}
            Ok(HeadStep::Complete { bytes, .. }) => assert_eq!(Some(bytes), complete, "of the first {end} bytes"),
            Err(_) => assert!(whole.is_err(), "the first {end} bytes were refused, all of them not"),
        }
    }
}

fn check_naively(bytes: &[u8], head: &Head<'_, '_>) {
    let lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines: Vec<&[u8]> = lines.skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty()).collect();
    let (request, fields) = lines.split_first().expect("a request has a line");
    assert!(lines.iter().all(|line| !line.contains(&b'\r') && !line.contains(&0)), "a control character was let in");
    let words: Vec<&[u8]> = request.split(|byte| *byte == b' ').collect();
    let version: &[u8] = if head.minor_version == 1 { b"HTTP/1.1" } else { b"HTTP/1.0" };
    assert_eq!((words[0], *words.last().unwrap()), (head.method.as_bytes(), version));
    assert!(head.path.starts_with('/') || head.path == "*", "{}", head.path);
    assert_eq!(fields.len(), head.headers.len(), "lines that are no headers, or headers of several lines");
    for (line, header) in fields.iter().zip(head.headers) {
        let colon = line.iter().position(|byte| *byte == b':').expect("a header has a colon");
        assert_eq!(&line[..colon], header.name.as_bytes());
        assert_eq!(line[colon + 1..].trim_ascii(), header.value.trim_ascii());
    }
    let hosts = named(head, "host").count();
    assert!(hosts == 1 || hosts == 0 && head.minor_version == 0);
    let _ = (head.keep_alive(), head.connection(), expects_continue(head).map_err(check_head_error));
}

fn named<'a>(head: &'a Head<'_, 'a>, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    head.headers.iter().filter(move |header| header.name.to_lowercase() == name).map(|header| header.value)
}

fn check_body(head: &Head<'_, '_>, rest: &[u8]) {
    let lengths: Vec<_> = named(head, "content-length").flat_map(|value| value.split(|byte| *byte == b',')).collect();
    let codings: Vec<_> =
        named(head, "transfer-encoding").flat_map(|value| value.split(|byte| *byte == b',')).collect();
    let length = match body_length(head) {
        Ok(length) => length,
        Err(error) => return check_head_error(error),
    };
    match length {
        BodyLength::Bytes(bytes) => {
            let number = |text: &[u8]| {
                let text = str::from_utf8(text).unwrap().trim();
                assert!(text.bytes().all(|byte| byte.is_ascii_digit()), "{text:?} is no length");
                text.parse::<u64>().unwrap()
            };
            assert!(codings.is_empty(), "a coding was overlooked");
            assert!(lengths.iter().all(|text| number(text) == bytes) && (bytes == 0 || !lengths.is_empty()));
        }
        BodyLength::Chunked => {
            assert!(lengths.is_empty() && head.minor_version == 1);
            let named: Vec<_> = codings.iter().map(|coding| coding.trim_ascii()).filter(|c| !c.is_empty()).collect();
            assert!(matches!(named[..], [coding] if coding.eq_ignore_ascii_case(b"chunked")));
        }
    }
    let outcomes = arrivals(rest).map(|pieces| read_body(length, &pieces));
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "it depends on the pieces: {outcomes:?}");
    match &outcomes[0] {
        Ok((body, Some(bytes))) if length == BodyLength::Chunked => {
            assert_eq!(dechunked(&rest[..*bytes]).as_ref(), Some(body));
        }
        Ok((body, Some(bytes))) => assert_eq!(&rest[..*bytes], body),
        Ok((body, None)) => assert!(body.len() <= rest.len() && body.len() <= BODY_BYTES_MAX),
        Err(error) => {
            check_error(error, error.label());
            assert!(matches!(error.status(), 400 | 413));
        }
    }
}

/// The body, and how many bytes it took if it is whole.
fn read_body(length: BodyLength, pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<usize>), BodyError> {
    let mut body = Body::new(length, BODY_BYTES_MAX)?;
    let mut taken = 0;
    if body.is_complete() {
        return Ok((body.into_bytes(), Some(0)));
    }
    for piece in pieces {
        match body.read(piece)? {
            BodyStep::Incomplete => taken += piece.len(),
            BodyStep::Complete { bytes } => {
                assert!(body.is_complete());
                return Ok((body.into_bytes(), Some(taken + bytes)));
            }
        }
    }
    assert!(!body.is_complete());
    Ok((body.into_bytes(), None))
}

/// A whole chunked body, read by somebody who trusts it.
fn dechunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|two| two == b"\r\n")?;
        let digits = rest[..line_end].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = usize::from_str_radix(str::from_utf8(&rest[..digits]).ok()?, 16).ok()?;
        rest = &rest[line_end + 2..];
        if size == 0 {
            let ends_well = rest == b"\r\n" || rest.ends_with(b"\r\n\r\n");
            return ends_well.then_some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

fn check_upgrade(head: &Head<'_, '_>) {
    let upgrade = match websocket_upgrade(head) {
        Ok(upgrade) => upgrade,
        Err(error) => return check_head_error(error),
    };
    let mut out = Vec::new();
    write_upgrade_response(&mut out, &upgrade);
    out.extend_from_slice(b"\x81\x00");
    let mut headers = [EMPTY_HEADER; 8];
    let mut response = httparse::Response::new(&mut headers);
    let end = response.parse(&out).unwrap().unwrap();
    assert_eq!((response.code, &out[end..]), (Some(101), &b"\x81\x00"[..]));
    assert_eq!(response.headers.len(), 3 + usize::from(upgrade.protocol.is_some()), "a header was smuggled in");
}

fn check_query(query: &str) {
    let pairs: Vec<_> = query_pairs(query).collect();
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let again: Vec<_> = pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    let again = again.join("&");
    assert_eq!(query_pairs(&again).collect::<Vec<_>>(), pairs);
}

static CORS: LazyLock<[Cors; 3]> = LazyLock::new(|| {
    let options = |origins: &[&str], credentials, headers: &[&str]| cors::Options {
        origins: origins.iter().map(ToString::to_string).collect(),
        credentials,
        headers: headers.iter().map(ToString::to_string).collect(),
        max_age_s: Some(600),
        check_websockets: true,
    };
    let listed = ["https://*.good.example", "http://localhost:*", "http://[::1]:8080", "https://app.example", "null"];
    [options(&["*"], false, &[]), options(&["*"], true, &["X-A"]), options(&listed, true, &[])]
        .map(|options| Cors::new(&options).unwrap())
});

/// What a client says about itself never begins a header or a body, and only listed origins are told that they are.
fn check_origins(head: &Head<'_, '_>) {
    let (origin, requested) = (head.header("origin"), head.header("access-control-request-headers"));
    for (index, cors) in CORS.iter().enumerate() {
        let lines = [cors.response_headers(origin), cors.preflight_headers(origin, requested)];
        for lines in &lines {
            check_lines(lines);
            let allowed = lines.split("\r\n").find_map(|line| line.strip_prefix("Access-Control-Allow-Origin: "));
            if let Some(allowed) = allowed.filter(|_| index > 0) {
                assert_eq!(Some(allowed.as_bytes()), origin);
            }
            if let Some(allowed) = allowed.filter(|_| index == 2) {
                let allowed = allowed.to_ascii_lowercase();
                let port =
                    allowed.strip_prefix("http://localhost:").map(|port| port.bytes().all(|b| b.is_ascii_digit()));
                let below = allowed.strip_prefix("https://").and_then(|rest| rest.strip_suffix(".good.example"));
                let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
                let is_listed = ["http://[::1]:8080", "https://app.example", "null"].contains(&allowed.as_str());
                assert!(port == Some(true) || below.is_some_and(is_name) || is_listed, "{allowed}");
            }
        }
        let lines = &lines[1];
        let mut out = Vec::new();
        let own = [("X-Echo", str::from_utf8(origin.unwrap_or_default()).unwrap_or_default())];
        Response { raw_headers: lines, headers: &own, ..Response::new(400, "text/plain", b"no") }.write(&mut out);
        let mut headers = [EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let end = response.parse(&out).unwrap().unwrap();
        assert_eq!((response.code, &out[end..]), (Some(400), &b"no"[..]));
        assert_eq!(response.headers.len(), 3 + lines.matches("\r\n").count());
    }
    check_websocket_origins(head);
    // As an operator might have written it.
    if let Some(pattern) = head.header("x-pattern").and_then(|pattern| str::from_utf8(pattern).ok()) {
        let options = cors::Options {
            origins: vec![pattern.to_owned()],
            headers: vec![pattern.to_owned()],
            ..Default::default()
        };
        let only_origins = cors::Options { headers: Vec::new(), ..options.clone() };
        for options in [options, only_origins] {
            match Cors::new(&options) {
                Ok(cors) => check_lines(&cors.preflight_headers(origin, requested)),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

/// Pages that may open WebSockets may read answers too, or are the server's own.
fn check_websocket_origins(head: &Head<'_, '_>) {
    let host = head.header("host");
    if !CORS[2].allows_websocket(head.values("origin"), host) {
        return;
    }
    let host = host.unwrap_or_default().to_ascii_lowercase();
    for origin in head.values("origin") {
        let is_listed = CORS[2].response_headers(Some(origin)).contains("Access-Control-Allow-Origin: ");
        let lower = origin.to_ascii_lowercase();
        let own = |scheme: &[u8], port: &[u8]| {
            let page = lower.strip_prefix(scheme).unwrap_or_default();
            page == host || [page, port].concat() == host || page == [&host, port].concat()
        };
        assert!(is_listed || own(b"http://", b":80") || own(b"https://", b":443"));
    }
}

fn check_lines(lines: &str) {
    const NAMES: [&str; 6] = [
        "Access-Control-Allow-Origin",
        "Access-Control-Allow-Credentials",
        "Access-Control-Allow-Methods",
        "Access-Control-Allow-Headers",
        "Access-Control-Max-Age",
        "Vary",
    ];
    let Some(lines) = lines.strip_suffix("\r\n") else { return assert_eq!(lines, "") };
    for line in lines.split("\r\n") {
        let (name, value) = line.split_once(": ").expect("name and value");
        assert!(NAMES.contains(&name) && !value.contains(|c: char| c.is_control() && c != '\t'), "{line:?}");
    }
}

static PROXIES: LazyLock<TrustedProxies> =
    LazyLock::new(|| TrustedProxies::new(&["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()]).unwrap());

/// Nobody but trusted proxies says where a client is, and what a client puts to the left of them does not matter.
fn check_client(head: &Head<'_, '_>) {
    let trusts = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 10,
        IpAddr::V6(ip) => ip.octets()[0] == 0xfd,
    };
    let stranger = IpAddr::from([203, 0, 113, 9]);
    assert_eq!(PROXIES.client_ip(stranger, head), stranger);
    let client = PROXIES.client_ip(IpAddr::from([10, 0, 0, 1]), head);
    assert_eq!(client, client.to_canonical());
    if !trusts(client) {
        let spoofed = Header { name: "X-Forwarded-For", value: b"198.51.100.66, 10.9.9.9" };
        let headers: Vec<Header<'_>> = [spoofed].into_iter().chain(head.headers.iter().copied()).collect();
        assert_eq!(PROXIES.client_ip(IpAddr::from([10, 0, 0, 1]), &Head { headers: &headers, ..*head }), client);
    }
}

fn check_head_error(error: HeadError) {
    check_error(&error, error.label());
    assert!(matches!(error.status(), 400 | 405 | 417 | 426 | 431 | 501 | 505), "{error:?}");
    assert!(error.headers().iter().all(|(name, value)| !name.is_empty() && !value.is_empty()));
}
