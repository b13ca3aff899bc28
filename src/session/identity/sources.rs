//! Where clients have their tokens: in the payload of CONNECT or in the request of their handshake. Finds them, and
//! takes them out of what others get to see. Does not look into a token.

use std::borrow::Cow;

use super::{Identity, TOKEN_BYTES_MAX, TokenError};
use crate::proto::http::{self, Head};
use crate::proto::json;

/// One place where a client may have its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `auth.a.b`: in the payload that a Socket.IO client connects to a namespace with.
    Auth(Vec<Box<str>>),
    /// `authorization`: the header of that name, after `Bearer` (RFC 6750, section 2.1).
    Authorization,
    /// `query.NAME`: a parameter of the request's query.
    Query(Box<str>),
    /// `cookie.NAME`
    Cookie(Box<str>),
}

impl Source {
    /// As it stands in a config.
    ///
    /// # Errors
    /// What would be right, for the operator.
    pub fn parse(text: &str) -> Result<Source, &'static str> {
        let parts: Vec<&str> = text.split('.').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(WANTED);
        }
        match parts[..] {
            ["auth", _, ..] => Ok(Source::Auth(parts[1..].iter().map(|&part| part.into()).collect())),
            ["authorization"] => Ok(Source::Authorization),
            ["query", _, ..] => Ok(Source::Query(text["query.".len()..].into())),
            ["cookie", _, ..] => Ok(Source::Cookie(text["cookie.".len()..].into())),
            _ => Err(WANTED),
        }
    }
}

const WANTED: &str = "must be \"auth.PATH\", \"authorization\", \"query.NAME\" or \"cookie.NAME\"";

/// A token that came with the request of a handshake.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// Which source it is from, by preference.
    rank: usize,
    token: Box<str>,
}

impl Identity {
    /// The token of a handshake's request. Cookies are looked at if `cookies_count`: browsers send them along with
    /// whatever a page asks for.
    #[must_use]
    pub fn of_request(&self, head: &Head<'_, '_>, cookies_count: bool) -> Option<Bearer> {
        self.options.sources.iter().enumerate().find_map(|(rank, source)| {
            let token = match source {
                Source::Auth(_) => None,
                Source::Authorization => head.header("authorization").and_then(bearer),
                Source::Query(name) => {
                    let named = http::query_pairs(head.query).filter(|(key, _)| *key == **name);
                    named.last().map(|(_, value)| value.into_owned())
                }
                Source::Cookie(name) if cookies_count => cookie(head, name),
                Source::Cookie(_) => None,
            };
            let token = token.filter(|token| !token.is_empty())?;
            // Kept as long as the session, so not longer than it takes to be refused.
            let token = token.chars().take(TOKEN_BYTES_MAX + 1).collect::<String>().into();
            Some(Bearer { rank, token })
        })
    }

    /// The query without its tokens.
    #[must_use]
    pub fn without_tokens<'a>(&self, query: &'a str) -> Cow<'a, str> {
        let is_token = |pair: &&str| {
            http::query_pairs(pair).any(|(key, _)| {
                self.options.sources.iter().any(|source| matches!(source, Source::Query(name) if **name == *key))
            })
        };
        if !query.split('&').any(|pair| is_token(&pair)) {
            return Cow::Borrowed(query);
        }
        let rest: Vec<&str> = query.split('&').filter(|pair| !is_token(pair)).collect();
        Cow::Owned(rest.join("&"))
    }

    /// The client's token: that of its CONNECT payload `auth`, which is valid JSON, or of its handshake, whichever is
    /// preferred; `None` if it has neither.
    ///
    /// # Errors
    /// What stands in a token's place is no text.
    pub fn token_of<'a>(
        &self,
        auth: Option<&'a str>,
        bearer: Option<&'a Bearer>,
    ) -> Result<Option<Cow<'a, str>>, TokenError> {
        let of_auth = |rank_max: usize| {
            let preferred = self.options.sources.iter().take(rank_max);
            auth.and_then(|auth| preferred.filter_map(|source| source.find_in(auth)).next())
        };
        match of_auth(bearer.map_or(usize::MAX, |bearer| bearer.rank)) {
            Some(value) => json::unescape(value).map(Some).ok_or(TokenError::Malformed),
            None => Ok(bearer.map(|bearer| Cow::Borrowed(&*bearer.token))),
        }
    }

    /// A CONNECT payload with null in the place of tokens: once they are verified, claims tell what they said, and what
    /// rules cannot see they cannot pass on.
    #[must_use]
    pub fn without_tokens_in(&self, auth: &str) -> Box<str> {
        let mut auth = auth.to_owned();
        for source in &self.options.sources {
            while let Some(value) = source.find_in(&auth) {
                let at = value.as_ptr() as usize - auth.as_ptr() as usize;
                let end = at + value.len();
                auth.replace_range(at..end, "null");
            }
        }
        auth.into()
    }
}

impl Source {
    /// The value in the payload; neither null nor the empty string is one.
    fn find_in<'a>(&self, auth: &'a str) -> Option<&'a str> {
        let Source::Auth(path) = self else { return None };
        let value = path.iter().try_fold(auth, |value, key| json::get(value, key))?;
        (!matches!(value, "null" | "\"\"")).then_some(value)
    }
}

/// What stands behind `Bearer` in an `Authorization` header.
fn bearer(header: &[u8]) -> Option<String> {
    let (scheme, token) = header.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| String::from_utf8_lossy(token).trim().to_owned())
}

/// The value of a cookie. Of several the first one, which is that of the longest path (RFC 6265, section 5.4).
fn cookie(head: &Head<'_, '_>, name: &str) -> Option<String> {
    head.values("cookie").find_map(|header| {
        header.split(|byte| *byte == b';').find_map(|pair| {
            let pair = String::from_utf8_lossy(pair);
            let (key, value) = pair.split_once('=')?;
            let value = value.trim();
            let unquoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
            (key.trim() == name).then(|| unquoted.to_owned())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;

    fn identity(sources: &[&str]) -> Identity {
        let sources = sources.iter().map(|source| Source::parse(source).unwrap()).collect();
        Identity::new(Options { sources, ..Options::default() }, Vec::new())
    }

    const DEFAULT: [&str; 4] = ["auth.token", "authorization", "query.token", "cookie.token"];

    #[test]
    fn sources_are_spelt() {
        assert_eq!(Source::parse("auth.a.b"), Ok(Source::Auth(vec!["a".into(), "b".into()])));
        assert_eq!(Source::parse("query.x.y"), Ok(Source::Query("x.y".into())));
        for wrong in ["", "auth", "auth.", "query", "cookie..a", "header.x", "authorization.bearer", "Authorization"] {
            assert_eq!(Source::parse(wrong), Err(WANTED), "{wrong}");
        }
    }

    /// The token of a request with this target and these header lines, with this CONNECT payload.
    fn found(
        identity: &Identity,
        target: &str,
        headers: &str,
        auth: Option<&str>,
    ) -> Result<Option<String>, TokenError> {
        found_if(true, identity, target, headers, auth)
    }

    fn found_if(
        cookies_count: bool,
        identity: &Identity,
        target: &str,
        headers: &str,
        auth: Option<&str>,
    ) -> Result<Option<String>, TokenError> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        let mut buffer = [httparse::EMPTY_HEADER; http::HEADERS_MAX];
        let Ok(http::HeadStep::Complete { head, .. }) = http::parse_head(request.as_bytes(), &mut buffer, 1 << 20)
        else {
            panic!("{request}");
        };
        let bearer = identity.of_request(&head, cookies_count);
        Ok(identity.token_of(auth, bearer.as_ref())?.map(Cow::into_owned))
    }

    #[test]
    fn the_first_source_that_has_a_token_is_used() {
        let identity = identity(&DEFAULT);
        for (target, headers, auth, token) in [
            ("/", "", None, Ok(None)),
            ("/", "", Some("{}"), Ok(None)),
            ("/", "", Some(r#"{"token":"a"}"#), Ok(Some("a"))),
            ("/", "", Some(r#"{"token":"\u0061"}"#), Ok(Some("a"))),
            ("/", "", Some(r#"{"token":"x","token":"a"}"#), Ok(Some("a"))),
            ("/", "", Some(r#"{"token":7}"#), Err(TokenError::Malformed)),
            ("/", "", Some(r#"{"token":["a"]}"#), Err(TokenError::Malformed)),
            ("/?token=q", "", Some(r#"{"token":null}"#), Ok(Some("q"))),
            ("/?token=q", "", Some(r#"{"token":""}"#), Ok(Some("q"))),
            ("/?token=q", "", Some("null"), Ok(Some("q"))),
            ("/?token=q", "Authorization: Bearer h\r\nCookie: token=c\r\n", Some(r#"{"token":"a"}"#), Ok(Some("a"))),
            ("/?token=q", "Authorization: Bearer h\r\nCookie: token=c\r\n", None, Ok(Some("h"))),
            ("/?token=q", "authorization: bEARER   h  \r\n", None, Ok(Some("h"))),
            ("/?token=q", "Authorization: Basic h\r\nCookie: token=c\r\n", None, Ok(Some("q"))),
            ("/?token=q", "Authorization: Bearer \r\n", None, Ok(Some("q"))),
            ("/?token=q", "Authorization: B\r\n", None, Ok(Some("q"))),
            ("/?token=1&token=q&Token=2", "", None, Ok(Some("q"))),
            ("/?t%6fken=a%2Eb", "", None, Ok(Some("a.b"))),
            ("/?token=", "Cookie: a=1; token=c; token=d\r\n", None, Ok(Some("c"))),
            ("/", "Cookie: xtoken=1\r\nCookie: token=\"c\"\r\n", None, Ok(Some("c"))),
            ("/", "Cookie: token\r\n", None, Ok(None)),
        ] {
            let is = found(&identity, target, headers, auth);
            assert_eq!(is, token.map(|token| token.map(str::to_owned)), "{target} {headers} {auth:?}");
        }
    }

    #[test]
    fn the_order_is_the_operators() {
        let identity = identity(&["query.t", "auth.a.b", "cookie.token", "authorization"]);
        let headers = "Authorization: Bearer h\r\n";
        assert_eq!(found(&identity, "/", headers, Some(r#"{"a":{"b":"x"}}"#)), Ok(Some("x".into())));
        assert_eq!(found(&identity, "/?t=q", headers, Some(r#"{"a":{"b":"x"}}"#)), Ok(Some("q".into())));
        assert_eq!(found(&identity, "/?t=q", headers, Some(r#"{"a":{"b":7}}"#)), Ok(Some("q".into())));
        assert_eq!(found(&identity, "/", headers, Some(r#"{"a":"x"}"#)), Ok(Some("h".into())));
    }

    #[test]
    fn cookies_count_only_where_they_may() {
        let identity = identity(&["cookie.token", "query.token"]);
        let cookie = "Cookie: token=c\r\n";
        assert_eq!(found_if(true, &identity, "/?token=q", cookie, None), Ok(Some("c".into())));
        assert_eq!(found_if(false, &identity, "/?token=q", cookie, None), Ok(Some("q".into())));
        assert_eq!(found_if(false, &identity, "/", cookie, None), Ok(None));
    }

    #[test]
    fn nobody_else_sees_tokens() {
        let identity = identity(&["query.token", "auth.token", "auth.a.b"]);
        for (query, rest) in [
            ("", ""),
            ("a=1&b=2", "a=1&b=2"),
            ("token=x", ""),
            ("a=1&token=x&b=2&t%6Fken=y&token", "a=1&b=2"),
            ("tokens=1&Token=2", "tokens=1&Token=2"),
        ] {
            assert_eq!(identity.without_tokens(query), rest);
        }
        for (auth, rest) in [
            (r"{}", r"{}"),
            (r#"{"n": 1.0, "token": "x" }"#, r#"{"n": 1.0, "token": null }"#),
            (r#"{"token":"x","a":{"b":[1],"c":2}}"#, r#"{"token":null,"a":{"b":null,"c":2}}"#),
            ("7", "7"),
        ] {
            assert_eq!(&*identity.without_tokens_in(auth), rest);
        }
    }
}
