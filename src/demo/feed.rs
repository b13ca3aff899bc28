//! The demo's backend: publishes the simulated day to the publishers' port, as any backend would, at a speed of its
//! own. Knows the line protocol and nothing else of the server.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::timetable::{self, Day, Event, SimTime};
use crate::ops::alias;
use crate::proto::json;

/// Lines whose receipts are waited for together: they fit into any socket's buffers, so that neither side blocks the
/// other.
const BATCH: usize = 128;
/// A server of the same process that takes longer to answer is not going to.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a connection that could not be had.
const RETRY: Duration = Duration::from_millis(500);
/// How often clients are told what the server does.
const FIGURES_EVERY: Duration = Duration::from_secs(1);
/// Nothing is published more often, so that what is nearly due at the same time goes in one write.
const TURN: Duration = Duration::from_millis(10);

/// Whom to feed with what.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The publishers' port.
    pub ingest: SocketAddr,
    /// Simulated seconds of each second.
    pub speed: u32,
    /// Which world it is.
    pub seed: u64,
    /// What has happened before on the first day is published at once.
    pub starts_at: SimTime,
}

/// Publishes until the other end of `stop` is dropped.
pub fn run(options: Options, stop: &Receiver<()>) {
    let mut feed = Feed::new(options, Instant::now());
    let mut connection = None;
    loop {
        let pause = match turn(&mut feed, &mut connection, options.ingest) {
            Ok(pause) => pause,
            Err(error) => {
                // At the end the server goes first.
                tracing::debug!(%error, ingest = %options.ingest, "the demo's feed lost its connection");
                connection = None;
                RETRY
            }
        };
        if stop.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Publishes what is due, and says how long nothing will be.
fn turn(feed: &mut Feed, connection: &mut Option<Connection>, ingest: SocketAddr) -> io::Result<Duration> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(Connection::open(ingest)?),
    };
    feed.publish_due(connection, Instant::now())?;
    feed.publish_figures(connection, Instant::now())?;
    Ok(feed.pause(Instant::now()))
}

/// Where the simulated day is, and what of it the server has not confirmed.
struct Feed {
    options: Options,
    day: Day,
    /// A moment, and what the simulated clock showed then.
    set: (Instant, SimTime),
    /// Sent, perhaps, and not confirmed: sent again on the next connection. Who gets one of them twice sees no harm, as
    /// each says how things are.
    unconfirmed: Vec<Event>,
    figures_at: Instant,
    /// When the server was asked last, and what it had done until then.
    asked: Option<(Instant, Done)>,
}

/// What a server has done so far.
#[derive(Clone, Copy)]
struct Done {
    events: u64,
    deliveries: u64,
}

impl Feed {
    fn new(options: Options, now: Instant) -> Feed {
        let day = Day::new(options.seed, 1);
        let set = (now, options.starts_at.max(day.begins()));
        Feed { options, day, set, unconfirmed: Vec::new(), figures_at: now, asked: None }
    }

    /// What the simulated clock shows.
    fn time(&self, now: Instant) -> SimTime {
        let (then, shown) = self.set;
        let passed = now.saturating_duration_since(then).as_secs_f64() * f64::from(self.options.speed);
        SimTime(shown.0.saturating_add(passed as u32))
    }

    fn publish_due(&mut self, connection: &mut Connection, now: Instant) -> io::Result<()> {
        loop {
            if self.unconfirmed.is_empty() {
                self.unconfirmed = self.day.events_until(self.time(now), BATCH);
            }
            if !self.unconfirmed.is_empty() {
                let timestamp = timestamp(SystemTime::now());
                let lines = self.unconfirmed.iter().map(|event| (event, connection.next_id()));
                let lines: Vec<String> = lines.map(|(event, id)| self.day.line(event, id, &timestamp)).collect();
                connection.publish(&lines)?;
                self.unconfirmed.clear();
            } else if self.day.next_at().is_none() {
                // The first train of a day is known before the last one of the day before has come: night is short.
                self.day = Day::new(self.options.seed, self.day.number() + 1);
                self.set = (now, self.day.begins());
            } else {
                return Ok(());
            }
        }
    }

    /// Tells all clients of the namespace `/` what time it is, and what the server does.
    fn publish_figures(&mut self, connection: &mut Connection, now: Instant) -> io::Result<()> {
        if now < self.figures_at {
            return Ok(());
        }
        self.figures_at = now + FIGURES_EVERY;
        let answer = connection.ask_stats()?;
        let number = |name| json::get(&answer, name).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        let done = Done { events: number("events"), deliveries: number("deliveries") };
        let before = self.asked.replace((now, done));
        // The first time there is nothing to compare with.
        let Some((then, before)) = before else { return Ok(()) };
        let seconds = now.saturating_duration_since(then).as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds).round() as u64;
        let time = self.time(now);
        let figures = Figures {
            clock: time.hh_mm(),
            seconds: time.0,
            day: self.day.number(),
            speed: self.options.speed,
            connections: number("connections"),
            sockets: number("sockets"),
            rooms: number("rooms"),
            events_per_s: rate(done.events, before.events),
            deliveries_per_s: rate(done.deliveries, before.deliveries),
            timestamp: timestamp(SystemTime::now()),
        };
        let line = timetable::line(connection.next_id(), "/", Vec::new(), None, "FIGURES", &figures);
        connection.publish(&[line])
    }

    /// How long nothing is due.
    fn pause(&self, now: Instant) -> Duration {
        let figures = self.figures_at.saturating_duration_since(now);
        let (time, next) = (self.time(now), self.day.next_at().unwrap_or_default());
        let simulated = next.0.saturating_sub(time.0);
        let event = Duration::from_secs_f64(f64::from(simulated) / f64::from(self.options.speed));
        figures.min(event).max(TURN)
    }
}

/// What the page shows of the server.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    clock: String,
    seconds: u32,
    day: u32,
    speed: u32,
    connections: u64,
    sockets: u64,
    rooms: u64,
    events_per_s: u64,
    deliveries_per_s: u64,
    timestamp: String,
}

/// With microseconds, so that a page on the same machine sees how long an event took.
fn timestamp(now: SystemTime) -> String {
    let micros = now.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_micros() % 1000;
    format!("{}{micros:03}Z", alias::iso(now).trim_end_matches('Z'))
}

/// A publisher's connection.
struct Connection {
    stream: BufReader<TcpStream>,
    last_id: u64,
}

impl Connection {
    fn open(ingest: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&ingest, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream: BufReader::new(stream), last_id: 0 })
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Sends lines with ids and waits until the server has taken them all.
    fn publish(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = lines.join("\n");
        text.push('\n');
        self.stream.get_mut().write_all(text.as_bytes())?;
        for _ in lines {
            let receipt = self.receipt()?;
            if json::get(&receipt, "ok") != Some("true") {
                tracing::warn!(receipt = receipt.trim_end(), "the server refuses a line of the demo's feed");
            }
        }
        Ok(())
    }

    /// What the server says of itself: an object of numbers.
    fn ask_stats(&mut self) -> io::Result<String> {
        let line = format!("{{\"op\":\"stats\",\"id\":{}}}\n", self.next_id());
        self.stream.get_mut().write_all(line.as_bytes())?;
        let receipt = self.receipt()?;
        let stats = json::get(&receipt, "stats").map(str::to_owned);
        stats.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, receipt))
    }

    fn receipt(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        json::validate(line.as_bytes(), &mut json::Scratch::default())
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error.to_string()))?;
        if json::get(&line, "draining") == Some("true") {
            // From here on nothing was taken: it is for the next server.
            return Err(ErrorKind::ConnectionAborted.into());
        }
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn options(ingest: SocketAddr) -> Options {
        Options { ingest, speed: 600, seed: 7, starts_at: SimTime(0) }
    }

    #[test]
    fn the_clock_runs_at_its_speed_and_days_follow_each_other() {
        let start = Instant::now();
        let mut feed = Feed::new(options(([127, 0, 0, 1], 1).into()), start);
        let begins = feed.day.begins();
        assert_eq!(feed.time(start), begins);
        assert_eq!(feed.time(start + Duration::from_millis(1500)), begins + SimTime(900));
        // The first event is due at once.
        assert_eq!(feed.pause(start), TURN);
        while !feed.day.events_until(SimTime(u32::MAX), 10_000).is_empty() {}
        let mut connection = Connection { stream: BufReader::new(pair().0), last_id: 0 };
        feed.unconfirmed.clear();
        // Nothing is due on the new day but its first events, which this peer would not answer.
        let (_, peer) = pair();
        connection.stream = BufReader::new(peer);
        connection.stream.get_ref().set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        assert!(feed.publish_due(&mut connection, start).is_err());
        assert_eq!((feed.day.number(), feed.time(start)), (2, feed.day.begins()));
        assert!(!feed.unconfirmed.is_empty(), "they are sent again");
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    /// A server that confirms nothing of its first connection gets the same lines on the next.
    #[test]
    fn what_was_not_confirmed_is_sent_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = options(listener.local_addr().unwrap());
        let (stopper, stop) = std::sync::mpsc::channel();
        let feed = std::thread::spawn(move || run(options, &stop));
        let first_line = |stream: &TcpStream| {
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).unwrap();
            let data = json::get(&line, "data").unwrap();
            (json::get(data, "trainNo").unwrap().to_owned(), json::get(data, "station").unwrap().to_owned())
        };
        let (first, _) = listener.accept().unwrap();
        let lost = first_line(&first);
        drop(first);
        let (second, _) = listener.accept().unwrap();
        assert_eq!(first_line(&second), lost);
        drop((second, listener, stopper));
        feed.join().unwrap();
    }

    #[test]
    fn timestamps_have_microseconds() {
        let time = UNIX_EPOCH + Duration::from_micros(1_790_000_000_012_345);
        assert_eq!(timestamp(time), "2026-09-21T14:13:20.012345Z");
    }
}
