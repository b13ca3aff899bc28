//! What a publisher said, in a form that every encoder can write without parsing it again. Knows no wire format.

use super::ids::NamespaceId;

/// An event's name and arguments. The arguments are kept as the JSON bytes that came in, so that a 64-bit id, `1.0` or
/// the order of keys reaches the clients exactly as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The namespace whose sockets may get it.
    pub namespace: NamespaceId,
    /// The name as JSON: a string with its quotes and escapes.
    name_end: u32,
    arg_count: u32,
    /// `name_json` and then the arguments' JSON values, joined by commas, without brackets.
    text: Box<str>,
    /// Binary parts; an argument names part `n` as `{"_placeholder":true,"num":n}` (Socket.IO protocol 5, "binary
    /// event").
    pub attachments: Vec<Box<[u8]>>,
}

impl Event {
    /// `name_json` is a JSON string with quotes; `args_json` holds `arg_count` JSON values joined by commas, empty when
    /// there are none. Both must be valid JSON: encoders copy them to clients unread.
    ///
    /// # Panics
    /// If `name_json` is no quoted string, or `args_json` is empty while `arg_count` is not zero, or the reverse.
    #[must_use]
    pub fn new(namespace: NamespaceId, name_json: &str, args_json: &str, arg_count: usize) -> Event {
        assert!(name_json.len() >= 2 && name_json.starts_with('"') && name_json.ends_with('"'), "name {name_json}");
        assert_eq!(args_json.is_empty(), arg_count == 0, "{arg_count} arguments in {args_json:?}");
        let mut text = String::with_capacity(name_json.len() + args_json.len());
        text.push_str(name_json);
        text.push_str(args_json);
        Event {
            namespace,
            name_end: u32::try_from(name_json.len()).expect("lines are shorter than 4 GB"),
            arg_count: u32::try_from(arg_count).expect("lines are shorter than 4 GB"),
            text: text.into(),
            attachments: Vec::new(),
        }
    }

    /// The name as a JSON string, quotes included.
    #[must_use]
    pub fn name_json(&self) -> &str {
        &self.text[..self.name_end as usize]
    }

    /// The arguments as JSON values joined by commas, without brackets; empty when there are none.
    #[must_use]
    pub fn args_json(&self) -> &str {
        &self.text[self.name_end as usize..]
    }

    /// How many arguments there are.
    #[must_use]
    pub fn arg_count(&self) -> usize {
        self.arg_count as usize
    }
}
