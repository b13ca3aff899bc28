//! One expression of the rule language: compiled at load, evaluated on the facts of one message. A plain path is
//! answered from the raw JSON; everything else is CEL over the paths that it names. Knows nothing of rules, rooms or
//! templates.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::{Arc, LazyLock, OnceLock};

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, SourceInfo, operators};
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelOptional, CelString, CelUInt,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::parser::Expression as Ast;
use cel::{Context, Env, ExecutionError, FunctionContext, Value};
use regex::Regex;

use super::facts::{Found, Path, Root, Scope, Step};
use super::scan::{code, is_word};
use crate::proto::json;

/// Most bytes of JSON under one path that CEL gets to see; plain paths and `has` are free of it. With [`VALUES_MAX`] it
/// bounds what a client can make a macro cost: not to the budget of a turn but, measured with 1,000 strings, to
/// 0.6 ms for a comparison with each, 6 ms for `x in` a second such list, 60 ms for adding two such lists each time.
const LOOK_BYTES_MAX: usize = 64 * 1024;
/// Most JSON values under one path that CEL gets to see.
const VALUES_MAX: usize = 1024;
/// Most bytes of a CEL error in a reason: it may name a key that a client asked for.
const ERROR_BYTES_MAX: usize = 200;

/// What is wrong with an expression or template.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The string from the config; filled in where the whole of it is known.
    pub(super) text: String,
    /// The byte in `text` where the trouble begins.
    pub(super) at: usize,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Fault {
        Fault { text: String::new(), at, message: message.into() }
    }

    /// The same, known to be in `text`.
    pub(super) fn of(self, text: &str) -> Fault {
        Fault { text: text.to_owned(), ..self }
    }
}

/// Which variables an expression may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// A client connects: there is no event and no data.
    Connect,
    /// A client sent an event.
    Event,
}

/// A compiled expression.
#[derive(Debug)]
pub(super) enum Expression {
    /// A path alone: its value's bytes survive.
    Path(Path),
    /// Anything else.
    Program(Program),
}

/// A CEL expression whose variables are slots: `data.a.b == 1` became `#0 == 1` with slot 0 holding the path. So CEL is
/// given the few values that it asks for and never the whole message, and a missing field is reported by its full path.
#[derive(Debug)]
pub(super) struct Program {
    ast: Ast,
    slots: Vec<Slot>,
    patterns: Patterns,
}

/// As `cel` keeps a function; it does not export the name.
type Function =
    Box<dyn for<'c, 'v> Fn(&mut FunctionContext<'c, 'v>) -> Result<CowVal<'c, 'v>, ExecutionError> + Send + Sync>;

/// The functions that hold the program's compiled patterns: pattern 0 of `matches` is the function `#0`.
struct Patterns(Option<Box<Context<'static, 'static>>>);

impl Patterns {
    fn new(patterns: Vec<Regex>) -> Patterns {
        if patterns.is_empty() {
            return Patterns(None);
        }
        let mut context = Context::with_env(Arc::clone(&ENV));
        for (i, pattern) in patterns.into_iter().enumerate() {
            let function: Function = Box::new(move |call: &mut FunctionContext<'_, '_>| match &call.this {
                Some(text) => match text.downcast_ref::<CelString>() {
                    Some(text) => Ok(CowVal::owned(CelBool::from(pattern.is_match(text.inner())))),
                    None => {
                        let types = vec![text.get_type().name().to_owned(), "string".to_owned()];
                        Err(ExecutionError::no_such_member_overload("matches", types))
                    }
                },
                None => Err(ExecutionError::missing_argument_or_target()),
            });
            context.add_function(&slot_name(i), function).expect("no overload can have this name");
        }
        Patterns(Some(Box::new(context)))
    }

    fn context(&self) -> &Context<'static, 'static> {
        self.0.as_deref().unwrap_or(&FUNCTIONS)
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Patterns").field(&self.0.is_some()).finish()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Slot {
    /// The value at the path.
    Value(Path),
    /// `has(path)`.
    Has(Path),
    /// `path == null`: of values that are too large to look at it can be told as well.
    IsNull(Path),
}

impl Expression {
    /// Parses `source`; names of variables and functions are checked here, so that only values can fail later.
    pub(super) fn compile(source: &str, moment: Moment) -> Result<Expression, Fault> {
        let parsed = ENV.parser().parse_with_source_info(&without_reserved(source));
        let (mut ast, positions) = parsed.map_err(|e| parse_fault(source, &e))?;
        let mut binder = Binder {
            moment,
            positions: &positions,
            slots: Vec::new(),
            patterns: Vec::new(),
            locals: Vec::new(),
            loops: Vec::new(),
        };
        binder.bind(&mut ast)?;
        let (slots, patterns) = (binder.slots, binder.patterns);
        Ok(match (&ast.expr, slots.as_slice()) {
            (Expr::Ident(name), [Slot::Value(path)]) if slot_index(name) == Some(0) => Expression::Path(path.clone()),
            _ => Expression::Program(Program { ast, slots, patterns: Patterns::new(patterns) }),
        })
    }

    /// True or false; any other value and any failure is an error that says why.
    pub(super) fn condition(&self, scope: Scope<'_>) -> Result<bool, String> {
        const NOT_BOOL: &str = "the condition is neither true nor false";
        match self {
            Expression::Path(path) => match find(path, scope)? {
                Found::Json(text) if text == "true" => Ok(true),
                Found::Json(text) if text == "false" => Ok(false),
                _ => Err(format!("{path} is neither true nor false")),
            },
            Expression::Program(program) => program.evaluate(scope, |value| {
                value.downcast_ref::<CelBool>().map(|b| *b.inner()).ok_or_else(|| NOT_BOOL.to_owned())
            }),
        }
    }

    /// Appends the value as JSON.
    pub(super) fn write_json(&self, scope: Scope<'_>, out: &mut String) -> Result<(), String> {
        match self {
            Expression::Path(path) => match find(path, scope)? {
                Found::Json(value) => out.push_str(&value),
                Found::Text(text) => json::escape_into(out, text),
            },
            Expression::Program(program) => program.evaluate(scope, |value| push_json(value, out))?,
        }
        Ok(())
    }

    /// Appends the value as a piece of a JSON string, escaped: a string's text, any other value's JSON.
    pub(super) fn write_text(&self, scope: Scope<'_>, out: &mut String) -> Result<(), String> {
        match self {
            Expression::Path(path) => match find(path, scope)? {
                // A JSON string's inside is already what the inside of the new one must be.
                Found::Json(value) if json::kind(&value) == json::Kind::String => {
                    out.push_str(&value[1..value.len() - 1]);
                }
                Found::Json(value) => push_escaped(&value, out),
                Found::Text(text) => push_escaped(text, out),
            },
            Expression::Program(program) => program.evaluate(scope, |value| {
                if let Some(text) = value.downcast_ref::<CelString>() {
                    push_escaped(text.inner(), out);
                    return Ok(());
                }
                let mut written = String::new();
                push_json(value, &mut written)?;
                push_escaped(&written, out);
                Ok(())
            })?,
        }
        Ok(())
    }

    /// Appends the value as a piece of a room's name: a string's characters, an integer's digits, `true` or `false`.
    /// Other values have no one spelling that a publisher could know, and fail.
    pub(super) fn write_room(&self, scope: Scope<'_>, out: &mut String) -> Result<(), String> {
        const WRONG_KIND: &str = "cannot stand in a room name; a string, an integer, true and false can";
        match self {
            Expression::Path(path) => match find(path, scope)? {
                Found::Text(text) => out.push_str(text),
                Found::Json(value) => match json::kind(&value) {
                    json::Kind::String => match json::unescape(&value) {
                        Some(text) => out.push_str(&text),
                        None => return Err(format!("{path} is not valid Unicode")),
                    },
                    json::Kind::Bool => out.push_str(&value),
                    json::Kind::Number if is_integer(&value) => out.push_str(&value),
                    json::Kind::Number => return Err(format!("{path} is not an integer; it {WRONG_KIND}")),
                    json::Kind::Null | json::Kind::Object | json::Kind::Array => {
                        return Err(format!("{path} {WRONG_KIND}"));
                    }
                },
            },
            Expression::Program(program) => program.evaluate(scope, |value| {
                if let Some(text) = value.downcast_ref::<CelString>() {
                    out.push_str(text.inner());
                } else if let Some(n) = value.downcast_ref::<CelInt>() {
                    out.push_str(&n.inner().to_string());
                } else if let Some(n) = value.downcast_ref::<CelUInt>() {
                    out.push_str(&n.inner().to_string());
                } else if let Some(b) = value.downcast_ref::<CelBool>() {
                    out.push_str(if *b.inner() { "true" } else { "false" });
                } else {
                    return Err(format!("a value of type {} {WRONG_KIND}", value.get_type().name()));
                }
                Ok(())
            })?,
        }
        Ok(())
    }
}

fn find<'a>(path: &Path, scope: Scope<'a>) -> Result<Found<'a>, String> {
    scope.find(path).ok_or_else(|| missing(path))
}

fn missing(path: &Path) -> String {
    format!("{path} is missing")
}

// ---- evaluation ----

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));
/// The functions; evaluations are child scopes of it, so that one costs no copy of them.
static FUNCTIONS: LazyLock<Context<'static, 'static>> = LazyLock::new(|| Context::with_env(Arc::clone(&ENV)));

impl Program {
    fn evaluate<T>(&self, scope: Scope<'_>, read: impl FnOnce(&dyn Val) -> Result<T, String>) -> Result<T, String> {
        let slots = Slots { program: self, scope, values: self.slots.iter().map(|_| OnceLock::new()).collect() };
        let mut context = self.patterns.context().new_inner_scope();
        context.set_variable_resolver(&slots);
        match Value::resolve_val(&self.ast, &context) {
            Ok(value) => read(&*value),
            Err(error) => Err(slots.explain(&error)),
        }
    }
}

type SlotValue<'a> = Result<Box<dyn Val + 'a>, String>;

/// The values of one evaluation, each converted when CEL first asks for it: a loop asks again and again.
struct Slots<'a> {
    program: &'a Program,
    scope: Scope<'a>,
    values: smallvec::SmallVec<[OnceLock<SlotValue<'a>>; 4]>,
}

impl<'a> Slots<'a> {
    fn value(&self, index: usize) -> Option<&SlotValue<'a>> {
        let slot = self.program.slots.get(index)?;
        Some(self.values.get(index)?.get_or_init(|| match slot {
            Slot::Value(path) => slot_value(path, self.scope),
            Slot::IsNull(path) => {
                let value = find(path, self.scope)?;
                let is_null = matches!(value, Found::Json(value) if json::kind(&value) == json::Kind::Null);
                Ok(Box::new(CelBool::from(is_null)))
            }
            Slot::Has(path) => match self.scope.has(path) {
                Some(has) => Ok(Box::new(CelBool::from(has))),
                None => Err(format!("{path} is missing, and so is the object that should hold it")),
            },
        }))
    }

    /// CEL knows a slot without a value as an undeclared name; the slot knows why it has none.
    fn explain(&self, error: &ExecutionError) -> String {
        if let ExecutionError::UndeclaredReference(name) = error
            && let Some(index) = slot_index(name)
            && let Some(Err(reason)) = self.value(index)
        {
            return reason.clone();
        }
        let mut text = words(error);
        if text.len() > ERROR_BYTES_MAX {
            text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
            text.push('…');
        }
        text
    }
}

/// What went wrong, for the client. The crate's own words quote values, and a client chooses what fails: of a map that
/// the rule looks a name up in, it would be told all others' entries by asking for a list.
fn words(error: &ExecutionError) -> String {
    use ExecutionError as E;
    let kind = |value: &Value| value.type_of().to_string();
    match error {
        E::InvalidArgumentCount { .. }
        | E::UnexpectedType { .. }
        | E::NoSuchKey(_)
        | E::NoSuchOverload(_)
        | E::UndeclaredReference(_)
        | E::MissingArgumentOrTarget
        | E::FunctionError { .. } => error.to_string(),
        E::NotSupportedAsMethod { method, target } => {
            format!("{method} is no function of a value of type {}", kind(target))
        }
        E::UnsupportedKeyType(key) => format!("a value of type {} cannot be a key", kind(key)),
        E::UnsupportedIndex(index, value) => {
            format!("a value of type {} has nothing at an index of type {}", kind(value), kind(index))
        }
        E::ValuesNotComparable(a, b) => format!("values of type {} and {} cannot be compared", kind(a), kind(b)),
        E::UnsupportedBinaryOperator(operator, a, b) => {
            format!("the operator {operator} does not take values of type {} and {}", kind(a), kind(b))
        }
        E::DivisionByZero(_) | E::RemainderByZero(_) => "division by zero".to_owned(),
        E::Overflow(operator, ..) => format!("the result of the operator {operator} is out of range"),
        E::IndexOutOfBounds(_) => "the index is out of bounds".to_owned(),
        E::DuplicateKey(_) => "a map has a key twice".to_owned(),
        _ => "a value is of a type that is not taken here".to_owned(),
    }
}

impl VariableResolver for Slots<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        match self.value(slot_index(variable)?)? {
            Ok(value) => Some(CowVal::Borrowed(value.as_ref())),
            Err(_) => None,
        }
    }
}

fn slot_name(index: usize) -> String {
    format!("#{index}")
}

/// CEL source cannot spell such a name, so it never hides one of the operator's.
fn slot_index(name: &str) -> Option<usize> {
    name.strip_prefix('#')?.parse().ok()
}

fn slot_value<'a>(path: &Path, scope: Scope<'a>) -> SlotValue<'a> {
    let mut budget = Budget { bytes: LOOK_BYTES_MAX, values: VALUES_MAX };
    let value = match (path.root, path.steps.is_empty()) {
        // The values that are not one run of JSON text.
        (Root::Args, true) => {
            let items: Option<Vec<_>> = scope.facts.args.iter().map(|arg| budget.value(arg)).collect();
            items.map(|items| Box::new(CelList::from(items)) as Box<dyn Val + 'a>)
        }
        (root, true) if root.is_texts() => {
            let pairs = scope.texts(root);
            let map: Option<HashMap<_, _>> =
                pairs.map(|(name, value)| Some((key(name), budget.text(value)?))).collect();
            map.map(|map| Box::new(CelMap::from(map)) as Box<dyn Val + 'a>)
        }
        _ => match find(path, scope)? {
            Found::Text(text) => budget.text(text),
            Found::Json(Cow::Borrowed(text)) => budget.value(text),
            Found::Json(Cow::Owned(_)) => unreachable!("only whole args, query and captures are put together"),
        },
    };
    value.ok_or_else(|| {
        format!(
            "{path} is not valid Unicode, or too large for a condition ({LOOK_BYTES_MAX} bytes, {VALUES_MAX} values)"
        )
    })
}

/// What a conversion may still take in.
struct Budget {
    bytes: usize,
    values: usize,
}

impl Budget {
    /// The JSON value as CEL's. Integers that fit are int, then uint; other numbers are double. `None` when the budget
    /// is used up or a string is not Unicode. Recursion is as deep as the JSON, whose depth `proto::json` bounds.
    fn value<'a>(&mut self, text: &'a str) -> Option<Box<dyn Val + 'a>> {
        if text.len() > self.bytes {
            return None;
        }
        self.values = self.values.checked_sub(1)?;
        Some(match json::kind(text) {
            json::Kind::Null => Box::new(CelNull),
            json::Kind::Bool => Box::new(CelBool::from(text == "true")),
            json::Kind::Number => match (text.parse::<i64>(), text.parse::<u64>()) {
                (Ok(n), _) => Box::new(CelInt::from(n)),
                (_, Ok(n)) => Box::new(CelUInt::from(n)),
                _ => Box::new(CelDouble::from(text.parse::<f64>().ok()?)),
            },
            json::Kind::String => {
                self.bytes -= text.len();
                Box::new(CelString::from(json::unescape(text)?))
            }
            json::Kind::Array => {
                let items: Option<Vec<_>> = json::elements(text).map(|item| self.value(item)).collect();
                Box::new(CelList::from(items?))
            }
            json::Kind::Object => {
                // Of two members of one name the later replaces the earlier, as everywhere in the rules.
                let members: Option<HashMap<_, _>> = json::members(text)
                    .map(|(name, value)| {
                        self.bytes = self.bytes.checked_sub(name.len())?;
                        Some((key(json::unescape(name)?), self.value(value)?))
                    })
                    .collect();
                Box::new(CelMap::from(members?))
            }
        })
    }

    fn text<'a>(&mut self, text: &'a str) -> Option<Box<dyn Val + 'a>> {
        self.bytes = self.bytes.checked_sub(text.len())?;
        self.values = self.values.checked_sub(1)?;
        Some(Box::new(CelString::from(text)))
    }
}

fn key<'a>(name: impl Into<CelString<'a>>) -> CelMapKey<'a> {
    CelMapKey::String(name.into())
}

fn is_integer(number: &str) -> bool {
    !number.bytes().any(|b| matches!(b, b'.' | b'e' | b'E'))
}

/// Appends `text` as it must stand between the quotes of a JSON string.
pub(super) fn push_escaped(text: &str, out: &mut String) {
    let start = out.len();
    json::escape_into(out, text);
    out.pop();
    out.remove(start);
}

/// Appends a CEL value as JSON; maps with their keys sorted, as CEL's own order changes from run to run.
fn push_json(value: &dyn Val, out: &mut String) -> Result<(), String> {
    if value.downcast_ref::<CelNull>().is_some() {
        out.push_str("null");
    } else if let Some(b) = value.downcast_ref::<CelBool>() {
        out.push_str(if *b.inner() { "true" } else { "false" });
    } else if let Some(n) = value.downcast_ref::<CelInt>() {
        out.push_str(&n.inner().to_string());
    } else if let Some(n) = value.downcast_ref::<CelUInt>() {
        out.push_str(&n.inner().to_string());
    } else if let Some(n) = value.downcast_ref::<CelDouble>() {
        if !n.inner().is_finite() {
            return Err(format!("{} has no JSON form", n.inner()));
        }
        // Debug, not Display: it writes 1e300 and 1.0 short and as floats.
        write!(out, "{:?}", n.inner()).map_err(|error| error.to_string())?;
    } else if let Some(text) = value.downcast_ref::<CelString>() {
        json::escape_into(out, text.inner());
    } else if let Some(list) = value.downcast_ref::<CelList>() {
        out.push('[');
        for (i, item) in list.inner().iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            push_json(&**item, out)?;
        }
        out.push(']');
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        let mut members = Vec::with_capacity(map.inner().len());
        for (key, value) in map.inner() {
            let CelMapKey::String(key) = key else { return Err("a JSON object's keys are strings".to_owned()) };
            members.push((key.inner(), value));
        }
        members.sort_unstable_by_key(|(key, _)| *key);
        out.push('{');
        for (i, (key, value)) in members.into_iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            json::escape_into(out, key);
            out.push(':');
            push_json(&**value, out)?;
        }
        out.push('}');
    } else if let Some(present) = value.downcast_ref::<CelOptional>() {
        match present.option() {
            Some(value) => push_json(value, out)?,
            None => return Err("the optional value is absent; give it one with orValue".to_owned()),
        }
    } else {
        return Err(format!("a value of type {} has no JSON form", value.get_type().name()));
    }
    Ok(())
}

// ---- compilation ----

const GLOBAL_FUNCTIONS: [&str; 10] =
    ["size", "matches", "int", "uint", "double", "bool", "string", "bytes", "dyn", "type"];
const MEMBER_FUNCTIONS: [&str; 9] =
    ["contains", "startsWith", "endsWith", "matches", "size", "hasValue", "value", "or", "orValue"];
const OPTIONAL_FUNCTIONS: [&str; 3] = ["of", "none", "ofNonZeroValue"];
const TYPES: [&str; 11] =
    ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type", "optional_type"];

const NAMESPACE: &str = "namespace";
const NAMESPACE_SHOWN: &str = "namespac_";
const _: () = assert!(NAMESPACE.len() == NAMESPACE_SHOWN.len());

/// Replaces every path by a slot and checks every name on the way.
struct Binder<'s> {
    moment: Moment,
    positions: &'s SourceInfo,
    slots: Vec<Slot>,
    patterns: Vec<Regex>,
    /// Variables of the macros around the present place.
    locals: Vec<String>,
    /// Element variables of the macros around it that go over a client's values, innermost last.
    loops: Vec<String>,
}

impl Binder<'_> {
    fn bind(&mut self, ast: &mut Ast) -> Result<(), Fault> {
        if let Some(path) = self.path(ast)? {
            ast.expr = self.slot(Slot::Value(path));
            return Ok(());
        }
        let id = ast.id;
        match &mut ast.expr {
            Expr::Literal(_) | Expr::Unspecified => Ok(()),
            Expr::Ident(name) if self.locals.contains(name) || TYPES.contains(&name.as_str()) => Ok(()),
            Expr::Ident(name) if name == "snapshot" => {
                let message = "snapshot can only stand alone, as in \"{snapshot}\", in reply and ack";
                Err(self.fault(id, message.to_owned()))
            }
            Expr::Ident(name) => Err(self.fault(id, format!("unknown variable {name}"))),
            Expr::Select(select) if select.test => match self.path(&select.operand)? {
                Some(mut path) => {
                    path.steps.push(Step::Key(select.field.as_str().into()));
                    ast.expr = self.slot(Slot::Has(path));
                    Ok(())
                }
                None => self.bind(&mut select.operand),
            },
            Expr::Select(select) => self.bind(&mut select.operand),
            Expr::List(list) => list.elements.iter_mut().try_for_each(|element| self.bind(element)),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => self.bind(&mut entry.key).and_then(|()| self.bind(&mut entry.value)),
                EntryExpr::StructField(_) => Err(self.fault(id, "messages have no place in rules")),
            }),
            Expr::Struct(_) => Err(self.fault(id, "messages have no place in rules")),
            Expr::Call(call) if let Some(path) = self.compared_with_null(call)? => {
                let is_null = self.slot(Slot::IsNull(path));
                if call.func_name == operators::EQUALS {
                    ast.expr = is_null;
                } else {
                    call.func_name = operators::LOGICAL_NOT.to_owned();
                    call.args = vec![Ast { expr: is_null, ..call.args.swap_remove(0) }];
                }
                Ok(())
            }
            Expr::Call(call) => {
                let is_optional_library = call.target.as_ref().is_some_and(|target| {
                    matches!(&target.expr, Expr::Ident(name) if name == "optional") && !self.is_local("optional")
                });
                let name = call.func_name.as_str();
                let known = match &call.target {
                    Some(_) if is_optional_library => OPTIONAL_FUNCTIONS.contains(&name),
                    Some(_) => MEMBER_FUNCTIONS.contains(&name),
                    None => GLOBAL_FUNCTIONS.contains(&name) || !is_identifier(name),
                };
                if !known {
                    return Err(self.fault(id, format!("unknown function {name}")));
                }
                if name == "matches" {
                    self.take_pattern(id, call)?;
                }
                if let Some(target) = &mut call.target
                    && !is_optional_library
                {
                    self.bind(target)?;
                }
                call.args.iter_mut().try_for_each(|arg| self.bind(arg))
            }
            Expr::Comprehension(macro_) => {
                let is_bounded = matches!(macro_.iter_range.expr, Expr::List(_) | Expr::Map(_));
                if let Some(element) = self.loops.last()
                    && !is_bounded
                    && !is_inside(&macro_.iter_range, element)
                {
                    let message = format!("a macro within a macro can only go over a part of {element}");
                    return Err(self.fault(id, message));
                }
                self.bind(&mut macro_.iter_range)?;
                self.bind(&mut macro_.accu_init)?;
                let (locals, loops) = (self.locals.len(), self.loops.len());
                self.locals.extend([macro_.iter_var.clone(), macro_.accu_var.clone()]);
                self.locals.extend(macro_.iter_var2.clone());
                if !is_bounded {
                    self.loops.push(macro_.iter_var.clone());
                }
                self.bind(&mut macro_.loop_cond)?;
                self.bind(&mut macro_.loop_step)?;
                self.bind(&mut macro_.result)?;
                self.locals.truncate(locals);
                self.loops.truncate(loops);
                Ok(())
            }
        }
    }

    /// The path that `ast` spells, if it is one: a variable, then `.name`, `["name"]` and `[0]`.
    fn path(&self, ast: &Ast) -> Result<Option<Path>, Fault> {
        let (operand, step) = match &ast.expr {
            Expr::Ident(name) => {
                if self.is_local(name) {
                    return Ok(None);
                }
                // CEL writes a name that no macro's variable hides with a dot before it.
                let name = name.strip_prefix('.').unwrap_or(name);
                let root = Root::from_name(if name == NAMESPACE_SHOWN { NAMESPACE } else { name });
                return match root {
                    Some(root) if root.is_of_an_event() && self.moment == Moment::Connect => {
                        Err(self.fault(ast.id, format!("{name} is not known on connecting, only in an event's rule")))
                    }
                    root => Ok(root.map(|root| Path { root, steps: Vec::new() })),
                };
            }
            Expr::Select(select) if !select.test => (&*select.operand, Step::Key(select.field.as_str().into())),
            Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
                [operand, index] => match &index.expr {
                    Expr::Literal(LiteralValue::String(key)) => (operand, Step::Key(key.inner().into())),
                    Expr::Literal(LiteralValue::Int(n)) if *n.inner() >= 0 => {
                        (operand, Step::Index(usize::try_from(*n.inner()).unwrap_or(usize::MAX)))
                    }
                    _ => return Ok(None),
                },
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(self.path(operand)?.map(|mut path| {
            path.steps.push(step);
            path
        }))
    }

    /// The path in `path == null`, `path != null` and their mirror images.
    fn compared_with_null(&self, call: &CallExpr) -> Result<Option<Path>, Fault> {
        let is_null = |ast: &Ast| matches!(ast.expr, Expr::Literal(LiteralValue::Null));
        match call.args.as_slice() {
            [path, null] | [null, path]
                if matches!(call.func_name.as_str(), operators::EQUALS | operators::NOT_EQUALS)
                    && is_null(null)
                    && !is_null(path) =>
            {
                self.path(path)
            }
            _ => Ok(None),
        }
    }

    fn slot(&mut self, slot: Slot) -> Expr {
        let index = self.slots.iter().position(|known| *known == slot).unwrap_or_else(|| {
            self.slots.push(slot);
            self.slots.len() - 1
        });
        Expr::Ident(slot_name(index))
    }

    fn is_local(&self, name: &str) -> bool {
        self.locals.iter().any(|local| local == name)
    }

    /// Compiles the pattern of `text.matches("pattern")` or `matches(text, "pattern")` and makes the call one of a
    /// function that holds it: CEL's own compiles it at each call, 15 µs to 3 ms. It must be written in the rule; one
    /// from a client could take long.
    fn take_pattern(&mut self, id: u64, call: &mut CallExpr) -> Result<(), Fault> {
        if call.target.is_none() && call.args.len() == 2 {
            call.target = Some(Box::new(call.args.remove(0)));
        }
        let [Ast { expr: Expr::Literal(LiteralValue::String(pattern)), .. }] = call.args.as_slice() else {
            return Err(self.fault(id, "the pattern of matches must be a string written here"));
        };
        let pattern = Regex::new(pattern.inner()).map_err(|error| self.fault(id, error.to_string()))?;
        call.func_name = slot_name(self.patterns.len());
        call.args.clear();
        self.patterns.push(pattern);
        Ok(())
    }

    fn fault(&self, id: u64, message: impl Into<String>) -> Fault {
        Fault::new(self.positions.offset_for(id).map_or(0, |(start, _)| start as usize), message)
    }
}

/// The variable `namespace` is a word that CEL reserves, for nothing; the parser is shown another one of the same
/// length, so that all positions stay. As a field, `data.namespace`, the word is free.
fn without_reserved(source: &str) -> Cow<'_, str> {
    let mut shown = Cow::Borrowed(source);
    for (at, _) in code(source, 0) {
        let (before, after) = source.as_bytes().split_at(at);
        let Some(after) = after.strip_prefix(NAMESPACE.as_bytes()) else { continue };
        let is_whole = !before.last().is_some_and(|b| is_word(*b)) && !after.first().is_some_and(|b| is_word(*b));
        let operator = before.trim_ascii_end();
        if is_whole && !operator.ends_with(b".") && !operator.ends_with(b".?") {
            shown.to_mut().replace_range(at..at + NAMESPACE.len(), NAMESPACE_SHOWN);
        }
    }
    shown
}

/// Operators are functions with names such as `_&&_` and `@in`.
fn is_identifier(name: &str) -> bool {
    !name.starts_with('_') && name.bytes().all(is_word)
}

/// True for `element`, `element.a`, `element.a[i]`: going over all of them is going over the whole once.
fn is_inside(ast: &Ast, element: &str) -> bool {
    match &ast.expr {
        Expr::Ident(name) => name == element,
        Expr::Select(select) => !select.test && is_inside(&select.operand, element),
        Expr::Call(call) if call.func_name == operators::INDEX => {
            call.args.first().is_some_and(|operand| is_inside(operand, element))
        }
        _ => false,
    }
}

/// The first error of the parser, at its byte, without the list of all tokens that could have stood there.
fn parse_fault(source: &str, errors: &cel::ParseErrors) -> Fault {
    let Some(first) = errors.errors.first() else { return Fault::new(0, "not an expression") };
    let line = usize::try_from(first.pos.0).unwrap_or(1).max(1) - 1;
    let column = usize::try_from(first.pos.1).unwrap_or(1).max(1) - 1;
    let line_start: usize = source.split_inclusive('\n').take(line).map(str::len).sum();
    let in_line = &source[line_start..];
    let at = line_start + in_line.char_indices().nth(column).map_or(in_line.len(), |(at, _)| at);
    let message = first.msg.split(" expecting {").next().unwrap_or_default();
    let message = if message.contains("'<EOF>'") { "the expression ends too early" } else { message };
    Fault::new(at, message.trim_start_matches("Syntax error: "))
}
