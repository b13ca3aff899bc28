//! A request's body, read as it arrives: counted or in chunks (RFC 9112, sections 6 and 7.1). Does not know what it
//! means, nor how long anybody waits for it.
//!
//! Chunk syntax is strict. A proxy in front of us may read sloppy syntax otherwise than we would, and what it took for
//! a body would be a request to us (request smuggling).

use std::fmt;

use super::{BodyLength, is_token};

/// Digits of a chunk's size: those of a `u64`. They bound what a chunk of one byte costs to read.
const SIZE_DIGITS_MAX: u8 = 16;
/// Extensions of all chunks together. Nobody uses them, so that many are an attack on our time.
const EXTENSION_BYTES_MAX: usize = 16 * 1024;
/// Headers behind the last chunk, which are skipped: as long as those before the body by default.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// What [`Body::read`] made of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyStep {
    /// All of it belongs to the body, and more will follow.
    Incomplete,
    /// The body is whole.
    Complete {
        /// Bytes of the input that belong to it. The next request follows.
        bytes: usize,
    },
}

/// A body on its way. It holds what has come of it, whatever length was promised.
#[derive(Clone, Debug)]
pub struct Body {
    bytes: Vec<u8>,
    bytes_max: usize,
    state: State,
    /// What the other party may still send besides the body's own bytes.
    extension_bytes_left: usize,
    trailer_bytes_left: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of a counted body.
    Counted {
        left: usize,
    },
    /// A digit of a chunk's size, or, if there was one, what may follow it.
    Size {
        size: usize,
        digits: u8,
    },
    /// A semicolon after spaces.
    Semicolon {
        size: usize,
    },
    /// Part of an extension.
    Extension {
        size: usize,
    },
    /// The line feed that ends the line of the size.
    SizeEnd {
        size: usize,
    },
    /// So many bytes of a chunk.
    Data {
        left: usize,
    },
    /// The line break behind a chunk.
    DataReturn,
    DataEnd,
    /// A trailer's name, or the line break that ends the body.
    Trailer {
        named: bool,
    },
    /// A trailer's value.
    TrailerValue,
    /// The line feed that ends a trailer.
    TrailerEnd,
    /// The last line feed.
    End,
    Complete,
    Failed(BodyError),
}

impl Body {
    /// The body of a request whose head said `length`, of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// The head promises more.
    pub fn new(length: BodyLength, bytes_max: usize) -> Result<Body, BodyError> {
        let state = match length {
            BodyLength::Bytes(0) => State::Complete,
            BodyLength::Bytes(bytes) => {
                let left = usize::try_from(bytes).ok().filter(|bytes| *bytes <= bytes_max);
                State::Counted { left: left.ok_or(BodyError::TooLong { max: bytes_max })? }
            }
            BodyLength::Chunked => State::Size { size: 0, digits: 0 },
        };
        let (extension_bytes_left, trailer_bytes_left) = (EXTENSION_BYTES_MAX, TRAILER_BYTES_MAX);
        Ok(Body { bytes: Vec::new(), bytes_max, state, extension_bytes_left, trailer_bytes_left })
    }

    /// Takes what came next on the connection. The outcome does not depend on how the bytes are split into inputs.
    ///
    /// # Errors
    /// The body is too long or its chunks are malformed. What follows on the connection cannot be understood.
    pub fn read(&mut self, input: &[u8]) -> Result<BodyStep, BodyError> {
        let mut rest = input;
        loop {
            self.state = match (self.state, rest) {
                (State::Complete, _) => return Ok(BodyStep::Complete { bytes: input.len() - rest.len() }),
                (State::Failed(error), _) => return Err(error),
                (_, []) => return Ok(BodyStep::Incomplete),
                (State::Counted { left } | State::Data { left }, _) => {
                    let (taken, after) = rest.split_at(left.min(rest.len()));
                    self.bytes.extend_from_slice(taken);
                    rest = after;
                    match (self.state, left - taken.len()) {
                        (State::Counted { .. }, 0) => State::Complete,
                        (State::Counted { .. }, left) => State::Counted { left },
                        (_, 0) => State::DataReturn,
                        (_, left) => State::Data { left },
                    }
                }
                (_, [byte, after @ ..]) => {
                    rest = after;
                    self.framing(*byte).unwrap_or_else(State::Failed)
                }
            }
        }
    }

    /// True once all of the body is here.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Memory of what has come of it.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// What has come of the body, decoded.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// A byte of the chunked coding that belongs to no chunk.
    fn framing(&mut self, byte: u8) -> Result<State, BodyError> {
        match (self.state, byte) {
            (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default() as usize;
                if digits == SIZE_DIGITS_MAX {
                    return Err(BodyError::ChunkSize);
                }
                // A size beyond a usize is beyond the bound all the same.
                let size = size.checked_mul(16).map_or(usize::MAX, |size| size | digit);
                self.fits(size)?;
                Ok(State::Size { size, digits: digits + 1 })
            }
            (State::Size { digits: 0, .. }, _) => Err(BodyError::ChunkSize),
            (State::Size { size, .. } | State::Extension { size }, b'\r') => Ok(State::SizeEnd { size }),
            (State::Size { size, .. } | State::Semicolon { size }, b';') => self.extension(size),
            // Section 7.1.1: spaces are bad here, but to be read.
            (State::Size { size, .. } | State::Semicolon { size }, b' ' | b'\t') => {
                self.extension(size)?;
                Ok(State::Semicolon { size })
            }
            (State::Size { .. }, _) => Err(BodyError::ChunkSize),
            (State::Extension { size }, _) if is_text(byte) => self.extension(size),
            (State::SizeEnd { size: 0 }, b'\n') => Ok(State::Trailer { named: false }),
            (State::SizeEnd { size }, b'\n') => Ok(State::Data { left: size }),
            (State::Semicolon { .. } | State::Extension { .. } | State::SizeEnd { .. }, _) => Err(BodyError::ChunkLine),
            (State::DataReturn, b'\r') => Ok(State::DataEnd),
            (State::DataEnd, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
            (State::DataReturn | State::DataEnd, _) => Err(BodyError::ChunkEnd),
            (State::Trailer { named: false }, b'\r') => Ok(State::End),
            (State::Trailer { named: true }, b':') => self.trailer(State::TrailerValue),
            (State::Trailer { .. }, _) if is_token(byte) => self.trailer(State::Trailer { named: true }),
            (State::TrailerValue, b'\r') => Ok(State::TrailerEnd),
            (State::TrailerValue, _) if is_text(byte) => self.trailer(State::TrailerValue),
            (State::TrailerEnd, b'\n') => Ok(State::Trailer { named: false }),
            (State::End, b'\n') => Ok(State::Complete),
            (State::Trailer { .. } | State::TrailerValue | State::TrailerEnd | State::End, _) => {
                Err(BodyError::Trailer)
            }
            (State::Counted { .. } | State::Data { .. } | State::Complete | State::Failed(_), _) => {
                unreachable!("{:?} is no framing", self.state)
            }
        }
    }

    fn fits(&self, chunk: usize) -> Result<(), BodyError> {
        let fits = chunk <= self.bytes_max - self.bytes.len();
        if fits { Ok(()) } else { Err(BodyError::TooLong { max: self.bytes_max }) }
    }

    fn extension(&mut self, size: usize) -> Result<State, BodyError> {
        self.extension_bytes_left = self.extension_bytes_left.checked_sub(1).ok_or(BodyError::ExtensionsTooLong)?;
        Ok(State::Extension { size })
    }

    fn trailer(&mut self, next: State) -> Result<State, BodyError> {
        self.trailer_bytes_left = self.trailer_bytes_left.checked_sub(1).ok_or(BodyError::TrailersTooLong)?;
        Ok(next)
    }
}

/// Anything but control characters: what values and quoted strings are made of (RFC 9110, section 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

/// A body that is not taken: the client's fault. The connection must be closed after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The body is longer than we take.
    TooLong {
        /// Bytes allowed.
        max: usize,
    },
    /// A chunk's size is no hexadecimal number of at most 16 digits.
    ChunkSize,
    /// What follows a chunk's size is neither an extension nor a line break.
    ChunkLine,
    /// A chunk is not followed by a line break: it is longer or shorter than it said.
    ChunkEnd,
    /// Chunks have too many extensions.
    ExtensionsTooLong,
    /// What follows the last chunk are neither headers nor an empty line.
    Trailer,
    /// The headers after the last chunk are longer than we take.
    TrailersTooLong,
}

impl BodyError {
    /// The status to answer with.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            BodyError::TooLong { .. } | BodyError::ExtensionsTooLong | BodyError::TrailersTooLong => 413,
            BodyError::ChunkSize | BodyError::ChunkLine | BodyError::ChunkEnd | BodyError::Trailer => 400,
        }
    }

    /// A metrics label: one word in `snake_case`, one per variant.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            BodyError::TooLong { .. } => "body_too_long",
            BodyError::ChunkSize => "chunk_size",
            BodyError::ChunkLine => "chunk_line",
            BodyError::ChunkEnd => "chunk_end",
            BodyError::ExtensionsTooLong => "extensions_too_long",
            BodyError::Trailer => "trailer",
            BodyError::TrailersTooLong => "trailers_too_long",
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::TooLong { max } => write!(f, "the request body has more than {max} bytes"),
            BodyError::ChunkSize => f.write_str("the size of a chunk is not a hexadecimal number"),
            BodyError::ChunkLine => f.write_str("the line with a chunk's size is malformed"),
            BodyError::ChunkEnd => f.write_str("a chunk does not end where its size says"),
            BodyError::ExtensionsTooLong => {
                write!(f, "the extensions of chunks have more than {EXTENSION_BYTES_MAX} bytes")
            }
            BodyError::Trailer => f.write_str("what follows the last chunk is malformed"),
            BodyError::TrailersTooLong => write!(f, "the trailers have more than {TRAILER_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for BodyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1000;

    /// The body and the bytes of all inputs together that belong to it; the body is `None` while it is incomplete.
    fn read(length: BodyLength, max: usize, inputs: &[&[u8]]) -> Result<(Option<Vec<u8>>, usize), BodyError> {
        let mut body = Body::new(length, max)?;
        let mut taken = 0;
        for input in inputs {
            assert!(!body.is_complete());
            match body.read(input) {
                Ok(BodyStep::Incomplete) => taken += input.len(),
                Ok(BodyStep::Complete { bytes }) => {
                    assert!(body.is_complete());
                    assert_eq!(body.read(b"next"), Ok(BodyStep::Complete { bytes: 0 }), "and stays so");
                    return Ok((Some(body.into_bytes()), taken + bytes));
                }
                Err(error) => {
                    assert_eq!(body.read(b"next"), Err(error), "and stays so");
                    return Err(error);
                }
            }
        }
        Ok((body.is_complete().then(|| body.into_bytes()), taken))
    }

    fn chunked(text: &[u8]) -> Result<(Option<Vec<u8>>, usize), BodyError> {
        read(BodyLength::Chunked, MAX, &[text])
    }

    #[test]
    fn counted_bodies() {
        let whole = |text: &str, bytes| Ok((Some(text.as_bytes().to_vec()), bytes));
        for (length, inputs, expected) in [
            (0, &[&b""[..]][..0], Ok((Some(vec![]), 0))),
            (3, &[b"abc"], whole("abc", 3)),
            (3, &[b"abcGET /"], whole("abc", 3)),
            (3, &[b"a", b"", b"bcGET /"], whole("abc", 3)),
            (3, &[b"ab"], Ok((None, 2))),
            (MAX as u64 + 1, &[], Err(BodyError::TooLong { max: MAX })),
            (u64::MAX, &[], Err(BodyError::TooLong { max: MAX })),
        ] {
            assert_eq!(read(BodyLength::Bytes(length), MAX, inputs), expected, "{length} {inputs:?}");
        }
        assert_eq!(read(BodyLength::Bytes(3), 3, &[b"abc"]), whole("abc", 3), "the bound is inclusive");
    }

    #[test]
    fn a_promised_length_takes_no_memory() {
        let mut body = Body::new(BodyLength::Bytes(1 << 30), 1 << 30).unwrap();
        assert_eq!(body.read(b"abc"), Ok(BodyStep::Incomplete));
        assert!(body.bytes.capacity() < 100);
        let mut body = Body::new(BodyLength::Chunked, 1 << 30).unwrap();
        assert_eq!(body.read(b"3fffffff\r\nabc"), Ok(BodyStep::Incomplete));
        assert!(body.bytes.capacity() < 100);
    }

    #[test]
    fn chunks_of_rfc_9112_section_7_1() {
        for (text, body) in [
            ("0\r\n\r\n", ""),
            ("3\r\nabc\r\n0\r\n\r\n", "abc"),
            ("3\r\nabc\r\n4\r\ndefg\r\n00\r\n\r\n", "abcdefg"),
            ("0000000000000003\r\nabc\r\n0\r\n\r\n", "abc"),
            ("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
            ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
            ("3;a=b;c=\"d;\u{e9}\"\r\nabc\r\n0;z\r\n\r\n", "abc"),
            ("3 \t;a\r\nabc\r\n0\r\n\r\n", "abc"),
            ("3;\r\nabc\r\n0\r\n\r\n", "abc"),
            ("3\r\nabc\r\n0\r\nExpires: now\r\nX-Sum:\r\n\r\n", "abc"),
        ] {
            let next = format!("{text}GET / HTTP/1.1\r\n");
            assert_eq!(chunked(next.as_bytes()), Ok((Some(body.into()), text.len())), "{text:?}");
            for len in 0..text.len() {
                assert_eq!(chunked(&text.as_bytes()[..len]), Ok((None, len)), "{len} bytes of {text:?}");
            }
        }
    }

    /// Each of these has been read in two ways by two servers, or would let a client cost more than it sends.
    #[test]
    fn chunks_that_are_refused() {
        use BodyError::*;
        let too_long = TooLong { max: MAX };
        for (text, error) in [
            // Sizes.
            ("\r\n", ChunkSize),
            (" 3\r\nabc\r\n", ChunkSize),
            ("\t3\r\nabc\r\n", ChunkSize),
            ("0x3\r\nabc\r\n", ChunkSize),
            ("x\r\n", ChunkSize),
            ("+3\r\nabc\r\n", ChunkSize),
            ("-3\r\nabc\r\n", ChunkSize),
            ("-0\r\n\r\n", ChunkSize),
            ("3_0\r\n", ChunkSize),
            ("3,3\r\n", ChunkSize),
            ("3.0\r\n", ChunkSize),
            ("\u{ff13}\r\nabc\r\n", ChunkSize),
            (";a\r\n", ChunkSize),
            ("\"3\"\r\nabc\r\n", ChunkSize),
            ("3\0\r\nabc", ChunkSize),
            ("00000000000000003\r\nabc\r\n", ChunkSize),
            // Their lines.
            ("3\nabc\r\n", ChunkSize),
            ("3 \r\nabc\r\n", ChunkLine),
            ("3 \nabc\r\n", ChunkLine),
            ("3 3\r\nabc\r\n", ChunkLine),
            ("3\rabc\r\n", ChunkLine),
            ("3\r\r\nabc\r\n", ChunkLine),
            ("3;a\nabc\r\n", ChunkLine),
            ("3;a\r\r\nabc\r\n", ChunkLine),
            ("3;a\0\r\nabc\r\n", ChunkLine),
            ("2;a=\"\r\n\"\r\n", ChunkEnd),
            // Behind the data.
            ("3\r\nabc\n", ChunkEnd),
            ("3\r\nabc0\r\n\r\n", ChunkEnd),
            ("3\r\nabcd\r\n0\r\n\r\n", ChunkEnd),
            ("3\r\nab\r\n0\r\n\r\n", ChunkEnd),
            ("3\r\nabc\rx", ChunkEnd),
            ("3\r\nabc\r\r\n", ChunkEnd),
            ("3\r\nabc\r\n\r\n", ChunkSize),
            // The end.
            ("0\n\n", ChunkSize),
            ("0\r\n\n", Trailer),
            ("0\r\n\r\r\n", Trailer),
            ("0\r\n\rG", Trailer),
            ("0\r\nGET / HTTP/1.1\r\n\r\n", Trailer),
            ("0\r\nabc\r\n\r\n", Trailer),
            ("0\r\n: a\r\n\r\n", Trailer),
            ("0\r\nA : b\r\n\r\n", Trailer),
            ("0\r\nA: b\n\r\n", Trailer),
            ("0\r\nA: b\rc\r\n\r\n", Trailer),
            ("0\r\nA: b\r\n folded\r\n\r\n", Trailer),
            ("0\r\nA: \0\r\n\r\n", Trailer),
            // Too much.
            ("3e9\r\n", too_long),
            ("1\r\na\r\n3e8\r\n", too_long),
            ("10000000000000000\r\n", too_long),
            ("ffffffffffffffff\r\n", too_long),
            ("8000000000000000\r\n", too_long),
            ("100000003\r\nabc\r\n0\r\n\r\n", too_long),
        ] {
            assert_eq!(chunked(text.as_bytes()), Err(error), "{text:?}");
            let inputs: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(read(BodyLength::Chunked, MAX, &inputs), Err(error), "{text:?} byte by byte");
        }
    }

    #[test]
    fn what_is_not_body_is_bounded() {
        let extension = |bytes: usize| format!("0{}\r\n\r\n", ";".repeat(bytes));
        let trailers = |bytes: usize| format!("0\r\n{}:\r\n\r\n", "a".repeat(bytes - 1));
        for (text, is_good) in [
            (extension(EXTENSION_BYTES_MAX), Ok(())),
            (extension(EXTENSION_BYTES_MAX + 1), Err(BodyError::ExtensionsTooLong)),
            (format!("{}0\r\n\r\n", "1;a\r\nx\r\n".repeat(MAX)), Ok(())),
            (
                format!("1;{}\r\nx\r\n{}", "a".repeat(EXTENSION_BYTES_MAX - 1), extension(1)),
                Err(BodyError::ExtensionsTooLong),
            ),
            (format!("1{}", " ".repeat(EXTENSION_BYTES_MAX + 1)), Err(BodyError::ExtensionsTooLong)),
            (trailers(TRAILER_BYTES_MAX), Ok(())),
            (trailers(TRAILER_BYTES_MAX + 1), Err(BodyError::TrailersTooLong)),
            (format!("0\r\nA:{}", "b".repeat(TRAILER_BYTES_MAX)), Err(BodyError::TrailersTooLong)),
            (format!("0\r\n{}", "A:\r\n".repeat(TRAILER_BYTES_MAX)), Err(BodyError::TrailersTooLong)),
        ] {
            assert_eq!(chunked(text.as_bytes()).map(|(body, _)| assert!(body.is_some())), is_good, "{text:.40}");
        }
        // The bound is on all chunks together, and inclusive.
        let chunks = |bytes: usize| format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(bytes));
        assert_eq!(chunked(chunks(MAX).as_bytes()).unwrap().0.unwrap(), "x".repeat(MAX).as_bytes());
        assert_eq!(chunked(chunks(MAX + 1).as_bytes()), Err(BodyError::TooLong { max: MAX }));
    }

    #[test]
    fn a_million_chunks_of_one_byte_take_the_memory_of_a_million_bytes() {
        let bytes_max = 1 << 20;
        let mut body = Body::new(BodyLength::Chunked, bytes_max).unwrap();
        for _ in 0..bytes_max {
            assert_eq!(body.read(b"1\r\nx\r\n"), Ok(BodyStep::Incomplete));
        }
        assert!(body.bytes.capacity() <= 2 * bytes_max, "{}", body.bytes.capacity());
        assert_eq!(body.read(b"1\r\nx\r\n"), Err(BodyError::TooLong { max: bytes_max }));
    }

    #[test]
    fn each_error_has_a_sentence_a_label_and_a_known_status() {
        use BodyError::*;
        let max = MAX;
        let all = [TooLong { max }, ChunkSize, ChunkLine, ChunkEnd, ExtensionsTooLong, Trailer, TrailersTooLong];
        let labels: std::collections::HashSet<_> = all.iter().map(BodyError::label).collect();
        assert_eq!(labels.len(), all.len());
        for error in all {
            assert!(!error.to_string().is_empty() && !super::super::reason_phrase(error.status()).is_empty());
        }
    }

    /// `text` cut at these places.
    fn split<'t>(mut text: &'t [u8], lengths: &[usize]) -> Vec<&'t [u8]> {
        let mut parts = Vec::new();
        for len in lengths {
            let (part, rest) = text.split_at(*len.min(&text.len()));
            parts.push(part);
            text = rest;
        }
        parts.push(text);
        parts
    }

    /// As [`read`] says it, with empty inputs in front of a complete body left out.
    fn read_split(length: BodyLength, text: &[u8], lengths: &[usize]) -> Result<(Option<Vec<u8>>, usize), BodyError> {
        let parts = split(text, lengths);
        let parts: Vec<&[u8]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        read(length, MAX, &parts)
    }

    /// Bytes that get further into the decoder than random ones do.
    fn plausible() -> impl Strategy<Value = Vec<u8>> {
        let pieces =
            ["0", "1", "3", "f", "\r\n", "\r", "\n", ";", ";a=b", " ", "abc", "3\r\nabc\r\n", "0\r\n", "A: b\r\n"];
        let piece = prop_oneof![
            8 => prop::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
            1 => any::<u8>().prop_map(|byte| vec![byte]),
        ];
        prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_body_is_the_same_however_it_is_sent(
            chunks in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), "(;[a-z=]{0,5})?"), 0..10),
            zeros in 0usize..4,
            trailers in prop::collection::vec("[a-z]{1,5}: [ -~]{0,10}\r\n", 0..3),
            rest in prop::collection::vec(any::<u8>(), 0..20),
            lengths in prop::collection::vec(0usize..30, 0..40),
        ) {
            let data: Vec<u8> = chunks.iter().flat_map(|(data, _)| data.clone()).collect();
            let mut text = Vec::new();
            for (data, extension) in &chunks {
                text.extend(format!("{}{:x}{extension}\r\n", "0".repeat(zeros), data.len()).into_bytes());
                text.extend_from_slice(data);
                text.extend_from_slice(b"\r\n");
            }
            text.extend(format!("0\r\n{}\r\n", trailers.concat()).into_bytes());
            let end = text.len();
            text.extend_from_slice(&rest);
            let expected = Ok((Some(data.clone()), end));
            prop_assert_eq!(read_split(BodyLength::Chunked, &text, &lengths), expected);
            let counted: Vec<u8> = [data.as_slice(), &rest].concat();
            if !data.is_empty() {
                let expected = Ok((Some(data.clone()), data.len()));
                prop_assert_eq!(read_split(BodyLength::Bytes(data.len() as u64), &counted, &lengths), expected);
            }
        }

        #[test]
        fn any_bytes_get_the_same_verdict_however_they_are_split(
            text in plausible(),
            lengths in prop::collection::vec(0usize..10, 0..20),
        ) {
            let whole = chunked(&text);
            prop_assert_eq!(read_split(BodyLength::Chunked, &text, &lengths), whole.clone());
            if let Ok((_, bytes)) = whole {
                prop_assert!(bytes <= text.len());
            }
        }
    }
}
