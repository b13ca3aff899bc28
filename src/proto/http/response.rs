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

/// Appends a whole response. An empty body has no `Content-Type`; a 204 has no `Content-Length` either (RFC 9110,
/// section 8.6). With `close` it tells the client that the connection ends here.
///
/// # Panics
/// If `status` is 204 and there is a body.
pub fn write_response(
    out: &mut Vec<u8>,
    status: u16,
    content_type: &str,
    body: &[u8],
    extra_headers: &[(&str, &str)],
    close: bool,
) {
    assert!(status != 204 || body.is_empty(), "a 204 with a body of {} bytes", body.len());
    write!(out, "HTTP/1.1 {status} {}\r\n", reason_phrase(status)).expect("a Vec takes any bytes");
    if !body.is_empty() {
        write_header(out, "Content-Type", content_type);
    }
    if status != 204 {
        write!(out, "Content-Length: {}\r\n", body.len()).expect("a Vec takes any bytes");
    }
    for (name, value) in extra_headers {
        write_header(out, name, value);
    }
    if close {
        write_header(out, "Connection", "close");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

/// The words that go with a status that we use (RFC 9110, section 15); empty, as is allowed, for any other.
#[must_use]
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
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
        let written = |status, content_type, body: &str, extra: &[(&str, &str)], close| {
            let mut out = Vec::new();
            write_response(&mut out, status, content_type, body.as_bytes(), extra, close);
            String::from_utf8(out).unwrap()
        };
        let rows = [
            (
                written(200, "application/json", "{}", &[("Cache-Control", "no-store")], false),
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
                 Cache-Control: no-store\r\n\r\n{}",
            ),
            (
                written(400, "text/plain", "no", &[], true),
                "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\
                 Connection: close\r\n\r\nno",
            ),
            (written(404, "text/plain", "", &[], false), "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            (written(204, "", "", &[("Vary", "Origin")], false), "HTTP/1.1 204 No Content\r\nVary: Origin\r\n\r\n"),
            (
                written(200, "", "", &[("Access-Control-Allow-Origin", "x\r\nSet-Cookie: a")], false),
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nAccess-Control-Allow-Origin: x  Set-Cookie: a\r\n\r\n",
            ),
        ];
        for (is, expected) in rows {
            assert_eq!(is, expected);
        }
        let mut out = Vec::new();
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
        write_upgrade_response(&mut out, &Upgrade { accept, protocol: None });
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        for status in [200, 204, 400, 401, 403, 404, 405, 408, 413, 426, 429, 431, 500, 501, 503, 505] {
            assert!(!reason_phrase(status).is_empty(), "{status}");
        }
    }
}
