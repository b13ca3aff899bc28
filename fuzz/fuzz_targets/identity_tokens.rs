//! Lines of text as a token, a CONNECT payload, a query and a cookie: nothing but what the key's owner has signed is
//! taken for a token, and rules do not see where one was. Knows the secret, so that what is wrong is never the key.
#![no_main]

use std::sync::LazyLock;

use httparse::Header;
use libfuzzer_sys::fuzz_target;
use roomcast::proto::http::{Head, query_pairs};
use roomcast::proto::json::{self, Scratch};
use roomcast::session::identity::{Algorithm, Identity, Key, Options, Source, TokenError};
use roomcast_fuzz::{check_error, object, raw_json};

/// All that was ever signed by these keys: the first two of three parts.
const SIGNED: [&str; 2] = [
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwMSIsInJvbGUiOiJBRE1JTiIsImF1ZCI6InJvb21jYXN0In0",
    "eyJhbGciOiJIUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJwMiIsImF1ZCI6WyJ4Iiwicm9vbWNhc3QiXSwiZXhwIjoyZTl9",
];

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let sources = ["auth.token", "auth.a.b", "authorization", "query.token", "cookie.token"];
    let options = Options {
        sources: sources.iter().map(|source| Source::parse(source).unwrap()).collect(),
        audience: vec!["roomcast".to_owned()],
        ..Options::default()
    };
    let rsa = Key::from_pem(Algorithm::Rs256, Some("r"), include_bytes!("../../tests/keys/rsa.public.pem"));
    let ed = Key::from_pem(Algorithm::EdDsa, None, include_bytes!("../../tests/keys/ed.public.pem"));
    let keys = vec![Key::from_secret(None, b"fuzz").unwrap(), rsa.unwrap(), ed.unwrap()];
    Identity::new(options, keys)
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let [token, auth, query, cookie] = [(); 4].map(|()| lines.next().unwrap_or_default());
    let mut scratch = Scratch::default();
    for unix_ms in [0, 1_900_000_000_000, 2_000_000_000_000] {
        match IDENTITY.verify(token, unix_ms, &mut scratch) {
            Ok(claims) => {
                let (signed, _) = token.rsplit_once('.').expect("a token has parts");
                assert!(SIGNED.contains(&signed), "nobody has signed {token}");
                assert!(object(&claims.json)["aud"].to_string().contains("roomcast"));
                assert!(claims.ends_ms.is_none_or(|ends_ms| ends_ms > unix_ms) && claims.admit(&claims));
            }
            Err(error) => check_error(&error, error.label()),
        }
    }
    check_query(query);
    let auth = json::validate(auth.as_bytes(), &mut scratch).ok().map(str::trim);
    if let Some(auth) = auth {
        let rest = IDENTITY.without_tokens_in(auth);
        raw_json(&rest);
        assert!(matches!(IDENTITY.token_of(Some(&rest), None), Ok(None)), "a token is left in {rest}");
    }
    check_request(token, auth, query, cookie);
});

/// The other parameters are as they were.
fn check_query(query: &str) {
    let rest = IDENTITY.without_tokens(query);
    let others: Vec<_> = query_pairs(query).filter(|(name, _)| name != "token").collect();
    assert_eq!(query_pairs(&rest).collect::<Vec<_>>(), others);
}

/// The first source that has a token is used alone.
fn check_request(token: &str, auth: Option<&str>, query: &str, cookie: &str) {
    let authorization = format!("Bearer {token}");
    let headers = [
        Header { name: "Authorization", value: authorization.as_bytes() },
        Header { name: "Cookie", value: cookie.as_bytes() },
    ];
    let of_query = query_pairs(query).filter(|(name, _)| name == "token").last().map(|(_, value)| value);
    for (headers, expected) in [(&headers[..], Some(token.trim())), (&headers[1..], of_query.as_deref())] {
        let head = Head { method: "GET", path: "/", query, minor_version: 1, headers };
        let bearer = IDENTITY.of_request(&head, false);
        if let Some(expected) = expected.filter(|expected| !expected.is_empty()) {
            assert_eq!(IDENTITY.token_of(None, bearer.as_ref()).unwrap().as_deref(), Some(expected));
        }
        match IDENTITY.token_of(auth, bearer.as_ref()) {
            Ok(_) | Err(TokenError::Malformed) => {}
            Err(other) => panic!("{other:?} before it is looked into"),
        }
    }
    let head = Head { method: "GET", path: "/", query: "", minor_version: 1, headers: &headers[1..] };
    assert!(IDENTITY.of_request(&head, false).is_none(), "a cookie counted");
    let _ = IDENTITY.of_request(&head, true);
}
