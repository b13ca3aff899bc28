//! Who may use the HTTP API: whoever brings the token; without one, programs of this machine, and no web page that a
//! browser of this machine shows. Does not know what the API does.

use super::reply::Reply;
use crate::base::secret::Secret;
use crate::proto::http::Head;
use std::net::IpAddr;

/// Who may.
#[derive(Clone, Debug)]
pub struct Access {
    /// What a request must bring.
    pub token: Option<Secret>,
    /// True if the port is on a loopback address.
    pub is_local: bool,
    /// Names that the port is asked by, besides addresses.
    pub hosts: Box<[Box<str>]>,
}

impl Access {
    /// Lets the request in, or says why not.
    ///
    /// # Errors
    /// The answer: 401 with a wrong token or none, 403 where no token would help.
    pub fn check(&self, head: &Head<'_, '_>) -> Result<(), Reply> {
        match &self.token {
            Some(token) => check_token(head, token),
            None if !self.is_local => Err(Reply::error(
                403,
                "the API wants a token where others than this machine reach it; set ops.token_file",
            )),
            None => self.check_program(head),
        }
    }

    /// Lets a request in that asks for what everybody may know, unless a page asks that a browser shows: its own name
    /// can be made to mean this port's address (DNS rebinding), and then its requests have that name in `Host`.
    /// Addresses cannot be made to mean others, and names without a dot are no page's. On another port than a local one
    /// names are looked at if some are listed: who scrapes a host calls it by its name.
    ///
    /// # Errors
    /// The answer, 403.
    pub fn check_name(&self, head: &Head<'_, '_>) -> Result<(), Reply> {
        // What says no host is old, and no browser.
        let Some(host) = head.header("host") else { return Ok(()) };
        if !self.is_local && self.hosts.is_empty() || is_address(host) || self.is_listed(host) {
            return Ok(());
        }
        let name = name_of(host);
        if !name.is_empty() && !name.contains(&b'.') {
            return Ok(());
        }
        Err(Reply::error(403, "the Host is neither an address nor a name that is listed in ops.hosts"))
    }

    /// Lets the page's own WebSocket in, and programs. Browsers let any page open one to any address, but say by which
    /// page it is: `Origin` must be where this very request went.
    ///
    /// # Errors
    /// The answer, 403.
    pub fn check_page(&self, head: &Head<'_, '_>) -> Result<(), Reply> {
        self.check_name(head)?;
        let is_own = |origin: &[u8]| {
            let host = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
            host.is_some() && host.zip(head.header("host")).is_some_and(|(page, own)| page.eq_ignore_ascii_case(own))
        };
        if head.values("origin").all(is_own) {
            return Ok(());
        }
        Err(Reply::error(403, "the Origin is another page than the one of this port, which is for itself only"))
    }

    /// Whether the request's `Host` is localhost, a loopback address or a listed name: no page can be called so.
    #[must_use]
    pub fn is_called_by_its_name(&self, head: &Head<'_, '_>) -> bool {
        head.header("host").is_some_and(|host| is_loopback_name(host) || self.is_listed(host))
    }

    fn is_listed(&self, host: &[u8]) -> bool {
        self.hosts.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(name_of(host)))
    }

    /// A page that a browser of this machine shows could speak to 127.0.0.1 as well. Its requests have an `Origin`, or
    /// cannot have this content type; and if its own name was made to mean 127.0.0.1 (DNS rebinding), that name is in
    /// `Host`.
    fn check_program(&self, head: &Head<'_, '_>) -> Result<(), Reply> {
        if head.header("origin").is_some() {
            let error = "without ops.token_file the API is not for web pages: the request has an Origin";
            return Err(Reply::error(403, error));
        }
        if !self.is_called_by_its_name(head) {
            let error = "without ops.token_file the API is called localhost, 127.0.0.1 or [::1]; the Host is another";
            return Err(Reply::error(403, error));
        }
        if head.method == "POST" && !head.header("content-type").is_some_and(is_json) {
            let error = "without ops.token_file the API takes Content-Type: application/json only";
            return Err(Reply::error(403, error));
        }
        Ok(())
    }
}

fn check_token(head: &Head<'_, '_>, token: &Secret) -> Result<(), Reply> {
    let mut values = head.values("authorization");
    let (only, more) = (values.next(), values.next());
    let told = only.filter(|_| more.is_none()).and_then(|value| {
        let (scheme, rest) = value.split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| rest.trim_ascii())
    });
    let (error, challenge) = match told {
        Some(told) if token.is(told) => return Ok(()),
        Some(_) => ("the token is not the one in ops.token_file", "Bearer realm=\"roomcast\", error=\"invalid_token\""),
        None => ("the API wants the token in ops.token_file: Authorization: Bearer …", "Bearer realm=\"roomcast\""),
    };
    Err(Reply::error(401, error).with("WWW-Authenticate", challenge))
}

/// A `Host` without its port.
fn name_of(host: &[u8]) -> &[u8] {
    match host.iter().rposition(|&byte| byte == b':') {
        Some(colon) if colon + 1 < host.len() && host[colon + 1..].iter().all(u8::is_ascii_digit) => &host[..colon],
        _ => host,
    }
}

/// The address that a `Host` is, if it is one.
fn address_of(host: &[u8]) -> Option<IpAddr> {
    let name = std::str::from_utf8(name_of(host)).ok()?;
    match name.strip_prefix('[') {
        Some(inside) => inside.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => name.parse().ok().map(IpAddr::V4),
    }
}

fn is_address(host: &[u8]) -> bool {
    address_of(host).is_some()
}

/// `localhost`, an address of `127.0.0.0/8` or `[::1]`, with or without a port.
fn is_loopback_name(host: &[u8]) -> bool {
    name_of(host).eq_ignore_ascii_case(b"localhost") || address_of(host).is_some_and(|address| address.is_loopback())
}

fn is_json(value: &[u8]) -> bool {
    let essence = value.split(|&byte| byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::{self, HeadStep};

    fn status(access: &Access, request: &str) -> u16 {
        answer(request, |head| access.check(head))
    }

    fn answer(request: &str, check: impl Fn(&Head<'_, '_>) -> Result<(), Reply>) -> u16 {
        let text = format!("{request}\r\n\r\n");
        let mut headers = [httparse::EMPTY_HEADER; http::HEADERS_MAX];
        match http::parse_head(text.as_bytes(), &mut headers, 8192) {
            Ok(HeadStep::Complete { head, .. }) => check(&head).map_or_else(|reply| reply.status, |()| 200),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_token_lets_in() {
        let token = Some(Secret::new("0123456789abcdef").unwrap());
        for is_local in [true, false] {
            let access = Access { token: token.clone(), is_local, hosts: Box::default() };
            for (header, expected) in [
                ("Authorization: Bearer 0123456789abcdef", 200),
                ("authorization: bearer   0123456789abcdef", 200),
                ("Origin: https://a.example\r\nAuthorization: Bearer 0123456789abcdef", 200),
                ("Authorization: Bearer 0123456789abcdee", 401),
                ("Authorization: Bearer", 401),
                ("Authorization: Basic 0123456789abcdef", 401),
                ("Authorization: 0123456789abcdef", 401),
                ("Authorization: Bearer 0123456789abcdef\r\nAuthorization: Bearer x", 401),
                ("Cookie: token=0123456789abcdef", 401),
            ] {
                assert_eq!(status(&access, &format!("POST / HTTP/1.1\r\nHost: any\r\n{header}")), expected, "{header}");
            }
        }
    }

    #[test]
    fn without_a_token_only_programs_of_this_machine_are_let_in() {
        let json = "Content-Type: application/json";
        for (request, expected) in [
            ("GET / HTTP/1.1\r\nHost: 127.0.0.1:3200", 200),
            ("GET / HTTP/1.1\r\nHost: LocalHost", 200),
            ("GET / HTTP/1.1\r\nHost: [::1]:3200", 200),
            ("GET / HTTP/1.1\r\nHost: [::1]", 200),
            ("GET / HTTP/1.1\r\nHost: 127.1.2.3", 200),
            ("GET / HTTP/1.1\r\nHost: ops.example:3200", 200),
            ("GET / HTTP/1.1\r\nHost: x.ops.example", 403),
            ("GET / HTTP/1.1\r\nHost: evil.example:3200", 403),
            ("GET / HTTP/1.1\r\nHost: localhost.evil.example", 403),
            ("GET / HTTP/1.1\r\nHost: 10.0.0.1", 403),
            ("GET / HTTP/1.1\r\nHost: localhost:", 403),
            ("GET / HTTP/1.1\r\nHost: ", 403),
            ("GET / HTTP/1.0", 403),
            ("GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:3200", 403),
            ("GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: null", 403),
            ("POST / HTTP/1.1\r\nHost: localhost", 403),
            ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain", 403),
            ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain;application/json", 403),
            (&format!("POST / HTTP/1.1\r\nHost: localhost\r\n{json}"), 200),
            (&format!("POST / HTTP/1.1\r\nHost: localhost\r\n{json}; charset=utf-8"), 200),
            (&format!("POST / HTTP/1.1\r\nHost: localhost\r\n{json}\r\nOrigin: http://a.example"), 403),
        ] {
            let of = |is_local| Access { token: None, is_local, hosts: ["Ops.Example".into()].into() };
            assert_eq!(status(&of(true), request), expected, "{request}");
            assert_eq!(status(&of(false), request), 403, "{request}");
        }
    }

    #[test]
    fn only_the_page_of_this_port_watches() {
        let access = Access { token: None, is_local: true, hosts: ["ops.example".into()].into() };
        for (request, expected) in [
            ("Host: localhost:3200\r\nOrigin: http://localhost:3200", 200),
            ("Host: LOCALHOST:3200\r\nOrigin: http://localhost:3200", 200),
            ("Host: 127.0.0.1:3200", 200),
            ("Host: ops.example\r\nOrigin: https://ops.example", 200),
            ("Host: localhost:3200\r\nOrigin: http://localhost", 403),
            ("Host: localhost:3200\r\nOrigin: http://localhost:3000", 403),
            ("Host: localhost:3200\r\nOrigin: http://127.0.0.1:3200", 403),
            ("Host: localhost:3200\r\nOrigin: http://evil.example", 403),
            ("Host: localhost:3200\r\nOrigin: null", 403),
            ("Host: localhost:3200\r\nOrigin: ", 403),
            ("Host: localhost:3200\r\nOrigin: localhost:3200", 403),
            ("Host: localhost:3200\r\nOrigin: http://localhost:3200\r\nOrigin: http://evil.example", 403),
            ("Host: evil.example:3200\r\nOrigin: http://evil.example:3200", 403),
        ] {
            let request = format!("GET /live HTTP/1.1\r\n{request}");
            assert_eq!(answer(&request, |head| access.check_page(head)), expected, "{request}");
        }
    }

    #[test]
    fn pages_cannot_ask_by_a_name_of_theirs() {
        let listed = ["ops.example"].map(Into::into);
        // A local port, one that lists a name, and both.
        for (host, local, lists, both) in [
            ("Host: 127.0.0.1:3200", 200, 200, 200),
            ("Host: 10.1.2.3:3200", 200, 200, 200),
            ("Host: [::1]:3200", 200, 200, 200),
            ("Host: [2001:db8::1]", 200, 200, 200),
            ("Host: localhost:3200", 200, 200, 200),
            ("Host: roomcast_ops", 200, 200, 200),
            ("Host: OPS.example:3200", 403, 200, 200),
            ("Host: evil.example:3200", 403, 403, 403),
            ("Host: ops.example.evil.example", 403, 403, 403),
            ("Host: 127.0.0.1.evil.example", 403, 403, 403),
            ("Host: evil.", 403, 403, 403),
            ("Host: [::1].evil.example", 403, 403, 403),
            ("Host: ", 403, 403, 403),
            ("Host: :3200", 403, 403, 403),
        ] {
            let status = |is_local, hosts: &[Box<str>]| {
                let access = Access { token: None, is_local, hosts: hosts.into() };
                answer(&format!("GET / HTTP/1.1\r\n{host}"), |head| access.check_name(head))
            };
            assert_eq!(
                (status(true, &[]), status(false, &listed), status(true, &listed)),
                (local, lists, both),
                "{host}"
            );
            assert_eq!(status(false, &[]), 200, "{host}");
        }
        let access = Access { token: None, is_local: true, hosts: Box::default() };
        assert_eq!(answer("GET / HTTP/1.0", |head| access.check_name(head)), 200);
    }
}
