//! Connections on the operators' port, HTTP/1.1. Low rate, on an executor of its own, so that rendering metrics delays
//! no client. Does not know what there is to be asked for.

use super::clerk::Clerk;
use super::live;
use super::places::{Complaint, Found, Place, Places};
use super::reply::Reply;
use super::site::{Facts, Opening, Plan, Site};
use crate::net::executor;
use crate::proto::http::{self, Body, BodyLength, BodyStep, Connection, HeadStep, Response};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use glommio::net::{TcpListener, TcpStream};
use std::future::Future;
use std::io::{Error, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

/// Connections at a time; more than any number of scrapers and backends needs.
const CONNECTIONS_MAX: usize = 256;
const HEAD_BYTES_MAX: usize = 8192;
/// Whoever connects asks for something: so long for the first request's head.
const FIRST: Duration = Duration::from_secs(5);
/// As long for a further one, for a body, and for a write: longer than backends keep a connection that they do not use.
const IDLE: Duration = Duration::from_secs(60);
/// The log tells of connections that found no place of their own once in this time, however many there are.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);
/// Connections that ended otherwise than by their client's wish or answer.
pub const CLOSES: &str = "roomcast_operator_closes_total";
/// What follows a refused request is thrown away, so that the answer is not lost to a reset: for so long between two
/// reads, and so much.
const DISCARD: Duration = Duration::from_secs(1);
const DISCARDED_BYTES_MAX: usize = 16 << 20;
const READ_BYTES: usize = 16 << 10;
/// The numbers are taken so often while somebody looks at them,
const LOOK: Duration = Duration::from_secs(1);
/// and once in so many times otherwise, so that whoever comes sees the last minutes.
const LOOKS_UNSEEN: u32 = 5;
/// A live connection is served so often when it says nothing.
const LIVE_TICK: Duration = Duration::from_millis(100);
/// And no more often than this, however much it says.
const LIVE_PAUSE: Duration = Duration::from_millis(10);
/// A live connection that does not take what it is told within this is closed.
const LIVE_WRITE: Duration = Duration::from_secs(5);

/// Listens at `address` until the process ends. `cores` is a publisher's connection for the HTTP API. `ready` gets the
/// address that was bound, or why none was.
pub async fn serve(
    address: SocketAddr,
    facts: Facts,
    cores: UnixStream,
    ready: impl FnOnce(Result<SocketAddr, String>),
) {
    let clerk = Rc::new(Clerk::default());
    let bound = converse(cores, &clerk)
        .and_then(|()| Ok(TcpListener::bind(address)?))
        .and_then(|listener| Ok((listener.local_addr()?, listener)));
    let listener = match bound {
        Ok((address, listener)) => {
            ready(Ok(address));
            listener
        }
        Err(error) => return ready(Err(format!("cannot listen for operators on {address} (ops.listen): {error}"))),
    };
    let site = Rc::new(Site::new(facts, clerk));
    let watched = site.clone();
    glommio::spawn_local(async move {
        for turn in 0u32.. {
            if watched.is_watched() || turn.is_multiple_of(LOOKS_UNSEEN) {
                watched.look();
            }
            glommio::timer::sleep(LOOK).await;
        }
    })
    .detach();
    let places = Places::new(CONNECTIONS_MAX);
    let (mut crowded, mut failing) = (Complaint::new(COMPLAIN_EVERY), Complaint::new(COMPLAIN_EVERY));
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                if let Some(count) = failing.count(Instant::now()) {
                    tracing::warn!(%error, count, "cannot accept on the operators' port");
                }
                glommio::timer::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (reason, place) = match places.take() {
            Found::Free(place) => ("", Some(place)),
            Found::Pushed(place) => ("pushed_out", Some(place)),
            // Dropped: closed.
            Found::None => ("no_place", None),
        };
        if !reason.is_empty() {
            closes(reason);
            if let Some(count) = crowded.count(Instant::now()) {
                let max = CONNECTIONS_MAX;
                tracing::warn!(max, count, "too many connections on the operators' port; idle ones are closed");
            }
        }
        let Some(place) = place else { continue };
        let site = site.clone();
        glommio::spawn_local(async move {
            // Nobody is pushed out while being answered.
            let pushed = async {
                place.pushed().await;
                Err(Error::other("another connection took its place"))
            };
            if let Err(error) = future::or(pushed, connection(stream, &site, &place)).await {
                tracing::debug!(%error, "an operator's connection ended");
            }
        })
        .detach();
    }
}

fn closes(reason: &'static str) {
    metrics::counter!(CLOSES, "reason" => reason).increment(1);
}

/// Does `work`, of which the client is to do its part in time: `reason` is counted if it does not.
async fn within<T>(
    limit: Duration,
    reason: &'static str,
    work: impl Future<Output = std::io::Result<T>>,
) -> std::io::Result<T> {
    let late = async {
        glommio::timer::sleep(limit).await;
        closes(reason);
        Err(ErrorKind::TimedOut.into())
    };
    future::or(work, late).await
}

/// Moves lines and receipts between the clerk and the cores, until these end.
fn converse(cores: UnixStream, clerk: &Rc<Clerk>) -> std::io::Result<()> {
    let (mut reader, mut writer) = (executor::adopt(cores.try_clone()?), executor::adopt(cores));
    let (reading, writing) = (clerk.clone(), clerk.clone());
    glommio::spawn_local(async move {
        let mut chunk = vec![0; READ_BYTES];
        while let Ok(bytes @ 1..) = reader.read(&mut chunk).await {
            reading.received(&chunk[..bytes]);
        }
        reading.close();
    })
    .detach();
    glommio::spawn_local(async move {
        while let Some(lines) = future::poll_fn(|context| writing.poll_lines(context)).await {
            if writer.write_all(&lines).await.is_err() {
                break;
            }
        }
        writing.close();
    })
    .detach();
    Ok(())
}

/// What a request's head leads to.
enum Begun {
    /// An answer; unless the connection ends, no body follows.
    Refused(Reply),
    /// A body, and then an answer.
    Planned { plan: Plan, body: Body, expects_continue: bool },
    /// A WebSocket.
    Opened(Box<Opening>),
}

/// How the answer is sent.
#[derive(Clone, Copy)]
struct Manner {
    connection: Connection,
    head_only: bool,
}

async fn connection(mut stream: TcpStream, site: &Site, place: &Place) -> std::io::Result<()> {
    stream.set_write_timeout(Some(IDLE))?;
    let mut buffer = Vec::new();
    let (mut limit, mut reason) = (FIRST, "timeout");
    loop {
        let head = within(limit, reason, read_head(&mut stream, &mut buffer, site)).await?;
        let Some((begun, mut manner)) = head else { return Ok(()) };
        let reply = match begun {
            Begun::Refused(reply) => reply,
            Begun::Opened(opening) => {
                // Whoever watches gives way to nobody: there are not many.
                place.asked();
                return watch(stream, &buffer, site, *opening).await;
            }
            Begun::Planned { plan, mut body, expects_continue } => {
                if expects_continue && buffer.is_empty() && !body.is_complete() {
                    stream.write_all(http::CONTINUE).await?;
                }
                match within(IDLE, "timeout", read_body(&mut stream, &mut buffer, &mut body)).await? {
                    Some(Ok(())) => {
                        place.asked();
                        site.serve(&plan, &body.into_bytes()).await
                    }
                    Some(Err(reply)) => {
                        manner.connection = Connection::Close;
                        reply
                    }
                    None => return Ok(()),
                }
            }
        };
        place.answered();
        (limit, reason) = (IDLE, "idle");
        stream.write_all(&written(&reply, manner)).await?;
        if manner.connection == Connection::Close {
            return finish(stream).await;
        }
    }
}

/// Serves a live connection to its end. `rest` is what came behind the request.
async fn watch(mut stream: TcpStream, rest: &[u8], site: &Site, opening: Opening) -> std::io::Result<()> {
    let Opening { upgrade, mut live, watcher: _watcher } = opening;
    count_request(101);
    let mut out = Vec::new();
    http::write_upgrade_response(&mut out, &upgrade);
    live.received(rest, site.now());
    let mut chunk = vec![0; READ_BYTES];
    loop {
        live.advance(&site.board(), site.now());
        out.append(&mut live.take());
        if !out.is_empty() {
            within(LIVE_WRITE, "live_slow", stream.write_all(&out)).await?;
            out.clear();
        }
        if let Some(reason) = live.is_over() {
            if !reason.is_empty() {
                closes(reason);
            }
            return finish(stream).await;
        }
        let read = async { Some(stream.read(&mut chunk).await) };
        let tick = async {
            glommio::timer::sleep(LIVE_TICK).await;
            None
        };
        match future::or(read, tick).await.transpose()? {
            None => {}
            Some(0) => return Ok(()),
            Some(bytes) => {
                live.received(&chunk[..bytes], site.now());
                glommio::timer::sleep(LIVE_PAUSE).await;
            }
        }
    }
}

/// Reads the head at the start of `buffer`, if it is whole: its length, and what it leads to.
fn begin(buffer: &[u8], site: &Site) -> Option<(usize, Begun, Manner)> {
    let mut headers = [httparse::EMPTY_HEADER; http::HEADERS_MAX];
    let closing = Manner { connection: Connection::Close, head_only: false };
    let bad = |error: http::HeadError| Reply {
        headers: error.headers().to_vec(),
        ..Reply::text(error.status(), error.to_string())
    };
    let (bytes, head) = match http::parse_head(buffer, &mut headers, HEAD_BYTES_MAX) {
        Ok(HeadStep::Incomplete) => return None,
        Ok(HeadStep::Complete { bytes, head }) => (bytes, head),
        Err(error) => return Some((buffer.len(), Begun::Refused(bad(error)), closing)),
    };
    let head_only = head.method == "HEAD";
    let manner = Manner { connection: head.connection(), head_only };
    let length = match http::body_length(&head).and_then(|length| Ok((length, http::expects_continue(&head)?))) {
        Ok(length) => length,
        Err(error) => return Some((bytes, Begun::Refused(bad(error)), closing)),
    };
    let (length, expects_continue) = length;
    // What follows an answer to a request whose body was not read would be taken for a request.
    let refusing = match length {
        BodyLength::Bytes(0) => manner,
        _ => Manner { connection: Connection::Close, ..manner },
    };
    if head.path == live::PATH {
        return Some(match site.open(&head) {
            Ok(opening) => (bytes, Begun::Opened(Box::new(opening)), closing),
            Err(reply) => (bytes, Begun::Refused(reply), refusing),
        });
    }
    let begun = match site.begin(&head) {
        Err(reply) => return Some((bytes, Begun::Refused(reply), refusing)),
        Ok(plan) => match Body::new(length, plan.body_bytes_max) {
            Ok(body) => Begun::Planned { plan, body, expects_continue },
            Err(error) => return Some((bytes, Begun::Refused(refused_body(&error)), refusing)),
        },
    };
    Some((bytes, begun, manner))
}

fn refused_body(error: &http::BodyError) -> Reply {
    Reply::error(error.status(), &error.to_string())
}

/// Reads a request's head: what it leads to; `None` if the client ends before it is whole.
async fn read_head(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    site: &Site,
) -> std::io::Result<Option<(Begun, Manner)>> {
    loop {
        if let Some((bytes, begun, manner)) = begin(buffer, site) {
            buffer.drain(..bytes);
            return Ok(Some((begun, manner)));
        }
        if read_more(stream, buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Reads a request's body; `None` if the client ends within it.
async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    body: &mut Body,
) -> std::io::Result<Option<Result<(), Reply>>> {
    loop {
        match body.read(buffer) {
            Ok(BodyStep::Complete { bytes }) => {
                buffer.drain(..bytes);
                return Ok(Some(Ok(())));
            }
            Ok(BodyStep::Incomplete) => buffer.clear(),
            Err(error) => return Ok(Some(Err(refused_body(&error)))),
        }
        if read_more(stream, buffer).await? == 0 {
            return Ok(None);
        }
    }
}

async fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut chunk = [0; READ_BYTES];
    let bytes = stream.read(&mut chunk).await?;
    buffer.extend_from_slice(&chunk[..bytes]);
    Ok(bytes)
}

fn count_request(status: u16) {
    metrics::counter!("roomcast_operator_requests_total", "status" => status.to_string()).increment(1);
}

fn written(reply: &Reply, Manner { connection, head_only }: Manner) -> Vec<u8> {
    count_request(reply.status);
    let date = httpdate::fmt_http_date(SystemTime::now());
    let plain = Response::new(reply.status, reply.kind, reply.body.as_bytes());
    let mut out = Vec::new();
    Response { headers: &reply.headers, date: &date, connection, head_only, ..plain }.write(&mut out);
    out
}

/// Ends the connection: what the client still sends is thrown away until it has read the answer.
async fn finish(mut stream: TcpStream) -> std::io::Result<()> {
    stream.shutdown(Shutdown::Write).await?;
    stream.set_read_timeout(Some(DISCARD))?;
    let (mut chunk, mut discarded) = (vec![0; READ_BYTES], 0);
    while discarded < DISCARDED_BYTES_MAX {
        match stream.read(&mut chunk).await {
            Ok(bytes @ 1..) => discarded += bytes,
            _ => break,
        }
    }
    stream.close().await
}
