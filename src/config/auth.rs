//! `[auth]` and `[[auth.key]]`: who clients are. Reads the key files, at start and whenever the operator says so. Does
//! not know what a token looks like.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use data_encoding::BASE64;
use serde::Deserialize;

use super::document::{ConfigError, Document, path};
use super::namespace_path;
use crate::session::identity::{self, Algorithm, Identity, KEYS_MAX, Key, Source};
use crate::session::rules::{PathStep, RulesSource};

/// Largest key file: a set of [`KEYS_MAX`] RSA keys with certificates takes 100 KB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How clients show who they are.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// True: a namespace takes no client without a valid token, unless its own `require` says so.
    pub require: bool,
    /// Where a token may be, by preference.
    pub sources: Vec<String>,
    /// One of them must be in a token's `aud`; empty: it is not looked at.
    pub audience: Vec<String>,
    /// A token's `iss` must be one of them; empty: it is not looked at.
    pub issuer: Vec<String>,
    /// By how much the issuer's clock may differ.
    pub leeway_s: u64,
    /// The event that brings a new token.
    pub refresh_event: Option<String>,
    /// What tokens are signed by.
    pub key: Vec<AuthKey>,
}

/// One `[[auth.key]]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct AuthKey {
    /// What the key is for.
    pub algorithm: Option<Algorithm>,
    /// Its name in tokens.
    pub kid: Option<String>,
    /// A secret's bytes, or a public key in PEM.
    pub file: Option<String>,
    /// How the secret stands in its file.
    pub encoding: Option<SecretEncoding>,
    /// Instead of all these, a file with a set of keys.
    pub jwks: Option<String>,
}

/// How a secret stands in its file.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SecretEncoding {
    /// Byte by byte.
    Plain,
    /// In base64 with padding (RFC 4648, section 4).
    Base64,
}

impl Default for Auth {
    fn default() -> Auth {
        let sources = ["auth.token", "authorization", "query.token", "cookie.token"];
        Auth {
            require: false,
            sources: sources.map(str::to_owned).to_vec(),
            audience: Vec::new(),
            issuer: Vec::new(),
            leeway_s: 5,
            refresh_event: None,
            key: Vec::new(),
        }
    }
}

fn key_path(index: usize, key: &str) -> Vec<PathStep> {
    let mut steps = path("auth.key");
    steps.push(PathStep::Index(index));
    steps.extend((!key.is_empty()).then(|| PathStep::Key(key.to_owned())));
    steps
}

/// Checks what the types do not; reads no key file.
pub(super) fn check(document: &Document, auth: &Auth, namespaces: &[RulesSource]) -> Result<(), ConfigError> {
    for (index, source) in auth.sources.iter().enumerate() {
        if let Err(message) = Source::parse(source) {
            let mut path = path("auth.sources");
            path.push(PathStep::Index(index));
            return Err(document.wrong_value(&path, message));
        }
    }
    for (index, key) in auth.key.iter().enumerate() {
        let wrong = |name: &str, message: &str| Err(document.wrong_value(&key_path(index, name), message));
        if index >= KEYS_MAX {
            return wrong("", &format!("there are more than {KEYS_MAX} keys"));
        }
        if key.jwks.is_some() {
            let others = [key.algorithm.is_some(), key.kid.is_some(), key.file.is_some(), key.encoding.is_some()];
            if let Some(other) = others.iter().position(|is_there| *is_there) {
                let name = ["algorithm", "kid", "file", "encoding"][other];
                return wrong(name, "the keys of a jwks file say this themselves; remove the key");
            }
            continue;
        }
        if key.algorithm.is_none() || key.file.is_none() {
            let message = "needs an algorithm and a file, as in algorithm = \"HS256\", file = \"keys/secret\", or a \
                jwks file";
            return wrong("", message);
        }
        if key.encoding.is_some() && key.algorithm != Some(Algorithm::Hs256) {
            return wrong("encoding", "only for algorithm = \"HS256\"; remove the key");
        }
    }
    const NO_KEY: &str = "there is no [[auth.key]] to verify tokens with";
    let has_keys = !auth.key.is_empty();
    let required = namespaces.iter().position(|namespace| namespace.require == Some(true));
    match (&auth.refresh_event, required) {
        _ if auth.require && !has_keys => return Err(document.wrong_value(&path("auth.require"), NO_KEY)),
        (Some(_), _) if !has_keys => return Err(document.wrong_value(&path("auth.refresh_event"), NO_KEY)),
        (_, Some(index)) if !has_keys => {
            return Err(document.wrong_value(&namespace_path(index, "require"), NO_KEY));
        }
        _ => {}
    }
    if (auth.require || required.is_some()) && auth.sources.is_empty() {
        return Err(document.wrong_value(&path("auth.sources"), "names no place for the tokens that are required"));
    }
    for (number, namespace) in namespaces.iter().enumerate() {
        if let Some(index) = namespace.on.iter().position(|rule| Some(&rule.event) == auth.refresh_event.as_ref()) {
            let mut path = namespace_path(number, "on");
            path.extend([PathStep::Index(index), PathStep::Key("event".to_owned())]);
            return Err(document.wrong_value(&path, "is auth.refresh_event, which rules never see"));
        }
    }
    Ok(())
}

/// Reads all keys, and says what is odd about them. `None` if there are none.
pub(super) fn load(
    document: &Document,
    folder: &Path,
    auth: &Auth,
    namespaces: &[RulesSource],
) -> Result<Option<(Identity, Vec<String>)>, ConfigError> {
    let (mut keys, mut warnings) = (Vec::new(), Vec::new());
    for (index, entry) in auth.key.iter().enumerate() {
        let (name, file) = match (&entry.jwks, &entry.file) {
            (Some(file), _) => ("jwks", file),
            (None, Some(file)) => ("file", file),
            (None, None) => unreachable!("keys were checked"),
        };
        let path = folder.join(file);
        let wrong =
            |message: String| document.wrong_value(&key_path(index, name), format!("{} {message}", path.display()));
        let bytes = read(&path).map_err(wrong)?;
        if name == "jwks" {
            let (set, skipped) = Key::from_set(&bytes).map_err(wrong)?;
            warnings.extend(skipped.into_iter().map(|skipped| format!("{}: {skipped}", path.display())));
            keys.extend(set);
        } else {
            keys.push(entry.key(&bytes).map_err(wrong)?);
        }
        if keys.last().is_some_and(Key::is_weak) {
            let message = "is shorter than 32 bytes: whoever has a token can try to guess it";
            warnings.push(format!("{}: the secret {message}", path.display()));
        }
        if keys.len() > KEYS_MAX {
            return Err(wrong(format!("makes {} keys; there can be {KEYS_MAX}", keys.len())));
        }
    }
    if keys.is_empty() {
        return Ok(None);
    }
    let options = identity::Options {
        sources: auth.sources.iter().filter_map(|source| Source::parse(source).ok()).collect(),
        audience: auth.audience.clone(),
        issuer: auth.issuer.clone(),
        leeway_s: auth.leeway_s,
        required: namespaces.iter().map(|namespace| namespace.require.unwrap_or(auth.require)).collect(),
        refresh_event: auth.refresh_event.clone(),
    };
    Ok(Some((Identity::new(options, keys), warnings)))
}

impl AuthKey {
    fn key(&self, bytes: &[u8]) -> Result<Key, String> {
        let kid = self.kid.as_deref();
        match self.algorithm {
            None => unreachable!("keys were checked"),
            Some(Algorithm::Hs256) => {
                let secret = bytes.strip_suffix(b"\n").map_or(bytes, |rest| rest.strip_suffix(b"\r").unwrap_or(rest));
                match self.encoding {
                    None | Some(SecretEncoding::Plain) => Key::from_secret(kid, secret),
                    Some(SecretEncoding::Base64) => {
                        let secret = BASE64.decode(secret).map_err(|_| "is not in base64".to_owned())?;
                        Key::from_secret(kid, &secret)
                    }
                }
            }
            Some(algorithm) => Key::from_pem(algorithm, kid, bytes),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(cannot)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::session::identity::testing::hs256;
    use std::fs;
    use std::path::PathBuf;

    const KEY: &str = "[[auth.key]]\nalgorithm = \"HS256\"\nfile = \"secret\"\n";

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, error) in [
            (
                "[auth]\nsources = [\"auth.token\", \"header\"]",
                "2:26: auth.sources[1] = \"header\": must be \"auth.PATH\", \"authorization\", \"query.NAME\" or \
                 \"cookie.NAME\"",
            ),
            ("[auth]\nleeway_s = 3601", "2:12: auth.leeway_s = 3601: must be between 0 and 3600"),
            ("auth.require = true", "1:16: auth.require = true: there is no [[auth.key]] to verify tokens with"),
            (
                "auth.refresh_event = \"r\"",
                "1:22: auth.refresh_event = \"r\": there is no [[auth.key]] to verify tokens with",
            ),
            (
                "[[namespace]]\nname = \"/\"\nrequire = true",
                "3:11: namespace[0].require = true: there is no [[auth.key]] to verify tokens with",
            ),
            (
                "[[auth.key]]\nalgorithm = \"HS512\"",
                "2:13: auth.key[0].algorithm = \"HS512\": must be \"HS256\" or \"RS256\" or \"ES256\" or \"EdDSA\"",
            ),
            (
                "[[auth.key]]\nfile = \"a\"",
                "1:1: auth.key[0]: needs an algorithm and a file, as in algorithm = \"HS256\", file = \
                 \"keys/secret\", or a jwks file",
            ),
            (
                "[[auth.key]]\njwks = \"a\"\nkid = \"1\"",
                "3:7: auth.key[0].kid = \"1\": the keys of a jwks file say this themselves; remove the key",
            ),
            (
                "[[auth.key]]\nalgorithm = \"RS256\"\nfile = \"a\"\nencoding = \"base64\"",
                "4:12: auth.key[0].encoding = \"base64\": only for algorithm = \"HS256\"; remove the key",
            ),
            (
                &format!("auth.sources = []\nauth.require = true\n{KEY}"),
                "1:16: auth.sources = []: names no place for the tokens that are required",
            ),
            (
                &format!(
                    "auth.refresh_event = \"r\"\n{KEY}[[namespace]]\nname = \"/\"\n[[namespace.on]]\nevent = \"r\""
                ),
                "8:9: namespace[0].on[0].event = \"r\": is auth.refresh_event, which rules never see",
            ),
        ] {
            assert_eq!(Config::parse(text, "f").unwrap_err().to_string(), format!("f:{error}"), "{text}");
        }
    }

    /// A folder with a config and key files.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("roomcast-auth-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
            fs::write(self.0.join(name), bytes).unwrap();
        }

        fn config(&self, text: &str) -> Config {
            self.write("r.toml", text);
            Config::load(&self.0.join("r.toml")).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn keys_are_read_from_the_configs_folder() {
        let folder = Folder::new("read");
        let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/rsa.public.pem");
        folder.write("secret", "a secret of tests, 32 bytes long\n");
        folder.write("short", "c2VjcmV0\r\n");
        folder.write("set", r#"{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"new"}]}"#);
        let more = "[[auth.key]]\nalgorithm = \"HS256\"\nencoding = \"base64\"\nfile = \"short\"\n";
        let rsa = format!("[[auth.key]]\nalgorithm = \"RS256\"\nkid = \"1\"\nfile = {pem:?}\n");
        let text =
            format!("{KEY}{more}{rsa}[[auth.key]]\njwks = \"set\"\n[[namespace]]\nname = \"/a\"\nrequire = true");
        let (identity, warnings) = folder.config(&text).identity().unwrap().unwrap();
        let claims = identity.verify(&hs256("{}"), 0, &mut crate::proto::json::Scratch::default());
        assert_eq!(&*claims.unwrap().json, "{}");
        let required = |number| identity.is_required(crate::base::ids::NamespaceId(number));
        assert_eq!([required(0), required(1)], [false, true]);
        let in_folder = |name: &str| folder.0.join(name).display().to_string();
        let weak = "the secret is shorter than 32 bytes: whoever has a token can try to guess it";
        assert_eq!(
            warnings,
            [
                format!("{}: {weak}", in_folder("short")),
                format!(
                    "{}: keys[1] is not used: its kind is not oct, RSA, EC with P-256 or OKP with Ed25519",
                    in_folder("set")
                ),
                format!("{}: {weak}", in_folder("set")),
            ]
        );
        assert!(folder.config("").identity().unwrap().is_none(), "without keys tokens have no meaning");
    }

    #[test]
    fn bad_key_files_are_told_with_place_and_path() {
        let folder = Folder::new("bad");
        let config = folder.config(&format!("\n{KEY}"));
        let said = || {
            let error = config.identity().unwrap_err().to_string();
            let start = format!("{}:4:8: auth.key[0].file = \"secret\": ", folder.0.join("r.toml").display());
            let rest = error.strip_prefix(&start).unwrap_or_else(|| panic!("{error}"));
            rest.strip_prefix(&folder.0.join("secret").display().to_string()).unwrap().to_owned()
        };
        assert_eq!(said(), " cannot be read: No such file or directory (os error 2)");
        for (bytes, error) in [
            (&b""[..], " is empty; a secret should have 32 random bytes"),
            (b"\n", " is empty; a secret should have 32 random bytes"),
            (b"-----BEGIN PUBLIC KEY-----", " is a PEM file, which is not for HS256; HS256 wants a secret"),
            (&[b'a'; (1 << 20) + 1], " is larger than 1048576 bytes"),
        ] {
            folder.write("secret", bytes);
            assert_eq!(said(), error);
        }
    }

    #[test]
    fn whoever_identifies_clients_may_show_them_a_port() {
        let listen = "[server]\nlisten = \"0.0.0.0:3000\"\n";
        let exposure = |text: &str| Config::parse(&format!("{listen}{text}"), "f").unwrap().check_exposure().is_ok();
        assert!(!exposure(""));
        assert!(!exposure(KEY));
        assert!(exposure(&format!("[auth]\nrequire = true\n{KEY}")));
    }
}
