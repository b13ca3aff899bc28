//! The commands with their flags and variables. Does not know what they do.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};
use tracing_subscriber::EnvFilter;

use crate::base::ids::CORES_MAX;

/// A WebSocket rooms fan-out server: backends write events as lines, clients in the rooms get them.
///
/// Without a command, roomcast serves: its flags are those of `roomcast serve --help`.
#[derive(Debug, Parser)]
#[command(name = "roomcast", version, disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve clients and publishers (the default command)
    Serve(Serve),
    /// Show it: two systems with a simulated feed, and a page to look at them
    Demo(Demo),
    /// Read a config and say what it means, or what is wrong with it and where; or what would happen to a client
    #[command(
        override_usage = "roomcast check FILE\n       roomcast check FILE --as JSON [--event EVENT [--data JSON]]"
    )]
    Check(Check),
    /// Look at this host and the config, and say what is wrong, why it matters and the line that mends it
    Doctor(Doctor),
    /// Publish an event, or with `-` for JSON one event for each line of standard input
    #[command(
        override_usage = "roomcast pub [OPTIONS] ROOM EVENT JSON\n       roomcast pub [OPTIONS] --all EVENT JSON"
    )]
    Pub(Publish),
    /// Join rooms and print each event as a line of JSON
    Tail(Tail),
}

#[derive(Args, Debug, Default)]
pub(super) struct Serve {
    /// The config, TOML; without one, an open development config on this machine's own addresses
    #[arg(long, env = "ROOMCAST_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Cores to run on; 0 for all [file: server.cores]
    #[arg(long, env = "ROOMCAST_CORES", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=CORES_MAX as i64))]
    pub(super) cores: Option<u16>,
    /// Where clients connect, IP:PORT; port 0 picks one [file: server.listen]
    #[arg(long, env = "ROOMCAST_LISTEN", value_name = "ADDR", value_parser = address)]
    pub(super) listen: Option<SocketAddr>,
    /// Where publishers connect, IP:PORT [file: ingest.listen]
    #[arg(long, env = "ROOMCAST_INGEST", value_name = "ADDR", value_parser = address)]
    pub(super) ingest: Option<SocketAddr>,
    /// Where operators connect, IP:PORT [file: ops.listen]
    #[arg(long, env = "ROOMCAST_ADMIN", value_name = "ADDR", value_parser = address)]
    pub(super) admin: Option<SocketAddr>,
    /// Written when all ports are open: JSON with listen, ingest and admin, each "IP:PORT"
    #[arg(long, env = "ROOMCAST_PORTS_FILE", value_name = "FILE")]
    pub(super) ports_file: Option<PathBuf>,
    /// What to log, as in "info,roomcast=debug" [file: log.level]
    #[arg(long, env = "ROOMCAST_LOG", value_name = "FILTER", value_parser = filter)]
    pub(super) log: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Demo {
    /// Where the page is, IP:PORT [default: 127.0.0.1:3300]
    #[arg(long, env = "ROOMCAST_PAGE", value_name = "ADDR", value_parser = address)]
    pub(super) page: Option<SocketAddr>,
    /// How many times as fast as a real day: 60 makes an hour a minute
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(super) speed: u32,
    /// Where clients connect, IP:PORT; port 0 picks one [default: 127.0.0.1:3000]
    #[arg(long, env = "ROOMCAST_LISTEN", value_name = "ADDR", value_parser = address)]
    pub(super) listen: Option<SocketAddr>,
    /// Where publishers connect, IP:PORT [default: 127.0.0.1:3100]
    #[arg(long, env = "ROOMCAST_INGEST", value_name = "ADDR", value_parser = address)]
    pub(super) ingest: Option<SocketAddr>,
    /// Where operators connect, IP:PORT [default: 127.0.0.1:3200]
    #[arg(long, env = "ROOMCAST_ADMIN", value_name = "ADDR", value_parser = address)]
    pub(super) admin: Option<SocketAddr>,
    /// Cores to run on [default: all]
    #[arg(long, env = "ROOMCAST_CORES", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=CORES_MAX as i64))]
    pub(super) cores: Option<u16>,
    /// Written when all ports are open: JSON with listen, ingest, admin and page, each "IP:PORT"
    #[arg(long, env = "ROOMCAST_PORTS_FILE", value_name = "FILE")]
    pub(super) ports_file: Option<PathBuf>,
    /// What to log, as in "info" [default: warn]
    #[arg(long, env = "ROOMCAST_LOG", value_name = "FILTER", value_parser = filter)]
    pub(super) log: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Check {
    /// The config, TOML
    pub(super) file: PathBuf,
    /// Say what would happen to this client: an object with any of ns, claims, query, auth, ip, sid, and with what
    /// earlier messages have left: state, rooms
    #[arg(long = "as", value_name = "JSON")]
    pub(super) client: Option<String>,
    /// … when it has connected and says this
    #[arg(long, value_name = "EVENT")]
    pub(super) event: Option<String>,
    /// … with this data
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub(super) data: Option<String>,
    /// … or with these arguments, an array
    #[arg(long, value_name = "JSON")]
    pub(super) args: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Doctor {
    /// The config that roomcast serves with; without one, the built-in development config
    #[arg(long, env = "ROOMCAST_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// One line of JSON instead of text
    #[arg(long)]
    pub(super) json: bool,
    /// Where /proc and /sys of the host are, for containers that have them elsewhere
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(super) root: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct Publish {
    /// The publishers' port, HOST:PORT, or their Unix socket, unix:PATH
    #[arg(long, env = "ROOMCAST_INGEST", value_name = "ADDR", default_value = "127.0.0.1:3100")]
    pub(super) ingest: String,
    /// A file with the token that the server wants of publishers (its ingest.token_file)
    #[arg(long, env = "ROOMCAST_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// The namespace
    #[arg(long, value_name = "NAMESPACE", default_value = "/")]
    pub(super) ns: String,
    /// Reach the whole namespace; ROOM is left out then
    #[arg(long)]
    pub(super) all: bool,
    /// Ask the clients that get the event to acknowledge it, wait for them so long, and print their answers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) ack_timeout_ms: Option<u64>,
    /// A room ("" for the whole namespace), the event's name, and its data as JSON
    #[arg(num_args = 2..=3, required = true, allow_negative_numbers = true, value_names = ["ROOM", "EVENT", "JSON"])]
    words: Vec<String>,
}

impl Publish {
    /// `None` for the whole namespace.
    pub(super) fn room(&self) -> Option<&str> {
        self.words.first().map(String::as_str).filter(|room| !self.all && !room.is_empty())
    }

    pub(super) fn event(&self) -> &str {
        &self.words[usize::from(!self.all)]
    }

    /// `-` for standard input.
    pub(super) fn json(&self) -> &str {
        &self.words[1 + usize::from(!self.all)]
    }
}

#[derive(Args, Debug)]
pub(super) struct Tail {
    /// A raw endpoint of the server
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:3000/ws")]
    pub(super) url: String,
    /// Rooms to join
    #[arg(required = true, value_name = "ROOM")]
    pub(super) rooms: Vec<String>,
}

impl Arguments {
    /// Reads a command line, the program's name first, and the environment.
    ///
    /// # Errors
    /// A mistake in one of them; also a request for help or the version.
    pub(super) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
        let mut words: Vec<OsString> = words.into_iter().collect();
        // Not by clap's optional subcommand: then a variable for `serve` that is wrong would disturb the other
        // commands.
        let of_the_program = |word: &OsStr| ["-h", "--help", "-V", "--version"].iter().any(|flag| word == *flag);
        if words.get(1).is_none_or(|word| word.as_encoded_bytes().starts_with(b"-") && !of_the_program(word)) {
            words.insert(words.len().min(1), "serve".into());
        }
        let arguments = Arguments::try_parse_from(words)?;
        if let Command::Pub(publish) = &arguments.command
            && publish.words.len() != 3 - usize::from(publish.all)
        {
            let wanted = if publish.all { "EVENT JSON, as --all stands for the room" } else { "ROOM EVENT JSON" };
            let mut command = Arguments::command();
            command.build();
            let publish = command.find_subcommand_mut("pub").expect("defined above");
            return Err(publish.error(ErrorKind::WrongNumberOfValues, format!("pub wants {wanted}")));
        }
        Ok(arguments)
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "not an IP address and a port, as in 127.0.0.1:3000 or [::1]:0".to_owned())
}

fn filter(text: &str) -> Result<String, String> {
    EnvFilter::builder().parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::configured;
    use super::*;

    fn read(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::read(std::iter::once("roomcast").chain(line.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn clap_finds_no_contradiction() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default() {
        for line in
            ["", "serve", "--cores 3", "serve --cores=3", "--listen [::1]:0 --ports-file p --log info,roomcast=debug"]
        {
            let Command::Serve(serve) = read(line).unwrap().command else { panic!("{line}") };
            assert_eq!(serve.cores, line.contains("cores").then_some(3), "{line}");
            assert_eq!(serve.listen.map(|a| a.to_string()).as_deref(), line.contains("listen").then_some("[::1]:0"));
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_mistake_of_usage() {
        for (line, word) in [
            ("srve", "serve"),
            ("--core 3", "--cores"),
            ("--cores 2000", "0..=1024"),
            ("--cores many", "many"),
            ("--listen localhost:3000", "not an IP address"),
            ("--listen :3000", "not an IP address"),
            ("--log roomcast=loud", "level"),
            ("check", "FILE"),
            ("check a b", "b"),
            ("doctor a", "a"),
            ("pub room event", "ROOM EVENT JSON"),
            ("pub --all room event {}", "--all stands for the room"),
            ("pub one", "values"),
            ("pub --ack-timeout-ms 0 r e 1", "0"),
            ("pub --ack-timeout-ms 1s r e 1", "1s"),
            ("tail", "ROOM"),
            ("demo --speed 0", "1..=600"),
            ("demo --page localhost:3300", "not an IP address"),
        ] {
            let error = read(line).expect_err(line);
            assert!(error.use_stderr() && error.to_string().contains(word), "{line}: {error}");
        }
        for line in ["--help", "-h", "--version", "-V", "serve --help", "pub --help"] {
            assert!(!read(line).expect_err(line).use_stderr(), "{line}");
        }
    }

    #[test]
    fn the_demo_has_flags_of_its_own() {
        let Command::Demo(demo) = read("demo --page [::1]:0 --speed 10 --listen 127.0.0.1:0").unwrap().command else {
            panic!()
        };
        assert_eq!((demo.speed, demo.page), (10, Some("[::1]:0".parse().unwrap())));
        let Command::Demo(demo) = read("demo").unwrap().command else { panic!() };
        assert_eq!((demo.speed, demo.page, demo.listen), (60, None, None));
    }

    #[test]
    fn publish_takes_a_room_or_all() {
        for (line, room, event, json) in [
            ("pub r e {}", Some("r"), "e", "{}"),
            ("pub --ns /x r e -5", Some("r"), "e", "-5"),
            ("pub r e -", Some("r"), "e", "-"),
            ("pub --all e 1", None, "e", "1"),
            ("pub e 1 --all", None, "e", "1"),
        ] {
            let Command::Pub(publish) = read(line).unwrap().command else { panic!("{line}") };
            assert_eq!((publish.room(), publish.event(), publish.json()), (room, event, json), "{line}");
        }
        let words = ["roomcast", "pub", "", "e", "1"].map(OsString::from);
        let Command::Pub(publish) = Arguments::read(words).unwrap().command else { panic!() };
        assert_eq!((publish.room(), publish.event()), (None, "e"));
    }

    const LINE: &str = "ROOMCAST_TEST_LINE";

    /// Not a test by itself: the process that [`with_environment`] starts.
    #[test]
    #[ignore = "started by others"]
    fn as_a_child() {
        let Ok(line) = std::env::var(LINE) else { return };
        match read(&line).map_err(|error| error.to_string()).map(|arguments| arguments.command) {
            Ok(Command::Serve(serve)) => match configured(&serve) {
                Ok(config) => println!("=> {} {} {}", config.server.listen, config.server.cores, config.log.level),
                Err(error) => println!("=> {error}"),
            },
            Ok(Command::Pub(publish)) => println!("=> {}", publish.ingest),
            other => println!("=> {other:?}"),
        }
    }

    /// The environment of a running process is not ours to change: another one reads the line.
    fn with_environment(line: &str, variables: &[(&str, &str)]) -> String {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let path = module_path!().split_once("::").unwrap().1;
        command.args([&format!("{path}::as_a_child"), "--exact", "--ignored", "--nocapture"]);
        command.env(LINE, line).envs(variables.iter().copied());
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let (_, said) = output.split_once("=> ").unwrap_or_else(|| panic!("{output}"));
        said.lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn flags_come_before_variables_and_these_before_the_file() {
        let file = std::env::temp_dir().join(format!("roomcast-args-{}.toml", std::process::id()));
        std::fs::write(&file, "[server]\nlisten = \"127.0.0.1:1\"\ncores = 1\n[log]\nlevel = \"warn\"\n").unwrap();
        let path = file.to_str().unwrap();
        let by_flag = format!("--config {path}");
        let all_flags = format!("serve --config {path} --listen 127.0.0.1:3 --cores 3 --log error");
        let variables = [("ROOMCAST_LISTEN", "127.0.0.1:2"), ("ROOMCAST_CORES", "2"), ("ROOMCAST_LOG", "debug")];
        for (line, variables, said) in [
            ("", &[][..], "127.0.0.1:3000 0 info"),
            (&by_flag, &[], "127.0.0.1:1 1 warn"),
            ("", &[("ROOMCAST_CONFIG", path)], "127.0.0.1:1 1 warn"),
            (&by_flag, &variables[..1], "127.0.0.1:2 1 warn"),
            (&by_flag, &variables, "127.0.0.1:2 2 debug"),
            (&all_flags, &variables, "127.0.0.1:3 3 error"),
            (
                "--config /nowhere --cores 1",
                &[],
                "/nowhere: cannot read the config file: No such file or directory (os error 2)",
            ),
            ("pub r e 1", &[("ROOMCAST_INGEST", "h:1"), ("ROOMCAST_CORES", "many")], "h:1"),
            ("pub r e 1 --ingest h:2", &[("ROOMCAST_INGEST", "h:1")], "h:2"),
        ] {
            assert_eq!(with_environment(line, variables), said, "{line} {variables:?}");
        }
        let exposed = with_environment("--listen 0.0.0.0:3000", &[]);
        assert!(exposed.contains("server.listen = \"0.0.0.0:3000\"") && exposed.contains("--config"), "{exposed}");
        std::fs::remove_file(file).unwrap();
    }
}
