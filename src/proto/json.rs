//! JSON as text: is it valid, and where in it do the values lie? Does not build values, so that none can change on the
//! way.
//!
//! simd-json says whether a text is JSON; the values' bytes are then found by a scanner that runs over the same text
//! and may be small because it meets valid JSON only. simd-json 0.19 was asked with some 130 texts and compared with
//! RFC 8259: it accepted nothing that the RFC forbids. It refuses two things that the RFC allows: numbers beyond the
//! range of an `f64` (`1e400`, 400 digits), because it wants their value, and escapes of half a UTF-16 pair
//! (`"\ud800"`), because they spell no character. It also names no place, or a wrong one, for many errors. So what it
//! refuses is read once more by `check`, which knows the grammar, wants no values, and says exactly what is wrong
//! where. The second stays refused (a client in another language could not represent it); the first is accepted.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr2;
use simd_json::{Buffers, Tape};

/// Objects and arrays open at once, the outermost included. Deeper texts are refused: those who recurse over JSON after
/// us (clients among them) shall not run out of stack. People's data is below 20.
pub const DEPTH_MAX: usize = 128;
/// [`check`] keeps one bit per open level.
const _: () = assert!(DEPTH_MAX <= u128::BITS as usize);

/// simd-json's tape takes up to 24 bytes per byte of text. After a text longer than this the buffers are given back, so
/// that one big line does not hold its memory for the life of its connection.
const KEPT_TEXT_BYTES_MAX: usize = 64 * 1024;

/// Buffers for [`validate`], grown by use: with the same scratch, texts of like size are validated without allocating.
pub struct Scratch {
    /// simd-json works in the text that it reads, so it gets a copy.
    copy: Vec<u8>,
    buffers: Buffers,
    /// Empty between calls.
    tape: Tape<'static>,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch { copy: Vec::new(), buffers: Buffers::with_max_depth(0, DEPTH_MAX), tape: Tape(Vec::new()) }
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("copy_bytes", &self.copy.capacity()).finish_non_exhaustive()
    }
}

impl Scratch {
    /// Whether simd-json takes `text` for JSON. It keeps its own stack of at most [`DEPTH_MAX`] levels and does not
    /// recurse.
    fn simd_accepts(&mut self, text: &[u8]) -> bool {
        self.copy.clear();
        self.copy.extend_from_slice(text);
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let accepted = simd_json::fill_tape(&mut self.copy, &mut self.buffers, &mut tape).is_ok();
        self.tape = tape.reset();
        if text.len() > KEPT_TEXT_BYTES_MAX {
            *self = Scratch::default();
        }
        accepted
    }
}

/// Checks that `text` is one JSON value (RFC 8259), perhaps between whitespace, and returns the same bytes as a string.
///
/// # Errors
/// The first thing wrong in `text`; also nesting beyond [`DEPTH_MAX`], and half a UTF-16 pair in an escape.
pub fn validate<'a>(text: &'a [u8], scratch: &mut Scratch) -> Result<&'a str, JsonError> {
    let text =
        std::str::from_utf8(text).map_err(|error| JsonError { at: error.valid_up_to(), fault: Fault::NotUtf8 })?;
    if !scratch.simd_accepts(text.as_bytes()) {
        check(text)?;
    }
    Ok(text)
}

/// What is wrong with a JSON text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Offset in bytes from the beginning of the text, counted from 0.
    pub at: usize,
    /// What was found there.
    pub fault: Fault,
}

/// The ways in which a text is not JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No value at all.
    Empty,
    /// U+FEFF before the value: allowed by no sender (RFC 8259 section 8.1).
    ByteOrderMark,
    /// A byte that belongs to no UTF-8 character.
    NotUtf8,
    /// More than [`DEPTH_MAX`] levels.
    TooDeep,
    /// Something else than what the grammar wants here.
    Expected {
        /// What the grammar wants.
        wanted: &'static str,
        /// What stands there; `None` is the end of the text.
        found: Option<char>,
    },
    /// Something behind the value.
    Trailing(char),
    /// A raw character below U+0020 in a string.
    ControlCharacter(u8),
    /// A backslash before something that it does not escape.
    BadEscape,
    /// An escape of half a UTF-16 pair without the other half: no character, and not expressible in UTF-8.
    LoneSurrogate(u16),
    /// A string without its closing quote; the offset is that of the opening one.
    UnterminatedString,
    /// `01`
    LeadingZero,
    /// `NaN`, `Infinity`
    NotANumber,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match &self.fault {
            Fault::Empty => f.write_str("there is no value"),
            Fault::ByteOrderMark => f.write_str("there is a byte order mark before the value; leave it out"),
            Fault::NotUtf8 => write!(f, "invalid UTF-8 at byte {at}"),
            Fault::TooDeep => write!(f, "nested more than {DEPTH_MAX} levels deep at byte {at}"),
            Fault::Expected { wanted, found: Some(found) } => {
                write!(f, "expected {wanted}, found {found:?} at byte {at}")
            }
            Fault::Expected { wanted, found: None } => write!(f, "expected {wanted}, found the end at byte {at}"),
            Fault::Trailing(found) => write!(f, "expected the end after the value, found {found:?} at byte {at}"),
            Fault::ControlCharacter(byte) => {
                write!(f, "control character inside a string at byte {at}; write it as \\u{byte:04x}")
            }
            Fault::BadEscape => write!(f, "invalid escape in a string at byte {at}"),
            Fault::LoneSurrogate(half) => {
                write!(f, "\\u{half:04x} at byte {at} is half of a character; write both halves, or leave it out")
            }
            Fault::UnterminatedString => write!(f, "the string that begins at byte {at} has no end"),
            Fault::LeadingZero => write!(f, "number with a leading zero at byte {at}"),
            Fault::NotANumber => write!(f, "NaN and Infinity are not JSON, at byte {at}; send null or a string"),
        }
    }
}

impl std::error::Error for JsonError {}

/// What sort of value a JSON text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// `-1.5e3`
    Number,
    /// `true`, `false`
    Bool,
    /// `null`
    Null,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Object => "an object",
            Kind::Array => "an array",
            Kind::String => "a string",
            Kind::Number => "a number",
            Kind::Bool => "true or false",
            Kind::Null => "null",
        })
    }
}

/// The kind of `value`, which is valid JSON.
#[must_use]
pub fn kind(value: &str) -> Kind {
    let bytes = value.as_bytes();
    match bytes.get(space_end(bytes, 0)) {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'"') => Kind::String,
        Some(b't' | b'f') => Kind::Bool,
        Some(b'n') => Kind::Null,
        _ => Kind::Number,
    }
}

/// The members of `object`, which is valid JSON, in order and with duplicates: the key as a JSON string with its quotes
/// and escapes, and the value's text without the whitespace around it. Of another value, and behind a fault: nothing.
pub fn members(object: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut items = Items::new(object, b'{');
    std::iter::from_fn(move || {
        let key = items.next_value()?;
        let bytes = items.text.as_bytes();
        let colon = space_end(bytes, items.at);
        if !key.starts_with('"') || bytes.get(colon) != Some(&b':') {
            return None;
        }
        items.at = space_end(bytes, colon + 1);
        Some((key, items.next_value()?))
    })
}

/// The elements of `array`, which is valid JSON, each without the whitespace around it. Of another value: nothing.
pub fn elements(array: &str) -> impl Iterator<Item = &str> {
    let mut items = Items::new(array, b'[');
    std::iter::from_fn(move || items.next_value())
}

/// The first of `values`, which are valid JSON values joined by commas. `None` if there is none.
#[must_use]
pub fn first(values: &str) -> Option<&str> {
    Items { text: values, at: 0 }.next_value()
}

/// The value of member `key` of `object`, which is valid JSON. Of duplicates it is the last, as in JavaScript.
#[must_use]
pub fn get<'a>(object: &'a str, key: &str) -> Option<&'a str> {
    members(object).filter(|(name, _)| spells(name, key)).last().map(|(_, value)| value)
}

/// Whether the JSON string `json_string_with_quotes` spells `text`, escapes considered.
#[must_use]
pub fn spells(json_string_with_quotes: &str, text: &str) -> bool {
    inner(json_string_with_quotes).is_some_and(|raw| raw == text)
        || json_string_with_quotes.contains('\\')
            && unescape(json_string_with_quotes).is_some_and(|found| found == text)
}

/// The text that a JSON string spells; borrowed when there are no escapes in it. `None` if it is no JSON string, or if
/// an escape names half a UTF-16 pair.
#[must_use]
pub fn unescape(json_string_with_quotes: &str) -> Option<Cow<'_, str>> {
    let raw = inner(json_string_with_quotes)?;
    let Some(first) = memchr::memchr(b'\\', raw.as_bytes()) else { return Some(Cow::Borrowed(raw)) };
    let mut text = String::with_capacity(raw.len());
    let (plain, mut rest) = raw.split_at(first);
    text.push_str(plain);
    while let Some(escape) = rest.strip_prefix('\\') {
        let (character, length) = escaped(escape.as_bytes()).ok()?;
        text.push(character);
        rest = &escape[length..];
        let plain = memchr::memchr(b'\\', rest.as_bytes()).unwrap_or(rest.len());
        text.push_str(&rest[..plain]);
        rest = &rest[plain..];
    }
    Some(Cow::Owned(text))
}

/// What [`escape_into`] writes to.
pub trait Output {
    /// Appends `text`.
    fn push_text(&mut self, text: &str);
}

impl Output for String {
    fn push_text(&mut self, text: &str) {
        self.push_str(text);
    }
}

impl Output for Vec<u8> {
    fn push_text(&mut self, text: &str) {
        self.extend_from_slice(text.as_bytes());
    }
}

/// Appends `text` as a JSON string with its quotes, escaping only what must be escaped (RFC 8259 section 7).
pub fn escape_into(out: &mut impl Output, text: &str) {
    out.push_text("\"");
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|b| b < 0x20 || b == b'"' || b == b'\\') {
        out.push_text(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_text("\\\""),
            b'\\' => out.push_text("\\\\"),
            b'\n' => out.push_text("\\n"),
            b'\r' => out.push_text("\\r"),
            b'\t' => out.push_text("\\t"),
            control => out.push_text(&format!("\\u{control:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.push_text(rest);
    out.push_text("\"");
}

/// Whether no more than `max` objects and arrays are open at once anywhere in `text`, which may be anything: a check to
/// make before something that recurses sees it.
#[must_use]
pub fn depth_at_most(text: &[u8], max: usize) -> bool {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => {
                at = string_end(text, at);
                continue;
            }
            b'{' | b'[' if depth == max => return false,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    true
}

/// A walk over what stands in one pair of brackets.
struct Items<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Items<'a> {
    /// Begins behind the bracket `open`; nothing follows when `text` does not begin with it.
    fn new(text: &'a str, open: u8) -> Items<'a> {
        let start = space_end(text.as_bytes(), 0);
        let at = if text.as_bytes().get(start) == Some(&open) { start + 1 } else { text.len() };
        Items { text, at }
    }

    /// The next value, behind at most one comma; `None` at the closing bracket.
    fn next_value(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        let mut start = space_end(bytes, self.at);
        if bytes.get(start) == Some(&b',') {
            start = space_end(bytes, start + 1);
        }
        self.at = value_end(bytes, start);
        self.text.get(start..self.at).filter(|value| !value.is_empty())
    }
}

/// Where the whitespace at `at` ends.
pub(crate) fn space_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

/// Where the string that begins at `at` ends, its closing quote included; the text's end if there is none.
pub(crate) fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

/// Where the value that begins at `at` ends; `at` itself where none begins.
fn value_end(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(b'"') => string_end(bytes, at),
        Some(b'{' | b'[') => container_end(bytes, at),
        _ => {
            let end = |&b: &u8| matches!(b, b',' | b':' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            bytes.get(at..).and_then(|rest| rest.iter().position(end)).map_or(bytes.len(), |length| at + length)
        }
    }
}

/// In valid JSON the brackets match, so that counting them is enough.
fn container_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return at + 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

fn inner(json_string_with_quotes: &str) -> Option<&str> {
    json_string_with_quotes.strip_prefix('"')?.strip_suffix('"')
}

/// The character that an escape names, and how long the escape is; `escape` begins behind the backslash.
fn escaped(escape: &[u8]) -> Result<(char, usize), Fault> {
    let plain = match escape.first() {
        Some(&c @ (b'"' | b'\\' | b'/')) => char::from(c),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escaped(escape),
        _ => return Err(Fault::BadEscape),
    };
    Ok((plain, 1))
}

/// `uXXXX`, or `uXXXX\uXXXX` for the two halves of a character beyond U+FFFF.
fn unicode_escaped(escape: &[u8]) -> Result<(char, usize), Fault> {
    let first = hex4(escape, 1).ok_or(Fault::BadEscape)?;
    if let Some(character) = char::from_u32(u32::from(first)) {
        return Ok((character, 5));
    }
    if escape.get(5..7) == Some(b"\\u") {
        let second = hex4(escape, 7).ok_or(Fault::LoneSurrogate(first))?;
        if let Some(Ok(character)) = char::decode_utf16([first, second]).next() {
            return Ok((character, 11));
        }
    }
    Err(Fault::LoneSurrogate(first))
}

fn hex4(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 4)?.iter().try_fold(0, |value, &digit| {
        let digit = u16::try_from(char::from(digit).to_digit(16)?).ok()?;
        Some(value << 4 | digit)
    })
}

/// The grammar of RFC 8259, with the exact place and reason of what breaks it. Iterative, without allocation, and
/// linear in the text.
fn check(text: &str) -> Result<(), JsonError> {
    let bytes = text.as_bytes();
    // The lowest bit is the innermost open level: 1 for an object, 0 for an array.
    let (mut objects, mut depth) = (0u128, 0usize);
    let mut at = space_end(bytes, 0);
    if at == bytes.len() {
        return Err(JsonError { at, fault: Fault::Empty });
    }
    if text.starts_with('\u{feff}') {
        return Err(JsonError { at, fault: Fault::ByteOrderMark });
    }
    'value: loop {
        match bytes.get(at) {
            Some(&open @ (b'{' | b'[')) => {
                if depth == DEPTH_MAX {
                    return Err(JsonError { at, fault: Fault::TooDeep });
                }
                let object = open == b'{';
                objects = objects << 1 | u128::from(object);
                depth += 1;
                at = space_end(bytes, at + 1);
                // An empty pair is closed below, where every pair is.
                if bytes.get(at) != Some(if object { &b'}' } else { &b']' }) {
                    if object {
                        at = check_key(text, at, "a key in double quotes or '}'")?;
                    }
                    continue 'value;
                }
            }
            Some(b'"') => at = check_string(bytes, at)?,
            Some(b'-' | b'0'..=b'9') => at = check_number(text, at)?,
            _ => at = check_word(text, at)?,
        }
        loop {
            at = space_end(bytes, at);
            if depth == 0 {
                let trailing = text.get(at..).and_then(|rest| rest.chars().next());
                return trailing.map_or(Ok(()), |found| Err(JsonError { at, fault: Fault::Trailing(found) }));
            }
            match (bytes.get(at), objects & 1 == 1) {
                (Some(b'}'), true) | (Some(b']'), false) => {
                    objects >>= 1;
                    depth -= 1;
                    at += 1;
                }
                (Some(b','), true) => {
                    at = check_key(text, space_end(bytes, at + 1), "a key in double quotes")?;
                    continue 'value;
                }
                (Some(b','), false) => {
                    at = space_end(bytes, at + 1);
                    continue 'value;
                }
                (_, true) => return expected(text, at, "',' or '}'"),
                (_, false) => return expected(text, at, "',' or ']'"),
            }
        }
    }
}

fn expected<T>(text: &str, at: usize, wanted: &'static str) -> Result<T, JsonError> {
    let found = text.get(at..).and_then(|rest| rest.chars().next());
    Err(JsonError { at, fault: Fault::Expected { wanted, found } })
}

/// A key, its colon, and the whitespace around them.
fn check_key(text: &str, at: usize, wanted: &'static str) -> Result<usize, JsonError> {
    let bytes = text.as_bytes();
    if bytes.get(at) != Some(&b'"') {
        return expected(text, at, wanted);
    }
    let colon = space_end(bytes, check_string(bytes, at)?);
    if bytes.get(colon) != Some(&b':') {
        return expected(text, colon, "':' after the key");
    }
    Ok(space_end(bytes, colon + 1))
}

fn check_string(bytes: &[u8], open: usize) -> Result<usize, JsonError> {
    let mut at = open + 1;
    loop {
        match bytes.get(at) {
            None => return Err(JsonError { at: open, fault: Fault::UnterminatedString }),
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') if at + 1 == bytes.len() => {
                return Err(JsonError { at: open, fault: Fault::UnterminatedString });
            }
            Some(b'\\') => {
                let (_, length) = escaped(&bytes[at + 1..]).map_err(|fault| JsonError { at, fault })?;
                at += 1 + length;
            }
            Some(&control @ 0..0x20) => return Err(JsonError { at, fault: Fault::ControlCharacter(control) }),
            Some(_) => at += 1,
        }
    }
}

fn check_number(text: &str, start: usize) -> Result<usize, JsonError> {
    let bytes = text.as_bytes();
    let digits = |at: usize| {
        let end = bytes[at..].iter().position(|b| !b.is_ascii_digit()).map_or(bytes.len(), |length| at + length);
        if end == at { expected(text, at, "a digit") } else { Ok(end) }
    };
    let integer = start + usize::from(bytes[start] == b'-');
    if bytes[integer..].starts_with(b"Infinity") {
        return Err(JsonError { at: start, fault: Fault::NotANumber });
    }
    let mut at = digits(integer)?;
    if bytes[integer] == b'0' && at > integer + 1 {
        return Err(JsonError { at: start, fault: Fault::LeadingZero });
    }
    if bytes.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let sign = matches!(bytes.get(at + 1), Some(b'+' | b'-'));
        at = digits(at + 1 + usize::from(sign))?;
    }
    Ok(at)
}

fn check_word(text: &str, at: usize) -> Result<usize, JsonError> {
    let rest = &text.as_bytes()[at..];
    for word in ["true", "false", "null"] {
        if rest.starts_with(word.as_bytes()) {
            return Ok(at + word.len());
        }
    }
    if rest.starts_with(b"NaN") || rest.starts_with(b"Infinity") {
        return Err(JsonError { at, fault: Fault::NotANumber });
    }
    expected(text, at, "a value")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nested(levels: usize) -> String {
        "[".repeat(levels) + &"]".repeat(levels)
    }

    fn error(text: &[u8]) -> String {
        validate(text, &mut Scratch::default()).unwrap_err().to_string()
    }

    /// Whitespace as nobody writes it.
    fn space() -> impl Strategy<Value = String> {
        prop_oneof![
            6 => Just(String::new()),
            1 => prop::collection::vec(prop::sample::select(vec![' ', '\t', '\r']), 0..4)
                .prop_map(|spaces| spaces.into_iter().collect()),
        ]
    }

    /// A JSON string with quotes: plain characters, every escape, surrogate pairs.
    pub(crate) fn string_text() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            4 => prop::char::range(' ', char::MAX).prop_map(|c| if "\"\\".contains(c) { 'x' } else { c }.to_string()),
            4 => prop::char::range('a', 'z').prop_map(|c| c.to_string()),
            2 => prop::sample::select(&b"\"\\/bfnrt"[..]).prop_map(|c| format!("\\{}", char::from(c))),
            1 => any::<char>().prop_map(|c| {
                c.encode_utf16(&mut [0; 2]).iter().map(|half| format!("\\u{half:04X}")).collect()
            }),
        ];
        prop::collection::vec(part, 0..12).prop_map(|parts| format!("\"{}\"", parts.concat()))
    }

    fn number_text() -> impl Strategy<Value = String> {
        let digits = |count| prop::collection::vec(prop::char::range('0', '9'), 1..count);
        let fraction = prop::option::of(digits(30));
        let exponent = prop::option::of(("[eE]", "[+-]?", digits(6)));
        (any::<bool>(), digits(40), fraction, exponent).prop_map(|(minus, integer, fraction, exponent)| {
            let integer: String = integer.into_iter().collect();
            let integer = integer.trim_start_matches('0');
            let mut text = String::from(if minus { "-" } else { "" });
            text.push_str(if integer.is_empty() { "0" } else { integer });
            if let Some(fraction) = fraction {
                text.push('.');
                text.extend(fraction);
            }
            if let Some((e, sign, digits)) = exponent {
                text.push_str(&e);
                text.push_str(&sign);
                text.extend(digits);
            }
            text
        })
    }

    /// Any JSON value as somebody might have written it, without whitespace around it.
    pub(crate) fn value_text() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            prop::sample::select(vec!["true", "false", "null", "{}", "[]", "{ }", "[\t]", "-0", "1e400"])
                .prop_map(String::from),
            number_text(),
            string_text(),
        ];
        leaf.prop_recursive(5, 40, 6, |value| {
            let element = (space(), value, space()).prop_map(|(before, value, after)| before + &value + &after).boxed();
            let member = (space(), string_text(), space(), element.clone())
                .prop_map(|(before, key, after, value)| format!("{before}{key}{after}:{value}"));
            prop_oneof![
                prop::collection::vec(element, 1..6).prop_map(|all| format!("[{}]", all.join(","))),
                prop::collection::vec(member, 1..6).prop_map(|all| format!("{{{}}}", all.join(","))),
            ]
        })
    }

    #[test]
    fn what_is_json() {
        let texts = [
            "0",
            "-0",
            "-0.0",
            "1.0",
            "1E+2",
            "1e400",
            "-1e-400",
            "1e99999999999999999999",
            "123456789012345678901234567890",
            "9223372036854775808",
            "18446744073709551616",
            " null ",
            "\ttrue\r\n",
            "\"\"",
            r#""\u0000\"\\\/\b\f\n\r\t\ud83d\ude00\uffff""#,
            "\"😀\u{7f}\u{2028}\"",
            r#"{"a":1,"a":2}"#,
            "[ ]",
            "{\t}",
            r#"[[],{},[{"":[]}]]"#,
        ];
        for text in texts.into_iter().map(String::from).chain(["9".repeat(400), nested(DEPTH_MAX)]) {
            let text = text.as_str();
            assert_eq!(validate(text.as_bytes(), &mut Scratch::default()), Ok(text));
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_and_why() {
        let table: &[(&[u8], &str)] = &[
            (b"", "there is no value"),
            (b" \t", "there is no value"),
            (b"\xef\xbb\xbf{}", "there is a byte order mark before the value; leave it out"),
            (b"\"a\xff\"", "invalid UTF-8 at byte 2"),
            (b"\"\xc0\xaf\"", "invalid UTF-8 at byte 1"),
            (b"\"\xed\xa0\x80\"", "invalid UTF-8 at byte 1"),
            (b"[1,]", "expected a value, found ']' at byte 3"),
            (b"[,1]", "expected a value, found ',' at byte 1"),
            (b"[1 2]", "expected ',' or ']', found '2' at byte 3"),
            (b"[1}", "expected ',' or ']', found '}' at byte 2"),
            (b"{\"a\":1]", "expected ',' or '}', found ']' at byte 6"),
            (b"{\"a\":1,}", "expected a key in double quotes, found '}' at byte 7"),
            (b"{a:1}", "expected a key in double quotes or '}', found 'a' at byte 1"),
            (b"{\"a\"}", "expected ':' after the key, found '}' at byte 4"),
            (b"{\"a\":}", "expected a value, found '}' at byte 5"),
            (b"{\"a\":1", "expected ',' or '}', found the end at byte 6"),
            (b"{", "expected a key in double quotes or '}', found the end at byte 1"),
            (b"'a'", "expected a value, found '\\'' at byte 0"),
            (b"{}x", "expected the end after the value, found 'x' at byte 2"),
            (b"{}{}", "expected the end after the value, found '{' at byte 2"),
            (b"{}\0", "expected the end after the value, found '\\0' at byte 2"),
            (b"1 \xe2\x82\xac", "expected the end after the value, found '€' at byte 2"),
            (b"[1,\x0c2]", "expected a value, found '\\u{c}' at byte 3"),
            (b"[truex]", "expected ',' or ']', found 'x' at byte 5"),
            (b"tru", "expected a value, found 't' at byte 0"),
            (b"True", "expected a value, found 'T' at byte 0"),
            (b"[NaN]", "NaN and Infinity are not JSON, at byte 1; send null or a string"),
            (b"[-Infinity]", "NaN and Infinity are not JSON, at byte 1; send null or a string"),
            (b"[01]", "number with a leading zero at byte 1"),
            (b"-00.5", "number with a leading zero at byte 0"),
            (b"+1", "expected a value, found '+' at byte 0"),
            (b".5", "expected a value, found '.' at byte 0"),
            (b"[1.]", "expected a digit, found ']' at byte 3"),
            (b"1e+", "expected a digit, found the end at byte 3"),
            (b"-", "expected a digit, found the end at byte 1"),
            (b"0x1", "expected the end after the value, found 'x' at byte 1"),
            (b"\"abc", "the string that begins at byte 0 has no end"),
            (b"[\"abc\\", "the string that begins at byte 1 has no end"),
            (b"\"abc\\\"", "the string that begins at byte 0 has no end"),
            (b"\"a\tb\"", "control character inside a string at byte 2; write it as \\u0009"),
            (b"\"a\0\"", "control character inside a string at byte 2; write it as \\u0000"),
            (b"\"\\x41\"", "invalid escape in a string at byte 1"),
            (b"\"\\u+123\"", "invalid escape in a string at byte 1"),
            (b"\"\\u12\"", "invalid escape in a string at byte 1"),
            (b"\"\\ud800\"", "\\ud800 at byte 1 is half of a character; write both halves, or leave it out"),
            (b"\"\\uDC00x\"", "\\udc00 at byte 1 is half of a character; write both halves, or leave it out"),
            (b"\"\\ud800\\u0041\"", "\\ud800 at byte 1 is half of a character; write both halves, or leave it out"),
        ];
        for (text, reason) in table {
            assert_eq!(error(text), *reason, "{}", text.escape_ascii());
        }
        assert_eq!(error(nested(DEPTH_MAX + 1).as_bytes()), "nested more than 128 levels deep at byte 128");
        assert_eq!(error(nested(100_000).as_bytes()), "nested more than 128 levels deep at byte 128");
        let objects = "{\"a\":".repeat(100_000);
        assert_eq!(error(objects.as_bytes()), "nested more than 128 levels deep at byte 640");
    }

    #[test]
    fn the_depth_bound_does_not_count_brackets_in_strings() {
        assert!(depth_at_most(b"[[1],{\"[[[[\":\"\\\"[[[\"}]", 2));
        assert!(!depth_at_most(b"[[1],{\"a\":[]}]", 2));
        assert!(depth_at_most(b"]]]]", 0));
        assert!(depth_at_most(nested(100_000).as_bytes(), 100_000));
        assert!(!depth_at_most(nested(100_000).as_bytes(), 99_999));
        for levels in [DEPTH_MAX, DEPTH_MAX + 1] {
            let text = nested(levels) + " ";
            let accepted = validate(text.as_bytes(), &mut Scratch::default()).is_ok();
            assert_eq!(accepted, depth_at_most(text.as_bytes(), DEPTH_MAX));
        }
    }

    #[test]
    fn members_and_elements_as_they_were_written() {
        let object = " { \"a\" : 1.0 ,\"a\":\"}\\\"\", \"\\u0062\":[ {\"c\":\"]\"} , 2 ] ,\"d\":{}}\t";
        let found: Vec<_> = members(object).collect();
        let wanted =
            [("\"a\"", "1.0"), ("\"a\"", "\"}\\\"\""), ("\"\\u0062\"", "[ {\"c\":\"]\"} , 2 ]"), ("\"d\"", "{}")];
        assert_eq!(found, wanted);
        assert_eq!(get(object, "a"), Some("\"}\\\"\""), "the last of duplicates");
        assert_eq!(get(object, "b"), Some("[ {\"c\":\"]\"} , 2 ]"), "escapes are read");
        assert_eq!(get(object, "c"), None, "a member of a member");
        assert_eq!(elements("[ {\"c\":\"]\"} , 2,-0\t]").collect::<Vec<_>>(), ["{\"c\":\"]\"}", "2", "-0"]);
        assert_eq!(elements(" [ ]").count() + elements("{\"a\":1}").count() + members("[1]").count(), 0);
    }

    #[test]
    fn strings_read_and_written() {
        for (json, text) in [
            (r#""plain""#, Some("plain")),
            (r#""\u0072oom""#, Some("room")),
            (r#""\"\\\/\b\f\n\r\t""#, Some("\"\\/\u{8}\u{c}\n\r\t")),
            (r#""a\ud83d\ude00b""#, Some("a😀b")),
            (r#""\uD83D""#, None),
            (r#""\ude00\ud83d""#, None),
            (r#""\x""#, None),
            ("12", None),
            ("\"", None),
        ] {
            assert_eq!(unescape(json).as_deref(), text, "{json}");
        }
        assert!(matches!(unescape("\"plain\""), Some(Cow::Borrowed("plain"))));
        let mut out = Vec::new();
        escape_into(&mut out, "a\"b\\c/\n\r\t\0\u{1f}\u{7f}é😀");
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\\\"b\\\\c/\\n\\r\\t\\u0000\\u001f\u{7f}é😀\"");
    }

    #[test]
    fn kinds() {
        let table = [
            ("{}", Kind::Object),
            (" []", Kind::Array),
            ("\"\"", Kind::String),
            ("-1", Kind::Number),
            ("false", Kind::Bool),
            ("true", Kind::Bool),
            ("null", Kind::Null),
        ];
        assert!(table.iter().all(|(text, wanted)| kind(text) == *wanted));
    }

    #[test]
    fn a_scratch_forgets_what_it_read_before() {
        let mut scratch = Scratch::default();
        let long = format!("[{}1]", "1,".repeat(KEPT_TEXT_BYTES_MAX));
        for text in ["[1,\"\\n\"]", "[", &long, "{\"a\":1e400}", "7", "", "[1]"] {
            let fresh = validate(text.as_bytes(), &mut Scratch::default());
            assert_eq!(validate(text.as_bytes(), &mut scratch), fresh);
            assert!(scratch.copy.capacity() <= 2 * KEPT_TEXT_BYTES_MAX, "big texts are not held");
        }
    }

    proptest! {
        #[test]
        fn every_value_is_accepted_and_found_again(
            values in prop::collection::vec((string_text(), value_text()), 0..5), spaces in (space(), space(), space()),
        ) {
            let (before, after, inside) = spaces;
            let join = |parts: Vec<String>| parts.join(&format!("{before},{after}"));
            let array = join(values.iter().map(|(_, value)| value.clone()).collect());
            let array = format!("{before}[{inside}{array}{inside}]{after}");
            let object = join(values.iter().map(|(key, value)| format!("{key}{inside}:{before}{value}")).collect());
            let object = format!("{before}{{{inside}{object}{inside}}}{after}");
            let mut scratch = Scratch::default();
            for text in [&array, &object] {
                prop_assert_eq!(validate(text.as_bytes(), &mut scratch), Ok(text.as_str()));
                prop_assert_eq!(check(text), Ok(()));
            }
            prop_assert_eq!(elements(&array).collect::<Vec<_>>(), values.iter().map(|(_, v)| v).collect::<Vec<_>>());
            let found: Vec<_> = members(&object).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(found, values);
        }

        /// simd-json and the grammar differ only in numbers beyond an `f64`; so neither lets through what the other
        /// forbids.
        #[test]
        fn simd_json_accepts_nothing_that_the_grammar_forbids(
            value in value_text(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..6usize), 0..4),
        ) {
            const BYTES: &[u8] = b"{}[],:\"\\ \t0123456789-+.eEtfnu/\x00\x1f\x7f\x0c\xff\xc3";
            let mut text = value.into_bytes();
            for (at, byte, edit) in edits {
                let at = at.index(text.len() + 1);
                let byte = BYTES[usize::from(byte) % BYTES.len()];
                match edit {
                    0 | 1 => text.insert(at, byte),
                    2 | 3 if at < text.len() => text[at] = byte,
                    4 if at < text.len() => drop(text.remove(at)),
                    _ => text.truncate(at.max(1)),
                }
            }
            let simd = Scratch::default().simd_accepts(&text);
            let grammar = std::str::from_utf8(&text).is_ok_and(|text| check(text).is_ok());
            prop_assert!(!simd || grammar, "only simd-json accepts {}", text.escape_ascii());
            if grammar && !simd {
                let digits = text.split(|b| !b"0123456789.+-eE".contains(b));
                let beyond = digits.filter_map(|n| std::str::from_utf8(n).ok()?.parse::<f64>().ok());
                let reason = beyond.into_iter().any(|n| !n.is_finite());
                prop_assert!(reason, "only the grammar accepts {}", text.escape_ascii());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = validate(&bytes, &mut Scratch::default());
            let _ = depth_at_most(&bytes, 3);
            let text = String::from_utf8_lossy(&bytes);
            let (object, array) = (format!("{{{text}"), format!("[{text}"));
            let _ = (members(&object).count(), elements(&array).count(), get(&object, "a"));
            let _ = (kind(&text), unescape(&text));
        }

        #[test]
        fn json_like_bytes_never_panic(
            bytes in prop::collection::vec(prop::sample::select(&b"{}[],:\"\\u0d8 -1.e"[..]), 0..40),
        ) {
            let text = String::from_utf8_lossy(&bytes);
            let _ = validate(&bytes, &mut Scratch::default());
            let _ = (members(&text).count(), elements(&text).count(), get(&text, "a"), kind(&text), unescape(&text));
        }

        #[test]
        fn what_is_escaped_is_read_back(text in any::<String>()) {
            let mut json = String::new();
            escape_into(&mut json, &text);
            prop_assert_eq!(validate(json.as_bytes(), &mut Scratch::default()), Ok(json.as_str()));
            let read = unescape(&json);
            prop_assert_eq!(read.as_deref(), Some(text.as_str()));
        }
    }
}
