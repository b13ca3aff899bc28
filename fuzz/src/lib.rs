//! What the targets share: pieces of the input, and JSON judged by another's parser. Knows no target and no protocol.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;
use serde_json::value::RawValue;

/// Choices that depend on the input and on nothing else. They are drawn from a hash of it: a corpus file is only what
/// comes over the wire, byte by byte.
pub struct Choices(u64);

impl Choices {
    /// Those of one input.
    pub fn of(input: &[u8]) -> Choices {
        // Its keys are constants: an input that is run again is cut at the same places.
        let mut hasher = DefaultHasher::new();
        input.hash(&mut hasher);
        Choices(hasher.finish())
    }

    /// A number from 0 to `max` (splitmix64).
    pub fn up_to(&mut self, max: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % (max as u64 + 1)) as usize
    }

    /// `bytes` in pieces, mostly small ones, some of them empty.
    pub fn pieces<'a>(&mut self, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let longest = if self.up_to(3) == 0 { rest.len() } else { 8 };
            let (piece, after) = rest.split_at(self.up_to(longest).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }
}

/// The ways in which the same bytes may arrive: at once, one by one, in some pieces.
pub fn arrivals(bytes: &[u8]) -> [Vec<&[u8]>; 3] {
    [vec![bytes], bytes.chunks(1).collect(), Choices::of(bytes).pieces(bytes)]
}

/// Fails unless `text` is one JSON value, and returns it as it stands. Numbers may have any size.
#[track_caller]
pub fn raw_json(text: &str) -> &RawValue {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in the JSON {text:?}"))
}

/// The elements of the JSON array that `joined` is in brackets.
#[track_caller]
pub fn elements(joined: &str) -> Vec<Box<RawValue>> {
    let array = format!("[{joined}]");
    serde_json::from_str(&array).unwrap_or_else(|error| panic!("{error} in the JSON {array:?}"))
}

/// Fails unless `text` is a JSON object, and returns its members. Only for texts of ours, whose numbers are small.
#[track_caller]
pub fn object(text: &str) -> serde_json::Map<String, Value> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in the object {text:?}"))
}

/// What can be said about an error: a sentence, and a label of one word for the metrics.
#[track_caller]
pub fn check_error(error: &(impl std::fmt::Display + Debug), label: &str) {
    assert!(!error.to_string().is_empty(), "{error:?} has no words");
    let is_word = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    assert!(!label.is_empty() && is_word, "{error:?} has the label {label:?}");
}
