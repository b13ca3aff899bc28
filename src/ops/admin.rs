//! The operators' port: `/metrics` and `/health` over HTTP/1.1. Low rate, on an executor of its own, so that rendering
//! metrics delays no client.

use super::metrics::Exporter;
use crate::proto::http::{self, Connection, Head, HeadStep, Response};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Connections at a time; more than any number of scrapers needs.
const CONNECTIONS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 8192;
/// A silent connection is closed after this.
const IDLE: Duration = Duration::from_secs(60);

/// What the port tells about.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The metrics.
    pub exporter: Exporter,
    /// Set once the process stops.
    pub draining: Arc<AtomicBool>,
    /// When it started.
    pub started: Instant,
}

/// Listens at `address` until the process ends. `ready` gets the address that was bound, or why none was.
pub async fn serve(address: SocketAddr, facts: Facts, ready: impl FnOnce(Result<SocketAddr, String>)) {
    let bound = TcpListener::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
    let listener = match bound {
        Ok((address, listener)) => {
            ready(Ok(address));
            listener
        }
        Err(error) => return ready(Err(format!("cannot listen for operators on {address} (ops.listen): {error}"))),
    };
    let connections = Rc::new(Cell::new(0));
    loop {
        match listener.accept().await {
            Ok(stream) if connections.get() < CONNECTIONS_MAX => {
                connections.set(connections.get() + 1);
                let (facts, connections) = (facts.clone(), connections.clone());
                glommio::spawn_local(async move {
                    if let Err(error) = connection(stream, &facts).await {
                        tracing::debug!(%error, "an operator's connection ended");
                    }
                    connections.set(connections.get() - 1);
                })
                .detach();
            }
            // Dropped: closed.
            Ok(_) => tracing::warn!(max = CONNECTIONS_MAX, "too many connections on the operators' port"),
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the operators' port");
                glommio::timer::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(mut stream: TcpStream, facts: &Facts) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let mut buffer = Vec::new();
    let mut chunk = [0; 2048];
    loop {
        let mut response = Vec::new();
        let (consumed, go_on) = answer(&buffer, facts, &mut response);
        if !response.is_empty() {
            stream.write_all(&response).await?;
        }
        buffer.drain(..consumed);
        if !go_on {
            return stream.close().await;
        }
        if consumed == 0 {
            let bytes = stream.read(&mut chunk).await?;
            if bytes == 0 {
                return Ok(());
            }
            buffer.extend_from_slice(&chunk[..bytes]);
        }
    }
}

/// Answers the request at the start of `buffer`, if it is whole. Returns its length and whether the connection goes on.
fn answer(buffer: &[u8], facts: &Facts, response: &mut Vec<u8>) -> (usize, bool) {
    let mut headers = [httparse::EMPTY_HEADER; http::HEADERS_MAX];
    match http::parse_head(buffer, &mut headers, HEAD_BYTES_MAX) {
        Ok(HeadStep::Incomplete) => (0, true),
        Ok(HeadStep::Complete { bytes, head }) => {
            // No request here has a body; what follows one would be read as a request.
            let connection = match http::body_length(&head) {
                Ok(http::BodyLength::Bytes(0)) => head.connection(),
                _ => Connection::Close,
            };
            route(&head, facts, response, connection);
            (bytes, connection != Connection::Close)
        }
        Err(error) => {
            let body = error.to_string();
            let (headers, connection) = (error.headers(), Connection::Close);
            Response { headers, connection, ..Response::new(error.status(), TEXT, body.as_bytes()) }.write(response);
            (buffer.len(), false)
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
/// Prometheus text exposition format 0.0.4.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn route(head: &Head<'_, '_>, facts: &Facts, response: &mut Vec<u8>, connection: Connection) {
    let head_only = head.method == "HEAD";
    let date = httpdate::fmt_http_date(SystemTime::now());
    let mut body = |status: u16, kind: &str, body: &str, headers: &[(&str, &str)]| {
        let plain = Response::new(status, kind, body.as_bytes());
        Response { headers, date: &date, connection, head_only, ..plain }.write(response);
    };
    match (head.path, head.method) {
        ("/metrics", "GET" | "HEAD") => body(200, METRICS, &facts.exporter.render(), &[]),
        ("/health", "GET" | "HEAD") => {
            let draining = facts.draining.load(Ordering::Relaxed);
            let (status, word) = if draining { (503, "draining") } else { (200, "healthy") };
            let uptime = facts.started.elapsed().as_secs();
            let version = env!("CARGO_PKG_VERSION");
            let text = format!(
                r#"{{"status":"{word}","service":"roomcast","version":"{version}","uptime_seconds":{uptime}}}"#
            );
            body(status, "application/json", &text, &[]);
        }
        ("/metrics" | "/health", _) => body(405, TEXT, "Use GET.\n", &[("Allow", "GET, HEAD")]),
        _ => body(404, TEXT, "There are /metrics and /health here.\n", &[]),
    }
}
