//! Taste, turned into a test: layers, banned words and calls, each with the reason or the replacement.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the bottom up. A module imports only from those before it; see ARCHITECTURE.md.
const LAYERS: [&str; 15] = [
    "base", "proto", "mesh", "room", "session", "shard", "ingest", "net", "ops", "config", "doctor", "server", "demo",
    "cli", "main",
];

/// These three stand side by side: none imports another, so that each can be read alone.
const SIBLINGS: [&str; 3] = ["mesh", "room", "session"];

/// From here down there is neither runtime nor socket nor clock: a whole machine runs in one thread of a test.
const PURE: [&str; 6] = ["base", "proto", "mesh", "room", "session", "shard"];

/// Where unsafe code is, and nowhere else. The last one is an allocator.
const UNSAFE: [&str; 5] = [
    "src/net/ring.rs",
    "src/net/sys.rs",
    "src/net/executor.rs",
    "bench/src/floor/ring.rs",
    "tests/allocations/counter.rs",
];

/// Where the executor's crate is named, and nowhere else: it can be replaced there.
const GLOMMIO: [&str; 2] = ["src/net/executor.rs", "src/ops/admin.rs"];

const COLUMNS_MAX: usize = 120;

struct Source {
    /// From the repository's root.
    path: String,
    text: String,
}

impl Source {
    /// The top-level module.
    fn module(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        Some(rest.split('/').next()?.trim_end_matches(".rs"))
    }

    /// Its lines with numbers, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.find("//").map_or(line, |comment| &line[..comment])))
            .filter(|(_, line)| !line.trim().is_empty())
    }

    /// Its lines of code before the unit tests, which stand at the end.
    fn program(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code().take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files in these folders.
fn sources(folders: &[&str]) -> Vec<Source> {
    fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("node_modules") && !path.ends_with("target") {
                collect(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut files);
    }
    files.sort();
    assert!(!files.is_empty());
    files
        .into_iter()
        .map(|path| Source {
            text: fs::read_to_string(&path).unwrap(),
            path: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
        })
        .collect()
}

const EVERYWHERE: [&str; 5] = ["src", "tests", "bench", "examples", "fuzz"];

/// Fails with all offences at once.
fn judge(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}\n  {}", offences.join("\n  "));
}

#[test]
fn layers_import_only_downwards() {
    let mut offences = Vec::new();
    let level = |module: &str| LAYERS.iter().position(|layer| *layer == module);
    for source in sources(&["src"]) {
        let module = source.module().unwrap();
        if module == "lib" {
            continue;
        }
        let Some(own) = level(module) else {
            offences.push(format!("{}: the module {module} has no place in the list of layers", source.path));
            continue;
        };
        for (number, line) in source.code() {
            for (at, path) in line.match_indices("crate::").map(|(at, path)| (at + path.len(), path)) {
                let names = imported(&line[at..]);
                assert!(!names.is_empty(), "{}:{number}: cannot read {path} in {line}", source.path);
                for other in names {
                    // A name of the crate's root is no module.
                    let Some(theirs) = level(other) else { continue };
                    let siblings = SIBLINGS.contains(&module) && SIBLINGS.contains(&other) && module != other;
                    if theirs > own || siblings {
                        offences.push(format!("{}:{number}: {module} imports {other}", source.path));
                    }
                }
            }
        }
    }
    judge("imports point only down (base is the bottom; mesh, room and session are side by side):", &offences);
}

/// The first segments after `crate::`: one, or those in braces.
fn imported(rest: &str) -> Vec<&str> {
    let end = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    match rest.strip_prefix('{') {
        None => vec![&rest[..end(rest)]],
        Some(list) => {
            let mut depth = 0;
            let mut names = Vec::new();
            let mut start = true;
            for (at, c) in list.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    _ if depth == 0 && start && !c.is_whitespace() => {
                        names.push(&list[at..at + end(&list[at..])]);
                        start = false;
                    }
                    _ => {}
                }
            }
            names
        }
    }
}

#[test]
fn the_reader_of_imports_reads() {
    assert_eq!(imported("net::{self, sys};"), ["net"]);
    assert_eq!(imported("{mesh, shard};"), ["mesh", "shard"]);
    assert_eq!(imported("{room::{a, members::B}, shard::messages::Up, config};"), ["room", "shard", "config"]);
    assert_eq!(imported("counters::COUNT + 1"), ["counters"]);
}

#[test]
fn files_say_what_they_are_for() {
    let offences: Vec<String> = sources(&EVERYWHERE)
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path.clone())
        .collect();
    judge("the first line of each file is a //! that says what it is for, and what it does not know:", &offences);
}

#[test]
fn unsafe_code_is_where_it_must_be() {
    let mut offences = Vec::new();
    for source in sources(&EVERYWHERE).iter().filter(|source| !UNSAFE.contains(&source.path.as_str())) {
        if source.path == "tests/tidy.rs" {
            continue;
        }
        for (number, line) in source.code() {
            if line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe") {
                offences.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    judge(&format!("unsafe only in {UNSAFE:?}; elsewhere there is a safe way:"), &offences);
}

#[test]
fn logic_names_no_runtime_socket_or_clock() {
    // (what, instead)
    let banned = [
        ("std::time", "take base::clock::Millis as an argument"),
        ("SystemTime", "take the time as an argument"),
        ("Instant", "take base::clock::Millis as an argument"),
        ("std::thread", "return actions; net has the threads"),
        ("std::fs", "take the bytes as an argument"),
        ("std::process", "return an error"),
        ("std::env", "take an Options"),
        ("TcpStream", "take bytes; net has the sockets"),
        ("TcpListener", "take bytes; net has the sockets"),
        ("UdpSocket", "take bytes; net has the sockets"),
        ("UnixStream", "take bytes; net has the sockets"),
        ("getrandom", "take a seed as an argument"),
        ("libc::", "net::sys has the system calls"),
        ("io_uring", "net::ring has the ring"),
        ("metrics::", "count in base::counters; ops publishes"),
    ];
    let mut offences = Vec::new();
    for source in sources(&["src"]).iter().filter(|source| PURE.contains(&source.module().unwrap())) {
        for (number, line) in source.program() {
            for (word, instead) in banned.iter().filter(|(word, _)| line.contains(word)) {
                offences.push(format!("{}:{number}: {word}: {instead}", source.path));
            }
        }
    }
    judge("from base to shard there is neither runtime nor socket, file or system clock:", &offences);
}

#[test]
fn glommio_is_named_in_two_files() {
    let mut offences = Vec::new();
    for source in sources(&["src"]).iter().filter(|source| !GLOMMIO.contains(&source.path.as_str())) {
        for (number, line) in source.code().filter(|(_, line)| line.contains("glommio")) {
            offences.push(format!("{}:{number}: {}", source.path, line.trim()));
        }
    }
    judge(&format!("glommio only in {GLOMMIO:?}; use net::executor:"), &offences);
}

#[test]
fn nothing_is_unfinished() {
    let words = ["TODO", "FIXME", "HACK", "todo!", "unimplemented!", "dbg!", "for now"];
    let mut offences = Vec::new();
    for source in sources(&EVERYWHERE).iter().filter(|source| source.path != "tests/tidy.rs") {
        for (index, line) in source.text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                offences.push(format!("{}:{}: {word}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    judge("finish it, or leave it out and say so in an issue:", &offences);
}

#[test]
fn lines_fit_on_a_screen() {
    let mut offences = Vec::new();
    for source in sources(&EVERYWHERE) {
        for (index, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX || line.ends_with(' ') || line.contains('\t') && !line.contains("r#") {
                offences.push(format!("{}:{}: {columns} columns", source.path, index + 1));
            }
        }
    }
    judge("at most 120 columns, no tabs, no spaces at the end:", &offences);
}

#[test]
fn node_clients_come_from_any_registry() {
    let lock = fs::read_to_string(root().join("tests/clients/package-lock.json")).unwrap();
    assert!(!lock.contains("\"resolved\""), "remove the `resolved` addresses from tests/clients/package-lock.json");
    assert!(lock.contains("\"integrity\""), "the packages' hashes are what makes them the same everywhere");
}
