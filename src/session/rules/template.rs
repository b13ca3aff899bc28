//! Strings and TOML values with expressions in braces: room names, and the messages that rules send. Splits, compiles
//! and writes them; does not know what an expression is made of, nor what the results are for.

use super::expression::{Expression, Fault, Moment};
use super::facts::Scope;
use super::scan::code;
use super::{KeyPath, PathStep};
use crate::proto::json;

/// A string with expressions in it.
#[derive(Debug)]
pub(super) struct Text(Vec<Part>);

#[derive(Debug)]
enum Part {
    Literal(String),
    Expression(Expression),
}

impl Text {
    pub(super) fn compile(text: &str, moment: Moment) -> Result<Text, Fault> {
        let pieces = split(text).map_err(|fault| fault.of(text))?;
        let parts = pieces.into_iter().map(|piece| match piece {
            Piece::Literal(literal) => Ok(Part::Literal(literal)),
            Piece::Expression { at, source } => match Expression::compile(source, moment) {
                Ok(expression) => Ok(Part::Expression(expression)),
                Err(fault) => Err(Fault::new(at + fault.at, fault.message).of(text)),
            },
        });
        parts.collect::<Result<_, _>>().map(Text)
    }

    /// The text as a room's name.
    pub(super) fn room(&self, scope: Scope<'_>) -> Result<String, String> {
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => name.push_str(literal),
                Part::Expression(expression) => expression.write_room(scope, &mut name)?,
            }
        }
        Ok(name)
    }

    /// Appends the text as a JSON string.
    pub(super) fn write_string(&self, scope: Scope<'_>, out: &mut String) -> Result<(), String> {
        out.push('"');
        for part in &self.0 {
            match part {
                Part::Literal(literal) => super::expression::push_escaped(literal, out),
                Part::Expression(expression) => expression.write_text(scope, out)?,
            }
        }
        out.push('"');
        Ok(())
    }

    /// Appends the text as a JSON value: that of the expression, if the text is nothing else; otherwise a string.
    fn write_value(&self, scope: Scope<'_>, out: &mut String) -> Result<(), String> {
        match self.0.as_slice() {
            [Part::Expression(expression)] => expression.write_json(scope, out),
            _ => self.write_string(scope, out),
        }
    }

    fn is_literal(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Literal(_)))
    }
}

/// Which rooms to leave: one, or with a `*` at the end of the template all whose names begin with it.
#[derive(Debug)]
pub(super) struct LeavePattern {
    pub(super) name: Text,
    pub(super) is_prefix: bool,
}

impl LeavePattern {
    /// A star is a wildcard only as the last literal character; one that an expression yields is a character like
    /// others.
    pub(super) fn compile(text: &str, moment: Moment) -> Result<LeavePattern, Fault> {
        let is_prefix = text.ends_with('*');
        let name = Text::compile(text.strip_suffix('*').unwrap_or(text), moment).map_err(|fault| fault.of(text))?;
        let stray = name.0.iter().any(|part| matches!(part, Part::Literal(literal) if literal.contains('*')));
        if stray {
            let at = text.find('*').unwrap_or_default();
            return Err(Fault::new(at, "a * can only be the last character; write {'*'} for a star in a name").of(text));
        }
        Ok(LeavePattern { name, is_prefix })
    }
}

/// A TOML value with templates for strings, ready to be written as JSON.
#[derive(Debug)]
pub(super) enum Template {
    /// JSON text without any expression in it.
    Fixed(String),
    Text(Text),
    /// What a room keeps: see [`put_snapshots`].
    Snapshot,
    Array(Vec<Template>),
    /// Keys as JSON strings.
    Table(Vec<(String, Template)>),
}

impl Template {
    /// `key` says where `value` stands; it is extended on the way in, and names the place of a fault on return.
    pub(super) fn compile(value: &toml::Value, moment: Moment, key: &mut KeyPath) -> Result<Template, Fault> {
        Ok(match value {
            toml::Value::String(text) if text == "{snapshot}" => Template::Snapshot,
            toml::Value::String(text) => {
                let text = Text::compile(text, moment)?;
                if text.is_literal() { Template::Fixed(fixed_string(&text)) } else { Template::Text(text) }
            }
            toml::Value::Integer(n) => Template::Fixed(n.to_string()),
            toml::Value::Float(n) if n.is_finite() => Template::Fixed(format!("{n:?}")),
            toml::Value::Float(n) => return Err(Fault::new(0, "not a finite number").of(&n.to_string())),
            toml::Value::Boolean(b) => Template::Fixed(b.to_string()),
            toml::Value::Datetime(when) => Template::Fixed(quoted(&when.to_string())),
            toml::Value::Array(items) => {
                let mut array = Vec::with_capacity(items.len());
                for (i, item) in items.iter().enumerate() {
                    array.push(key.within(PathStep::Index(i), |key| Template::compile(item, moment, key))?);
                }
                Template::Array(array).folded()
            }
            toml::Value::Table(members) => {
                let mut table = Vec::with_capacity(members.len());
                for (name, member) in members {
                    let step = PathStep::Key(name.clone());
                    table.push((quoted(name), key.within(step, |key| Template::compile(member, moment, key))?));
                }
                Template::Table(table).folded()
            }
        })
    }

    /// Appends the value as JSON.
    pub(super) fn write(&self, scope: Scope<'_>, out: &mut String) -> Result<(), String> {
        match self {
            Template::Fixed(text) => out.push_str(text),
            Template::Text(text) => text.write_value(scope, out)?,
            Template::Snapshot => {
                let number = scope.snapshot.ok_or("no room's snapshot was asked for")?;
                out.push(SNAPSHOT_MARK);
                out.push_str(&number.to_string());
                out.push(SNAPSHOT_MARK);
            }
            Template::Array(items) => {
                out.push('[');
                write_joined(items, scope, out)?;
                out.push(']');
            }
            Template::Table(members) => {
                out.push('{');
                for (i, (name, member)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    out.push_str(name);
                    out.push(':');
                    member.write(scope, out)?;
                }
                out.push('}');
            }
        }
        Ok(())
    }

    /// True if a room's snapshot stands somewhere in it.
    pub(super) fn has_snapshot(&self) -> bool {
        match self {
            Template::Fixed(_) | Template::Text(_) => false,
            Template::Snapshot => true,
            Template::Array(items) => items.iter().any(Template::has_snapshot),
            Template::Table(members) => members.iter().any(|(_, member)| member.has_snapshot()),
        }
    }

    /// One text, if nothing in it depends on a message.
    fn folded(self) -> Template {
        let is_fixed = |template: &Template| matches!(template, Template::Fixed(_));
        let mut out = String::new();
        match &self {
            Template::Array(items) if items.iter().all(is_fixed) => {
                let items: Vec<_> = items.iter().map(Template::fixed).collect();
                out.extend(["[", &items.join(","), "]"]);
            }
            Template::Table(members) if members.iter().all(|(_, member)| is_fixed(member)) => {
                let members: Vec<_> =
                    members.iter().map(|(name, member)| format!("{name}:{}", member.fixed())).collect();
                out.extend(["{", &members.join(","), "}"]);
            }
            _ => return self,
        }
        Template::Fixed(out)
    }

    fn fixed(&self) -> &str {
        match self {
            Template::Fixed(text) => text,
            _ => unreachable!("asked only of fixed templates"),
        }
    }
}

/// Appends the values, joined by commas.
pub(super) fn write_joined(values: &[Template], scope: Scope<'_>, out: &mut String) -> Result<(), String> {
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        value.write(scope, out)?;
    }
    Ok(())
}

/// Stands around the number of a snapshot that is to be put in. JSON has no such character, and whatever becomes part
/// of a template's JSON is valid or escaped: no client can write one.
const SNAPSHOT_MARK: char = '\u{1}';

/// JSON with `snapshots` in the places that [`Outcome::values`](super::Outcome::values) numbers.
#[must_use]
pub fn put_snapshots(json: &str, snapshots: &[impl AsRef<str>]) -> String {
    let mut out = String::new();
    // Every second piece is a number between two marks.
    for (index, piece) in json.split(SNAPSHOT_MARK).enumerate() {
        if index % 2 == 0 {
            out.push_str(piece);
        } else {
            let number: usize = piece.parse().expect("marks stand around numbers");
            out.push_str(snapshots[number].as_ref());
        }
    }
    out
}

/// `text` as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    json::escape_into(&mut out, text);
    out
}

fn fixed_string(text: &Text) -> String {
    let literals = text.0.iter().map(|part| match part {
        Part::Literal(literal) => literal.as_str(),
        Part::Expression(_) => unreachable!("asked only of literal texts"),
    });
    quoted(&literals.collect::<String>())
}

#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    /// Literal text, with `{{` and `}}` made single.
    Literal(String),
    /// What stands between braces, and at which byte it begins.
    Expression { at: usize, source: &'a str },
}

/// Splits a template at its braces. All bytes that matter here are ASCII, so that cutting at them never cuts a
/// character.
fn split(text: &str) -> Result<Vec<Piece<'_>>, Fault> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(found) = memchr::memchr2(b'{', b'}', &text.as_bytes()[at..]) {
        let brace = at + found;
        literal.push_str(&text[at..brace]);
        let rest = &text[brace..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            literal.push_str(&rest[..1]);
            at = brace + 2;
        } else if rest.starts_with('}') {
            return Err(Fault::new(brace, "a } without its {; write }} for the character"));
        } else {
            let start = brace + 1;
            let Some(end) = expression_end(text, start) else {
                return Err(Fault::new(brace, "a { without its }; write {{ for the character"));
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Expression { at: start, source: &text[start..end] });
            at = end + 1;
        }
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

/// Where the brace stands that closes the expression beginning at `start`; the braces of map literals nest.
fn expression_end(text: &str, start: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in code(text, start) {
        match byte {
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            b'{' => depth += 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_split_at_their_braces() {
        fn shown(text: &str) -> Result<Vec<String>, usize> {
            let show = |piece| match piece {
                Piece::Literal(literal) => format!("'{literal}'"),
                Piece::Expression { at, source } => format!("{at}:{source}"),
            };
            split(text).map(|pieces| pieces.into_iter().map(show).collect()).map_err(|fault| fault.at)
        }
        let pieces = |text: &str| shown(text).unwrap_or_else(|at| panic!("{text} at {at}"));
        assert_eq!(pieces(""), ["''"]);
        assert_eq!(pieces("plain"), ["'plain'"]);
        assert_eq!(pieces("{a}"), ["1:a"]);
        assert_eq!(pieces("{a}{b}"), ["1:a", "4:b"]);
        assert_eq!(pieces("é {a} z"), ["'é '", "4:a", "' z'"]);
        assert_eq!(pieces("{{a}} {b}"), ["'{a} '", "7:b"]);
        assert_eq!(pieces("{ {'k': 1}.k }!"), ["1: {'k': 1}.k ", "'!'"]);
        assert_eq!(pieces("{'}' + \"{\" + b}"), ["1:'}' + \"{\" + b"]);
        assert_eq!(pieces(r"{'\'}'}"), [r"1:'\'}'"]);
        assert_eq!(pieces(r"{r'\'}"), [r"1:r'\'"]);
        assert_eq!(pieces(r"{bR'\'}"), [r"1:bR'\'"]);
        assert_eq!(pieces("{'''it's }'''}"), ["1:'''it's }'''"]);
        assert_eq!(pieces("{a // not } here\n}"), ["1:a // not } here\n"]);
        for (text, at) in [("a{", 1), ("a{b", 1), ("}", 0), ("a}b", 1), ("{'}", 0), ("{{}", 2), ("{'''}'}", 0)] {
            assert_eq!(shown(text), Err(at), "{text}");
        }
    }

    #[test]
    fn what_no_message_changes_is_written_at_load() {
        let value = toml::from_str::<toml::Table>("v = { a = [1, 2.0, 'é\"{{'], d = 1979-05-27 }").unwrap();
        let template = Template::compile(&value["v"], Moment::Event, &mut KeyPath::default()).unwrap();
        assert_eq!(template.fixed(), r#"{"a":[1,2.0,"é\"{"],"d":"1979-05-27"}"#);
    }
}
