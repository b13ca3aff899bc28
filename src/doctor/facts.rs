//! What is so on this host: texts of `/proc` and `/sys`, and what the kernel answers when asked. Does not judge.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sysctls;
use crate::config::{Config, Steer};
use crate::net::{self, cpus, listener, sys};

/// All that checks are made from. What could not be read is missing.
#[derive(Debug, Default)]
pub struct Facts {
    /// As in `uname -r`.
    pub release: Option<String>,
    /// Why a ring like a core's cannot be made, if it cannot.
    pub ring: Option<Refusal>,
    /// Whose limits, processors and control groups these are.
    pub subject: Subject,
    /// Its `/proc/PID/limits`.
    pub limits: Option<String>,
    /// The processors that it may run on.
    pub cpus: Vec<usize>,
    /// Its `THP_enabled`.
    pub huge_pages_here: Option<String>,
    /// `memory.max` of its control groups, each with the group.
    pub memory_limits: GroupLimits,
    /// Likewise `cpu.max`.
    pub cpu_max: GroupLimits,
    /// Values of settings by key.
    pub sysctls: BTreeMap<String, String>,
    /// Network cards that are up.
    pub cards: Vec<Card>,
    /// `/proc/interrupts`.
    pub interrupts: String,
    /// The processors of the cards' interrupts, as lists.
    pub affinities: BTreeMap<u32, String>,
    /// All processes' names.
    pub processes: BTreeMap<u32, String>,
    /// Frequency governors by processor.
    pub governors: BTreeMap<usize, String>,
    /// The clock in use.
    pub clocksource: Option<String>,
    /// The clocks there are.
    pub clocksources: Option<String>,
    /// How right the time is.
    pub clock: Option<Discipline>,
    /// `/sys/kernel/mm/transparent_hugepage/enabled`.
    pub huge_pages: Option<String>,
    /// `/proc/net/softnet_stat`.
    pub softnet: Option<String>,
    /// Connections in the firewall's table.
    pub conntrack: Option<String>,
    /// The folder of the tuning scripts, as a command line names it.
    pub tuning: &'static str,
    /// The config.
    pub settings: Settings,
    /// Files with secrets that the config names.
    pub secrets: Vec<SecretFile>,
    /// The ports that the config names.
    pub ports: Vec<Port>,
    /// The folder of the publishers' Unix socket, and whether it is there.
    pub socket_folder: Option<(PathBuf, bool)>,
}

/// A limit of control groups: each group with the text of its file.
pub type GroupLimits = Vec<(String, String)>;

/// What the kernel said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its number.
    pub errno: Option<i32>,
    /// In words.
    pub text: String,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal { errno: error.raw_os_error(), text: error.to_string() }
    }
}

/// Whose limits are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    /// Whoever runs the doctor, as no server runs.
    #[default]
    Caller,
    /// The server that holds the clients' port.
    Server(u32),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Caller => f.write_str("a server started from here"),
            Subject::Server(pid) => write!(f, "the running server (process {pid})"),
        }
    }
}

/// A network card.
#[derive(Clone, Debug, Default)]
pub struct Card {
    /// Of its interface.
    pub name: String,
    /// Its interrupts' numbers; empty if the kernel does not tell.
    pub interrupts: Vec<u32>,
    /// True if the kernel hands its packets to other processors by software (RPS).
    pub spreads: bool,
}

/// How right the system's clock is.
#[derive(Clone, Copy, Debug)]
pub struct Discipline {
    /// True if something sets it by a better clock.
    pub synchronised: bool,
    /// By how much it may be wrong.
    pub error_max: Duration,
}

/// The config that roomcast would serve with.
#[derive(Debug, Default)]
pub struct Settings {
    /// What it is called.
    pub name: String,
    /// None if it cannot be read.
    pub config: Option<Config>,
    /// Why roomcast would not start with it.
    pub errors: Vec<String>,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// A file with a secret.
#[derive(Clone, Debug)]
pub struct SecretFile {
    /// The key that names it.
    pub key: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: u32,
}

/// A port that the config names.
#[derive(Clone, Debug)]
pub struct Port {
    /// The key that names it.
    pub key: &'static str,
    /// Where it is.
    pub address: SocketAddr,
    /// Whether one can listen there.
    pub state: PortState,
}

/// Whether one can listen at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortState {
    /// One can.
    Free,
    /// Others listen there: their processes and names, if they can be seen.
    Taken(Vec<(u32, String)>),
    /// One cannot.
    Refused(Refusal),
}

impl Facts {
    /// Gathers them; files of `/proc` and `/sys` below `root`, which is `/` but for tests and containers that have the
    /// host's files elsewhere. `config` is the config's file, none for the built-in one.
    #[must_use]
    pub fn gather(root: &Path, config: Option<&Path>) -> Facts {
        let host = Host { root };
        let settings = settings(config);
        let mut facts = Facts {
            release: host.line("proc/sys/kernel/osrelease"),
            ring: net::probe_ring().err().map(Refusal::from),
            sysctls: host.sysctls(),
            cards: host.cards(),
            interrupts: host.text("proc/interrupts").unwrap_or_default(),
            processes: host.processes(),
            governors: host.governors(),
            clocksource: host.line(&format!("{CLOCKS}/current_clocksource")),
            clocksources: host.line(&format!("{CLOCKS}/available_clocksource")),
            clock: sys::clock_discipline().ok().map(|(synchronised, error_max)| Discipline { synchronised, error_max }),
            huge_pages: host.line("sys/kernel/mm/transparent_hugepage/enabled"),
            softnet: host.text("proc/net/softnet_stat"),
            conntrack: host.line("proc/sys/net/netfilter/nf_conntrack_count"),
            // Of the package, or of a copy of the sources that one stands in.
            tuning: if Path::new(PACKAGED).is_dir() { PACKAGED } else { "tuning" },
            ..Facts::default()
        };
        for interrupt in facts.cards.iter().flat_map(|card| &card.interrupts) {
            facts.affinities.extend(host.affinity(*interrupt).map(|list| (*interrupt, list)));
        }
        if let Some(config) = &settings.config {
            facts.ports = ports(config, &host, &facts.processes);
            facts.secrets = secrets(config);
            facts.socket_folder = config.unix_socket().and_then(|(path, _)| {
                let folder = path.parent()?.to_owned();
                let is_there = folder.is_dir();
                Some((folder, is_there))
            });
        }
        facts.settings = settings;
        facts.subject = facts.ports.iter().find(|port| port.key == "server.listen").map_or(Subject::Caller, server);
        facts.look_at_subject(&host);
        facts
    }

    fn look_at_subject(&mut self, host: &Host<'_>) {
        let process = match self.subject {
            Subject::Caller => "proc/self".to_owned(),
            Subject::Server(pid) => format!("proc/{pid}"),
        };
        self.limits = host.text(&format!("{process}/limits"));
        let status = host.text(&format!("{process}/status")).unwrap_or_default();
        self.cpus = cpus::in_status(&status).unwrap_or_else(cpus::allowed);
        let huge_pages = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
        self.huge_pages_here = huge_pages.map(|text| text.trim().to_owned());
        let groups = host.text(&format!("{process}/cgroup")).unwrap_or_default();
        (self.memory_limits, self.cpu_max) = host.group_limits(&groups);
    }

    /// The processors that cores are pinned to.
    #[must_use]
    pub fn core_cpus(&self) -> &[usize] {
        let cores = self.settings.config.as_ref().map_or(0, |config| config.server.cores);
        if cores == 0 { &self.cpus } else { &self.cpus[..cores.min(self.cpus.len())] }
    }

    /// True if connections go to the core of the processor that they come in on.
    #[must_use]
    pub fn is_steered(&self) -> bool {
        self.settings.config.as_ref().is_some_and(|config| config.server.steer == Steer::Cpu)
    }

    /// True if a process of this name runs.
    #[must_use]
    pub fn has_process(&self, name: &str) -> bool {
        self.processes.values().any(|other| other == name)
    }
}

const CLOCKS: &str = "sys/devices/system/clocksource/clocksource0";
/// Where the package has the tuning scripts.
const PACKAGED: &str = "/usr/share/roomcast/tuning";
/// The name of our own process.
const OURS: &str = "roomcast";

fn server(port: &Port) -> Subject {
    let PortState::Taken(holders) = &port.state else { return Subject::Caller };
    holders.iter().find(|(_, name)| name == OURS).map_or(Subject::Caller, |(pid, _)| Subject::Server(*pid))
}

/// Reads a host's files below a folder.
struct Host<'a> {
    root: &'a Path,
}

impl Host<'_> {
    fn text(&self, path: &str) -> Option<String> {
        fs::read(self.root.join(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A text of one line.
    fn line(&self, path: &str) -> Option<String> {
        self.text(path).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// What is in a folder, sorted.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        let names: BTreeSet<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.into_iter().collect()
    }

    fn numbers(&self, path: &str) -> Vec<u32> {
        self.names(path).iter().filter_map(|name| name.parse().ok()).collect()
    }

    fn sysctls(&self) -> BTreeMap<String, String> {
        let read = |key: &str| Some((key.to_owned(), self.line(&format!("proc/sys/{}", key.replace('.', "/")))?));
        sysctls::keys().filter_map(read).collect()
    }

    /// Interfaces with a device behind them; others have no interrupts.
    fn cards(&self) -> Vec<Card> {
        let read = |name: String| {
            let folder = format!("sys/class/net/{name}");
            let is_down = self.line(&format!("{folder}/operstate")).is_some_and(|state| state == "down");
            if is_down || !self.root.join(&folder).join("device").exists() {
                return None;
            }
            // A virtual card's are its bus device's.
            let of_device = self.numbers(&format!("{folder}/device/msi_irqs"));
            let interrupts = match of_device.is_empty() {
                true => self.numbers(&format!("{folder}/device/../msi_irqs")),
                false => of_device,
            };
            let queues = self.names(&format!("{folder}/queues"));
            let mut masks = queues.iter().filter_map(|queue| self.line(&format!("{folder}/queues/{queue}/rps_cpus")));
            let spreads = masks.any(|mask| mask.contains(|c: char| c.is_ascii_hexdigit() && c != '0'));
            Some(Card { name, interrupts, spreads })
        };
        self.names("sys/class/net").into_iter().filter_map(read).collect()
    }

    fn affinity(&self, interrupt: u32) -> Option<String> {
        let read = |name: &str| self.line(&format!("proc/irq/{interrupt}/{name}"));
        // What it really uses, which the other only allows.
        read("effective_affinity_list").or_else(|| read("smp_affinity_list"))
    }

    fn processes(&self) -> BTreeMap<u32, String> {
        let read = |pid: u32| Some((pid, self.line(&format!("proc/{pid}/comm"))?));
        self.numbers("proc").into_iter().filter_map(read).collect()
    }

    fn governors(&self) -> BTreeMap<usize, String> {
        let folder = "sys/devices/system/cpu";
        let read = |name: String| {
            let cpu = name.strip_prefix("cpu")?.parse::<usize>().ok()?;
            Some((cpu, self.line(&format!("{folder}/{name}/cpufreq/scaling_governor"))?))
        };
        self.names(folder).into_iter().filter_map(read).collect()
    }

    /// `memory.max` and `cpu.max` of all groups from the process's own up to the root; of `/proc/PID/cgroup`.
    fn group_limits(&self, groups: &str) -> (GroupLimits, GroupLimits) {
        let (mut memory, mut cpu) = (Vec::new(), Vec::new());
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            for group in Path::new(path).ancestors() {
                let shown = group.display().to_string();
                let group = shown.trim_start_matches('/');
                let read = |file: &str, limits: &mut GroupLimits| {
                    limits.extend(self.line(file).map(|text| (shown.clone(), text)));
                };
                if controllers.is_empty() {
                    read(&format!("sys/fs/cgroup/{group}/memory.max"), &mut memory);
                    read(&format!("sys/fs/cgroup/{group}/cpu.max"), &mut cpu);
                } else if controllers.split(',').any(|controller| controller == "memory") {
                    // Version 1.
                    read(&format!("sys/fs/cgroup/memory/{group}/memory.limit_in_bytes"), &mut memory);
                }
            }
        }
        (memory, cpu)
    }

    /// The processes with a socket that listens where one at `address` would be in the way.
    fn holders(&self, address: SocketAddr, processes: &BTreeMap<u32, String>) -> Vec<(u32, String)> {
        let tables = ["proc/net/tcp", "proc/net/tcp6"].map(|path| self.text(path).unwrap_or_default());
        let sockets: Vec<String> = tables
            .iter()
            .flat_map(|table| listening(table))
            .filter(|(other, _)| collide(*other, address))
            .map(|(_, inode)| format!("socket:[{inode}]"))
            .collect();
        let holds = |pid: &u32| {
            let folder = format!("proc/{pid}/fd");
            self.names(&folder).iter().any(|descriptor| {
                let link = fs::read_link(self.root.join(&folder).join(descriptor));
                link.is_ok_and(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
            })
        };
        let holders = processes.iter().filter(|(pid, _)| !sockets.is_empty() && holds(pid));
        holders.map(|(pid, name)| (*pid, name.clone())).collect()
    }
}

/// True if not both can listen.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// The listening sockets of `/proc/net/tcp` or `tcp6`, with their inodes. Addresses stand there as words of the
/// processor's own order.
fn listening(table: &str) -> Vec<(SocketAddr, u64)> {
    const LISTEN: &str = "0A";
    let read = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = words.get(1)?.split_once(':')?;
        let word = |index: usize| u32::from_str_radix(address.get(index * 8..index * 8 + 8)?, 16).ok();
        let ip: IpAddr = match address.len() {
            8 => Ipv4Addr::from(word(0)?.to_ne_bytes()).into(),
            32 => {
                let mut bytes = [0; 16];
                for (index, part) in bytes.chunks_mut(4).enumerate() {
                    part.copy_from_slice(&word(index)?.to_ne_bytes());
                }
                Ipv6Addr::from(bytes).into()
            }
            _ => return None,
        };
        let port = u16::from_str_radix(port, 16).ok()?;
        (*words.get(3)? == LISTEN).then_some((SocketAddr::new(ip, port), words.get(9)?.parse().ok()?))
    };
    table.lines().filter_map(read).collect()
}

fn ports(config: &Config, host: &Host<'_>, processes: &BTreeMap<u32, String>) -> Vec<Port> {
    let ports = [
        ("server.listen", config.server.listen),
        ("ingest.listen", config.ingest.listen),
        ("ops.listen", config.ops.listen),
    ];
    let look = |(key, address): (_, SocketAddr)| {
        let state = match listener::probe(address) {
            Ok(()) => PortState::Free,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                PortState::Taken(host.holders(address, processes))
            }
            Err(error) => PortState::Refused(error.into()),
        };
        Port { key, address, state }
    };
    ports.into_iter().map(look).collect()
}

fn secrets(config: &Config) -> Vec<SecretFile> {
    let read = |(key, path): (String, PathBuf)| {
        let mode = fs::metadata(&path).ok()?.mode() & 0o7777;
        Some(SecretFile { key, path, mode })
    };
    config.secret_files().into_iter().filter_map(read).collect()
}

/// Reads the config and all that it names, as the server does when it starts.
fn settings(file: Option<&Path>) -> Settings {
    let Some(file) = file else {
        let name = "the built-in development config".to_owned();
        return Settings { name, config: Some(Config::development()), ..Settings::default() };
    };
    let mut settings = Settings { name: file.display().to_string(), ..Settings::default() };
    match Config::load(file) {
        Err(error) => settings.errors.push(error.to_string()),
        Ok(config) => {
            let identity = config.identity().map(|identity| {
                settings.warnings.extend(identity.into_iter().flat_map(|(_, warnings)| warnings));
            });
            let results =
                [config.check_exposure(), config.ingest_token().map(drop), config.api_token().map(drop), identity];
            let errors = results.into_iter().filter_map(Result::err);
            settings.errors.extend(errors.map(|error| error.to_string()));
            settings.config = Some(config);
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_of_sockets_are_read() {
        if cfg!(target_endian = "big") {
            return;
        }
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1673 1 0 100 0 0 10 0
   1: 020200C0:833A 507100CB:0050 06 00000000:00000000 03:00000A89 00000000     0        0 0 3 0
   2: damaged
";
        assert_eq!(listening(table), [("127.0.0.1:3000".parse().unwrap(), 1673)]);
        let table6 =
            "   0: 00000000000000000000000001000000:0C80 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 99 1
   1: 00000000000000000000000000000000:0C1C 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 98 1
   2: 0000000000000000FFFF00000100007F:0BB8 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 97 1
";
        let parsed = listening(table6);
        let expected = [("[::1]:3200", 99), ("[::]:3100", 98), ("[::ffff:127.0.0.1]:3000", 97)];
        assert_eq!(parsed, expected.map(|(address, inode)| (address.parse().unwrap(), inode)));
        for (address, inode) in [
            ("[::1]:3200", Some(99)),
            ("127.0.0.1:3100", Some(98)),
            ("127.0.0.1:3000", Some(97)),
            ("127.0.0.1:3200", None),
        ] {
            let address = address.parse().unwrap();
            let found = parsed.iter().find(|(other, _)| collide(*other, address)).map(|(_, inode)| *inode);
            assert_eq!(found, inode, "{address}");
        }
    }

    #[test]
    fn a_host_without_files_has_no_facts_and_no_panic() {
        let facts = Facts::gather(Path::new("/nowhere"), None);
        assert_eq!((facts.release, facts.limits, facts.cards.len()), (None, None, 0));
        assert!(!facts.cpus.is_empty());
        assert_eq!(facts.ports.len(), 3);
    }
}
