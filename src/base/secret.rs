//! A token that somebody must know. Compared in constant time, and never shown. Does not know where it comes from.

use std::fmt;
use subtle::ConstantTimeEq;

/// A shortest token: 16 bytes of hex are 64 bits, which nobody guesses over a network.
pub const TOKEN_BYTES_MIN: usize = 16;
/// A longest token: it must fit into an HTTP head and a publisher's first line.
pub const TOKEN_BYTES_MAX: usize = 1024;

/// A token.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes a token of letters, digits and punctuation, so that it can stand in an HTTP header and in JSON.
    ///
    /// # Errors
    /// A sentence about the first thing that is wrong, which does not repeat the token.
    pub fn new(token: &str) -> Result<Secret, String> {
        if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
            return Err(format!(
                "the token has {} bytes; it must have between {TOKEN_BYTES_MIN} and {TOKEN_BYTES_MAX}",
                token.len()
            ));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the token must be one word of ASCII letters, digits and punctuation".to_owned());
        }
        Ok(Secret(token.into()))
    }

    /// True if `told` is the token. How long that takes tells of the token's length at most.
    #[must_use]
    pub fn is(&self, told: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(told).into()
    }

    /// The token itself, for who has to say it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_plain_and_never_shown() {
        let token = "0123456789abcdef";
        let secret = Secret::new(token).unwrap();
        assert_eq!((secret.reveal(), format!("{secret:?}").as_str()), (token, "Secret(…)"));
        for (told, right) in [
            (token, true),
            ("0123456789abcdeg", false),
            ("1123456789abcdef", false),
            ("0123456789abcde", false),
            ("0123456789abcdef0", false),
            ("", false),
        ] {
            assert_eq!(secret.is(told.as_bytes()), right, "{told}");
        }
        for (bad, reason) in [
            ("0123456789abcde", "has 15 bytes"),
            (&"x".repeat(1025), "has 1025 bytes"),
            ("0123456789 abcdef", "must be one word"),
            ("0123456789abcdef\n", "must be one word"),
            ("0123456789abcdéf", "must be one word"),
        ] {
            let error = Secret::new(bad).unwrap_err();
            assert!(error.contains(reason) && !error.contains(bad), "{error}");
        }
    }
}
