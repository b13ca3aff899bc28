//! What a publisher said, in a form that every encoder can write without parsing it again. Knows no wire format.

use super::frame::{Encoding, Frame};
use super::ids::{NamespaceId, NamespaceRef};
use std::sync::OnceLock;

/// An event's name and arguments. The arguments are kept as the JSON bytes that came in, so that a 64-bit id, `1.0` or
/// the order of keys reaches the clients exactly as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The configured namespace; see [`Event::namespace_ref`].
    pub namespace: NamespaceId,
    /// Where the instance's name ends in `text`; 0 if there is none.
    instance_end: u16,
    name_end: u32,
    arg_count: u32,
    /// The namespace's instance, `name_json`, and then the arguments' JSON values, joined by commas, without brackets.
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
    pub fn new<'a>(
        namespace: impl Into<NamespaceRef<'a>>,
        name_json: &str,
        args_json: &str,
        arg_count: usize,
    ) -> Event {
        let NamespaceRef { id, instance } = namespace.into();
        let instance = instance.unwrap_or_default();
        assert!(name_json.len() >= 2 && name_json.starts_with('"') && name_json.ends_with('"'), "name {name_json}");
        assert_eq!(args_json.is_empty(), arg_count == 0, "{arg_count} arguments in {args_json:?}");
        let text = [instance, name_json, args_json].concat();
        Event {
            namespace: id,
            instance_end: u16::try_from(instance.len()).expect("namespaces' names are shorter than 64 KB"),
            name_end: u32::try_from(instance.len() + name_json.len()).expect("lines are shorter than 4 GB"),
            arg_count: u32::try_from(arg_count).expect("lines are shorter than 4 GB"),
            text: text.into(),
            attachments: Vec::new(),
        }
    }

    /// The namespace whose sockets may get it, with its instance.
    #[must_use]
    pub fn namespace_ref(&self) -> NamespaceRef<'_> {
        let instance = &self.text[..usize::from(self.instance_end)];
        NamespaceRef { id: self.namespace, instance: (!instance.is_empty()).then_some(instance) }
    }

    /// The name as a JSON string, quotes included.
    #[must_use]
    pub fn name_json(&self) -> &str {
        &self.text[usize::from(self.instance_end)..self.name_end as usize]
    }

    /// The arguments as JSON values joined by commas, without brackets; empty when there are none.
    #[must_use]
    pub fn args_json(&self) -> &str {
        &self.text[self.name_end as usize..]
    }

    /// Bytes of its name, arguments and binary parts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let text = self.text.len() - usize::from(self.instance_end);
        text + self.attachments.iter().map(|part| part.len()).sum::<usize>()
    }

    /// How many arguments there are.
    #[must_use]
    pub fn arg_count(&self) -> usize {
        self.arg_count as usize
    }
}

/// An event with its finished encodings: whoever needs one first makes it, once.
#[derive(Debug)]
pub struct Encodable {
    /// What was published.
    pub event: Event,
    /// What it is about, in its rooms: of several events of one key only the last one's state holds.
    pub key: Option<Box<str>>,
    /// The id under which Socket.IO clients are to acknowledge it.
    pub ack_id: Option<u64>,
    frames: [OnceLock<Frame>; Encoding::COUNT],
}

impl Encodable {
    /// Nothing encoded yet.
    #[must_use]
    pub fn new(event: Event, key: Option<Box<str>>, ack_id: Option<u64>) -> Encodable {
        Encodable { event, key, ack_id, frames: [const { OnceLock::new() }; Encoding::COUNT] }
    }

    /// The event in `encoding`, made by `encode` if this is the first use.
    pub fn frame(&self, encoding: Encoding, encode: impl FnOnce(&Encodable) -> Frame) -> Frame {
        self.frames[encoding.index()].get_or_init(|| encode(self)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Every event under way is one: the instance's place costs nothing.
    const _: () = assert!(size_of::<Event>() <= 56);

    #[test]
    fn an_event_knows_its_namespace_name_and_arguments() {
        for instance in [None, Some("/workspace-7")] {
            let namespace = NamespaceRef { id: NamespaceId(3), instance };
            let event = Event::new(namespace, "\"x\"", "1,2", 2);
            assert_eq!((event.namespace_ref(), event.namespace), (namespace, NamespaceId(3)));
            assert_eq!((event.name_json(), event.args_json(), event.arg_count()), ("\"x\"", "1,2", 2));
        }
    }
}
