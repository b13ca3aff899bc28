//! Who a client is: a signed token (JWT, RFC 7519) becomes claims, or a refusal with its reason. Knows tokens, keys and
//! what is wanted of them; reads no file and no clock, and does not know what the claims permit.
//!
//! The crate `jsonwebtoken` checks signatures. What stands in a token is read here, so that the claims that rules see
//! are the very bytes that were signed, and so that the time is the caller's.

mod keys;
mod sources;

use std::fmt;

use data_encoding::BASE64URL_NOPAD;

use crate::base::ids::NamespaceId;
use crate::proto::json;
pub use keys::{Algorithm, Key};
pub use sources::{Bearer, Source};

/// Longest token. One with 16 KiB does not fit into an HTTP head of the default size; people's have 1 to 2 KiB.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;
/// A token without `kid` is checked against every key of its algorithm, with 50 to 200 µs for each that is public.
pub const KEYS_MAX: usize = 32;
/// Of the year 9999: a later end is none.
const LATEST_S: f64 = 253_402_300_800.0;

/// What a server wants of tokens.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where a client may have its token, by preference. The first place that has one is used, alone.
    pub sources: Vec<Source>,
    /// One of these must be in `aud`; empty: it is not looked at.
    pub audience: Vec<String>,
    /// `iss` must be one of these; empty: it is not looked at.
    pub issuer: Vec<String>,
    /// By how much the issuer's clock may differ from ours: `nbf` counts from so much earlier, `exp` until so much
    /// later.
    pub leeway_s: u64,
    /// By namespace id: true if none gets in without a token.
    pub required: Vec<bool>,
    /// The event that brings a new token.
    pub refresh_event: Option<String>,
}

/// All that is needed to tell who a client is. Shared by the cores; made anew when the keys are read again.
#[derive(Debug)]
pub struct Identity {
    options: Options,
    keys: Vec<Key>,
}

const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<Identity>();
};

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// A JSON object: the token's payload, byte by byte.
    pub json: Box<str>,
    /// From then on the token holds no longer, in milliseconds of Unix time: `exp` and the leeway. `None` if it has no
    /// `exp`.
    pub ends_ms: Option<u64>,
}

/// Why a client was not identified: the client's fault. Names neither token nor key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// There is none, and the namespace wants one.
    Missing,
    /// It is no signed token in the compact form (RFC 7515, section 7.1), or too long, or its claims are no object.
    Malformed,
    /// Its `alg` is none of those that a key is for; also `none`.
    Algorithm,
    /// Its `kid` names no key.
    UnknownKey,
    /// It was not signed by any of the keys that it may have been signed by.
    Signature,
    /// `exp` is over.
    Expired,
    /// `nbf` is to come.
    NotYetValid,
    /// `aud` is somebody else.
    Audience,
    /// `iss` is somebody else.
    Issuer,
    /// The new token is about somebody else than the present one.
    Subject,
}

impl TokenError {
    /// For metrics and for the client's program.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            TokenError::Missing => "token_missing",
            TokenError::Malformed | TokenError::Algorithm | TokenError::UnknownKey | TokenError::Signature => {
                "token_invalid"
            }
            TokenError::Expired => "token_expired",
            TokenError::NotYetValid => "token_not_yet_valid",
            TokenError::Audience => "token_audience",
            TokenError::Issuer => "token_issuer",
            TokenError::Subject => "token_subject",
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenError::Missing => "a token is required",
            TokenError::Malformed => "the token is not a signed JSON Web Token",
            TokenError::Algorithm => "the token's algorithm is not accepted",
            TokenError::UnknownKey => "the token's key is not known",
            TokenError::Signature => "the token's signature is not valid",
            TokenError::Expired => "the token has expired",
            TokenError::NotYetValid => "the token is not valid yet",
            TokenError::Audience => "the token is for another audience",
            TokenError::Issuer => "the token is of another issuer",
            TokenError::Subject => "the token is for another subject than the one before",
        })
    }
}

impl std::error::Error for TokenError {}

impl Identity {
    /// Made of what is wanted and the keys that tokens are signed by.
    #[must_use]
    pub fn new(options: Options, keys: Vec<Key>) -> Identity {
        Identity { options, keys }
    }

    /// True if nobody gets into the namespace without a token.
    #[must_use]
    pub fn is_required(&self, namespace: NamespaceId) -> bool {
        self.options.required.get(usize::from(namespace.0)).copied().unwrap_or(false)
    }

    /// True for the event that brings a new token.
    #[must_use]
    pub fn is_refresh(&self, event: &str) -> bool {
        self.options.refresh_event.as_deref() == Some(event)
    }

    /// What the token says, if it holds at `unix_ms`.
    ///
    /// # Errors
    /// The first thing that is wrong with it. Whether it is genuine comes first: nothing is told about a forged one's
    /// claims.
    pub fn verify(&self, token: &str, unix_ms: u64, scratch: &mut json::Scratch) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        if header.is_empty() || payload.is_empty() || payload.contains('.') {
            return Err(TokenError::Malformed);
        }
        let header = object(header, scratch)?;
        self.check_signature(&header, signed, signature)?;
        let claims = object(payload, scratch)?;
        let ends_ms = self.check_claims(&claims, unix_ms)?;
        Ok(Claims { json: claims.into(), ends_ms })
    }

    fn check_signature(&self, header: &str, signed: &str, signature: &str) -> Result<(), TokenError> {
        // It would change what the rest means, in a way that we don't know (RFC 7515, section 4.1.11).
        if json::get(header, "crit").is_some() {
            return Err(TokenError::Malformed);
        }
        let text = |name| match json::get(header, name) {
            None => Ok(None),
            Some(value) => json::unescape(value).map(Some).ok_or(TokenError::Malformed),
        };
        let algorithm = text("alg")?.ok_or(TokenError::Malformed)?;
        let kid = text("kid")?;
        // The key says how it is used, never the token: whoever chose HS256 could sign with a public key.
        let mut keys = self.keys.iter().filter(|key| key.algorithm().name() == algorithm).peekable();
        if keys.peek().is_none() {
            return Err(TokenError::Algorithm);
        }
        let may_be = |key: &&Key| kid.is_none() || key.kid().is_none() || key.kid() == kid.as_deref();
        let mut keys = keys.filter(may_be).peekable();
        if keys.peek().is_none() {
            return Err(TokenError::UnknownKey);
        }
        keys.any(|key| key.has_signed(signed, signature)).then_some(()).ok_or(TokenError::Signature)
    }

    /// Returns the end of the claims' validity (RFC 7519, section 4.1).
    fn check_claims(&self, claims: &str, unix_ms: u64) -> Result<Option<u64>, TokenError> {
        let Options { audience, issuer, leeway_s, .. } = &self.options;
        let leeway_ms = leeway_s * 1000;
        let ends_ms = date_ms(claims, "exp")?.map(|exp| exp + leeway_ms);
        if ends_ms.is_some_and(|ends| ends <= unix_ms) {
            return Err(TokenError::Expired);
        }
        if date_ms(claims, "nbf")?.is_some_and(|nbf| nbf > unix_ms + leeway_ms) {
            return Err(TokenError::NotYetValid);
        }
        let is_one_of = |value: &str, wanted: &[String]| wanted.iter().any(|wanted| json::spells(value, wanted));
        if !audience.is_empty() {
            let is_ours = json::get(claims, "aud").is_some_and(|aud| match json::kind(aud) {
                json::Kind::Array => json::elements(aud).any(|aud| is_one_of(aud, audience)),
                _ => is_one_of(aud, audience),
            });
            if !is_ours {
                return Err(TokenError::Audience);
            }
        }
        if !issuer.is_empty() && !json::get(claims, "iss").is_some_and(|iss| is_one_of(iss, issuer)) {
            return Err(TokenError::Issuer);
        }
        Ok(ends_ms)
    }
}

impl Claims {
    /// True if a socket with these claims may go on with `next`: it is about the same subject, unless these are about
    /// none.
    #[must_use]
    pub fn admit(&self, next: &Claims) -> bool {
        let subject = |claims: &Claims| {
            let sub = json::get(&claims.json, "sub").filter(|sub| *sub != "null")?;
            Some(json::unescape(sub).map_or_else(|| sub.to_owned(), std::borrow::Cow::into_owned))
        };
        subject(self).is_none_or(|present| subject(next) == Some(present))
    }
}

/// One part of a token: base64url of a JSON object.
fn object(part: &str, scratch: &mut json::Scratch) -> Result<String, TokenError> {
    let bytes = BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| TokenError::Malformed)?;
    let text = json::validate(&bytes, scratch).map_err(|_| TokenError::Malformed)?;
    if json::kind(text) != json::Kind::Object {
        return Err(TokenError::Malformed);
    }
    Ok(text.to_owned())
}

/// A `NumericDate`: seconds since 1970, perhaps with a fraction, as milliseconds. Those of before 1970 are 1970.
fn date_ms(claims: &str, name: &str) -> Result<Option<u64>, TokenError> {
    let Some(value) = json::get(claims, name) else { return Ok(None) };
    if json::kind(value) != json::Kind::Number {
        return Err(TokenError::Malformed);
    }
    let seconds: f64 = value.parse().map_err(|_| TokenError::Malformed)?;
    // Upwards, as nothing ends before its time.
    Ok(Some((seconds.clamp(0.0, LATEST_S) * 1000.0).ceil() as u64))
}

/// Tokens and keys for tests, here and in `shard`.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use jsonwebtoken::{EncodingKey, crypto::sign};

    pub(crate) const SECRET: &[u8] = b"a secret of tests, 32 bytes long";
    pub(crate) const RSA: &[u8] = include_bytes!("../../../tests/keys/rsa.public.pem");
    pub(crate) const EC: &[u8] = include_bytes!("../../../tests/keys/ec.public.pem");
    pub(crate) const ED: &[u8] = include_bytes!("../../../tests/keys/ed.public.pem");

    /// Who signs.
    #[derive(Clone, Copy)]
    pub(crate) enum Signer<'a> {
        Secret(&'a [u8]),
        Rsa,
        OtherRsa,
        Ec,
        Ed,
    }

    /// Header and payload, whatever they are, signed.
    pub(crate) fn token(header: &str, payload: &str, signer: Signer<'_>) -> String {
        let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let signed = format!("{}.{}", part(header), part(payload));
        let rsa = |pem| (EncodingKey::from_rsa_pem(pem).unwrap(), jsonwebtoken::Algorithm::RS256);
        let (key, algorithm) = match signer {
            Signer::Secret(secret) => (EncodingKey::from_secret(secret), jsonwebtoken::Algorithm::HS256),
            Signer::Rsa => rsa(include_bytes!("../../../tests/keys/rsa.private.pem")),
            Signer::OtherRsa => rsa(include_bytes!("../../../tests/keys/other-rsa.private.pem")),
            Signer::Ec => {
                let pem = include_bytes!("../../../tests/keys/ec.private.pem");
                (EncodingKey::from_ec_pem(pem).unwrap(), jsonwebtoken::Algorithm::ES256)
            }
            Signer::Ed => {
                let pem = include_bytes!("../../../tests/keys/ed.private.pem");
                (EncodingKey::from_ed_pem(pem).unwrap(), jsonwebtoken::Algorithm::EdDSA)
            }
        };
        format!("{signed}.{}", sign(signed.as_bytes(), &key, algorithm).unwrap())
    }

    /// Signed by [`SECRET`].
    pub(crate) fn hs256(payload: &str) -> String {
        token(r#"{"alg":"HS256"}"#, payload, Signer::Secret(SECRET))
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{EC, ED, RSA, SECRET, Signer, hs256, token};
    use super::*;

    const NOW_S: u64 = 1_700_000_000;

    fn identity(options: Options) -> Identity {
        let pem = |algorithm, kid, pem| Key::from_pem(algorithm, kid, pem).unwrap();
        let keys = vec![
            Key::from_secret(Some("hs"), SECRET).unwrap(),
            Key::from_secret(Some("old"), b"another secret of tests, 32 byte").unwrap(),
            pem(Algorithm::Rs256, Some("rs"), RSA),
            pem(Algorithm::Es256, Some("es"), EC),
            pem(Algorithm::EdDsa, None, ED),
        ];
        Identity::new(options, keys)
    }

    fn verify(identity: &Identity, token: &str) -> Result<Claims, TokenError> {
        identity.verify(token, NOW_S * 1000, &mut json::Scratch::default())
    }

    #[test]
    fn signatures() {
        use TokenError::{Algorithm, Malformed, Signature, UnknownKey};
        let identity = identity(Options::default());
        let secret = Signer::Secret(SECRET);
        let rows: [(&str, Signer<'_>, Result<(), TokenError>); 33] = [
            (r#"{"alg":"HS256"}"#, secret, Ok(())),
            (r#"{"alg":"HS256","kid":"hs","typ":"JWT"}"#, secret, Ok(())),
            (r#"{ "typ":"JWT", "alg" : "\u0048S256" }"#, secret, Ok(())),
            (r#"{"alg":"RS256"}"#, Signer::Rsa, Ok(())),
            (r#"{"alg":"RS256","kid":"rs"}"#, Signer::Rsa, Ok(())),
            (r#"{"alg":"ES256","kid":"es"}"#, Signer::Ec, Ok(())),
            (r#"{"alg":"EdDSA"}"#, Signer::Ed, Ok(())),
            // A key without a name may be any.
            (r#"{"alg":"EdDSA","kid":"whatever"}"#, Signer::Ed, Ok(())),
            // Of another's key.
            (r#"{"alg":"HS256"}"#, Signer::Secret(b"not the secret"), Err(Signature)),
            (r#"{"alg":"RS256"}"#, Signer::OtherRsa, Err(Signature)),
            (r#"{"alg":"RS256","kid":"rs"}"#, Signer::OtherRsa, Err(Signature)),
            (r#"{"alg":"HS256","kid":"old"}"#, secret, Err(Signature)),
            // Signed in one way, told to be signed in another.
            (r#"{"alg":"HS256"}"#, Signer::Secret(RSA), Err(Signature)),
            (r#"{"alg":"HS256","kid":"rs"}"#, Signer::Secret(RSA), Err(UnknownKey)),
            (r#"{"alg":"HS256","kid":"rs"}"#, secret, Err(UnknownKey)),
            (r#"{"alg":"RS256"}"#, Signer::Secret(RSA), Err(Signature)),
            (r#"{"alg":"ES256"}"#, Signer::Secret(EC), Err(Signature)),
            (r#"{"alg":"EdDSA"}"#, Signer::Secret(ED), Err(Signature)),
            (r#"{"alg":"ES256"}"#, Signer::Ed, Err(Signature)),
            (r#"{"alg":"RS512"}"#, Signer::Rsa, Err(Algorithm)),
            (r#"{"alg":"HS512"}"#, secret, Err(Algorithm)),
            (r#"{"alg":"hs256"}"#, secret, Err(Algorithm)),
            (r#"{"alg":"none"}"#, secret, Err(Algorithm)),
            (r#"{"alg":"None"}"#, secret, Err(Algorithm)),
            (r#"{"alg":""}"#, secret, Err(Algorithm)),
            (r#"{"alg":null}"#, secret, Err(Malformed)),
            (r"{}", secret, Err(Malformed)),
            // Of two that are called the same, the last one counts, as everywhere.
            (r#"{"alg":"none","alg":"HS256"}"#, secret, Ok(())),
            (r#"{"alg":"HS256","alg":"none"}"#, secret, Err(Algorithm)),
            // Names are names, not paths, and not queries.
            (r#"{"alg":"HS256","kid":"../../../../dev/null"}"#, Signer::Secret(b""), Err(UnknownKey)),
            (r#"{"alg":"HS256","kid":"' OR 1=1 --"}"#, secret, Err(UnknownKey)),
            (r#"{"alg":"HS256","kid":7}"#, secret, Err(Malformed)),
            // The header asks for what we don't know.
            (r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, secret, Err(Malformed)),
        ];
        for (header, signer, expected) in rows {
            let claims = verify(&identity, &token(header, r#"{"sub":"a"}"#, signer));
            assert_eq!(claims.map(|_| ()), expected, "{header}");
        }
    }

    #[test]
    fn keys_that_a_token_brings_along_are_not_believed() {
        let identity = identity(Options::default());
        let jwk = r#"{"kty":"oct","k":"YXR0YWNrZXI"}"#;
        for header in [
            format!(r#"{{"alg":"HS256","jwk":{jwk}}}"#),
            r#"{"alg":"HS256","jku":"http://127.0.0.1/keys"}"#.to_owned(),
            r#"{"alg":"HS256","x5u":"http://127.0.0.1/keys"}"#.to_owned(),
        ] {
            let forged = token(&header, "{}", Signer::Secret(b"attacker"));
            assert_eq!(verify(&identity, &forged), Err(TokenError::Signature), "{header}");
        }
    }

    #[test]
    fn what_is_no_token() {
        let identity = identity(Options::default());
        let good = hs256(r#"{"sub":"a"}"#);
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let (header, payload) = signed.split_once('.').unwrap();
        let malformed = [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            "null".to_owned(),
            "a.b.c".to_owned(),
            "é.é.é".to_owned(),
            signed.to_owned(),
            format!("{good}.{signature}"),
            format!("{header}.{payload}.{signature}.x.y"),
            format!(".{payload}.{signature}"),
            format!("{header}..{signature}"),
            format!("{header}=.{payload}.{signature}"),
            format!(" {good}"),
            format!("Bearer {good}"),
            hs256(&format!(r#"{{"sub":"{}"}}"#, "a".repeat(3_000_000))),
            "a".repeat(3_000_000),
            ".".repeat(3_000_000),
        ];
        for token in malformed {
            let shown: String = token.chars().take(60).collect();
            assert_eq!(verify(&identity, &token), Err(TokenError::Malformed), "{shown}");
        }
        for forged in [
            format!("{signed}."),
            format!("{signed}.{signature}="),
            format!("{signed}.{}", &signature[1..]),
            format!("{signed}.{}", "A".repeat(signature.len())),
            format!("{header}.{}.{signature}", BASE64URL_NOPAD.encode(br#"{"sub":"b"}"#)),
        ] {
            assert_eq!(verify(&identity, &forged), Err(TokenError::Signature), "{forged}");
        }
        let unsigned = BASE64URL_NOPAD.encode(br#"{"alg":"none"}"#);
        assert_eq!(verify(&identity, &format!("{unsigned}.{payload}.")), Err(TokenError::Algorithm));
        // Signed, and still no claims.
        for payload in ["[]", "1", "\"a\"", "null", "", "{", "{\"a\":}", "{} {}", "\u{feff}{}", "{\"a\":\"\\ud800\"}"] {
            assert_eq!(verify(&identity, &hs256(payload)), Err(TokenError::Malformed), "{payload}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
        assert_eq!(verify(&identity, &hs256(&deep)), Err(TokenError::Malformed));
    }

    #[test]
    fn times() {
        use TokenError::{Expired, Malformed, NotYetValid};
        let identity = identity(Options { leeway_s: 5, ..Options::default() });
        let end = |ms| Ok(Some(ms));
        for (payload, expected) in [
            (r"{}", Ok(None)),
            (r#"{"exp":1700000001}"#, end(1_700_000_006_000)),
            (r#"{"exp":1700000000}"#, end(1_700_000_005_000)),
            (r#"{"exp":1699999996}"#, end(1_700_000_001_000)),
            (r#"{"exp":1699999995.0001}"#, end(1_700_000_000_001)),
            (r#"{"exp":1.7000000001e9}"#, end(1_700_000_005_100)),
            (r#"{"exp":1699999995}"#, Err(Expired)),
            (r#"{"exp":0}"#, Err(Expired)),
            (r#"{"exp":-1}"#, Err(Expired)),
            (r#"{"exp":-1e400}"#, Err(Expired)),
            (r#"{"exp":1e400}"#, end(253_402_300_805_000)),
            (r#"{"exp":99999999999999999999999999}"#, end(253_402_300_805_000)),
            // Of two the last one counts, and rules read that one too.
            (r#"{"exp":1,"exp":1700000000}"#, end(1_700_000_005_000)),
            (r#"{"exp":1700000000,"exp":1}"#, Err(Expired)),
            (r#"{"exp":"1800000000"}"#, Err(Malformed)),
            (r#"{"exp":null}"#, Err(Malformed)),
            (r#"{"exp":[1800000000]}"#, Err(Malformed)),
            (r#"{"nbf":1700000005}"#, Ok(None)),
            (r#"{"nbf":1700000005.001}"#, Err(NotYetValid)),
            (r#"{"nbf":1e400}"#, Err(NotYetValid)),
            (r#"{"nbf":"1"}"#, Err(Malformed)),
            // When it was issued is not looked at.
            (r#"{"iat":1800000000}"#, Ok(None)),
        ] {
            assert_eq!(verify(&identity, &hs256(payload)).map(|claims| claims.ends_ms), expected, "{payload}");
        }
    }

    #[test]
    fn audiences_and_issuers() {
        use TokenError::{Audience, Issuer};
        let wanted = |list: &[&str]| list.iter().map(|&wanted| wanted.to_owned()).collect();
        let identity = identity(Options {
            audience: wanted(&["a", "b"]),
            issuer: wanted(&["https://id", "é"]),
            ..Options::default()
        });
        for (payload, expected) in [
            (r#"{"aud":"a","iss":"https://id"}"#, Ok(())),
            (r#"{"aud":["x","b"],"iss":"\u00e9"}"#, Ok(())),
            (r#"{"aud":"a"}"#, Err(Issuer)),
            (r#"{"aud":"a","iss":["https://id"]}"#, Err(Issuer)),
            (r#"{"aud":"a","iss":"https://id/"}"#, Err(Issuer)),
            (r#"{"iss":"https://id"}"#, Err(Audience)),
            (r#"{"aud":"A","iss":"https://id"}"#, Err(Audience)),
            (r#"{"aud":[],"iss":"https://id"}"#, Err(Audience)),
            (r#"{"aud":[["a"]],"iss":"https://id"}"#, Err(Audience)),
            (r#"{"aud":{"a":1},"iss":"https://id"}"#, Err(Audience)),
            (r#"{"aud":null,"iss":"https://id"}"#, Err(Audience)),
            (r#"{"aud":"x","aud":"a","iss":"https://id"}"#, Ok(())),
        ] {
            assert_eq!(verify(&identity, &hs256(payload)).map(|_| ()), expected, "{payload}");
        }
    }

    #[test]
    fn claims_keep_their_bytes() {
        let payload = " {\"id\" : 9007199254740993, \"n\":1.0,\"role\":\"ADMIN\",\"é\":\"\\u00e9\"}\n";
        assert_eq!(&*verify(&identity(Options::default()), &hs256(payload)).unwrap().json, payload);
    }

    #[test]
    fn subjects_stay() {
        let claims = |json: &str| Claims { json: json.into(), ends_ms: None };
        for (present, next, admitted) in [
            (r#"{"sub":"a"}"#, r#"{"sub":"a","exp":1}"#, true),
            (r#"{"sub":"a"}"#, r#"{"sub":"\u0061"}"#, true),
            (r#"{"sub":"a"}"#, r#"{"sub":"b"}"#, false),
            (r#"{"sub":"a"}"#, r"{}", false),
            (r#"{"sub":7}"#, r#"{"sub":7}"#, true),
            (r#"{"sub":7}"#, r#"{"sub":8}"#, false),
            (r#"{"sub":"a","sub":"b"}"#, r#"{"sub":"b"}"#, true),
            (r"{}", r#"{"sub":"b"}"#, true),
            (r#"{"sub":null}"#, r#"{"sub":"b"}"#, true),
        ] {
            assert_eq!(claims(present).admit(&claims(next)), admitted, "{present} {next}");
        }
    }

    #[test]
    fn errors_name_no_secret() {
        let shown = format!("{:?}", identity(Options::default()));
        assert!(!shown.contains("97, 32, 115") && !shown.contains("a secret"), "{shown}");
    }
}
