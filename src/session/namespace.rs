//! What a configured namespace is called: one name, or a pattern that many names match. Does not know what happens
//! there, nor which names are in use.

use std::fmt;

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Hir, literal::Extractor};

/// Most memory of a compiled pattern: each core holds one, and its caches grow with it.
const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// Which names a configured namespace has.
#[derive(Clone, Debug)]
pub enum NamespaceName {
    /// This one.
    Exact(Box<str>),
    /// Every name that the pattern matches as a whole, each a namespace of its own.
    Pattern(NamePattern),
}

impl From<&str> for NamespaceName {
    fn from(name: &str) -> NamespaceName {
        NamespaceName::Exact(name.into())
    }
}

/// A regular expression over namespaces' names.
#[derive(Clone, Debug)]
pub struct NamePattern {
    /// Matches whole names only.
    regex: Regex,
    /// True if there are named groups: without them nobody asks what they matched.
    has_groups: bool,
}

/// Why a pattern is none: the operator's mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPattern {
    /// The byte in the pattern where the trouble begins.
    pub at: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BadPattern {}

impl NamePattern {
    /// Compiles `pattern`, which need not anchor itself: it has to match the whole name in any case.
    ///
    /// # Errors
    /// It is no regular expression, or too large a one, or one that could match what does not begin with `/`.
    pub fn compile(pattern: &str) -> Result<NamePattern, BadPattern> {
        let hir = regex_syntax::parse(pattern).map_err(|error| match error {
            regex_syntax::Error::Parse(error) => {
                BadPattern { at: error.span().start.offset, message: error.kind().to_string() }
            }
            regex_syntax::Error::Translate(error) => {
                BadPattern { at: error.span().start.offset, message: error.kind().to_string() }
            }
            other => BadPattern { at: 0, message: other.to_string() },
        })?;
        if !begins_with_slash(&hir) {
            let message = "must match only names that begin with /, as in \"^/workspace-[a-z0-9]+$\"";
            return Err(BadPattern { at: 0, message: message.to_owned() });
        }
        let whole = format!("^(?:{pattern})$");
        let regex = RegexBuilder::new(&whole).size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build();
        let regex = regex.map_err(|error| {
            let message = match error {
                regex::Error::CompiledTooBig(bytes) => {
                    format!("takes more than {bytes} bytes compiled; use smaller counts and classes")
                }
                _ => "is no expression of its own: it ends in a comment".to_owned(),
            };
            BadPattern { at: 0, message }
        })?;
        let has_groups = regex.capture_names().flatten().next().is_some();
        Ok(NamePattern { regex, has_groups })
    }

    /// True if the pattern matches the whole of `name`.
    #[must_use]
    pub fn is_match(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }

    /// What the pattern's named groups matched in `name`, in the pattern's order; a group that had no part is missing.
    #[must_use]
    pub fn captures<'a>(&'a self, name: &'a str) -> Vec<(&'a str, &'a str)> {
        if !self.has_groups {
            return Vec::new();
        }
        let Some(captures) = self.regex.captures(name) else { return Vec::new() };
        let names = self.regex.capture_names().flatten();
        names.filter_map(|group| Some((group, captures.name(group)?.as_str()))).collect()
    }
}

/// True if a client can say this name and a log can show it: it begins with `/`, and has neither control characters nor
/// the comma that ends a name in a packet, nor the question mark that ends it in an address.
#[must_use]
pub fn is_namespace_name(name: &str) -> bool {
    name.starts_with('/') && !name.contains(|c: char| c.is_control() || matches!(c, ',' | '?'))
}

/// True if whatever the expression matches begins with a slash.
fn begins_with_slash(hir: &Hir) -> bool {
    let prefixes = Extractor::new().extract(hir);
    prefixes.literals().is_some_and(|all| !all.is_empty() && all.iter().all(|one| one.as_bytes().starts_with(b"/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, matches) in [
            ("^/workspace-[a-z0-9]+$", "/workspace-7", true),
            ("^/workspace-[a-z0-9]+$", "/workspace-", false),
            ("/workspace-[a-z0-9]+", "/workspace-7x", true),
            ("/workspace-[a-z0-9]+", "/workspace-7 ", false),
            ("/workspace-[a-z0-9]+", "x/workspace-7", false),
            ("/a|/b+", "/bb", true),
            ("/a|/b+", "/a/bb", false),
            (r"/\w+", "/straße", true),
            ("(?i)/AB", "/aB", true),
            ("/[^/]+/(x|y)", "/1/y", true),
        ] {
            assert_eq!(NamePattern::compile(pattern).unwrap().is_match(name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_that_are_refused_and_where() {
        let slash = "must match only names that begin with /, as in \"^/workspace-[a-z0-9]+$\"";
        for (pattern, at, message) in [
            ("^/(a$", 2, "unclosed group"),
            ("/é[", 3, "unclosed character class"),
            (r"/\p{nothing}", 1, "Unicode property not found"),
            ("workspace", 0, slash),
            ("", 0, slash),
            (".*", 0, slash),
            ("/?a", 0, slash),
            ("/a|b", 0, slash),
            ("^(/a|b)$", 0, slash),
            ("[^a]", 0, slash),
            ("/a{100}{100}{100}", 0, "takes more than 262144 bytes compiled; use smaller counts and classes"),
            ("(?x)/a # end", 0, "is no expression of its own: it ends in a comment"),
        ] {
            let error = NamePattern::compile(pattern).unwrap_err();
            assert_eq!((error.at, error.message.as_str()), (at, message), "{pattern}");
        }
    }

    #[test]
    fn groups_with_names_are_told() {
        let pattern = NamePattern::compile("/(?<kind>[a-z]+)-(?:(?<number>[0-9]+)|(.))").unwrap();
        assert_eq!(pattern.captures("/room-17"), [("kind", "room"), ("number", "17")]);
        assert_eq!(pattern.captures("/room-x"), [("kind", "room")]);
        assert_eq!(pattern.captures("/"), []);
        assert_eq!(NamePattern::compile("/(a)").unwrap().captures("/a"), []);
    }

    #[test]
    fn names_that_packets_can_carry() {
        for (name, can) in [
            ("/", true),
            ("/a b/é", true),
            ("", false),
            ("a", false),
            ("/a,b", false),
            ("/a?b", false),
            ("/a\n", false),
        ] {
            assert_eq!(is_namespace_name(name), can, "{name:?}");
        }
    }
}
