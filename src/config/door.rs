//! Who may publish and who may use the HTTP API: tokens in files, the publishers' Unix socket, aliases of the API's
//! requests. Does not know what is done for those who may.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::document::{ConfigError, Document, path};
use super::{Config, Ingest, Ops};
use crate::base::secret::Secret;
use crate::ops::page::RESERVED;
use crate::ops::{alias, site};
use crate::session::identity::Algorithm;
use crate::session::rules::{PathStep, RulesSource};

/// A request of the HTTP API under a path and in a shape that an existing system knows.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// Where it is.
    pub path: String,
    /// What it does.
    pub kind: AliasKind,
    /// The namespace that it is about.
    #[serde(default = "main_namespace")]
    pub namespace: String,
}

/// What an alias does.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum AliasKind {
    /// POST: sends an event to a room or to the namespace.
    SocketEvent,
    /// GET: counts sockets and names the rooms with members.
    SocketStats,
    /// GET: tells whether the server is well.
    Health,
}

impl AliasKind {
    /// As the config spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AliasKind::SocketEvent => "socket-event",
            AliasKind::SocketStats => "socket-stats",
            AliasKind::Health => "health",
        }
    }
}

fn main_namespace() -> String {
    "/".to_owned()
}

impl Config {
    /// What publishers must say who come in over the network, if anything.
    ///
    /// # Errors
    /// The file cannot be read or has no token in it.
    pub fn ingest_token(&self) -> Result<Option<Secret>, ConfigError> {
        self.token("ingest.token_file", &self.ingest.token_file)
    }

    /// What users of the HTTP API must bring, if anything.
    ///
    /// # Errors
    /// The file cannot be read or has no token in it.
    pub fn api_token(&self) -> Result<Option<Secret>, ConfigError> {
        self.token("ops.token_file", &self.ops.token_file)
    }

    /// Where publishers of this host come in besides, and the file's mode.
    #[must_use]
    pub fn unix_socket(&self) -> Option<(PathBuf, u32)> {
        let Ingest { unix, unix_mode, .. } = &self.ingest;
        let mode = mode_of(unix_mode).unwrap_or_else(|| unreachable!("{unix_mode} has been checked"));
        (!unix.is_empty()).then(|| (self.beside(unix), mode))
    }

    /// Files whose readers could speak for somebody else, each with the key that names it.
    #[must_use]
    pub fn secret_files(&self) -> Vec<(String, PathBuf)> {
        let tokens = [("ingest.token_file", &self.ingest.token_file), ("ops.token_file", &self.ops.token_file)];
        let tokens = tokens.into_iter().filter(|(_, file)| !file.is_empty());
        let mut files: Vec<_> = tokens.map(|(key, file)| (key.to_owned(), self.beside(file))).collect();
        // Who knows the key of HS256 can sign; the others' are public.
        for (index, key) in self.auth.key.iter().enumerate().filter(|(_, key)| key.algorithm == Some(Algorithm::Hs256))
        {
            files.extend(key.file.as_ref().map(|file| (format!("auth.key[{index}].file"), self.beside(file))));
        }
        files
    }

    /// For the operators' port.
    #[must_use]
    pub fn ops_options(&self) -> site::Options {
        let compile = |Alias { path, kind, namespace }: &Alias| alias::Alias {
            path: path.as_str().into(),
            kind: match kind {
                AliasKind::SocketEvent => alias::Kind::SocketEvent,
                AliasKind::SocketStats => alias::Kind::SocketStats,
                AliasKind::Health => alias::Kind::Health,
            },
            namespace: namespace.as_str().into(),
        };
        site::Options {
            service: self.ops.service.as_str().into(),
            aliases: self.ops.alias.iter().map(compile).collect(),
            line_bytes_max: self.ingest.line_bytes_max,
        }
    }

    fn token(&self, key: &str, file: &str) -> Result<Option<Secret>, ConfigError> {
        if file.is_empty() {
            return Ok(None);
        }
        read_token(&self.beside(file)).map(Some).map_err(|error| self.document.wrong_value(&path(key), error))
    }

    /// Files are named from the config's folder.
    fn beside(&self, file: &str) -> PathBuf {
        Path::new(&self.document.file).parent().unwrap_or(Path::new("")).join(file)
    }
}

/// Reads a token: the file's text, less a line ending.
///
/// # Errors
/// A sentence that names the file and not the token.
pub fn read_token(file: &Path) -> Result<Secret, String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let token = text.strip_suffix('\n').unwrap_or(&text);
    Secret::new(token.strip_suffix('\r').unwrap_or(token)).map_err(|error| format!("in {shown}: {error}"))
}

/// The bits of `text`, if it is three octal digits, with or without a zero before them.
fn mode_of(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
    let octal = digits.len() == 3 && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    octal.then(|| u32::from_str_radix(digits, 8).ok()).flatten()
}

pub(super) fn check(
    document: &Document,
    ingest: &Ingest,
    ops: &Ops,
    namespaces: &[RulesSource],
) -> Result<(), ConfigError> {
    if mode_of(&ingest.unix_mode).is_none() {
        let message = "must be a file's mode in octal, as in \"0660\"";
        return Err(document.wrong_value(&path("ingest.unix_mode"), message));
    }
    for (index, host) in ops.hosts.iter().enumerate() {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if host.is_empty() || !host.bytes().all(is_name) {
            let mut path = path("ops.hosts");
            path.push(PathStep::Index(index));
            let message = "must be the name of a host, without a port, as in \"metrics.example\"";
            return Err(document.wrong_value(&path, message));
        }
    }
    for (index, alias) in ops.alias.iter().enumerate() {
        let wrong = |key: &str, message: String| {
            let mut path = path("ops.alias");
            path.extend([PathStep::Index(index), PathStep::Key(key.to_owned())]);
            Err(document.wrong_value(&path, message))
        };
        let is_path = alias.path.starts_with('/') && !alias.path.contains(['?', '#', ' ']);
        if !is_path || !alias.path.is_ascii() {
            return wrong(
                "path",
                "must begin with / and contain no spaces, no ? and no #, as in \"/stats\"".to_owned(),
            );
        }
        if ["/metrics", "/api/openapi.json"].iter().chain(&RESERVED).any(|path| **path == *alias.path) {
            return wrong("path", "is a path of the server's own; choose another".to_owned());
        }
        let same = |other: &super::Alias| other.path == alias.path;
        if let Some(first) = ops.alias[..index].iter().position(same) {
            return wrong("path", format!("ops.alias[{first}] has this path already; give each its own"));
        }
        if !namespaces.iter().any(|namespace| namespace.name.as_deref() == Some(&alias.namespace)) {
            let message = "there is no such namespace; add a [[namespace]] of this name, or leave the key out for /";
            return wrong("namespace", message.to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        for (text, mode) in [
            ("0660", Some(0o660)),
            ("600", Some(0o600)),
            ("0000", Some(0)),
            ("777", Some(0o777)),
            ("1777", None),
            ("0680", None),
            ("66", None),
            ("+66", None),
            ("", None),
        ] {
            assert_eq!(mode_of(text), mode, "{text}");
        }
    }

    #[test]
    fn tokens_come_from_files_beside_the_config() {
        let folder = std::env::temp_dir().join(format!("roomcast-tokens-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let name = folder.join("c.toml").display().to_string();
        let text = "[ingest]\ntoken_file = \"t\"\n[ops]\ntoken_file = \"none\"";
        let config = Config::parse(text, &name).unwrap();
        for (content, error) in [
            ("0123456789abcdef", ""),
            ("0123456789abcdef\n", ""),
            ("0123456789abcdef\r\n", ""),
            ("0123456789abcdef\n\n", "must be one word"),
            ("short\n", "the token has 5 bytes"),
        ] {
            std::fs::write(folder.join("t"), content).unwrap();
            match config.ingest_token() {
                Ok(token) => assert!(error.is_empty() && token.unwrap().is(b"0123456789abcdef"), "{content:?}"),
                Err(told) => {
                    let told = told.to_string();
                    assert!(told.starts_with(&format!("{name}:2:14: ingest.token_file = \"t\": in ")), "{told}");
                    assert!(!error.is_empty() && told.contains(error), "{told}");
                }
            }
        }
        let told = config.api_token().unwrap_err().to_string();
        assert!(told.contains("ops.token_file = \"none\": cannot read ") && told.contains("No such file"), "{told}");
        assert!(Config::parse("", "c").unwrap().api_token().unwrap().is_none());
        assert_eq!(Config::parse("", "c").unwrap().unix_socket(), None);
        for (unix, path) in [("s", folder.join("s")), ("/run/s", "/run/s".into())] {
            let config = Config::parse(&format!("[ingest]\nunix = \"{unix}\"\nunix_mode = \"600\""), &name).unwrap();
            assert_eq!(config.unix_socket(), Some((path, 0o600)));
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
