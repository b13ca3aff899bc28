//! How each contender is started, what it needs to be there, and its version. See `bench/peers/README.md`.

use super::plan::Contender;
use super::process::Ready;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The server `roomcast`.
    pub roomcast: PathBuf,
    /// This program, which is the floor as well.
    pub bench: PathBuf,
    /// `bench/peers`.
    pub peers: PathBuf,
}

/// A server that can be started.
#[derive(Debug)]
pub struct Launch {
    /// The program and its arguments.
    pub command: Command,
    /// When it serves.
    pub ready: Ready,
}

/// Where a server is to listen.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Clients.
    pub listen: SocketAddr,
    /// Publishers.
    pub ingest: SocketAddr,
    /// Operators, for those that have such a port.
    pub ops: SocketAddr,
}

impl Places {
    /// What is missing to measure that contender.
    #[must_use]
    pub fn missing(&self, contender: Contender) -> Option<String> {
        let node = || self.peers.join("node");
        match contender {
            Contender::Roomcast | Contender::Roomcast2 => self.absent(&[&self.roomcast, &self.roomcast_template()]),
            contender if contender.is_floor() => None,
            Contender::SocketIo => program("node").or_else(|| self.absent(&[&node().join("node_modules/socket.io")])),
            Contender::Ws => program("node").or_else(|| self.absent(&[&node().join("node_modules/ws")])),
            Contender::Bun => {
                let bun = self.bun();
                self.absent(&[&bun]).or_else(|| program(&bun.to_string_lossy()))
            }
            Contender::Socketioxide => self.absent(&[&self.socketioxide()]),
            _ => program("nats-server").or_else(|| self.absent(&[&self.nats_template()])),
        }
    }

    /// The command that starts it. A config that it needs is written into `folder`.
    pub fn launch(&self, contender: Contender, at: &Addresses, folder: &Path) -> Result<Launch, String> {
        let cores = contender.cores().to_string();
        let config = folder.join(format!("{}.conf", contender.name()));
        let floor = |frames, by| {
            let mut command = Command::new(&self.bench);
            command.args(["floor", "--frames", frames, "--by", by]);
            command
        };
        let script = |program: &str, path: &str| {
            let mut command = Command::new(program);
            command.arg(self.peers.join(path));
            command
        };
        let mut command = match contender {
            Contender::Roomcast | Contender::Roomcast2 => {
                fill(&self.roomcast_template(), &config, at, &cores)?;
                let mut command = Command::new(&self.roomcast);
                command.arg("--config").arg(&config);
                return Ok(Launch { command, ready: Ready::Accepts });
            }
            Contender::Nats => {
                fill(&self.nats_template(), &config, at, &cores)?;
                let mut command = Command::new("nats-server");
                command.arg("-c").arg(&config).env("GOMAXPROCS", &cores);
                return Ok(Launch { command, ready: Ready::Accepts });
            }
            Contender::FloorSend => floor("each", "send"),
            Contender::FloorUring => floor("each", "uring"),
            Contender::FloorJoined => floor("joined", "send"),
            Contender::FloorJoinedUring => floor("joined", "uring"),
            Contender::SocketIo => script("node", "node/socketio.js"),
            Contender::Ws => script("node", "node/ws.js"),
            Contender::Bun => script(&self.bun().to_string_lossy(), "bun/server.js"),
            Contender::Socketioxide => {
                let mut command = Command::new(self.socketioxide());
                command.args(["--cores", &cores]);
                command
            }
        };
        command.args(["--listen", &at.listen.to_string(), "--ingest", &at.ingest.to_string()]);
        Ok(Launch { command, ready: Ready::Line })
    }

    /// Its version and that of what it runs on: (name, version).
    #[must_use]
    pub fn versions(&self, contender: Contender) -> Vec<(String, String)> {
        let node = ("node".to_owned(), said(Command::new("node").arg("--version")));
        let package = |name: &str| {
            let path = self.peers.join("node/node_modules").join(name).join("package.json");
            (name.to_owned(), package_version(&path).unwrap_or_else(|| "unknown".to_owned()))
        };
        let own = |command: &mut Command| (contender.name().to_owned(), said(command));
        match contender {
            Contender::Roomcast => vec![own(Command::new(&self.roomcast).arg("--version"))],
            Contender::SocketIo => vec![node, package("socket.io")],
            Contender::Ws => vec![node, package("ws")],
            Contender::Bun => vec![own(Command::new(self.bun()).arg("--version"))],
            Contender::Nats => vec![own(Command::new("nats-server").arg("--version"))],
            Contender::Socketioxide => {
                let lock = fs::read_to_string(self.peers.join("socketioxide/Cargo.lock")).unwrap_or_default();
                let version = locked_version(&lock, "socketioxide").unwrap_or("unknown");
                vec![("socketioxide".to_owned(), version.to_owned())]
            }
            _ => Vec::new(),
        }
    }

    fn roomcast_template(&self) -> PathBuf {
        self.peers.join("roomcast/roomcast.toml")
    }

    fn nats_template(&self) -> PathBuf {
        self.peers.join("nats/nats.conf")
    }

    fn bun(&self) -> PathBuf {
        self.peers.join("bun/node_modules/.bin/bun")
    }

    fn socketioxide(&self) -> PathBuf {
        self.peers.join("socketioxide/target/release/socketioxide-peer")
    }

    fn absent(&self, paths: &[&Path]) -> Option<String> {
        paths.iter().find(|path| !path.exists()).map(|path| format!("{} is not there", path.display()))
    }
}

/// Why a program cannot be started.
fn program(name: &str) -> Option<String> {
    let output = Command::new(name).arg("--version").output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("{name} --version ends with {}", output.status)),
        Err(error) => Some(format!("{name}: {error}")),
    }
}

/// Copies a config, with the places that it leaves open.
fn fill(template: &Path, config: &Path, at: &Addresses, cores: &str) -> Result<(), String> {
    let mut text = fs::read_to_string(template).map_err(|error| format!("{}: {error}", template.display()))?;
    let places =
        [("@LISTEN@", at.listen.to_string()), ("@INGEST@", at.ingest.to_string()), ("@OPS@", at.ops.to_string())];
    for (place, value) in places {
        text = text.replace(place, &value);
    }
    text = text.replace("@CORES@", cores);
    fs::write(config, text).map_err(|error| format!("{}: {error}", config.display()))
}

/// The first line that a program says, without its name before the number.
fn said(command: &mut Command) -> String {
    let Ok(output) = command.output() else { return "unknown".to_owned() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next().unwrap_or_default().trim();
    line.rsplit(' ').next().unwrap_or(line).trim_start_matches('v').to_owned()
}

/// Of a `package.json`.
fn package_version(path: &Path) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
    value.get("version")?.as_str().map(str::to_owned)
}

/// Of a package in a `Cargo.lock`.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(peers: &Path) -> Places {
        Places { roomcast: "/nowhere/roomcast".into(), bench: "/nowhere/bench".into(), peers: peers.to_owned() }
    }

    fn addresses() -> Addresses {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Addresses { listen: at(1), ingest: at(2), ops: at(3) }
    }

    #[test]
    fn configs_are_filled_in() {
        let folder = std::env::temp_dir().join(format!("roomcast-bench-contenders-{}", std::process::id()));
        fs::create_dir_all(folder.join("roomcast")).unwrap();
        let template = "listen = \"@LISTEN@\" @INGEST@ @OPS@ cores = @CORES@";
        fs::write(folder.join("roomcast/roomcast.toml"), template).unwrap();
        let launch = places(&folder).launch(Contender::Roomcast2, &addresses(), &folder).unwrap();
        assert_eq!(launch.ready, Ready::Accepts);
        let config = launch.command.get_args().last().unwrap();
        let text = fs::read_to_string(config).unwrap();
        assert_eq!(text, "listen = \"127.0.0.1:1\" 127.0.0.1:2 127.0.0.1:3 cores = 2");
        assert!(places(&folder).launch(Contender::Nats, &addresses(), &folder).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn every_contender_has_a_command_or_says_what_is_missing() {
        let nowhere = places(Path::new("/nowhere"));
        for contender in Contender::ALL {
            if contender.is_floor() {
                let launch = nowhere.launch(contender, &addresses(), Path::new("/nowhere")).unwrap();
                let arguments: Vec<_> = launch.command.get_args().map(|a| a.to_str().unwrap()).collect();
                assert_eq!(arguments[0], "floor");
                assert_eq!(arguments[5..], ["--listen", "127.0.0.1:1", "--ingest", "127.0.0.1:2"]);
                assert_eq!(nowhere.missing(contender), None);
            } else {
                assert!(nowhere.missing(contender).is_some(), "{}", contender.name());
            }
        }
    }

    #[test]
    fn versions_are_read() {
        let lock = "[[package]]\nname = \"socketioxide-parser\"\nversion = \"0.1.0\"\n\n\
                    [[package]]\nname = \"socketioxide\"\nversion = \"0.17.2\"\n";
        assert_eq!(locked_version(lock, "socketioxide"), Some("0.17.2"));
        assert_eq!(locked_version(lock, "tokio"), None);
        assert_eq!(said(Command::new("echo").arg("nats-server: v2.10.9")), "2.10.9");
        assert_eq!(said(&mut Command::new("/nowhere")), "unknown");
    }
}
