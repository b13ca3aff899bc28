//! What a rule may look at, and how a path such as `data.a[0]` finds its place in it without any byte being changed.
//! Knows JSON text; does not know CEL, templates or what becomes of the values.

use std::borrow::Cow;
use std::fmt;

use crate::proto::json;

/// What is known when a client connects or sends an event. All JSON in it is valid.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The namespace's name.
    pub namespace: &'a str,
    /// What the named groups of the namespace's pattern matched in its name.
    pub captures: &'a [(&'a str, &'a str)],
    /// The socket's public id.
    pub sid: &'a str,
    /// The client's address, without port.
    pub ip: &'a str,
    /// The query string's pairs, decoded. If a name comes twice, the last one counts, as for a JSON object.
    pub query: &'a [(Box<str>, Box<str>)],
    /// The JSON value that the client gave on connecting; `null` if none.
    pub auth_json: &'a str,
    /// The JSON object of the verified token's claims; `null` without one.
    pub claims_json: &'a str,
    /// What earlier rules set for this socket.
    pub state: &'a State,
    /// The event's arguments as JSON values; empty on connecting.
    pub args: &'a [&'a str],
}

/// What rules have set for one socket: names and JSON values, kept as the text of one JSON object, so that it is two
/// words in the socket and can be written down as it is. Empty takes no heap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State(Box<str>);

impl State {
    /// Most bytes of a socket's state. A train number and a role take 40; a million sockets that fill it take 1 GB.
    pub const BYTES_MAX: usize = 1024;

    /// The JSON object.
    #[must_use]
    pub fn as_json(&self) -> &str {
        if self.0.is_empty() { "{}" } else { &self.0 }
    }

    /// This state after all members of a JSON object were set, as rules set them; `None` if that takes too many bytes.
    #[must_use]
    pub fn updated(&self, object_json: &str) -> Option<State> {
        let mut changes: Vec<(&str, String)> = Vec::new();
        for (name, value) in json::members(object_json) {
            changes.retain(|(earlier, _)| *earlier != name);
            changes.push((name, value.to_owned()));
        }
        self.with(&changes)
    }

    /// This state after `changes`, which are pairs of name (as JSON) and value (as JSON; null forgets the name). Each
    /// name stands at most once in `changes`. `None` if the result has more than [`State::BYTES_MAX`] bytes.
    pub(super) fn with(&self, changes: &[(&str, String)]) -> Option<State> {
        let kept = json::members(self.as_json()).filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
        let set = changes.iter().map(|(name, value)| (*name, value.as_str())).filter(|(_, value)| *value != "null");
        let mut text = String::new();
        for (name, value) in kept.chain(set) {
            text.push(if text.is_empty() { '{' } else { ',' });
            text.push_str(name);
            text.push(':');
            text.push_str(value);
        }
        if !text.is_empty() {
            text.push('}');
        }
        (text.len() <= State::BYTES_MAX).then(|| State(text.into()))
    }
}

/// Where a path begins: the variables of the rule language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Data,
    Args,
    Event,
    Query,
    Auth,
    Claims,
    State,
    Sid,
    Ip,
    Namespace,
    Captures,
}

impl Root {
    /// Every variable with its name; the first three exist only for an event.
    const NAMES: [(&str, Root); 11] = [
        ("data", Root::Data),
        ("args", Root::Args),
        ("event", Root::Event),
        ("query", Root::Query),
        ("auth", Root::Auth),
        ("claims", Root::Claims),
        ("state", Root::State),
        ("sid", Root::Sid),
        ("ip", Root::Ip),
        ("namespace", Root::Namespace),
        ("captures", Root::Captures),
    ];

    pub(super) fn from_name(name: &str) -> Option<Root> {
        Root::NAMES.iter().find(|(n, _)| *n == name).map(|(_, root)| *root)
    }

    fn name(self) -> &'static str {
        Root::NAMES.iter().find(|(_, root)| *root == self).expect("every root has a name").0
    }

    /// True for names with texts that never were JSON.
    pub(super) fn is_texts(self) -> bool {
        matches!(self, Root::Query | Root::Captures)
    }

    /// True for what only a message brings.
    pub(super) fn is_of_an_event(self) -> bool {
        matches!(self, Root::Data | Root::Args | Root::Event)
    }
}

/// One step from a value into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(Box<str>),
    Index(usize),
}

/// A way to one value: `data.a["b c"][0]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) root: Root,
    pub(super) steps: Vec<Step>,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.root.name())?;
        self.steps.iter().try_for_each(|step| match step {
            Step::Key(key) => write!(f, ".{key}"),
            Step::Index(index) => write!(f, "[{index}]"),
        })
    }
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A JSON value, byte by byte as it came.
    Json(Cow<'a, str>),
    /// A text that never was JSON: a query value, an address, a name.
    Text(&'a str),
}

/// The facts, with the state as the rules before this one left it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) facts: &'a Facts<'a>,
    pub(super) event: &'a str,
    pub(super) state: &'a State,
    /// Which of the outcome's snapshots is the present rule's, if it has asked for one.
    pub(super) snapshot: Option<usize>,
}

impl<'a> Scope<'a> {
    /// The value at `path`, if there is one.
    pub(super) fn find(&self, path: &Path) -> Option<Found<'a>> {
        self.find_at(path.root, &path.steps)
    }

    fn find_at(&self, root: Root, steps: &[Step]) -> Option<Found<'a>> {
        let facts = self.facts;
        let json = match (root, steps) {
            (Root::Data, steps) => descend(facts.args.first().copied().unwrap_or("null"), steps)?,
            (Root::Args, []) => return Some(Found::Json(Cow::Owned(["[", &facts.args.join(","), "]"].concat()))),
            (Root::Args, [Step::Index(index), steps @ ..]) => descend(facts.args.get(*index)?, steps)?,
            (Root::Query | Root::Captures, []) => return Some(Found::Json(Cow::Owned(self.texts_json(root)))),
            (Root::Query | Root::Captures, [Step::Key(key)]) => return self.text(root, key).map(Found::Text),
            (Root::Auth, steps) => descend(facts.auth_json, steps)?,
            (Root::Claims, steps) => descend(facts.claims_json, steps)?,
            (Root::State, steps) => descend(self.state.as_json(), steps)?,
            (Root::Event, []) => return Some(Found::Text(self.event)),
            (Root::Sid, []) => return Some(Found::Text(facts.sid)),
            (Root::Ip, []) => return Some(Found::Text(facts.ip)),
            (Root::Namespace, []) => return Some(Found::Text(facts.namespace)),
            (Root::Args | Root::Query | Root::Captures | Root::Event | Root::Sid | Root::Ip | Root::Namespace, _) => {
                return None;
            }
        };
        Some(Found::Json(Cow::Borrowed(json)))
    }

    /// `has(path)`: whether the object that should hold the last key does; `None` if there is no such object.
    pub(super) fn has(&self, path: &Path) -> Option<bool> {
        let [steps @ .., Step::Key(key)] = path.steps.as_slice() else { return None };
        if path.root.is_texts() && steps.is_empty() {
            return Some(self.text(path.root, key).is_some());
        }
        match self.find_at(path.root, steps)? {
            Found::Json(object) if json::kind(&object) == json::Kind::Object => Some(json::get(&object, key).is_some()),
            _ => None,
        }
    }

    /// Names and texts of `query` or `captures`.
    pub(super) fn texts(&self, root: Root) -> impl DoubleEndedIterator<Item = (&'a str, &'a str)> {
        let (query, captures) = match root {
            Root::Captures => (&[][..], self.facts.captures),
            _ => (self.facts.query, &[][..]),
        };
        query.iter().map(|(name, value)| (&**name, &**value)).chain(captures.iter().copied())
    }

    fn text(&self, root: Root, key: &str) -> Option<&'a str> {
        self.texts(root).rev().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    fn texts_json(&self, root: Root) -> String {
        let mut object = String::from("{");
        for (name, value) in self.texts(root) {
            if object.len() > 1 {
                object.push(',');
            }
            json::escape_into(&mut object, name);
            object.push(':');
            json::escape_into(&mut object, value);
        }
        object.push('}');
        object
    }
}

/// Of two members of one name `json::get` takes the last; so does the conversion to CEL. One reading everywhere, or a
/// client could show `allow` one value and `join` another.
fn descend<'a>(json: &'a str, steps: &[Step]) -> Option<&'a str> {
    steps.iter().try_fold(json.trim_ascii(), |value, step| match step {
        Step::Key(key) => json::get(value, key),
        Step::Index(index) => json::elements(value).nth(*index),
    })
}
