//! Finds the code in CEL source: the bytes outside string literals and comments. Knows no more of the language.

/// The bytes of `text` from `start` on that are code, with their positions. Ends early at a string without an end. All
/// that is looked for is ASCII, so that cutting `text` at these positions never cuts a character.
pub(super) fn code(text: &str, start: usize) -> impl Iterator<Item = (usize, u8)> {
    let bytes = text.as_bytes();
    let mut at = start;
    std::iter::from_fn(move || {
        loop {
            let byte = *bytes.get(at)?;
            match byte {
                b'"' | b'\'' => at = string_end(bytes, at, is_raw(&bytes[start..at]))?,
                b'/' if bytes.get(at + 1) == Some(&b'/') => at += memchr::memchr(b'\n', &bytes[at..])?,
                _ => {
                    at += 1;
                    return Some((at - 1, byte));
                }
            }
        }
    })
}

/// True for a byte that can stand in an identifier.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Behind the CEL string literal whose quote stands at `at`: one or three quotes, `\` escaping the next byte unless raw
/// (CEL specification, "String and Bytes Values").
fn string_end(bytes: &[u8], at: usize, is_raw: bool) -> Option<usize> {
    let quote = bytes[at];
    let triple = [quote; 3];
    let closing = if bytes[at..].starts_with(&triple) { &triple[..] } else { &triple[..1] };
    let mut at = at + closing.len();
    while at < bytes.len() {
        if bytes[at..].starts_with(closing) {
            return Some(at + closing.len());
        }
        at += if bytes[at] == b'\\' && !is_raw { 2 } else { 1 };
    }
    None
}

/// True if the literal after `before` has a prefix with `r`: `r'…'`, `br"…"`, in any case and order, and not the end of
/// a longer word.
fn is_raw(before: &[u8]) -> bool {
    let word = before.iter().rev().take_while(|b| is_word(**b)).count();
    let prefix = &before[before.len() - word..];
    let is_prefix = word <= 2 && prefix.iter().all(|b| matches!(b, b'r' | b'R' | b'b' | b'B'));
    is_prefix && prefix.iter().any(|b| matches!(b, b'r' | b'R'))
}
