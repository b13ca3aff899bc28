//! The demo's page: a few files over HTTP, on a port of its own. Does not know what the page shows.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::proto::http::{self, Connection, HeadStep, Response};

/// Connections at a time: some browsers with some tabs each.
const CONNECTIONS_MAX: usize = 64;
/// For a request's head and for what follows it, each.
const PATIENCE: Duration = Duration::from_secs(5);
const HEAD_BYTES_MAX: usize = 8192;
/// What a client still sends after its request is thrown away, so that the answer is not lost to a reset: so much of
/// it.
const DISCARDED_BYTES_MAX: usize = 64 << 10;

/// The page's files: where, what kind, what.
const FILES: [(&str, &str, &str); 5] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("page/app.js")),
    ("/socket.io.min.js", "text/javascript; charset=utf-8", include_str!("page/socket.io.min.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];
/// Where the page reads what it cannot know before the demo runs.
const PLAN: &str = "/plan.json";

/// What is served.
#[derive(Debug)]
pub struct Pages {
    plan: String,
    /// What the page may load and connect to: itself and the clients' port, and nothing of the Internet.
    policy: String,
}

impl Pages {
    /// `plan` is JSON for the page, which connects to `clients`.
    #[must_use]
    pub fn new(plan: String, clients: SocketAddr) -> Pages {
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' \
             http://{clients} ws://{clients}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        Pages { plan, policy }
    }

    /// Answers requests until the process ends.
    pub fn serve(self, listener: &TcpListener) {
        let pages = Arc::new(self);
        let open = Arc::new(AtomicUsize::new(0));
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let place = Place::take(&open);
            // Too many: closed, as it is dropped.
            let Some(place) = place else { continue };
            let pages = pages.clone();
            let answer = move || {
                let _place = place;
                if let Err(error) = pages.answer(stream) {
                    tracing::debug!(%error, "a request for the demo's page ended early");
                }
            };
            if let Err(error) = std::thread::Builder::new().name("demo-page".to_owned()).spawn(answer) {
                tracing::warn!(%error, "cannot answer a request for the demo's page");
            }
        }
    }

    /// One request, one answer.
    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_write_timeout(Some(PATIENCE))?;
        let (mut buffer, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        let response = loop {
            if let Some(response) = self.response(&buffer, SystemTime::now()) {
                break response;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 2048];
            match stream.read(&mut chunk)? {
                0 => return Ok(()),
                bytes => buffer.extend_from_slice(&chunk[..bytes]),
            }
        };
        stream.write_all(&response)?;
        stream.shutdown(Shutdown::Write)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        io::copy(&mut stream.take(DISCARDED_BYTES_MAX as u64), &mut io::sink()).map(drop)
    }

    /// The answer to a request that begins so; `None` if its head is not whole yet.
    fn response(&self, buffer: &[u8], now: SystemTime) -> Option<Vec<u8>> {
        let mut headers = [httparse::EMPTY_HEADER; http::HEADERS_MAX];
        let plain = "text/plain; charset=utf-8";
        let mut head_only = false;
        let (status, kind, body) = match http::parse_head(buffer, &mut headers, HEAD_BYTES_MAX) {
            Ok(HeadStep::Incomplete) => return None,
            Err(error) => (error.status(), plain, error.to_string()),
            Ok(HeadStep::Complete { head, .. }) => {
                head_only = head.method == "HEAD";
                let file = FILES.iter().find(|(path, ..)| *path == head.path);
                match (head.method, file) {
                    ("GET" | "HEAD", Some((_, kind, text))) => (200, *kind, (*text).to_owned()),
                    ("GET" | "HEAD", None) if head.path == PLAN => (200, "application/json", self.plan.clone()),
                    ("GET" | "HEAD", None) => (404, plain, "there is nothing here; the demo's page is /".to_owned()),
                    _ => (405, plain, "the demo's page can only be read".to_owned()),
                }
            }
        };
        let mut extra = vec![
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", &self.policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            // A page that shares its process with nobody else's is given a finer clock, by which it shows latencies.
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Embedder-Policy", "require-corp"),
        ];
        if status == 405 {
            extra.push(("Allow", "GET, HEAD"));
        }
        let date = httpdate::fmt_http_date(now);
        let mut out = Vec::new();
        let response = Response::new(status, kind, body.as_bytes());
        Response { headers: &extra, date: &date, connection: Connection::Close, head_only, ..response }.write(&mut out);
        Some(out)
    }
}

/// One of the connections that there may be.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Place> {
        let place = Place(open.clone());
        // Dropped, it is given back.
        (open.fetch_add(1, Ordering::Relaxed) < CONNECTIONS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(request: &str) -> Option<String> {
        let pages = Pages::new("{\"speed\":60}".to_owned(), ([127, 0, 0, 1], 3000).into());
        let bytes = pages.response(request.as_bytes(), SystemTime::UNIX_EPOCH)?;
        Some(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn requests_and_answers() {
        for (request, status, words) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200, &["text/html", "<!doctype html>", "connection: close"][..]),
            ("GET /?a=b HTTP/1.1\r\nHost: x\r\n\r\n", 200, &["<!doctype html>"]),
            ("GET /app.js HTTP/1.1\r\nHost: x\r\n\r\n", 200, &["text/javascript", "connect-src 'self' http://127"]),
            ("GET /socket.io.min.js HTTP/1.1\r\nHost: x\r\n\r\n", 200, &["Socket.IO v4", "MIT License"]),
            ("GET /plan.json HTTP/1.1\r\nHost: x\r\n\r\n", 200, &["application/json", "{\"speed\":60}"]),
            ("HEAD /style.css HTTP/1.1\r\nHost: x\r\n\r\n", 200, &["text/css"]),
            ("GET /../Cargo.toml HTTP/1.1\r\nHost: x\r\n\r\n", 404, &["the demo's page is /"]),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na", 405, &["allow: get, head"]),
            ("GET / HTTP/1.1\r\n\r\n", 400, &["host"]),
            ("nonsense\r\n\r\n", 400, &[]),
        ] {
            let said = answer(request).unwrap();
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {said}");
            let said_lower = said.to_lowercase();
            assert!(words.iter().all(|word| said_lower.contains(&word.to_lowercase())), "{request}: {said}");
            assert_eq!(said.ends_with("\r\n\r\n"), request.starts_with("HEAD"), "{request}: {said}");
        }
        assert_eq!(answer("GET / HTTP/1.1\r\nHost: x\r\n"), None);
    }

    #[test]
    fn the_files_ask_for_nothing_of_the_internet() {
        for (path, _, text) in FILES {
            assert!(!text.contains("sourceMappingURL"), "{path}: a source map is not there");
            if path != "/socket.io.min.js" {
                // A name, and the clients' port.
                let is_ours =
                    |rest: &str| rest.starts_with("www.w3.org/2000/svg\"") || rest.starts_with("${plan.listen}/");
                let mut links = text.split("http://").skip(1).chain(text.split("https://").skip(1));
                assert_eq!(links.find(|rest| !is_ours(rest)), None, "{path}");
            }
        }
    }

    #[test]
    fn connections_are_bounded() {
        let open = Arc::new(AtomicUsize::new(0));
        let places: Vec<_> = (0..CONNECTIONS_MAX + 2).map(|_| Place::take(&open)).collect();
        assert_eq!(places.iter().flatten().count(), CONNECTIONS_MAX);
        drop(places);
        assert_eq!(open.load(Ordering::Relaxed), 0);
    }
}
