//! Keys that tokens are signed by, from the bytes of secrets, PEM files and key sets. Each is for one algorithm. Does
//! not know where the bytes came from.

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{DecodingKey, crypto};
use serde::Deserialize;

use crate::proto::json;

/// How a token is signed (RFC 7518, section 3.1; RFC 8037, section 3.1).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256: who can check a token can also make one.
    #[serde(rename = "HS256")]
    Hs256,
    /// RSA PKCS #1 v1.5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Algorithm {
    /// As tokens spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    fn theirs(self) -> jsonwebtoken::Algorithm {
        match self {
            Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// One key, and what it is for. Shows itself without its secret.
#[derive(Debug)]
pub struct Key {
    algorithm: Algorithm,
    kid: Option<Box<str>>,
    key: DecodingKey,
}

impl Key {
    /// A secret for [`Algorithm::Hs256`].
    ///
    /// # Errors
    /// What is wrong with it, for the operator.
    pub fn from_secret(kid: Option<&str>, secret: &[u8]) -> Result<Key, String> {
        if secret.is_empty() {
            return Err("is empty; a secret should have 32 random bytes".to_owned());
        }
        // Anybody has a public key, and could sign with it.
        if secret.starts_with(b"-----BEGIN ") {
            return Err("is a PEM file, which is not for HS256; HS256 wants a secret".to_owned());
        }
        Ok(Key { algorithm: Algorithm::Hs256, kid: kid.map(Into::into), key: DecodingKey::from_secret(secret) })
    }

    /// A public key in PEM, `PUBLIC KEY` or `RSA PUBLIC KEY`.
    ///
    /// # Errors
    /// What is wrong with it, for the operator.
    ///
    /// # Panics
    /// For [`Algorithm::Hs256`], which has no such keys.
    pub fn from_pem(algorithm: Algorithm, kid: Option<&str>, pem: &[u8]) -> Result<Key, String> {
        let text = std::str::from_utf8(pem).unwrap_or_default();
        let label =
            text.split_once("-----BEGIN ").and_then(|(_, rest)| rest.split_once("-----")).map(|(label, _)| label);
        match label {
            Some(label) if label.ends_with("PRIVATE KEY") => {
                let message = "is a private key, which only the issuer of tokens should have; make its public key with \
                    openssl pkey -pubout";
                return Err(message.to_owned());
            }
            Some("CERTIFICATE") => {
                return Err("is a certificate; take its key with openssl x509 -pubkey -noout".to_owned());
            }
            Some("PUBLIC KEY" | "RSA PUBLIC KEY") => {}
            _ => return Err("is not a public key in PEM, which begins with -----BEGIN PUBLIC KEY-----".to_owned()),
        }
        let key = match algorithm {
            Algorithm::Hs256 => unreachable!("HS256 has a secret"),
            Algorithm::Rs256 => DecodingKey::from_rsa_pem(pem),
            Algorithm::Es256 => DecodingKey::from_ec_pem(pem),
            Algorithm::EdDsa => DecodingKey::from_ed_pem(pem),
        };
        key.ok().and_then(|key| Key { algorithm, kid: kid.map(Into::into), key }.checked()).ok_or_else(|| {
            match algorithm {
                Algorithm::Rs256 => "is not a public RSA key of 2048 to 4096 bits, as RS256 wants",
                Algorithm::Es256 => "is not a public key on the curve P-256, as ES256 wants",
                _ => "is not a public Ed25519 key, as EdDSA wants",
            }
            .to_owned()
        })
    }

    /// The keys of a set (JWKS, RFC 7517, section 5), and a sentence about each that cannot be used.
    ///
    /// # Errors
    /// It is no key set, or has no key that can be used; for the operator.
    pub fn from_set(text: &[u8]) -> Result<(Vec<Key>, Vec<String>), String> {
        let set =
            json::validate(text, &mut json::Scratch::default()).map_err(|error| format!("is not JSON: {error}"))?;
        let list = json::get(set, "keys").filter(|keys| json::kind(keys) == json::Kind::Array);
        let Some(list) = list else {
            return Err("is not a key set, which is an object with an array \"keys\"".to_owned());
        };
        let (mut keys, mut skipped) = (Vec::new(), Vec::new());
        for (index, jwk) in json::elements(list).enumerate() {
            match Key::from_jwk(jwk) {
                Ok(key) => keys.push(key),
                Err(reason) => skipped.push(format!("keys[{index}] is not used: {reason}")),
            }
        }
        if keys.is_empty() {
            let reasons = skipped.iter().map(|reason| format!("; {reason}")).collect::<String>();
            return Err(format!("has no key that can be used{reasons}"));
        }
        Ok((keys, skipped))
    }

    fn from_jwk(jwk: &str) -> Result<Key, &'static str> {
        let text = |name| json::get(jwk, name).and_then(json::unescape);
        let bytes = |name| text(name).and_then(|text| BASE64URL_NOPAD.decode(text.as_bytes()).ok());
        let purpose = text("use");
        if purpose.is_some_and(|purpose| purpose != "sig") {
            return Err("its use is not sig");
        }
        let operations = json::get(jwk, "key_ops");
        if operations.is_some_and(|ops| !json::elements(ops).any(|op| json::spells(op, "verify"))) {
            return Err("its key_ops are without verify");
        }
        const INCOMPLETE: &str = "it is incomplete, or not a valid key";
        let coordinate = |name| bytes(name).filter(|bytes| bytes.len() == 32).ok_or(INCOMPLETE);
        let crv = text("crv");
        let (algorithm, key) = match (text("kty").as_deref(), crv.as_deref()) {
            (Some("oct"), _) => {
                let secret = bytes("k").filter(|secret| !secret.is_empty()).ok_or(INCOMPLETE)?;
                (Algorithm::Hs256, DecodingKey::from_secret(&secret))
            }
            (Some("RSA"), _) => {
                let (n, e) = (bytes("n").ok_or(INCOMPLETE)?, bytes("e").ok_or(INCOMPLETE)?);
                (Algorithm::Rs256, DecodingKey::from_rsa_raw_components(&n, &e))
            }
            (Some("EC"), Some("P-256")) => {
                let point = [&[4][..], &coordinate("x")?, &coordinate("y")?].concat();
                (Algorithm::Es256, DecodingKey::from_ec_der(&point))
            }
            (Some("OKP"), Some("Ed25519")) => (Algorithm::EdDsa, DecodingKey::from_ed_der(&coordinate("x")?)),
            _ => return Err("its kind is not oct, RSA, EC with P-256 or OKP with Ed25519"),
        };
        if text("alg").is_some_and(|alg| alg != algorithm.name()) {
            return Err("its alg is not HS256, RS256, ES256 or EdDSA, or not for its kind");
        }
        Key { algorithm, kid: text("kid").map(Into::into), key }.checked().ok_or(INCOMPLETE)
    }

    /// This key, if tokens can be checked with it.
    fn checked(self) -> Option<Key> {
        let is_good = match self.algorithm {
            Algorithm::Hs256 => true,
            Algorithm::Rs256 => self.has_good_modulus(),
            Algorithm::Es256 | Algorithm::EdDsa => {
                // The crate slices the key at 32 bytes without a look.
                self.key.try_get_as_bytes().is_ok_and(|key| key.len() >= 32)
                    && crypto::verify("AA", b"", &self.key, self.algorithm.theirs()).is_ok()
            }
        };
        is_good.then_some(self)
    }

    /// What the crate would find only with a token in hand, and then blame the token for. Below 2048 bits RS256 is not
    /// to be used (RFC 7518, section 3.3); beyond 4096 the crate refuses.
    fn has_good_modulus(&self) -> bool {
        let Ok(Jwk { algorithm: AlgorithmParameters::RSA(parameters), .. }) = Jwk::from_decoding_key(&self.key, None)
        else {
            return false;
        };
        let bytes = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).unwrap_or_default();
        let (n, e) = (bytes(&parameters.n), bytes(&parameters.e));
        let bits = |number: &[u8]| {
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            number.get(zeros).map_or(0, |first| (number.len() - zeros) * 8 - first.leading_zeros() as usize)
        };
        let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
        (2048..=4096).contains(&bits(&n)) && is_odd(&n) && (2..=33).contains(&bits(&e)) && is_odd(&e)
    }

    /// The only algorithm that it is used with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its name, if it has one.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// True for a secret that is shorter than what it makes: it can be guessed (RFC 7518, section 3.2).
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.algorithm == Algorithm::Hs256 && self.key.try_get_as_bytes().is_ok_and(|secret| secret.len() < 32)
    }

    /// True if `signature`, in base64url, is this key's for `signed`.
    #[must_use]
    pub fn has_signed(&self, signed: &str, signature: &str) -> bool {
        crypto::verify(signature, signed.as_bytes(), &self.key, self.algorithm.theirs()).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{EC, ED, RSA, SECRET, Signer, token};
    use super::*;

    const P384: &[u8] = include_bytes!("../../../tests/keys/p384.public.pem");
    const SMALL: &[u8] = include_bytes!("../../../tests/keys/small-rsa.public.pem");
    const PRIVATE: &[u8] = include_bytes!("../../../tests/keys/rsa.private.pem");

    #[test]
    fn only_what_fits_becomes_a_key() {
        let pem = |algorithm, pem: &[u8]| Key::from_pem(algorithm, None, pem).map(|_| ());
        let cut = &RSA[..RSA.len() / 2];
        for (algorithm, bytes, error) in [
            (Algorithm::Rs256, RSA, None),
            (Algorithm::Es256, EC, None),
            (Algorithm::EdDsa, ED, None),
            (Algorithm::Rs256, EC, Some("is not a public RSA key")),
            (Algorithm::Rs256, SMALL, Some("is not a public RSA key of 2048")),
            (Algorithm::Es256, RSA, Some("is not a public key on the curve P-256")),
            (Algorithm::Es256, P384, Some("is not a public key on the curve P-256")),
            (Algorithm::EdDsa, RSA, Some("is not a public Ed25519 key")),
            (Algorithm::EdDsa, EC, Some("is not a public Ed25519 key")),
            (Algorithm::Rs256, PRIVATE, Some("is a private key")),
            (Algorithm::Rs256, b"-----BEGIN CERTIFICATE-----\n", Some("is a certificate")),
            (Algorithm::Rs256, b"", Some("is not a public key in PEM")),
            (Algorithm::Rs256, b"\xff\xfe", Some("is not a public key in PEM")),
            (Algorithm::Rs256, cut, Some("is not a public RSA key")),
        ] {
            match (pem(algorithm, bytes), error) {
                (Ok(()), None) => {}
                (Err(is), Some(wanted)) if is.starts_with(wanted) => {}
                (is, wanted) => panic!("{algorithm:?}: {is:?}, not {wanted:?}"),
            }
        }
        assert!(Key::from_secret(None, b"").unwrap_err().starts_with("is empty"));
        assert!(Key::from_secret(None, RSA).unwrap_err().starts_with("is a PEM file"));
        assert!(Key::from_secret(None, b"short").unwrap().is_weak());
        assert!(!Key::from_secret(None, SECRET).unwrap().is_weak());
    }

    /// A PEM's key as members of a JWK.
    fn members(key: &Key) -> String {
        let AlgorithmParameters::RSA(rsa) = Jwk::from_decoding_key(&key.key, None).unwrap().algorithm else {
            let bytes = key.key.try_get_as_bytes().unwrap();
            let part = |bytes| BASE64URL_NOPAD.encode(bytes);
            return match bytes.len() {
                32 => format!(r#""kty":"OKP","crv":"Ed25519","x":"{}""#, part(bytes)),
                _ => format!(r#""kty":"EC","crv":"P-256","x":"{}","y":"{}""#, part(&bytes[1..33]), part(&bytes[33..])),
            };
        };
        format!(r#""kty":"RSA","n":"{}","e":"{}""#, rsa.n, rsa.e)
    }

    #[test]
    fn sets() {
        let [rsa, ec, ed] = [(Algorithm::Rs256, RSA), (Algorithm::Es256, EC), (Algorithm::EdDsa, ED)]
            .map(|(algorithm, pem)| members(&Key::from_pem(algorithm, None, pem).unwrap()));
        let oct = format!(r#""kty":"oct","k":"{}""#, BASE64URL_NOPAD.encode(SECRET));
        let rows = [
            // (a JWK, its algorithm and name or why it is skipped)
            (format!(r#"{{{oct},"kid":"1"}}"#), Ok((Algorithm::Hs256, Some("1")))),
            (format!(r#"{{{rsa},"use":"sig","alg":"RS256"}}"#), Ok((Algorithm::Rs256, None))),
            (format!(r#"{{{ec},"key_ops":["verify"],"alg":"ES256"}}"#), Ok((Algorithm::Es256, None))),
            (format!(r#"{{{ed},"kid":"\u0041"}}"#), Ok((Algorithm::EdDsa, Some("A")))),
            (format!(r#"{{{rsa},"use":"enc"}}"#), Err("its use is not sig")),
            (format!(r#"{{{rsa},"key_ops":["encrypt"]}}"#), Err("its key_ops")),
            (format!(r#"{{{rsa},"alg":"RS512"}}"#), Err("its alg")),
            // A public key that is said to be a secret.
            (format!(r#"{{{rsa},"alg":"HS256"}}"#), Err("its alg")),
            (format!(r#"{{{oct},"alg":"HS512"}}"#), Err("its alg")),
            (r#"{"kty":"oct","k":""}"#.into(), Err("it is incomplete")),
            (r#"{"kty":"oct"}"#.into(), Err("it is incomplete")),
            (r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.into(), Err("it is incomplete")),
            (rsa.replace("AQAB", "AQAC").replace("\"kty\"", "{\"kty\"") + "}", Err("it is incomplete")),
            (r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#.into(), Err("it is incomplete")),
            (format!(r#"{{{}}}"#, ec.replace("\"y\":\"", "\"y\":\"AAAA").replace("==", "")), Err("it is incomplete")),
            (r#"{"kty":"EC","crv":"P-384"}"#.into(), Err("its kind")),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#.into(), Err("it is incomplete")),
            (r#"{"kty":"OKP","crv":"X25519"}"#.into(), Err("its kind")),
            (r#"{"kty":"new"}"#.into(), Err("its kind")),
            (r"7".into(), Err("its kind")),
        ];
        for (jwk, expected) in rows {
            let set = format!(r#"{{"x":1,"keys":[{jwk}]}}"#);
            match (Key::from_set(set.as_bytes()), expected) {
                (Ok((keys, skipped)), Ok((algorithm, kid))) => {
                    assert_eq!((keys[0].algorithm(), keys[0].kid()), (algorithm, kid), "{jwk}");
                    assert_eq!((keys.len(), skipped.len()), (1, 0));
                }
                (Err(is), Err(wanted)) => {
                    assert!(is.contains(&format!("keys[0] is not used: {wanted}")), "{jwk}: {is}")
                }
                (is, wanted) => panic!("{jwk}: {is:?}, not {wanted:?}"),
            }
        }
        // The good one of several, and what was left out.
        let set = format!(r#"{{"keys":[{{"kty":"new"}},{{{ed}}}]}}"#);
        let (keys, skipped) = Key::from_set(set.as_bytes()).unwrap();
        assert_eq!((keys.len(), skipped.len()), (1, 1));
        assert!(skipped[0].starts_with("keys[0] is not used: its kind"), "{skipped:?}");
        let signed = token(r#"{"alg":"EdDSA"}"#, "{}", Signer::Ed);
        let (signed, signature) = signed.rsplit_once('.').unwrap();
        assert!(keys[0].has_signed(signed, signature));
        for (text, error) in [
            ("{", "is not JSON"),
            ("[]", "is not a key set"),
            ("{\"keys\":{}}", "is not a key set"),
            ("{\"keys\":[]}", "has no key that can be used"),
        ] {
            assert!(Key::from_set(text.as_bytes()).unwrap_err().starts_with(error), "{text}");
        }
    }
}
