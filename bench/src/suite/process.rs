//! Processes pinned to cores: starting, waiting until they serve, stopping. Does not know what they are.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process, pidfd_open, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Until a server serves: a virtual machine that loads a Node for the first time takes seconds.
const READY_MAX: Duration = Duration::from_secs(30);
/// From SIGTERM to SIGKILL.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How often waits look whether the suite is to stop.
const LOOK: Duration = Duration::from_millis(100);
/// How often a port is looked at.
const TRY: Duration = Duration::from_millis(10);
/// Of what a program said on stderr, the last characters that are told.
const TAIL_CHARS: usize = 400;
/// Servers' ports begin here: those below belong to well-known services.
const PORT_MIN: u16 = 10_240;
/// Where Linux lets ports of connections begin, unless it is told otherwise.
const PORT_EPHEMERAL: u16 = 32_768;
/// Ports that are tried, one after the other, until enough are free.
const PORTS_TRIED: u16 = 1_000;
/// Connections that any scenario has, twice, and some.
const DESCRIPTORS: u64 = 1 << 20;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Somebody wants the suite to stop.
    Interrupted,
    /// Anything else, in words.
    Failed(String),
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

/// True once SIGINT or SIGTERM has come.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes these signals over.
    pub fn register() -> Result<Self, String> {
        let interrupt = Self::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupt.0)).map_err(|error| error.to_string())?;
        }
        Ok(interrupt)
    }

    fn look(&self) -> Result<(), Trouble> {
        if self.0.load(Ordering::Relaxed) { Err(Trouble::Interrupted) } else { Ok(()) }
    }
}

/// How a server says that it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// By a line `ready` on stdout.
    Line,
    /// Both ports accept.
    Accepts,
}

/// Cores that this process may use, in their order.
pub fn cores() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// As many descriptors as the system gives, for this process and those that it starts.
pub fn raise_descriptor_limit() -> u64 {
    let old = getrlimit(Resource::Nofile);
    let hard = old.maximum.unwrap_or(DESCRIPTORS);
    // Only root may raise the hard limit; everybody may go up to it.
    for limit in [hard.max(DESCRIPTORS), hard] {
        if setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) }).is_ok() {
            return limit;
        }
    }
    old.current.unwrap_or(hard)
}

/// A free address on loopback for each of `N` listeners, where no connection will take it before the server does: ten
/// thousand clients use up most of the ephemeral range, and any other program on the machine may have as many.
pub fn free_addresses<const N: usize>() -> Result<[SocketAddr; N], String> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let ephemeral = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(PORT_EPHEMERAL);
    let ports = if ephemeral > PORT_MIN + PORTS_TRIED { PORT_MIN..ephemeral } else { PORT_MIN..u16::MAX };
    let random = RandomState::new().build_hasher().finish();
    // All are held until all are found, so that they differ.
    let mut listeners = Vec::new();
    for offset in 0..u64::from(PORTS_TRIED) {
        let port = ports.start + (random.wrapping_add(offset) % ports.len() as u64) as u16;
        listeners.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        if listeners.len() == N {
            break;
        }
    }
    let addresses: Result<Vec<SocketAddr>, _> = listeners.iter().map(TcpListener::local_addr).collect();
    let addresses = addresses.map_err(|error| error.to_string())?;
    addresses.try_into().map_err(|_| format!("no free port among {PORTS_TRIED}"))
}

/// Starts a program on these cores alone. Affinity is inherited from the thread that starts it, so that a thread of its
/// own pins itself, starts the program, and ends.
fn spawn_pinned(command: &mut Command, cores: &[usize]) -> Result<Child, String> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    let name = command.get_program().to_string_lossy().into_owned();
    let start = || {
        sched_setaffinity(None, &set).map_err(|error| format!("cannot be pinned to cores {cores:?}: {error}"))?;
        command.stdin(Stdio::null()).spawn().map_err(|error| format!("{name}: {error}"))
    };
    thread::scope(|scope| scope.spawn(start).join()).unwrap_or_else(|_| Err("the starting thread panicked".to_owned()))
}

/// A child that is killed when nobody waits for it any more.
#[derive(Debug)]
struct Process {
    child: Child,
    pidfd: OwnedFd,
    stderr: PathBuf,
    interrupt: Interrupt,
}

impl Process {
    fn start(mut command: Command, cores: &[usize], stderr: &Path, interrupt: &Interrupt) -> Result<Self, String> {
        let file = File::create(stderr).map_err(|error| format!("{}: {error}", stderr.display()))?;
        let mut child = spawn_pinned(command.stdout(Stdio::piped()).stderr(file), cores)?;
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { child, pidfd, stderr: stderr.to_owned(), interrupt: interrupt.clone() }),
            Err(error) => {
                // Nothing can be said about a child that cannot be ended.
                let _ = child.kill();
                let _ = child.wait();
                Err(format!("pidfd_open: {error}"))
            }
        }
    }

    /// Waits for its end, at most so long. True if it has ended.
    fn ends_within(&self, time: Duration) -> bool {
        let timeout = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
        matches!(poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout)), Ok(1..))
    }

    /// Waits for its end.
    fn wait(&mut self, time: Duration) -> Result<ExitStatus, Trouble> {
        let deadline = Instant::now() + time;
        while !self.ends_within(LOOK) {
            self.interrupt.look()?;
            if Instant::now() > deadline {
                return Err(Trouble::Failed(format!("no end after {} s{}", time.as_secs(), self.said())));
            }
        }
        self.child.wait().map_err(|error| Trouble::Failed(error.to_string()))
    }

    /// The end of what it said on stderr, to be put behind an error.
    fn said(&self) -> String {
        let bytes = fs::read(&self.stderr).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        let skip = text.chars().count().saturating_sub(TAIL_CHARS);
        let tail: String = text.chars().skip(skip).collect();
        if tail.is_empty() { tail } else { format!("; it said: {tail}") }
    }

    /// SIGTERM, and SIGKILL if that does not help.
    fn stop(&mut self) {
        // Errors mean that it has ended, which is what is wanted.
        if !self.ends_within(Duration::ZERO) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            if !self.ends_within(STOP_MAX) {
                let _ = self.child.kill();
            }
        }
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A contender that serves, until it is dropped.
#[derive(Debug)]
pub struct Server(Process);

impl Server {
    /// Starts it and waits until it serves.
    pub fn start(
        command: Command,
        cores: &[usize],
        ready: Ready,
        addresses: &[SocketAddr],
        stderr: &Path,
        interrupt: &Interrupt,
    ) -> Result<Self, Trouble> {
        let mut process = Process::start(command, cores, stderr, interrupt)?;
        let lines = lines(&mut process.child);
        let deadline = Instant::now() + READY_MAX;
        loop {
            interrupt.look()?;
            let serves = match ready {
                Ready::Accepts => {
                    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
                    addresses.iter().all(|address| listens(&table, address.port()))
                }
                Ready::Line => match lines.recv_timeout(LOOK) {
                    Ok(line) => line.trim() == "ready",
                    Err(RecvTimeoutError::Timeout) => false,
                    Err(RecvTimeoutError::Disconnected) => {
                        // Its stdout is closed, so that it has ended or is about to; if not, the time runs out.
                        process.ends_within(LOOK);
                        false
                    }
                },
            };
            if serves {
                return Ok(Self(process));
            }
            if process.ends_within(if ready == Ready::Accepts { TRY } else { Duration::ZERO }) {
                return Err(Trouble::Failed(format!("the server ended before it served{}", process.said())));
            }
            if Instant::now() > deadline {
                let why = format!("the server did not serve after {} s{}", READY_MAX.as_secs(), process.said());
                return Err(Trouble::Failed(why));
            }
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.child.id()
    }

    /// How it ended, if it should not have.
    #[must_use]
    pub fn has_ended(&self) -> Option<String> {
        self.0.ends_within(Duration::ZERO).then(|| format!("the server ended{}", self.0.said()))
    }
}

/// True if somebody accepts on that port, by the kernel's table of sockets (proc_net(5)). Trying to connect would tell
/// as well, but the server would have had a client before the first one that is measured.
fn listens(table: &str, port: u16) -> bool {
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, state) = (fields.next(), fields.nth(1));
        let own = local.and_then(|local| u16::from_str_radix(local.rsplit(':').next()?, 16).ok());
        own == Some(port) && state == Some("0A")
    })
}

/// Lines of a child's stdout. Whatever comes after the receiver is gone is read all the same: nobody writes into a full
/// pipe.
fn lines(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
    }
    receiver
}

/// Runs a program to its end: its status and what it said on stdout and stderr.
pub fn run(
    command: Command,
    cores: &[usize],
    time_max: Duration,
    stderr: &Path,
    interrupt: &Interrupt,
) -> Result<(ExitStatus, String, String), Trouble> {
    let mut process = Process::start(command, cores, stderr, interrupt)?;
    let mut stdout = process.child.stdout.take();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        // What cannot be read is missing from the text, and then the text is no JSON.
        let _ = stdout.as_mut().map(|stdout| stdout.read_to_string(&mut text));
        text
    });
    let status = process.wait(time_max)?;
    interrupt.look()?;
    let text = reader.join().map_err(|_| Trouble::Failed("the reader of stdout panicked".to_owned()))?;
    Ok((status, text, process.said()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("roomcast-bench-process-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_program_runs_on_its_core_to_its_end() {
        let core = *cores().last().unwrap();
        let command = shell("grep Cpus_allowed_list /proc/self/status; echo trouble >&2; exit 3");
        let stderr = file("run");
        let interrupt = Interrupt::default();
        let (status, out, said) = run(command, &[core], Duration::from_secs(60), &stderr, &interrupt).unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(out.split_whitespace().last(), Some(core.to_string().as_str()));
        assert_eq!(said, "; it said: trouble");
        fs::remove_file(stderr).unwrap();
    }

    #[test]
    fn servers_are_ready_by_a_line_or_by_accepting() {
        let (cores, interrupt, stderr) = (cores(), Interrupt::default(), file("ready"));
        let start = |script: &str, ready, addresses: &[SocketAddr]| {
            Server::start(shell(script), &cores, ready, addresses, &stderr, &interrupt)
        };
        let server = start("echo loading; echo ready; exec sleep 1000", Ready::Line, &[]).unwrap();
        assert_eq!(server.has_ended(), None);
        let pid = server.pid();
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(server);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(start("exec sleep 1000", Ready::Accepts, &[address]).unwrap());

        for ready in [Ready::Line, Ready::Accepts] {
            let [free] = free_addresses().unwrap();
            let trouble = start("echo no config >&2; exit 1", ready, &[free]).unwrap_err();
            let Trouble::Failed(why) = trouble else { panic!("{trouble:?}") };
            assert!(why.contains("no config"), "{why}");
        }
        fs::remove_file(stderr).unwrap();
    }

    #[test]
    fn who_is_interrupted_starts_and_waits_for_nothing() {
        let interrupt = Interrupt::default();
        interrupt.0.store(true, Ordering::Relaxed);
        let stderr = file("interrupt");
        let run = run(shell("exec sleep 1000"), &cores(), Duration::from_secs(60), &stderr, &interrupt);
        assert_eq!(run.unwrap_err(), Trouble::Interrupted);
        fs::remove_file(stderr).unwrap();
    }

    #[test]
    fn a_program_without_end_is_ended() {
        let stderr = file("endless");
        let interrupt = Interrupt::default();
        let trouble =
            run(shell("exec sleep 1000"), &cores(), Duration::from_millis(1), &stderr, &interrupt).unwrap_err();
        assert!(matches!(&trouble, Trouble::Failed(why) if why.contains("no end")), "{trouble:?}");
        fs::remove_file(stderr).unwrap();
    }

    #[test]
    fn only_listeners_accept() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
                     0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000\n\
                     1: 0100007F:0BB9 0100007F:0BB8 01 00000000:00000000\n";
        assert_eq!([3000, 3001, 3002].map(|port| listens(table, port)), [true, false, false]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        assert!(listens(&table, listener.local_addr().unwrap().port()));
    }

    #[test]
    fn free_addresses_differ() {
        let [a, b, c] = free_addresses().unwrap();
        assert!(a != b && b != c && a != c);
        assert!(a.ip().is_loopback() && a.port() >= PORT_MIN);
    }
}
