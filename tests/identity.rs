//! Who clients are: tokens of all sorts brought in all ways, what becomes of their sockets when they end, and keys that
//! are read again while clients are connected.

mod common;

use common::{RawClient, Server, Signal, TempDir, node, wait_until};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

on_one_and_two_cores!(
    the_official_client_brings_tokens_in_every_way,
    raw_clients_bring_tokens_and_are_closed_with_4401,
    cookies_count_for_our_own_pages,
    a_raw_client_is_closed_when_its_token_ends,
    keys_are_read_again_while_clients_stay,
);

const SECRET: &str = "a secret of tests, 32 bytes long";

/// A folder with keys, and a config that names them.
struct Keys(TempDir);

impl Keys {
    fn new() -> Keys {
        let keys = Keys(TempDir::new());
        keys.write("secret", &format!("{SECRET}\n"));
        keys.write("jwks.json", &format!(r#"{{"keys":[{{"kty":"new"}},{}]}}"#, ed25519_jwk()));
        keys
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path(name), text).unwrap();
    }

    fn config(&self) -> String {
        let (secret, jwks) = (self.0.path("secret"), self.0.path("jwks.json"));
        let public = |name: &str| format!("{}/tests/keys/{name}.public.pem", env!("CARGO_MANIFEST_DIR"));
        format!(
            r#"
limits.message_bytes_max = 4_000_000
limits.packet_bytes_max = 4_000_000

[auth]
require = true
audience = ["roomcast"]
issuer = ["https://id"]
leeway_s = 0
refresh_event = "refresh_token"

[[auth.key]]
algorithm = "HS256"
kid = "hs"
file = {secret:?}

[[auth.key]]
algorithm = "RS256"
kid = "rs"
file = {rsa:?}

[[auth.key]]
algorithm = "ES256"
kid = "es"
file = {ec:?}

[[auth.key]]
jwks = {jwks:?}

[[endpoint]]
kind = "socket.io"

[[endpoint]]
kind = "raw"

[[namespace]]
name = "/"
{RULES}

[[namespace]]
name = "/open"
require = false
{RULES}
"#,
            rsa = public("rsa"),
            ec = public("ec"),
        )
    }
}

const RULES: &str = r#"
[[namespace.connect]]
reply = { event = "claims", data = "{claims}" }

[[namespace.on]]
event = "who"
reply = { event = "claims", data = "{claims}" }
ack = ["{claims}"]

[[namespace.on]]
event = "seen"
ack = [{ query = "{query}", auth = "{auth}" }]
"#;

/// The public test key as a member of a key set: its last 32 bytes are the key.
fn ed25519_jwk() -> String {
    let pem = include_str!("keys/ed.public.pem");
    let der = data_encoding::BASE64.decode(pem.lines().nth(1).unwrap().as_bytes()).unwrap();
    let x = BASE64URL_NOPAD.encode(&der[der.len() - 32..]);
    format!(r#"{{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","x":"{x}"}}"#)
}

/// A token by this secret with these claims besides those that the config wants.
fn token(secret: &str, claims: &str) -> String {
    let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let claims = format!(r#"{{"aud":"roomcast","iss":"https://id",{claims}}}"#);
    let signed = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(&claims));
    let key = EncodingKey::from_secret(secret.as_bytes());
    format!("{signed}.{}", jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap())
}

/// What a raw client is told that has connected with this claim.
fn welcome(claims: &str) -> String {
    format!(r#"{{"type":"claims","data":{{"aud":"roomcast","iss":"https://id",{claims}}}}}"#)
}

fn refusal(message: &str, code: &str) -> String {
    format!(r#"{{"type":"error","data":{{"message":"{message}","data":{{"code":"{code}"}}}}}}"#)
}

fn unix_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn the_official_client_brings_tokens_in_every_way(cores: usize) {
    let keys = Keys::new();
    let server = Server::start(&keys.config(), cores);
    let folder = keys.0.path("");
    node("identity.js", &server, &[folder.to_str().unwrap()]);
    let log = server.log();
    assert!(log.contains("jwks.json: keys[0] is not used: its kind"), "{log}");
    assert!(!log.contains("eyJ") && !log.contains(SECRET), "a token or a secret in the log:\n{log}");
}

fn raw_clients_bring_tokens_and_are_closed_with_4401(cores: usize) {
    let keys = Keys::new();
    let server = Server::start(&keys.config(), cores);
    let good = token(SECRET, r#""sub":"a""#);
    let bearer = format!("bearer {good}");
    let cookie = format!("a=b; token={good}");
    for (path, headers) in [
        (format!("/ws?a=1&token={good}"), vec![]),
        ("/ws".to_owned(), vec![("Authorization", &*bearer)]),
        ("/ws".to_owned(), vec![("Cookie", &*cookie)]),
        ("/ws?token=x".to_owned(), vec![("Authorization", &*bearer)]),
    ] {
        let mut client = RawClient::connect_with(&server, &path, &headers);
        assert_eq!(client.next(), welcome(r#""sub":"a""#), "{path} {headers:?}");
        assert_eq!(client.ask(r#"{"type":"who"}"#), welcome(r#""sub":"a""#));
    }
    let forged = token("guessed", r#""sub":"a""#);
    let late = token(SECRET, r#""exp":1"#);
    for (path, message, code) in [
        ("/ws".to_owned(), "a token is required", "token_missing"),
        ("/ws?token=".to_owned(), "a token is required", "token_missing"),
        ("/ws?token=x".to_owned(), "the token is not a signed JSON Web Token", "token_invalid"),
        (format!("/ws?token={forged}"), "the token's signature is not valid", "token_invalid"),
        (format!("/ws?token={late}"), "the token has expired", "token_expired"),
    ] {
        let mut client = RawClient::connect_to(&server, &path);
        assert_eq!(client.next(), refusal(message, code), "{path}");
        assert_eq!(client.closed(), (4401, message.to_owned()), "{path}");
    }
    server.await_metric("roomcast_auth_refusals_total", &[], 5.0);
    server.await_metric("roomcast_auth_refusals_total", &[("reason", "token_missing")], 2.0);
    server.await_metric("roomcast_closes_total", &[("reason", "unauthenticated")], 5.0);
}

fn cookies_count_for_our_own_pages(cores: usize) {
    let keys = Keys::new();
    let config = format!(
        "cors = {{ origins = [\"https://app.example\"], credentials = true, check_websockets = false }}\n{}",
        keys.config()
    );
    let server = Server::start(&config, cores);
    let cookie = format!("token={}", token(SECRET, r#""sub":"a""#));
    let own = format!("http://{}", server.listen);
    for (origin, counts) in [
        (&*own, true),
        ("https://app.example", true),
        ("https://evil.example", false),
        ("https://app.example.evil.example", false),
        ("null", false),
        ("", false),
    ] {
        let mut client = RawClient::connect_with(&server, "/ws", &[("Cookie", &cookie), ("Origin", origin)]);
        let expected = if counts { welcome(r#""sub":"a""#) } else { refusal("a token is required", "token_missing") };
        assert_eq!(client.next(), expected, "{origin}");
    }
}

fn a_raw_client_is_closed_when_its_token_ends(cores: usize) {
    let keys = Keys::new();
    let server = Server::start(&keys.config(), cores);
    // A slow machine may need longer than two seconds to connect.
    let ended = [2.0, 8.0, 30.0].into_iter().any(|life| {
        let exp = unix_s() + life;
        let mut client =
            RawClient::connect_to(&server, &format!("/ws?token={}", token(SECRET, &format!("\"exp\":{exp}"))));
        if client.next().contains("token_expired") {
            return false;
        }
        assert_eq!(client.closed(), (4401, "token expired".to_owned()));
        assert!(unix_s() >= exp, "{} s early", exp - unix_s());
        true
    });
    assert!(ended, "no token lived long enough to connect with");
    server.await_metric("roomcast_tokens_expired_total", &[], 1.0);
    server.await_metric("roomcast_closes_total", &[("reason", "token expired")], 1.0);
}

fn keys_are_read_again_while_clients_stay(cores: usize) {
    let keys = Keys::new();
    let server = Server::start(&keys.config(), cores);
    let [old, new] = [SECRET, "another secret of tests, 32 byte"].map(|secret| token(secret, r#""sub":"a""#));
    // More than there are cores, so that each has one.
    let is_taken = |token: &str| {
        let path = format!("/ws?token={token}");
        let taken: Vec<bool> =
            (0..8).map(|_| RawClient::connect_to(&server, &path).next() == welcome(r#""sub":"a""#)).collect();
        assert!(taken.iter().all(|is| *is == taken[0]), "the cores differ: {taken:?}");
        taken[0]
    };
    let reload = |told: &str, times: usize| {
        server.signal(Signal::HUP);
        wait_until("the keys are read again", || server.log().matches(told).count() == times);
    };
    let mut client = RawClient::connect_to(&server, &format!("/ws?token={old}"));
    client.next();
    assert_eq!([is_taken(&old), is_taken(&new)], [true, false]);

    keys.write("secret", "another secret of tests, 32 byte");
    assert_eq!([is_taken(&old), is_taken(&new)], [true, false], "nobody has said so");
    reload("the config was reloaded", 1);
    assert_eq!([is_taken(&old), is_taken(&new)], [false, true]);

    // All or nothing: a good file beside a bad one is not taken either.
    for (number, bad) in ["{", "[]", r#"{"keys":[{"kty":"new"}]}"#].into_iter().enumerate() {
        keys.write("secret", SECRET);
        keys.write("jwks.json", bad);
        reload("the former one stays", number + 1);
        assert_eq!([is_taken(&old), is_taken(&new)], [false, true], "{bad}");
    }
    fs::remove_file(keys.0.path("jwks.json")).unwrap();
    reload("the former one stays", 4);
    assert!(server.log().contains("jwks.json cannot be read: No such file"), "{}", server.log());
    assert_eq!([is_taken(&old), is_taken(&new)], [false, true]);

    keys.write("jwks.json", &format!(r#"{{"keys":[{}]}}"#, ed25519_jwk()));
    reload("the config was reloaded", 2);
    assert_eq!([is_taken(&old), is_taken(&new)], [true, false]);
    // It was there all the time, by a key that came and went.
    assert_eq!(client.ask(r#"{"type":"who"}"#), welcome(r#""sub":"a""#));
    assert!(!server.log().contains("secret of tests"), "{}", server.log());
}

/// Not once per core: they have not begun yet.
#[test]
fn a_server_without_its_keys_does_not_start() {
    let keys = Keys::new();
    let config = keys.0.path("r.toml");
    fs::write(&config, keys.config()).unwrap();
    keys.write("secret", "");
    let place = keys.config().lines().position(|line| line.contains("/secret")).unwrap() + 1;
    let expected = format!(
        "{}:{place}:8: auth.key[0].file = {:?}: {} is empty; a secret should have 32 random bytes",
        config.display(),
        keys.0.path("secret"),
        keys.0.path("secret").display()
    );
    let config = config.to_str().unwrap();
    for args in [&["serve", "--config", config][..], &["check", config]] {
        let output = Command::new(env!("CARGO_BIN_EXE_roomcast")).args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(&expected), "{args:?}: {said}\n{expected}");
    }
}
