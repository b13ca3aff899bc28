//! A config file's text as a place for mistakes: finds the line and column of a key, and says what is wrong there. Does
//! not know which keys exist, nor what they mean.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::session::rules::PathStep;

/// The operator's mistake in a config: `FILE:LINE:COLUMN: KEY = VALUE: MESSAGE`, of which all but the file and the
/// message may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as the operator named it.
    pub file: String,
    /// Line and column of the culprit, both counted from 1, columns in characters. `None` when it does not stand in the
    /// file.
    pub place: Option<(usize, usize)>,
    /// The key with the tables around it, as in `namespace[1].on[0].join[2]`, indexes from 0; empty when there is none.
    pub key: String,
    /// The value as it stands in the file, shortened; empty when the key itself is the mistake.
    pub value: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        match (self.key.as_str(), self.value.as_str()) {
            ("", _) => {}
            (key, "") => write!(f, "{key}: ")?,
            (key, value) => write!(f, "{key} = {value}: ")?,
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Longest piece of a value that an error repeats, in characters: the rest of the line is for the message.
const VALUE_SHOWN_MAX: usize = 60;

/// A config file's name and text.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) file: String,
    pub(super) text: String,
}

impl Document {
    /// The file's tables with their places.
    pub(super) fn tables(&self) -> Result<DeTable<'_>, ConfigError> {
        DeTable::parse(&self.text).map(Spanned::into_inner).map_err(|error| self.toml_error(&error))
    }

    /// The mistake in the value at `path`; without a place if nothing stands there.
    pub(super) fn wrong_value(&self, path: &[PathStep], message: impl Into<String>) -> ConfigError {
        let span = self.locate(path);
        ConfigError {
            file: self.file.clone(),
            place: span.as_ref().map(|span| line_and_column(&self.text, span.start)),
            key: shown(path),
            value: span.map_or_else(String::new, |span| self.value_at(span)),
            message: message.into(),
        }
    }

    /// The mistake inside the string `text` at `path`, from the string's byte `at` on.
    pub(super) fn wrong_string(&self, path: &[PathStep], text: &str, at: usize, message: String) -> ConfigError {
        let mut error = self.wrong_value(path, message);
        if let Some(span) = self.locate(path)
            && let Some(raw) = self.text.get(span.clone())
        {
            // A string with escapes reads otherwise in the file: its beginning must do.
            let offset = raw.find(text).filter(|_| !text.is_empty()).map_or(0, |found| found + at);
            error.place = Some(line_and_column(&self.text, span.start + offset));
            if raw.contains('\n') {
                let line = raw.get(..offset).unwrap_or_default().matches('\n').count();
                error.value = raw.lines().nth(line).map_or_else(String::new, |line| shortened(line.trim()));
            }
        }
        error
    }

    /// What `toml` and `serde` have to say, in our words where we have better ones.
    pub(super) fn toml_error(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or_default();
        let raw = self.text.get(span.clone()).unwrap_or_default();
        let (path, is_key) = self.path_at(&span).unwrap_or_default();
        let value = if path.is_empty() || is_key { String::new() } else { self.value_at(span.clone()) };
        ConfigError {
            file: self.file.clone(),
            place: Some(line_and_column(&self.text, span.start)),
            key: shown(&path),
            value,
            message: explained(error.message(), raw),
        }
    }

    /// The value at `span` for an error's reader; empty for a table's header.
    fn value_at(&self, span: Range<usize>) -> String {
        let line = self.text.get(..span.start).and_then(|before| before.rsplit('\n').next()).unwrap_or_default();
        let value = self.text.get(span).unwrap_or_default();
        // An entry of an array may stand on a line of its own as well.
        let is_header = line.trim().is_empty() && value.starts_with('[');
        if is_header { String::new() } else { shortened(value) }
    }

    /// The line, from 1, in which the value at `path` begins.
    pub(super) fn line_of(&self, path: &[PathStep]) -> Option<usize> {
        self.locate(path).map(|span| line_and_column(&self.text, span.start).0)
    }

    /// Where the value at `path` stands. A table counts as the array of itself: the step `[0]` into one stays there.
    pub(super) fn locate(&self, path: &[PathStep]) -> Option<Range<usize>> {
        let tables = DeTable::parse(&self.text).ok()?;
        let (first, rest) = path.split_first()?;
        let PathStep::Key(name) = first else { return None };
        let mut value = tables.get_ref().get(name.as_str())?;
        for step in rest {
            value = match (step, value.get_ref()) {
                (PathStep::Key(key), DeValue::Table(table)) => table.get(key.as_str())?,
                (PathStep::Index(index), DeValue::Array(array)) => array.get(*index)?,
                (PathStep::Index(0), DeValue::Table(_)) => value,
                _ => return None,
            };
        }
        Some(value.span())
    }

    /// The key or value that stands exactly at `span`; true for a key.
    fn path_at(&self, span: &Range<usize>) -> Option<(Vec<PathStep>, bool)> {
        let tables = DeTable::parse(&self.text).ok()?;
        let mut path = Vec::new();
        find_in_table(tables.get_ref(), span, &mut path).map(|is_key| (path, is_key))
    }
}

fn find_in_table(table: &DeTable<'_>, span: &Range<usize>, path: &mut Vec<PathStep>) -> Option<bool> {
    table.iter().find_map(|(key, value)| {
        path.push(PathStep::Key(key.get_ref().to_string()));
        let found = if key.span() == *span { Some(true) } else { find_in_value(value, span, path) };
        if found.is_none() {
            path.pop();
        }
        found
    })
}

/// Looks inside first: an array of tables has the place of its first table.
fn find_in_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>, path: &mut Vec<PathStep>) -> Option<bool> {
    let inside = match value.get_ref() {
        DeValue::Table(table) => find_in_table(table, span, path),
        DeValue::Array(array) => array.iter().enumerate().find_map(|(index, item)| {
            path.push(PathStep::Index(index));
            let found = find_in_value(item, span, path);
            if found.is_none() {
                path.pop();
            }
            found
        }),
        _ => None,
    };
    inside.or_else(|| (value.span() == *span).then_some(false))
}

/// Steps from a key as operators write it: `limits.outbox_bytes_max`.
pub(super) fn path(dotted: &str) -> Vec<PathStep> {
    dotted.split('.').map(|key| PathStep::Key(key.to_owned())).collect()
}

fn shown(path: &[PathStep]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            PathStep::Key(key) if text.is_empty() => text.push_str(key),
            PathStep::Key(key) => text.extend([".", key]),
            PathStep::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Line and column of the byte at `offset`, both from 1; the column counts characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn shortened(raw: &str) -> String {
    let line = raw.lines().next().unwrap_or_default();
    match line.char_indices().nth(VALUE_SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.len() < raw.trim_end().len() => format!("{line}…"),
        None => line.to_owned(),
    }
}

/// The sentences of `toml` and `serde` about the text `raw`, as an operator needs them. serde names the keys and values
/// that it knows in backticks: from these come the suggestions.
fn explained(message: &str, raw: &str) -> String {
    let named: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match named.split_first() {
        Some((unknown, known)) if message.starts_with("unknown field") => {
            let way_out = match (closest(unknown, known), known) {
                (Some(meant), _) => format!("did you mean {meant}?"),
                (None, []) => "none are allowed here".to_owned(),
                (None, known) => format!("the keys here are {}", known.join(", ")),
            };
            return format!("there is no such key; {way_out}");
        }
        Some((_, known)) if message.starts_with("unknown variant") => {
            let known: Vec<String> = known.iter().map(|known| format!("{known:?}")).collect();
            return format!("must be {}", known.join(" or "));
        }
        Some((missing, _)) if message.starts_with("missing field") => return format!("the key {missing} is missing"),
        _ => {}
    }
    if let Some((_, expected)) = message.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected "))
    {
        return match expected {
            "a sequence" if raw.starts_with('[') => format!("must be written with two brackets, [{raw}]"),
            "a sequence" => "must be an array, as in [\"…\"]".to_owned(),
            "a boolean" => "must be true or false".to_owned(),
            _ if expected.starts_with("struct ") || expected == "a map" => "must be a table of keys".to_owned(),
            _ => format!("must be {expected}"),
        };
    }
    match message {
        "duplicate key" => format!("{raw} is set twice; remove one of them"),
        _ if message.starts_with("string values must be quoted") && raw.trim().is_empty() => {
            "a value is missing".to_owned()
        }
        _ => message.to_owned(),
    }
}

/// The known name that `word` was probably meant to be.
fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // A third of the letters wrong still reads like a slip; of short names one letter.
    let tolerance = (word.chars().count() / 3).max(1);
    let slip = known.iter().map(|known| (distance(word, known), *known)).min().filter(|(d, _)| *d <= tolerance);
    let part = || known.iter().find(|known| word.len() >= 4 && (known.contains(word) || word.contains(**known)));
    slip.map(|(_, known)| known).or_else(|| part().copied())
}

/// Letters to insert, delete or replace to turn one word into the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn document(text: &str) -> Document {
        Document { file: "f.toml".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn keys_are_found_where_they_stand() {
        let text = "# é\n[a]\nb = 1\n[[list]]\nx = [1, {y = 2}]\n[[list]]\n  x = 'é' # c\n[list.one]\nd.e = 5\n";
        let key = |key: &str| PathStep::Key(key.to_owned());
        for (path, raw) in [
            (vec![key("a"), key("b")], Some("1")),
            (vec![key("list"), PathStep::Index(0), key("x"), PathStep::Index(1), key("y")], Some("2")),
            (vec![key("list"), PathStep::Index(1), key("x")], Some("'é'")),
            (vec![key("list"), PathStep::Index(1), key("one"), PathStep::Index(0), key("d"), key("e")], Some("5")),
            (vec![key("list"), PathStep::Index(2)], None),
            (vec![key("list"), PathStep::Index(1), key("one"), PathStep::Index(1)], None),
            (vec![PathStep::Index(0)], None),
            (vec![], None),
        ] {
            assert_eq!(document(text).locate(&path).map(|span| &text[span]), raw, "{path:?}");
        }
    }

    #[test]
    fn columns_count_characters() {
        let text = "é = 1\r\nab = 'é' # x";
        for (offset, place) in [(0, (1, 1)), (2, (1, 2)), (8, (2, 1)), (13, (2, 6)), (16, (2, 8)), (999, (2, 13))] {
            assert_eq!(line_and_column(text, offset), place, "{offset}");
        }
    }

    #[test]
    fn slips_find_their_key() {
        let known = ["rooms_per_socket_max", "outbox_bytes_max", "listen", "on"];
        for (word, meant) in [
            ("rooms_per_sockets_max", Some("rooms_per_socket_max")),
            ("outbox_bytes", Some("outbox_bytes_max")),
            ("Listen", Some("listen")),
            ("no", None),
            ("colour", None),
        ] {
            assert_eq!(closest(word, &known), meant, "{word}");
        }
    }

    proptest! {
        #[test]
        fn every_place_in_every_text_has_a_line(text in "(\\PC|\n){0,40}", offset in 0usize..60) {
            let (line, column) = line_and_column(&text, offset);
            prop_assert!(line >= 1 && column >= 1 && line <= text.matches('\n').count() + 1);
        }

        #[test]
        fn distances_are_symmetric(a in "[abc]{0,8}", b in "[abc]{0,8}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
        }
    }
}
