//! The load generator: one thread that publishes, reads all clients' connections, and checks that every event arrived
//! at every member, once and in order. This file has the scenarios and what happens when; it knows no wire.

mod check;
mod clients;
mod connect;
mod dialect;
mod frames;
mod measure;
mod publish;
mod result;
mod rooms;

use crate::cpu::{self, Subject, Usage, now};
use clap::ValueEnum;
use clients::{Clients, READ};
use dialect::Dialect;
use publish::{Pace, Publisher, Schedule};
use result::{Figures, Percentiles};
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

/// What is put on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// 50 rooms of 200, 100 events/s: latency.
    Trains,
    /// 5 rooms of 200, closed loop, 64 events under way: deliveries/s.
    Firehose,
    /// One room of 10,000, closed loop, 4 events under way: time to the last byte.
    Stadium,
    /// 2,500 rooms of 4, closed loop, 1,000 events under way: events/s.
    Lobby,
    /// 10,000 joined sockets that say nothing: memory.
    Idle,
    /// 10,000 times connect and join: connections/s.
    Storm,
    /// Firehose with 1 % of members that never read.
    Slow,
}

/// Arguments of `load`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// What is put on the server.
    #[arg(value_enum)]
    scenario: Scenario,
    /// What clients speak.
    #[arg(long, value_enum, default_value_t = Dialect::Raw)]
    dialect: Dialect,
    /// Clients' port.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Publishers' port.
    #[arg(long, default_value = "127.0.0.1:3100")]
    ingest: SocketAddr,
    /// Process whose CPU time and memory are counted, with those that it started.
    #[arg(long)]
    pid: u32,
    /// Cores that the server runs on; their softirq threads are counted with it.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    server_cores: Vec<usize>,
    /// Length of the measured window: 10 for trains, else 5. Idle connections rest for so long before they are counted.
    #[arg(long)]
    seconds: Option<f64>,
    /// Load before the window.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Factor for the number of sockets.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Give up if not a byte came for so many seconds although some are outstanding.
    #[arg(long, default_value_t = 10.0)]
    patience: f64,
    /// Connections on their way at a time.
    #[arg(long, default_value_t = 500)]
    at_once: usize,
    /// Rooms, instead of the scenario's.
    #[arg(long)]
    rooms: Option<usize>,
    /// Sockets in each room, instead of the scenario's.
    #[arg(long)]
    members: Option<usize>,
    /// Events under way in a closed loop, instead of the scenario's.
    #[arg(long)]
    outstanding: Option<u64>,
    /// Events per second in a scenario with a rate, instead of its own.
    #[arg(long)]
    rate: Option<f64>,
    /// Bytes of an event's data.
    #[arg(long, default_value_t = 200)]
    bytes: usize,
    /// Print one JSON object instead of lines for people.
    #[arg(long)]
    json: bool,
}

/// Most events of one epoll_wait, and so of deliveries between two looks at what may be published.
const EVENTS_MAX: usize = 1024;

/// Connections before the first look at memory or clocks, so that tables and pools have their first size and code is
/// compiled where a server does that late. Idle and storm only: the others have their warm-up.
const FIRST_CONNECTIONS: usize = 500;

/// How long to listen for what comes twice, after all has come once.
const QUIET: Duration = Duration::from_millis(50);

/// Length of the rest before memory is read for the first time.
const REST: Duration = Duration::from_millis(500);

/// epoll data of the publisher's connection; clients have their index.
const PUBLISHER: u64 = u64::MAX;

/// A scenario's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shape {
    rooms: usize,
    members: usize,
    pace: Pace,
    /// One socket in so many is never read.
    slow_every: Option<usize>,
}

impl Scenario {
    /// What the scenario is at full size.
    fn shape(self) -> Shape {
        let (rooms, members, pace) = match self {
            Scenario::Trains => (50, 200, Pace::Rate { per_second: 100.0 }),
            Scenario::Firehose | Scenario::Slow => (5, 200, Pace::ClosedLoop { outstanding: 64 }),
            Scenario::Stadium => (1, 10_000, Pace::ClosedLoop { outstanding: 4 }),
            Scenario::Lobby => (2_500, 4, Pace::ClosedLoop { outstanding: 1_000 }),
            Scenario::Idle | Scenario::Storm => (50, 200, Pace::Silent),
        };
        Shape { rooms, members, pace, slow_every: (self == Scenario::Slow).then_some(100) }
    }

    fn seconds(self) -> f64 {
        if self == Scenario::Trains { 10.0 } else { 5.0 }
    }
}

impl Shape {
    /// The sockets times `factor`: as many rooms fewer as that leaves one, then fewer members.
    fn scaled(self, factor: f64) -> Shape {
        let sockets = ((self.sockets() as f64 * factor).round() as usize).max(1);
        let rooms = ((self.rooms as f64 * factor).round() as usize).max(1);
        let members = (sockets / rooms).max(1);
        Shape { rooms, members, slow_every: self.slow_every.map(|every| every.min(rooms * members)), ..self }
    }

    fn sockets(&self) -> usize {
        self.rooms * self.members
    }

    /// The room of socket `index`, and whether it is never read.
    fn place(&self, index: usize) -> (u32, bool) {
        let slow = self.slow_every.is_some_and(|every| index % every == every - 1);
        ((index / self.members % self.rooms) as u32, slow)
    }
}

impl Options {
    fn shape(&self) -> Shape {
        let mut shape = self.scenario.shape();
        shape.rooms = self.rooms.unwrap_or(shape.rooms);
        shape.members = self.members.unwrap_or(shape.members);
        shape.pace = match shape.pace {
            Pace::ClosedLoop { outstanding } => {
                Pace::ClosedLoop { outstanding: self.outstanding.unwrap_or(outstanding) }
            }
            Pace::Rate { per_second } => Pace::Rate { per_second: self.rate.unwrap_or(per_second) },
            Pace::Silent => Pace::Silent,
        };
        shape.scaled(self.scale)
    }

    fn check(&self) -> Result<(), String> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if self.dialect == Dialect::Polling && self.scenario != Scenario::Idle {
            return Err("only idle can be measured with polling: the others read WebSocket frames".to_owned());
        }
        if !positive(self.scale) || !self.seconds.is_none_or(positive) || !positive(self.patience) {
            return Err("scale, seconds and patience must be positive".to_owned());
        }
        if !(self.warm_up == 0.0 || positive(self.warm_up)) || !self.rate.is_none_or(positive) {
            return Err("the warm-up must not be negative, the rate positive".to_owned());
        }
        if [self.rooms, self.members, Some(self.at_once)].contains(&Some(0)) || self.outstanding == Some(0) {
            return Err("rooms, members, outstanding and at-once must be at least 1".to_owned());
        }
        Ok(())
    }
}

/// Measures, prints, and says whether nothing was lost.
pub fn run(options: &Options) -> Result<ExitCode, String> {
    options.check()?;
    let mut load = Load::new(options)?;
    let mut figures = match options.scenario {
        Scenario::Idle => load.idle()?,
        Scenario::Storm => load.storm()?,
        _ => load.deliveries()?,
    };
    let Clients { check, closed, slow, slow_closed, .. } = &load.clients;
    figures.scenario = name(options.scenario);
    figures.dialect = name(options.dialect);
    (figures.lost, figures.duplicates, figures.reordered) = (check.lost, check.duplicates, check.reordered);
    figures.closed = *closed;
    if *slow > 0 {
        (figures.slow, figures.slow_closed) = (Some(*slow), Some(*slow_closed));
    }
    if options.json {
        println!("{}", serde_json::to_string(&figures).map_err(|error| error.to_string())?);
    } else {
        println!("{figures}");
    }
    if !check.passed() || *closed > 0 {
        eprintln!(
            "roomcast-bench: {} lost, {} duplicates, {} reordered, {closed} connections closed by the server",
            check.lost, check.duplicates, check.reordered
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Waits for events, at most `timeout`.
fn wait<'a>(
    epoll: &OwnedFd,
    events: &'a mut [MaybeUninit<Event>],
    timeout: Duration,
) -> Result<&'a mut [Event], String> {
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    match epoll::wait(epoll, events, Some(&timeout)) {
        Ok((events, _)) => Ok(events),
        Err(Errno::INTR) => Ok(&mut []),
        Err(error) => Err(format!("epoll_wait: {error}")),
    }
}

/// A scenario on its way.
struct Load<'a> {
    options: &'a Options,
    shape: Shape,
    subject: Subject,
    clients: Clients,
    publisher: Option<Publisher>,
    schedule: Schedule,
    /// Events published so far: they go round the rooms.
    published: u64,
    events: Vec<MaybeUninit<Event>>,
}

impl<'a> Load<'a> {
    fn new(options: &'a Options) -> Result<Load<'a>, String> {
        let shape = options.shape();
        let subject = Subject::new(options.pid, &options.server_cores)?;
        let first = if shape.pace == Pace::Silent { FIRST_CONNECTIONS } else { 0 };
        connect::allow_descriptors((shape.sockets() + first) as u64)?;
        let clients = Clients::new(options.dialect, shape.rooms as u32, options.bytes)?;
        Ok(Load {
            options,
            shape,
            subject,
            clients,
            publisher: None,
            schedule: Schedule::new(shape.pace),
            published: 0,
            events: vec![MaybeUninit::uninit(); EVENTS_MAX],
        })
    }

    /// All scenarios that publish.
    fn deliveries(&mut self) -> Result<Figures, String> {
        self.join(self.shape.sockets())?;
        self.open_publisher()?;
        self.proceed(seconds(self.options.warm_up), true)?;
        let before = self.subject.read()?;
        self.clients.measure.open = true;
        self.proceed(self.window(), true)?;
        let after = self.subject.read()?;
        self.clients.measure.open = false;
        self.drain()?;
        let usage = self.subject.usage(&before, &after);
        let measure = &self.clients.measure;
        let (seconds, server) = (usage.wall_ns as f64 / 1e9, usage.server_ns as f64);
        let per = |value: f64, count: u64| (count > 0).then(|| value / count as f64);
        Ok(Figures {
            events: Some(measure.events),
            deliveries: Some(measure.deliveries),
            events_per_s: Some(measure.events as f64 / seconds),
            deliveries_per_s: Some(measure.deliveries as f64 / seconds),
            cpu_ns_per_delivery: per(server, measure.deliveries),
            cpu_ns_per_event: per(server, measure.events),
            generator_ns_per_delivery: per(usage.generator_ns as f64, measure.deliveries),
            latency_us: Percentiles::of(&measure.latency),
            last_byte_us: Percentiles::of(&measure.last_byte),
            ..self.figures(&usage)
        })
    }

    /// Memory of connections that say nothing.
    fn idle(&mut self) -> Result<Figures, String> {
        self.join(FIRST_CONNECTIONS)?;
        self.proceed(REST, false)?;
        let (user, kernel) = (self.subject.user_memory()?, cpu::kernel_memory()?);
        self.join(self.shape.sockets())?;
        let before = self.subject.read()?;
        self.proceed(self.window(), false)?;
        let after = self.subject.read()?;
        let growth = |before: u64, after: u64| (after as f64 - before as f64) / self.shape.sockets() as f64;
        Ok(Figures {
            user_bytes: Some(growth(user, self.subject.user_memory()?)),
            kernel_bytes: Some(growth(kernel, cpu::kernel_memory()?)),
            ..self.figures(&self.subject.usage(&before, &after))
        })
    }

    /// Connections per second.
    fn storm(&mut self) -> Result<Figures, String> {
        self.join(FIRST_CONNECTIONS)?;
        self.proceed(REST, false)?;
        let before = self.subject.read()?;
        let connected = self.join(self.shape.sockets())?;
        let after = self.subject.read()?;
        let usage = self.subject.usage(&before, &after);
        Ok(Figures {
            connections_per_s: Some(self.shape.sockets() as f64 / connected.wall.as_secs_f64()),
            connect_us: Percentiles::of(&connected.times),
            cpu_ns_per_connection: Some(usage.server_ns as f64 / self.shape.sockets() as f64),
            ..self.figures(&usage)
        })
    }

    /// What all scenarios have.
    fn figures(&self, usage: &Usage) -> Figures {
        let share = |ns: u64| ns as f64 / usage.wall_ns.max(1) as f64;
        Figures {
            sockets: self.shape.sockets() as u64 - self.clients.slow,
            rooms: self.shape.rooms as u64,
            seconds: usage.wall_ns as f64 / 1e9,
            cpu_share: share(usage.server_ns),
            generator_share: share(usage.generator_ns),
            foreign_share: usage.foreign_share,
            ..Figures::default()
        }
    }

    fn window(&self) -> Duration {
        seconds(self.options.seconds.unwrap_or_else(|| self.options.scenario.seconds()))
    }

    fn join(&mut self, count: usize) -> Result<connect::Connected, String> {
        let Options { listen, at_once, patience, .. } = *self.options;
        let options = connect::Options { listen, at_once, patience: seconds(patience) };
        connect::join_all(&mut self.clients, &options, count, |index| self.shape.place(index))
    }

    fn open_publisher(&mut self) -> Result<(), String> {
        let socket = connect::open_publisher(self.options.ingest, seconds(self.options.patience))?;
        let flags = READ | EventFlags::OUT;
        epoll::add(&self.clients.epoll, &socket, EventData::new_u64(PUBLISHER), flags)
            .map_err(|error| format!("epoll: {error}"))?;
        self.publisher = Some(Publisher::new(socket, self.options.dialect, self.options.bytes));
        Ok(())
    }

    /// Runs for `length`; publishes if asked to. Ends early if the server says nothing any more.
    fn proceed(&mut self, length: Duration, publishing: bool) -> Result<(), String> {
        let until = now() + length.as_nanos() as u64;
        while now() < until && !self.stalled() {
            self.turn(until, publishing)?;
        }
        Ok(())
    }

    /// Waits until every event has reached all, or nothing comes any more; then for what comes twice.
    fn drain(&mut self) -> Result<(), String> {
        while self.clients.under_way > 0 && !self.stalled() {
            self.turn(now() + QUIET.as_nanos() as u64, false)?;
        }
        self.proceed(QUIET, false)?;
        self.clients.finish();
        Ok(())
    }

    fn stalled(&self) -> bool {
        let silence = now().saturating_sub(self.clients.heard_at);
        self.clients.under_way > 0 && silence > seconds(self.options.patience).as_nanos() as u64
    }

    /// Publishes what is due, waits for what comes, until `until` at the latest, and reads it.
    fn turn(&mut self, until: u64, publishing: bool) -> Result<(), String> {
        let now = now();
        let mut next = until;
        if publishing {
            self.publish(now)?;
            next = next.min(self.schedule.next().unwrap_or(until));
        }
        let timeout = Duration::from_nanos(next.saturating_sub(now));
        for event in wait(&self.clients.epoll, &mut self.events, timeout)? {
            match (event.data.u64(), &mut self.publisher) {
                (PUBLISHER, Some(publisher)) => {
                    publisher.hear(&mut self.clients.buffer)?;
                    publisher.flush()?;
                }
                (index, _) => self.clients.ready(index as u32, event.flags)?,
            }
        }
        Ok(())
    }

    /// All events that are due go out in one write.
    fn publish(&mut self, now: u64) -> Result<(), String> {
        let Some(publisher) = &mut self.publisher else { return Ok(()) };
        let due = self.schedule.take(now, self.clients.under_way);
        if due == 0 {
            return Ok(());
        }
        if self.clients.under_way == 0 {
            self.clients.heard_at = now;
        }
        for _ in 0..due {
            let room = (self.published % self.shape.rooms as u64) as u32;
            self.published += 1;
            let seq = self.clients.publish(room, now)?;
            publisher.push(room, seq, now);
        }
        publisher.flush()
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_takes_rooms_first() {
        // (scenario, factor, rooms, members)
        let rows = [
            (Scenario::Firehose, 1.0, 5, 200),
            (Scenario::Firehose, 0.01, 1, 10),
            (Scenario::Trains, 0.1, 5, 200),
            (Scenario::Stadium, 0.01, 1, 100),
            (Scenario::Lobby, 0.01, 25, 4),
            (Scenario::Storm, 0.0001, 1, 1),
        ];
        for (scenario, factor, rooms, members) in rows {
            let shape = scenario.shape().scaled(factor);
            assert_eq!((shape.rooms, shape.members), (rooms, members), "{scenario:?} × {factor}");
        }
    }

    #[test]
    fn one_in_a_hundred_is_slow_in_every_room() {
        let shape = Scenario::Slow.shape();
        let slow = |shape: &Shape| -> Vec<u32> {
            (0..shape.sockets()).map(|index| shape.place(index)).filter(|place| place.1).map(|place| place.0).collect()
        };
        assert_eq!(slow(&shape), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
        assert_eq!(slow(&shape.scaled(0.01)), [0]);
        assert!(slow(&Scenario::Firehose.shape()).is_empty());
    }
}
