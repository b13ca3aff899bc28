//! The rule language: what a client's connecting or message leads to, as pure values. Compiled once from the config,
//! evaluated per message. Knows no socket, no room table and no wire format; whoever calls applies the outcome.
//!
//! Expressions are CEL (<https://cel.dev>) over `data` (the first argument), `args`, `event`, `query`, `auth`,
//! `claims`, `state`, `sid`, `ip`, `namespace` and `captures`. Values that a rule only passes on, `"{data.a.b}"`, keep
//! their bytes.

mod expression;
mod facts;
mod scan;
mod source;
mod template;

use std::collections::HashMap;
use std::fmt;

use crate::base::counters::limits;
use crate::proto::json;
use crate::proto::line::KEY_BYTES_MAX;
use expression::{Expression, Fault, Moment};
use facts::Scope;
pub use facts::{Facts, State};
pub use source::{
    ArgsSource, Condition, ConnectRule, EmitSource, ErrorSource, EventRule, ReplySource, RoomsSource, RulesSource,
    SlowConsumerSource, SnapshotSource, SnapshotWish, UnknownEvents,
};
pub use template::put_snapshots;
use template::{LeavePattern, Template, Text, quoted, write_joined};

/// The compiled rules of one namespace. `Send + Sync`: every core may read the same copy.
#[derive(Debug)]
pub struct NamespaceRules {
    connect: Vec<Rule>,
    events: HashMap<Box<str>, Vec<Rule>>,
    unknown_events: UnknownEvents,
}

const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<NamespaceRules>();
};

/// What follows from the rules that were taken, all of them together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// To apply in this order. A room is joined at most once, behind whatever leaves it. Names are not checked against
    /// any bound.
    pub rooms: Vec<RoomStep>,
    /// The socket's new state; `None` if it stays as it is.
    pub state: Option<State>,
    /// Events for this client, in order.
    pub replies: Vec<Reply>,
    /// The acknowledgement's arguments, if a rule names them.
    pub ack: Option<Args>,
    /// Rooms, among those joined, whose kept events follow the replies.
    pub snapshots: Vec<String>,
    /// Rooms whose kept values [`put_snapshots`] puts into replies and acknowledgement, by number.
    pub values: Vec<String>,
    /// Events for rooms, in order, once the socket is in those that it joins.
    pub emits: Vec<Emit>,
    /// True: the socket is to be disconnected after the replies.
    pub disconnect: bool,
}

impl Outcome {
    /// The names of the rooms to join, each once.
    pub fn joins(&self) -> impl Iterator<Item = &str> {
        self.rooms.iter().filter_map(|step| match step {
            RoomStep::Join(room) => Some(room.as_str()),
            RoomStep::Leave(_) | RoomStep::LeavePrefix(_) => None,
        })
    }

    /// True if a socket that is in this room is not in it afterwards.
    #[must_use]
    pub fn leaves(&self, room: &str) -> bool {
        self.rooms.iter().any(|step| step.leaves(room)) && !self.joins().any(|joined| joined == room)
    }
}

/// An event that a client causes for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emit {
    /// The rooms that get it, unchecked; `None` for the whole namespace.
    pub rooms: Option<Vec<String>>,
    /// The event.
    pub event: Reply,
    /// What it is about.
    pub key: Option<String>,
    /// Whether the client gets it too.
    pub to_self: bool,
    /// Whoever cannot take it at once does not get it.
    pub volatile: bool,
}

impl Emit {
    /// Refuses a key that no publisher could say.
    ///
    /// # Errors
    /// It is empty or longer than [`KEY_BYTES_MAX`].
    pub fn check_key(&self) -> Result<(), Refusal> {
        match self.key.as_ref().map(String::len) {
            None | Some(1..=KEY_BYTES_MAX) => Ok(()),
            Some(bytes) => {
                Err(Refusal::new(format!("the event's key has {bytes} bytes; it needs 1 to {KEY_BYTES_MAX}")))
            }
        }
    }
}

/// One change of a socket's rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomStep {
    /// Leave this room, if the socket is in it.
    Leave(String),
    /// Leave all rooms whose names begin so; the empty prefix means all rooms that were joined by rules.
    LeavePrefix(String),
    /// Join this room.
    Join(String),
}

impl RoomStep {
    /// True if it takes a socket out of the room of this name.
    #[must_use]
    pub fn leaves(&self, room: &str) -> bool {
        match self {
            RoomStep::Leave(name) => room == name,
            RoomStep::LeavePrefix(prefix) => room.starts_with(prefix.as_str()),
            RoomStep::Join(_) => false,
        }
    }
}

/// An event's name and arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The name as a JSON string, with quotes.
    pub name_json: String,
    /// The arguments as JSON values joined by commas, without brackets.
    pub args_json: String,
    /// How many they are.
    pub arg_count: usize,
}

/// Arguments of an acknowledgement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// JSON values joined by commas, without brackets.
    pub json: String,
    /// How many they are.
    pub count: usize,
}

/// Why nothing of a message, or a connection, was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For the client: it names fields and reasons, never the text of a rule; or what the rule wants to be said.
    pub reason: String,
    /// What the rule wants to be said besides, as JSON.
    pub data_json: Option<Box<str>>,
    /// True if the two above are the rule's own words.
    pub own_words: bool,
    /// For the log: the position of the refusing rule among the namespace's `connect` or `on` rules; `None` if none was
    /// taken.
    pub rule: Option<usize>,
    /// The reason to be counted, if not a rule has refused but a limit.
    pub limit: Option<&'static str>,
}

impl Refusal {
    /// A refusal for a reason of ours.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Refusal {
        Refusal { reason: reason.into(), data_json: None, own_words: false, rule: None, limit: None }
    }

    /// A refusal by a limit, which is counted as `limit`.
    #[must_use]
    pub fn by(limit: &'static str, reason: impl Into<String>) -> Refusal {
        Refusal { limit: Some(limit), ..Refusal::new(reason) }
    }

    /// The socket would be in `after` rooms, which are more than `max`.
    #[must_use]
    pub fn too_many_rooms(after: usize, max: usize) -> Refusal {
        Refusal::by(limits::ROOMS_PER_SOCKET, format!("this would make {after} rooms; a socket can be in {max}"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// An expression or template that does not compile: the operator's mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The namespace's name or pattern.
    pub namespace: Box<str>,
    /// The event that the rule is for; `None` for a `connect` rule.
    pub event: Option<Box<str>>,
    /// Where the string stands below the namespace's table, as in `["on", 2, "join", 0]`. A single reply table counts
    /// as the array of it: `["on", 2, "reply", 0, "data"]`.
    pub key: Vec<PathStep>,
    /// The whole string.
    pub text: Box<str>,
    /// The byte in `text` where the trouble begins.
    pub at: usize,
    /// What is wrong.
    pub message: Box<str>,
}

/// One step into a TOML document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathStep {
    /// A key of a table.
    Key(String),
    /// A position in an array, from 0.
    Index(usize),
}

/// `namespace "/seats", on[2] "subscribe_route", key join[0]: "route:{dta.id}", at character 8: unknown variable dta`
impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "namespace {:?}, ", self.namespace)?;
        let (rule, key) = self.key.split_at(self.key.len().min(2));
        write_steps(rule, f)?;
        if let Some(event) = &self.event {
            write!(f, " {event:?}")?;
        }
        f.write_str(", key ")?;
        write_steps(key, f)?;
        let character = self.text.get(..self.at).unwrap_or_default().chars().count() + 1;
        write!(f, ": {:?}, at character {character}: {}", self.text, self.message)
    }
}

impl std::error::Error for RuleError {}

fn write_steps(steps: &[PathStep], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    steps.iter().enumerate().try_for_each(|(i, step)| match step {
        PathStep::Key(key) if i == 0 => f.write_str(key),
        PathStep::Key(key) => write!(f, ".{key}"),
        PathStep::Index(index) => write!(f, "[{index}]"),
    })
}

/// What a message gets that no rule takes.
const NO_RULE: &str = "no rule allows this";

impl NamespaceRules {
    /// Compiles every expression of `source`.
    ///
    /// # Errors
    /// The first string that does not compile.
    pub fn compile(source: &RulesSource) -> Result<NamespaceRules, RuleError> {
        let connect = source.connect.iter().enumerate().map(|(index, rule)| {
            let compiler = Compiler { namespace: source.title(), moment: Moment::Connect };
            compiler.rule(index, &rule.to_event_rule())
        });
        let connect = connect.collect::<Result<_, _>>()?;
        let mut events: HashMap<Box<str>, Vec<Rule>> = HashMap::new();
        for (index, rule) in source.on.iter().enumerate() {
            let compiler = Compiler { namespace: source.title(), moment: Moment::Event };
            events.entry(rule.event.as_str().into()).or_default().push(compiler.rule(index, rule)?);
        }
        Ok(NamespaceRules { connect, events, unknown_events: source.unknown_events })
    }

    /// True if some rule is for the event, whether or not it would be taken.
    #[must_use]
    pub fn is_known(&self, event: &str) -> bool {
        self.events.contains_key(event)
    }

    /// What becomes of events that are not known.
    #[must_use]
    pub fn unknown_events(&self) -> UnknownEvents {
        self.unknown_events
    }

    /// What happens to a client that connects. Without rules: nothing, and it may.
    ///
    /// # Errors
    /// The first rule, of those whose `when` holds, that does not allow it or fails.
    pub fn on_connect(&self, facts: &Facts<'_>) -> Result<Outcome, Refusal> {
        take(&self.connect, "connect", facts).map(|(outcome, _)| outcome)
    }

    /// What happens when a client sends `event` with the arguments in `facts`.
    ///
    /// # Errors
    /// The first rule, of those for the event whose `when` holds, that does not allow it or fails; also if there is
    /// none.
    pub fn on_event(&self, event: &str, facts: &Facts<'_>) -> Result<Outcome, Refusal> {
        let rules = self.events.get(event).map_or(&[][..], Vec::as_slice);
        match take(rules, event, facts)? {
            (_, 0) => Err(Refusal::new(NO_RULE)),
            (outcome, _) => Ok(outcome),
        }
    }
}

/// Takes the rules whose `when` holds, one after the other; returns what follows and how many they were.
fn take(rules: &[Rule], event: &str, facts: &Facts<'_>) -> Result<(Outcome, usize), Refusal> {
    let mut outcome = Outcome::default();
    let mut taken = 0;
    for rule in rules {
        let state = outcome.state.take();
        let scope = Scope { facts, event, state: state.as_ref().unwrap_or(facts.state), snapshot: None };
        let mut changed = None;
        // An error is false: "has(data.a.b)" of a message without "a" simply is not this rule's case.
        if rule.when.as_ref().is_none_or(|when| when.holds(scope).unwrap_or(false)) {
            taken += 1;
            changed =
                rule.apply(scope, &mut outcome).map_err(|refusal| Refusal { rule: Some(rule.index), ..refusal })?;
        }
        outcome.state = changed.or(state);
    }
    Ok((outcome, taken))
}

#[derive(Debug)]
struct Rule {
    /// Position in the file, among the rules of its kind.
    index: usize,
    when: Option<Test>,
    allow: Option<Test>,
    error: Option<ErrorTemplate>,
    /// Names as JSON strings.
    set: Vec<(String, Template)>,
    leave: Vec<LeavePattern>,
    join: Vec<Text>,
    snapshot: Option<Snapshot>,
    replies: Vec<ReplyTemplate>,
    ack: Option<ArgsTemplate>,
    emits: Vec<EmitTemplate>,
    disconnect: bool,
}

#[derive(Debug)]
enum Snapshot {
    /// Of the rooms joined, event by event.
    OfJoined,
    /// Of this room, in replies and acknowledgement.
    OfRoom(Text),
}

#[derive(Debug)]
struct EmitTemplate {
    rooms: Option<Vec<Text>>,
    event: ReplyTemplate,
    key: Option<Text>,
    to_self: bool,
    volatile: bool,
}

#[derive(Debug)]
enum Test {
    Fixed(bool),
    Expression(Expression),
}

#[derive(Debug)]
struct ErrorTemplate {
    message: Text,
    data: Option<Template>,
}

impl ErrorTemplate {
    fn evaluate(&self, scope: Scope<'_>) -> Result<Refusal, String> {
        let mut message = String::new();
        self.message.write_string(scope, &mut message)?;
        let message = json::unescape(&message).ok_or("the message is not valid Unicode")?.into_owned();
        let data_json = match &self.data {
            None => None,
            Some(data) => {
                let mut text = String::new();
                data.write(scope, &mut text)?;
                Some(text.into())
            }
        };
        Ok(Refusal { data_json, own_words: true, ..Refusal::new(message) })
    }
}

#[derive(Debug)]
struct ReplyTemplate {
    name: Text,
    args: ArgsTemplate,
}

#[derive(Debug)]
enum ArgsTemplate {
    AsTheyCame,
    Args(Vec<Template>),
}

impl ReplyTemplate {
    fn evaluate(&self, scope: Scope<'_>) -> Result<Reply, String> {
        let mut name_json = String::new();
        self.name.write_string(scope, &mut name_json)?;
        let Args { json, count } = self.args.evaluate(scope)?;
        Ok(Reply { name_json, args_json: json, arg_count: count })
    }
}

impl EmitTemplate {
    fn evaluate(&self, scope: Scope<'_>) -> Result<Emit, String> {
        let rooms = self.rooms.as_ref().map(|rooms| rooms.iter().map(|room| room.room(scope)).collect());
        Ok(Emit {
            rooms: rooms.transpose()?,
            event: self.event.evaluate(scope)?,
            key: self.key.as_ref().map(|key| key.room(scope)).transpose()?,
            to_self: self.to_self,
            volatile: self.volatile,
        })
    }
}

impl ArgsTemplate {
    fn has_snapshot(&self) -> bool {
        match self {
            ArgsTemplate::AsTheyCame => false,
            ArgsTemplate::Args(args) => args.iter().any(Template::has_snapshot),
        }
    }

    fn evaluate(&self, scope: Scope<'_>) -> Result<Args, String> {
        match self {
            ArgsTemplate::AsTheyCame => Ok(Args { json: scope.facts.args.join(","), count: scope.facts.args.len() }),
            ArgsTemplate::Args(args) => {
                let mut json = String::new();
                write_joined(args, scope, &mut json)?;
                Ok(Args { json, count: args.len() })
            }
        }
    }
}

impl Test {
    fn holds(&self, scope: Scope<'_>) -> Result<bool, String> {
        match self {
            Test::Fixed(fixed) => Ok(*fixed),
            Test::Expression(expression) => expression.condition(scope),
        }
    }
}

impl Rule {
    /// Adds to `outcome` what follows from this rule; returns the new state if it sets any. On an error `outcome` is
    /// void.
    fn apply(&self, scope: Scope<'_>, outcome: &mut Outcome) -> Result<Option<State>, Refusal> {
        let allowed = match self.allow.as_ref().map(|allow| allow.holds(scope)) {
            None | Some(Ok(true)) => Ok(()),
            Some(Ok(false)) => Err("not allowed".to_owned()),
            Some(Err(reason)) => Err(reason),
        };
        if let Err(reason) = allowed {
            // What cannot be said, as it names a missing field, gives way to our own reason.
            let own_words = self.error.as_ref().and_then(|error| error.evaluate(scope).ok());
            return Err(own_words.unwrap_or_else(|| Refusal::new(reason)));
        }
        self.follow(scope, outcome).map_err(Refusal::new)
    }

    /// A snapshot can only stand where it is put in later, and only if the rule names its room.
    fn check_snapshots(&self, path: &mut KeyPath) -> Result<(), Fault> {
        let of_room = matches!(self.snapshot, Some(Snapshot::OfRoom(_)));
        let has = |args: &ArgsTemplate| args.has_snapshot();
        let error = self.error.as_ref().and_then(|error| error.data.as_ref()).is_some_and(Template::has_snapshot);
        for (key, is_wrong) in [
            ("set", self.set.iter().any(|(_, value)| value.has_snapshot())),
            ("error", error),
            ("emit", self.emits.iter().any(|emit| has(&emit.event.args))),
            ("reply", !of_room && self.replies.iter().any(|reply| has(&reply.args))),
            ("ack", !of_room && self.ack.as_ref().is_some_and(has)),
        ] {
            if is_wrong {
                let message = "{snapshot} stands in reply and ack only, in a rule that names its room, as in \
                    snapshot = \"route:{data.routeId}\"";
                return path.within(PathStep::Key(key.to_owned()), |_| Err(Fault::new(0, message).of("{snapshot}")));
            }
        }
        Ok(())
    }

    /// What follows once the message is allowed.
    fn follow(&self, scope: Scope<'_>, outcome: &mut Outcome) -> Result<Option<State>, String> {
        for pattern in &self.leave {
            let name = pattern.name.room(scope)?;
            let leave = if pattern.is_prefix { RoomStep::LeavePrefix(name) } else { RoomStep::Leave(name) };
            add_step(&mut outcome.rooms, leave);
        }
        for join in &self.join {
            let room = join.room(scope)?;
            if matches!(self.snapshot, Some(Snapshot::OfJoined)) && !outcome.snapshots.contains(&room) {
                outcome.snapshots.push(room.clone());
            }
            add_step(&mut outcome.rooms, RoomStep::Join(room));
        }
        let mut scope = scope;
        if let Some(Snapshot::OfRoom(room)) = &self.snapshot {
            outcome.values.push(room.room(scope)?);
            scope.snapshot = Some(outcome.values.len() - 1);
        }
        for reply in &self.replies {
            outcome.replies.push(reply.evaluate(scope)?);
        }
        for emit in &self.emits {
            outcome.emits.push(emit.evaluate(scope)?);
        }
        if let Some(ack) = &self.ack {
            outcome.ack = Some(ack.evaluate(scope)?);
        }
        outcome.disconnect |= self.disconnect;
        self.changed_state(scope)
    }

    fn changed_state(&self, scope: Scope<'_>) -> Result<Option<State>, String> {
        if self.set.is_empty() {
            return Ok(None);
        }
        let mut changes = Vec::with_capacity(self.set.len());
        for (name, value) in &self.set {
            let mut value_json = String::new();
            value.write(scope, &mut value_json)?;
            changes.push((name.as_str(), value_json));
        }
        match scope.state.with(&changes) {
            Some(state) => Ok(Some(state)),
            None => Err(format!("the values to keep for this socket exceed {} bytes", State::BYTES_MAX)),
        }
    }
}

/// Appends `step`, unless it is there already; a leave takes back the joins before it that it matches.
fn add_step(steps: &mut Vec<RoomStep>, step: RoomStep) {
    steps.retain(|earlier| !matches!(earlier, RoomStep::Join(room) if step.leaves(room)));
    if !steps.contains(&step) {
        steps.push(step);
    }
}

struct Compiler<'a> {
    namespace: &'a str,
    moment: Moment,
}

/// The place of the string being compiled.
#[derive(Debug, Default)]
struct KeyPath(Vec<PathStep>);

impl KeyPath {
    /// Runs `compile` one step further in. On an error the steps stay, so that the path names the culprit.
    fn within<T>(
        &mut self,
        step: PathStep,
        compile: impl FnOnce(&mut KeyPath) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.0.push(step);
        let result = compile(self)?;
        self.0.pop();
        Ok(result)
    }

    /// Compiles each item below `key`.
    fn each<S, T>(
        &mut self,
        key: &str,
        items: &[S],
        mut compile: impl FnMut(&S, &mut KeyPath) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        self.within(PathStep::Key(key.to_owned()), |path| {
            let items = items.iter().enumerate();
            items.map(|(i, item)| path.within(PathStep::Index(i), |path| compile(item, path))).collect()
        })
    }
}

impl Compiler<'_> {
    fn rule(&self, index: usize, rule: &EventRule) -> Result<Rule, RuleError> {
        let (kind, event) = match self.moment {
            Moment::Connect => ("connect", None),
            Moment::Event => ("on", Some(rule.event.as_str().into())),
        };
        let mut path = KeyPath(vec![PathStep::Key(kind.to_owned()), PathStep::Index(index)]);
        self.rule_at(index, rule, &mut path).map_err(|fault| RuleError {
            namespace: self.namespace.into(),
            event,
            key: path.0,
            text: fault.text.into(),
            at: fault.at,
            message: fault.message.into(),
        })
    }

    fn rule_at(&self, index: usize, rule: &EventRule, path: &mut KeyPath) -> Result<Rule, Fault> {
        let moment = self.moment;
        let mut set = Vec::with_capacity(rule.set.len());
        path.within(PathStep::Key("set".to_owned()), |path| {
            for (name, value) in &rule.set {
                let step = PathStep::Key(name.clone());
                set.push((quoted(name), path.within(step, |path| Template::compile(value, moment, path))?));
            }
            Ok(())
        })?;
        let compiled = Rule {
            index,
            when: self.test("when", rule.when.as_ref(), path)?,
            allow: self.test("allow", rule.allow.as_ref(), path)?,
            error: rule.error.as_ref().map(|error| self.error(error, path)).transpose()?,
            set,
            leave: path.each("leave", &rule.leave, |text, _| LeavePattern::compile(text, moment))?,
            join: path.each("join", &rule.join, |text, _| Text::compile(text, moment))?,
            snapshot: self.snapshot(rule, path)?,
            replies: path.each("reply", &rule.reply, |reply, path| self.reply(reply, path))?,
            ack: rule.ack.as_ref().map(|ack| self.args("ack", ack, path)).transpose()?,
            emits: path.each("emit", &rule.emit, |emit, path| self.emit(emit, path))?,
            disconnect: rule.disconnect,
        };
        compiled.check_snapshots(path)?;
        Ok(compiled)
    }

    fn snapshot(&self, rule: &EventRule, path: &mut KeyPath) -> Result<Option<Snapshot>, Fault> {
        path.within(PathStep::Key("snapshot".to_owned()), |_| match &rule.snapshot {
            None | Some(SnapshotWish::OfJoined(false)) => Ok(None),
            Some(SnapshotWish::OfJoined(true)) if rule.join.is_empty() => {
                let message = "this rule joins no room; name one, as in snapshot = \"route:{data.routeId}\"";
                Err(Fault::new(0, message).of("true"))
            }
            Some(SnapshotWish::OfJoined(true)) => Ok(Some(Snapshot::OfJoined)),
            Some(SnapshotWish::OfRoom(room)) => {
                Text::compile(room, self.moment).map(|room| Some(Snapshot::OfRoom(room)))
            }
        })
    }

    fn emit(&self, emit: &EmitSource, path: &mut KeyPath) -> Result<EmitTemplate, Fault> {
        let moment = self.moment;
        let EmitSource { rooms, event, data, args, key, to_self, volatile } = emit;
        let rooms = match rooms {
            None => None,
            Some(rooms) if rooms.is_empty() => {
                return Err(Fault::new(0, "rooms is empty; leave it out to reach the whole namespace"));
            }
            Some(rooms) => Some(path.each("rooms", rooms, |text, _| Text::compile(text, moment))?),
        };
        let step = PathStep::Key("key".to_owned());
        let key = key.as_ref().map(|key| path.within(step, |_| Text::compile(key, moment))).transpose()?;
        let event = ReplySource { event: event.clone(), data: data.clone(), args: args.clone() };
        let event = self.reply(&event, path)?;
        Ok(EmitTemplate { rooms, event, key, to_self: to_self.unwrap_or(true), volatile: *volatile })
    }

    fn test(&self, key: &str, condition: Option<&Condition>, path: &mut KeyPath) -> Result<Option<Test>, Fault> {
        path.within(PathStep::Key(key.to_owned()), |_| match condition {
            None => Ok(None),
            Some(Condition::Fixed(fixed)) => Ok(Some(Test::Fixed(*fixed))),
            Some(Condition::Expression(text)) => match Expression::compile(text, self.moment) {
                Ok(expression) => Ok(Some(Test::Expression(expression))),
                Err(fault) => Err(fault.of(text)),
            },
        })
    }

    fn error(&self, error: &ErrorSource, path: &mut KeyPath) -> Result<ErrorTemplate, Fault> {
        path.within(PathStep::Key("error".to_owned()), |path| {
            let step = PathStep::Key("message".to_owned());
            let message = path.within(step, |_| Text::compile(&error.message, self.moment))?;
            let step = PathStep::Key("data".to_owned());
            let data = error.data.as_ref();
            let data = data.map(|data| path.within(step, |path| Template::compile(data, self.moment, path)));
            Ok(ErrorTemplate { message, data: data.transpose()? })
        })
    }

    fn reply(&self, reply: &ReplySource, path: &mut KeyPath) -> Result<ReplyTemplate, Fault> {
        let step = PathStep::Key("event".to_owned());
        let name = path.within(step, |_| Text::compile(&reply.event, self.moment))?;
        let args = match (&reply.data, &reply.args) {
            (Some(_), Some(_)) => return Err(Fault::new(0, "a reply has either data or args")),
            (None, None) => ArgsTemplate::Args(Vec::new()),
            (None, Some(args)) => self.args("args", args, path)?,
            (Some(data), None) => {
                let step = PathStep::Key("data".to_owned());
                ArgsTemplate::Args(vec![path.within(step, |path| Template::compile(data, self.moment, path))?])
            }
        };
        Ok(ReplyTemplate { name, args })
    }

    fn args(&self, key: &str, args: &ArgsSource, path: &mut KeyPath) -> Result<ArgsTemplate, Fault> {
        match args {
            ArgsSource::Args(args) => {
                path.each(key, args, |arg, path| Template::compile(arg, self.moment, path)).map(ArgsTemplate::Args)
            }
            ArgsSource::Text(text) => path.within(PathStep::Key(key.to_owned()), |_| {
                if text == "{args}" && self.moment == Moment::Event {
                    return Ok(ArgsTemplate::AsTheyCame);
                }
                Err(Fault::new(0, "this is an array of arguments, or \"{args}\" for those that came").of(text))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MANY_TRAINS: &str = include_str!("../../../examples/many-trains.toml");
    const HOUSING_SOCIETY: &str = include_str!("../../../examples/housing-society.toml");

    /// Rules that touch every part of the language, for clients to try to break.
    const EVERYTHING: &str = r#"
        [[namespace]]
        name = "/all"
        [[namespace.connect]]
        when = "has(query.trainNo)"
        join = ["train_{query.trainNo}"]
        [[namespace.connect]]
        when = "auth.role == 'ADMIN'"
        join = ["admin"]
        [[namespace.on]]
        event = "look"
        when = "args.all(x, type(x) != bytes) || size(data) > 3 || data.n * 2 < 7 || -data.n == 1"
        set = { kept = "{data}" }
        leave = ["r:{data.a}*", "s:{data.b}"]
        join = ["r:{data.a}", "{string(data.n)}", "{data.list[0].x}"]
        reply = [
            { event = "seen:{data.a}", args = ["{data}", "{args}", "{query}", "{state}", "x{data}y{data.list}"] },
            { event = "sums", data = { all = "{data.list.map(x, x)}", some = ["{data.?n.orValue(0)}"] } },
        ]
        ack = "{args}"
        [[namespace.on]]
        event = "cel"
        reply = { event = "e", args = ["{[data]}", "{data == args[0] ? data : null}", "{size(args)}-{data in args}"] }
        [[namespace.on]]
        event = "regex"
        allow = "data.matches('^(a|b)*$') && data.startsWith('a') && data.contains('b')"
        [[namespace.on]]
        event = "rows"
        when = "data.rows.all(row, row.cells.exists(c, c > 0))"
        disconnect = true
    "#;

    /// The `[[namespace]]` part of a config file, as the config module will hand it over.
    fn rules(config: &str) -> NamespaceRules {
        try_rules(config).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_rules(config: &str) -> Result<NamespaceRules, RuleError> {
        let config: toml::Table = toml::from_str(config).unwrap();
        let namespaces: Vec<RulesSource> = config["namespace"].clone().try_into().unwrap();
        NamespaceRules::compile(&namespaces[0])
    }

    /// Rules with one `[[namespace.on]]` for the event `e`.
    fn on_e(rule: &str) -> Result<NamespaceRules, RuleError> {
        try_rules(&format!("[[namespace]]\nname = '/n'\n[[namespace.on]]\nevent = 'e'\n{rule}"))
    }

    /// One socket's side of a conversation.
    struct Client<'r> {
        rules: &'r NamespaceRules,
        state: State,
    }

    impl<'r> Client<'r> {
        fn new(rules: &'r NamespaceRules) -> Client<'r> {
            Client { rules, state: State::default() }
        }

        fn says(&mut self, event: &str, args: &[&str]) -> Result<Outcome, String> {
            let query = [("trainNo".into(), "17225".into()), ("role".into(), "A\"B".into())];
            let facts = Facts {
                namespace: "/n",
                sid: "sid0",
                ip: "::1",
                query: &query,
                auth_json: "null",
                claims_json: r#"{"sub":"u1"}"#,
                captures: &[],
                state: &self.state,
                args,
            };
            let outcome = self.rules.on_event(event, &facts).map_err(|refusal| refusal.reason)?;
            self.state = outcome.state.clone().unwrap_or(std::mem::take(&mut self.state));
            Ok(outcome)
        }
    }

    fn says(rules: &NamespaceRules, data: &str) -> Result<Outcome, String> {
        Client::new(rules).says("e", &[data])
    }

    fn join(room: &str) -> RoomStep {
        RoomStep::Join(room.to_owned())
    }

    fn leave_all(prefix: &str) -> RoomStep {
        RoomStep::LeavePrefix(prefix.to_owned())
    }

    fn reply(name_json: &str, args_json: &str) -> Reply {
        Reply { name_json: name_json.to_owned(), args_json: args_json.to_owned(), arg_count: 1 }
    }

    // ---- the systems ----

    #[test]
    fn many_trains_in_either_order() {
        let rules = rules(MANY_TRAINS);
        let subscribe = r#"{"type":"SUBSCRIBE_TRAIN","trainNo":"12345"}"#;
        let identify = r#"{"type":"IDENTIFY","role":"TTE","irctcId":"IR0001"}"#;

        let mut client = Client::new(&rules);
        let outcome = client.says("SUBSCRIBE_TRAIN", &[subscribe]).unwrap();
        assert_eq!(outcome.rooms, [leave_all("train:"), join("train:12345")]);
        assert_eq!(outcome.replies, [reply("\"SUBSCRIBED\"", r#"{"trainNo":"12345"}"#)]);
        assert_eq!(client.state.as_json(), r#"{"trainNo":"12345"}"#);
        let outcome = client.says("IDENTIFY", &[identify]).unwrap();
        let both = [join("user:IR0001"), join("role:TTE"), leave_all("train:12345:"), join("train:12345:TTE")];
        assert_eq!(outcome.rooms[2..], both);
        let identified = reply("\"IDENTIFIED\"", r#"{"irctcId":"IR0001","role":"TTE"}"#);
        assert_eq!(sorted_members(&outcome.replies), sorted_members(&[identified]));

        let mut client = Client::new(&rules);
        let outcome = client.says("IDENTIFY", &[identify]).unwrap();
        assert_eq!(outcome.rooms, [leave_all("user:"), leave_all("role:"), join("user:IR0001"), join("role:TTE")]);
        let outcome = client.says("SUBSCRIBE_TRAIN", &[subscribe]).unwrap();
        assert_eq!(outcome.rooms, [leave_all("train:"), join("train:12345"), join("train:12345:TTE")]);
        let outcome = client.says("SUBSCRIBE_TRAIN", &[r#"{"trainNo":"7"}"#]).unwrap();
        assert_eq!(outcome.rooms, [leave_all("train:"), join("train:7"), join("train:7:TTE")], "leaves the old train");
    }

    #[test]
    fn many_trains_lets_nobody_smuggle() {
        let rules = rules(MANY_TRAINS);
        for train in [r#""5:TTE""#, r#""""#, r#""*""#, r#""1234567890123""#, r#""5\n""#, "5", "null", r#"["5"]"#] {
            let mut client = Client::new(&rules);
            assert!(client.says("SUBSCRIBE_TRAIN", &[&format!(r#"{{"trainNo":{train}}}"#)]).is_err(), "{train}");
            assert_eq!(client.state, State::default());
        }
        let mut client = Client::new(&rules);
        assert!(client.says("IDENTIFY", &[r#"{"role":"DRIVER","irctcId":"1"}"#]).is_err());
        assert!(client.says("IDENTIFY", &[r#"{"role":"TTE","irctcId":"1:2"}"#]).is_err());
        assert_eq!(client.says("JUMP", &["{}"]), Err(NO_RULE.to_owned()));
        assert_eq!(client.says("SUBSCRIBE_TRAIN", &[]), Err("data.trainNo is missing".to_owned()));
        // Of two members of one name every reader takes the last.
        let twice = client.says("SUBSCRIBE_TRAIN", &[r#"{"trainNo":"5:TTE","trainNo":"5"}"#]).unwrap();
        assert_eq!(twice.rooms[1], join("train:5"));
        assert!(client.says("SUBSCRIBE_TRAIN", &[r#"{"trainNo":"5","train\u004eo":"5:TTE"}"#]).is_err());
    }

    #[test]
    fn housing_society_joins_flats_and_societies_only() {
        let rules = rules(HOUSING_SOCIETY);
        let mut client = Client::new(&rules);
        let ask = r#"{"room_type":"flat","room_id":"A-101","user_id":"u1"}"#;
        let outcome = client.says("join_room", &[ask]).unwrap();
        assert_eq!(outcome.rooms, [join("flat:A-101")]);
        let answer = reply("\"room_joined\"", r#"{"room_type":"flat","room_id":"A-101","room_name":"flat:A-101"}"#);
        assert_eq!(sorted_members(&outcome.replies), sorted_members(&[answer]));
        assert_eq!(outcome.ack, Some(Args { json: outcome.replies[0].args_json.clone(), count: 1 }));

        let outcome = client.says("join_room", &[r#"{"room_type":"society","room_id":42,"user_id":1}"#]).unwrap();
        assert_eq!(outcome.rooms, [join("society:42")]);
        assert!(outcome.replies[0].args_json.contains(r#""room_id":42"#), "{outcome:?}");
        for bad in [
            r#"{"room_type":"city","room_id":"1","user_id":"u"}"#,
            r#"{"room_type":"flat","room_id":"1:2","user_id":"u"}"#,
            r#"{"room_type":"flat","room_id":1.5,"user_id":"u"}"#,
            r#"{"room_type":"flat","room_id":1e3,"user_id":"u"}"#,
            r#"{"room_type":["flat"],"room_id":"1","user_id":"u"}"#,
            r#"{"room_type":"flat","room_id":"1"}"#,
            "null",
        ] {
            assert!(client.says("join_room", &[bad]).is_err(), "{bad}");
        }
    }

    /// TOML tables come in the order that the toml crate keeps; JSON objects mean the same in any.
    fn sorted_members(replies: &[Reply]) -> Vec<(&str, Vec<(&str, &str)>)> {
        let sorted = replies.iter().map(|reply| {
            let mut members: Vec<_> = json::members(&reply.args_json).collect();
            members.sort_unstable();
            (reply.name_json.as_str(), members)
        });
        sorted.collect()
    }

    // ---- the language ----

    #[test]
    fn values_that_are_passed_on_keep_their_bytes() {
        let rules = on_e("reply = { event = 'r', args = ['{data.v}', 'v is {data.v}'] }").unwrap();
        for (value, in_text) in [
            ("123456789012345678901234567890", "v is 123456789012345678901234567890"),
            ("1.0", "v is 1.0"),
            ("1E400", "v is 1E400"),
            (r#"{"b":1,"a":2 ,"b":3}"#, r#"v is {\"b\":1,\"a\":2 ,\"b\":3}"#),
            (r#""q\"\u0041\ud83d\ude00é""#, r#"v is q\"\u0041\ud83d\ude00é"#),
            ("[1, null]", "v is [1, null]"),
            ("null", "v is null"),
        ] {
            let outcome = says(&rules, &format!(r#"{{ "v" : {value} }}"#)).unwrap();
            assert_eq!(outcome.replies[0].args_json, format!("{value},\"{in_text}\""));
            assert_eq!(outcome.replies[0].arg_count, 2);
        }
    }

    #[test]
    fn room_names_take_strings_integers_and_booleans() {
        let path = on_e("join = ['r:{data.v}']").unwrap();
        let cel = on_e("join = ['r:{true ? data.v : null}']").unwrap();
        for (value, room) in [
            (r#""a""#, Some("r:a")),
            (r#""\u0041\n\"""#, Some("r:A\n\"")),
            (r#""*""#, Some("r:*")),
            ("7", Some("r:7")),
            ("-7", Some("r:-7")),
            ("18446744073709551615", Some("r:18446744073709551615")),
            ("true", Some("r:true")),
            ("1.5", None),
            ("1e3", None),
            ("null", None),
            ("{}", None),
            ("[1]", None),
        ] {
            for rules in [&path, &cel] {
                let outcome = says(rules, &format!(r#"{{"v":{value}}}"#));
                assert_eq!(outcome.ok().map(|o| o.rooms), room.map(|room| vec![join(room)]), "{value}");
            }
        }
        let big = says(&path, r#"{"v":123456789012345678901234567890}"#).unwrap();
        assert_eq!(big.rooms, [join("r:123456789012345678901234567890")]);
        let reason = "data.v cannot stand in a room name; a string, an integer, true and false can";
        assert_eq!(says(&path, r#"{"v":null}"#), Err(reason.to_owned()));
        assert_eq!(says(&path, "{}"), Err("data.v is missing".to_owned()));
    }

    #[test]
    fn reasons_quote_no_values() {
        for (expression, data, reason) in [
            ("{'s3cret': 1}[data]", "[1]", "found no matching overload for '_[_]' applied to '(map, list)'"),
            ("{'s3cret': 1}[data]", r#""x""#, "No such key: x"),
            ("['s3cret'][data]", "7", "the index is out of bounds"),
            ("['s3cret'][data]", r#""x""#, "found no matching overload for '_[_]' applied to '(list, string)'"),
            ("true * {'s3cret': data}", "1", "the operator mul does not take values of type bool and map"),
            ("data + ['s3cret']", "1", "the operator add does not take values of type int and list"),
            ("['s3cret'] < data", "1", "found no matching overload for '_<_' applied to '(list, int)'"),
            ("'s3cret' - data", "1", "the operator sub does not take values of type string and int"),
            ("data * 2", "9223372036854775807", "the result of the operator mul is out of range"),
            ("data / 0", "1", "division by zero"),
            ("7 % data", "0", "division by zero"),
            ("{'s3cret': 1, data: 2}", r#""s3cret""#, "a map has a key twice"),
            ("{['s3cret']: data}", "1", "a value of type list cannot be a key"),
            ("!data", r#""s3cret""#, "found no matching overload for '!_' applied to '(string)'"),
            ("{'s3cret': 1}.contains(data)", "1", "found no matching overload for 'contains' applied to 'map.(int)'"),
            (
                "int(data)",
                r#""s3cret""#,
                "Error executing function 'int': string parse error: invalid digit found in string",
            ),
        ] {
            let rules = on_e(&format!("ack = [\"{{ {expression} }}\"]")).unwrap();
            assert_eq!(says(&rules, data), Err(reason.to_owned()), "{expression} of {data}");
        }
    }

    #[test]
    fn a_star_from_a_client_is_no_wildcard() {
        let rules = on_e("leave = ['a:{data}', 'b:{data}*', '{\"*\"}']").unwrap();
        let outcome = says(&rules, r#""*""#).unwrap();
        let leave = |room: &str| RoomStep::Leave(room.to_owned());
        assert_eq!(outcome.rooms, [leave("a:*"), leave_all("b:*"), leave("*")]);
    }

    #[test]
    fn a_leave_takes_back_earlier_joins() {
        let rules = try_rules(
            "[[namespace]]\nname = '/'\n[[namespace.on]]\nevent = 'e'\njoin = ['a:1', 'b', 'b']\n\
             [[namespace.on]]\nevent = 'e'\nleave = ['a:*', 'c']\njoin = ['a:2', 'b']",
        );
        let outcome = says(&rules.unwrap(), "1").unwrap();
        assert_eq!(outcome.rooms, [join("b"), leave_all("a:"), RoomStep::Leave("c".to_owned()), join("a:2")]);
    }

    #[test]
    fn one_refusal_refuses_all() {
        let rules = try_rules(
            "[[namespace]]\nname = '/'\n[[namespace.on]]\nevent = 'e'\njoin = ['a']\nset = { x = 1 }\n\
             [[namespace.on]]\nevent = 'e'\nwhen = 'data.strict'\nallow = 'state.x == 2'\njoin = ['b']",
        )
        .unwrap();
        let facts_state = State::default();
        let facts = |args| Facts {
            namespace: "/",
            sid: "s",
            ip: "::1",
            query: &[],
            auth_json: "null",
            claims_json: "null",
            captures: &[],
            state: &facts_state,
            args,
        };
        let refusal = rules.on_event("e", &facts(&[r#"{"strict":true}"#])).unwrap_err();
        assert_eq!(refusal, Refusal { rule: Some(1), ..Refusal::new("not allowed") });
        let outcome = rules.on_event("e", &facts(&[r#"{"strict":1}"#])).unwrap();
        assert_eq!(outcome.rooms, [join("a")], "a when that is no boolean is false");
    }

    #[test]
    fn connect_rules_add_up_and_may_refuse() {
        let rules = try_rules(
            "[[namespace]]\nname = '/'\n\
             [[namespace.connect]]\nwhen = 'has(query.trainNo)'\njoin = ['train_{query.trainNo}']\n\
             [[namespace.connect]]\nwhen = \"auth.role == 'ADMIN'\"\njoin = ['admin']\nreply = { event = 'hi' }\n\
             [[namespace.connect]]\nwhen = 'has(query.banned)'\nallow = false",
        )
        .unwrap();
        let connect = |query: &[(Box<str>, Box<str>)], auth_json| {
            let state = State::default();
            let facts = Facts {
                namespace: "/",
                sid: "s",
                ip: "::1",
                query,
                auth_json,
                claims_json: "null",
                captures: &[],
                state: &state,
                args: &[],
            };
            rules.on_connect(&facts).map_err(|refusal| refusal.reason)
        };
        assert_eq!(connect(&[], "null"), Ok(Outcome::default()));
        let query = [("trainNo".into(), "1".into()), ("trainNo".into(), "2".into())];
        let outcome = connect(&query, r#"{"role":"ADMIN"}"#).unwrap();
        assert_eq!(outcome.rooms, [join("train_2"), join("admin")]);
        assert_eq!(outcome.replies[0].arg_count, 0);
        assert_eq!(connect(&[("banned".into(), "".into())], "null"), Err("not allowed".to_owned()));
    }

    /// What a client gets that connects with `auth_json` to `/w-7`, a name of a pattern with a group.
    fn connects(rules: &NamespaceRules, auth_json: &str) -> Result<Outcome, Refusal> {
        let state = State::default();
        let (namespace, sid, ip, query, claims_json, args) = ("/w-7", "s", "::1", &[], "null", &[]);
        let captures = &[("id", "7")];
        rules.on_connect(&Facts { namespace, captures, sid, ip, query, auth_json, claims_json, state: &state, args })
    }

    #[test]
    fn refusals_in_the_rules_own_words() {
        let rules = try_rules(
            r#"
            [[namespace]]
            name = '/'
            [[namespace.connect]]
            allow = "auth.token == 'right'"
            error = { message = 'Not with {auth.token}', data = { code = 401, in = '{captures.id}' } }
            [[namespace.connect]]
            when = "auth.token == 'right'"
            join = ['r:{auth.room}']
            "#,
        )
        .unwrap();
        let own = |message: &str, data: &str| Refusal {
            data_json: Some(data.into()),
            own_words: true,
            rule: Some(0),
            ..Refusal::new(message)
        };
        assert_eq!(connects(&rules, r#"{"token":"x\"y"}"#), Err(own("Not with x\"y", r#"{"code":401,"in":"7"}"#)));
        // What they name is not there: our reason stands in.
        let missing = Refusal { rule: Some(0), ..Refusal::new("auth.token is missing") };
        assert_eq!(connects(&rules, "null"), Err(missing));
        // It is for `allow` alone.
        let failed = Refusal { rule: Some(1), ..Refusal::new("auth.room is missing") };
        assert_eq!(connects(&rules, r#"{"token":"right"}"#), Err(failed));
        assert!(connects(&rules, r#"{"token":"right","room":1}"#).is_ok());

        // A condition that fails refuses in the same words.
        let rules = on_e("allow = 'data.n > 1'\nerror = { message = 'More!' }").unwrap();
        for data in ["{\"n\":1}", "{}", "null"] {
            assert_eq!(says(&rules, data), Err("More!".to_owned()), "{data}");
        }
    }

    #[test]
    fn captures_are_known_by_their_names() {
        let rules = try_rules(
            r#"
            [[namespace]]
            pattern = '/w-(?<id>[0-9])'
            [[namespace.connect]]
            allow = "captures.id == '7' && has(captures.id) && !has(captures.no) && captures == {'id': '7'}"
            join = ['w:{captures.id}']
            reply = { event = 'e', args = ['{captures}', '{namespace}'] }
            "#,
        );
        let outcome = connects(&rules.unwrap(), "null").unwrap();
        assert_eq!(outcome.rooms, [join("w:7")]);
        assert_eq!(outcome.replies[0].args_json, r#"{"id":"7"},"/w-7""#);
    }

    #[test]
    fn what_a_client_connects_with_and_says_comes_back_byte_by_byte() {
        let rules = try_rules(
            r#"
            [[namespace]]
            name = '/'
            [[namespace.connect]]
            when = 'auth == null'
            reply = { event = 'auth', data = {} }
            [[namespace.connect]]
            when = 'auth != null'
            reply = { event = 'auth', data = '{auth}' }
            [[namespace.on]]
            event = 'message'
            reply = { event = 'message-back', args = '{args}' }
            [[namespace.on]]
            event = 'message-with-ack'
            ack = '{args}'
            "#,
        )
        .unwrap();
        // Larger than a condition may look at.
        let large = format!("{{\"list\":[{}1]}}", "1.0,".repeat(100_000));
        for (auth, back) in [
            ("null", "{}"),
            ("{}", "{}"),
            (r#"{"z":1.0,"a":123456789012345678901234567890, "z" : "\u0041"}"#, ""),
            (&large, ""),
        ] {
            let outcome = connects(&rules, auth).unwrap();
            let back = if back.is_empty() { auth } else { back };
            assert_eq!(outcome.replies, [reply("\"auth\"", back)]);
        }
        let args = [r#"{"_placeholder":true,"num":1}"#, "1.0", r#"[{"_placeholder":true,"num":0},{"b":1,"a":2}]"#];
        let outcome = Client::new(&rules).says("message", &args).unwrap();
        let back = Reply { arg_count: 3, ..reply("\"message-back\"", &args.join(",")) };
        assert_eq!((outcome.replies, outcome.ack), (vec![back], None));
        let outcome = Client::new(&rules).says("message-with-ack", &args).unwrap();
        assert_eq!((outcome.replies.len(), outcome.ack), (0, Some(Args { json: args.join(","), count: 3 })));
        let outcome = Client::new(&rules).says("message-with-ack", &[]).unwrap();
        assert_eq!(outcome.ack, Some(Args::default()));
    }

    #[test]
    fn snapshots_are_put_in_where_the_rule_wants_them() {
        let rules = on_e(
            "snapshot = 's:{data.v}'
            reply = { event = 'r', args = ['{snapshot}', { a = ['{snapshot}'], v = '{data.v}' }] }
            ack = ['{snapshot}']",
        )
        .unwrap();
        // Neither a control character nor its escape makes a place for a snapshot.
        let outcome = says(&rules, r#"{"v":"\u00010\u0001"}"#).unwrap();
        assert_eq!(outcome.values, ["s:\u{1}0\u{1}"]);
        let put = |json: &str| put_snapshots(json, &["[1,2]"]);
        assert_eq!(put(&outcome.replies[0].args_json), r#"[1,2],{"a":[[1,2]],"v":"\u00010\u0001"}"#);
        assert_eq!(put(&outcome.ack.unwrap().json), "[1,2]");
        assert_eq!(put("{}"), "{}");

        let rules = on_e("join = ['a', '{data.v}']\nsnapshot = true\nleave = ['a']").unwrap();
        let outcome = says(&rules, r#"{"v":"b"}"#).unwrap();
        assert_eq!((outcome.snapshots, outcome.values), (vec!["a".to_owned(), "b".to_owned()], Vec::new()));
    }

    #[test]
    fn emits_name_rooms_event_and_arguments() {
        let rules = on_e(
            "emit = [
                { rooms = ['r:{data.v}', 's'], event = 'e:{data.v}', data = { v = '{data.v}' }, key = '{data.k}' },
                { event = 'all', args = '{args}', to_self = false, volatile = true },
            ]",
        )
        .unwrap();
        let outcome = says(&rules, r#"{"v":"x","k":7}"#).unwrap();
        let first = Emit {
            rooms: Some(vec!["r:x".to_owned(), "s".to_owned()]),
            event: reply("\"e:x\"", r#"{"v":"x"}"#),
            key: Some("7".to_owned()),
            to_self: true,
            volatile: false,
        };
        let event = reply("\"all\"", r#"{"v":"x","k":7}"#);
        let second = Emit { rooms: None, event, key: None, to_self: false, volatile: true };
        assert_eq!(outcome.emits, [first, second]);
        assert_eq!(says(&rules, r#"{"v":"x"}"#), Err("data.k is missing".to_owned()));
    }

    #[test]
    fn mistakes_with_snapshots_and_emits_are_found() {
        let stands = "{snapshot} stands in reply and ack only, in a rule that names its room, as in snapshot = \
            \"route:{data.routeId}\"";
        let at = |key: &str| format!("{key}: \"{{snapshot}}\", at character 1: {stands}");
        for (rule, error) in [
            ("reply = { event = 'x', data = '{snapshot}' }", &at("reply")),
            ("snapshot = 'r'\nset = { a = ['{snapshot}'] }", &at("set")),
            ("snapshot = 'r'\nemit = { event = 'x', args = ['{snapshot}'] }", &at("emit")),
            (
                "snapshot = 'r'\nreply = { event = 'x', data = 'a{snapshot}' }",
                &"reply[0].data: \"a{snapshot}\", at character 3: snapshot can only stand alone, as in \"{snapshot}\", \
                  in reply and ack"
                    .to_owned(),
            ),
            (
                "snapshot = true",
                &"snapshot: \"true\", at character 1: this rule joins no room; name one, as in \
                  snapshot = \"route:{data.routeId}\""
                    .to_owned(),
            ),
            (
                "emit = { event = 'x', rooms = [] }",
                &"emit[0]: \"\", at character 1: rooms is empty; leave it out to reach the whole namespace".to_owned(),
            ),
        ] {
            let said = on_e(rule).expect_err(rule).to_string();
            assert_eq!(said.split_once("key ").map(|(_, rest)| rest), Some(error.as_str()), "{rule}");
        }
    }

    #[test]
    fn events_are_known_by_their_rules() {
        for (key, unknown) in [("", UnknownEvents::Error), ("unknown_events = 'ignore'", UnknownEvents::Ignore)] {
            let config = format!("[[namespace]]\nname = '/'\n{key}\n[[namespace.on]]\nevent = 'e'\nwhen = false");
            let rules = try_rules(&config).unwrap();
            assert_eq!(rules.unknown_events(), unknown);
            assert_eq!((rules.is_known("e"), rules.is_known("f")), (true, false));
            assert_eq!(says(&rules, "1"), Err(NO_RULE.to_owned()), "a rule that is not taken allows nothing");
        }
    }

    #[test]
    fn state_is_bounded_and_null_forgets() {
        let rules = on_e("set = { v = '{data}', w = 'x' }").unwrap();
        let mut client = Client::new(&rules);
        client.says("e", &["[1, 2]"]).unwrap();
        assert_eq!(client.state.as_json(), r#"{"v":[1, 2],"w":"x"}"#);
        client.says("e", &["null"]).unwrap();
        assert_eq!(client.state.as_json(), r#"{"w":"x"}"#);
        let long = format!("\"{}\"", "x".repeat(State::BYTES_MAX));
        assert!(client.says("e", &[&long]).unwrap_err().contains("exceed 1024 bytes"));
        assert_eq!(client.state.as_json(), r#"{"w":"x"}"#);
    }

    #[test]
    fn acks_carry_what_the_rule_says() {
        let as_came = on_e("ack = '{args}'").unwrap();
        let outcome = Client::new(&as_came).says("e", &["1.0", "\"a\""]).unwrap();
        assert_eq!(outcome.ack, Some(Args { json: "1.0,\"a\"".to_owned(), count: 2 }));
        let own = on_e("ack = [{ ok = true, n = '{size(args)}' }, 'for {sid}']").unwrap();
        let ack = says(&own, "1").unwrap().ack.unwrap();
        assert_eq!(ack.count, 2);
        assert!(ack.json.ends_with("},\"for sid0\""), "{ack:?}");
        assert_eq!(says(&on_e("ack = []").unwrap(), "1").unwrap().ack, Some(Args::default()));
    }

    #[test]
    fn variables_and_operators() {
        for (expression, holds) in [
            ("has(data.a) && !has(data.b)", Some(true)),
            ("has(data.o.x) || has(data.o.y)", Some(true)),
            ("has(data.none.x)", None),
            ("data.a == 1 && data['a'] == 1.0 && data.list[1] == 'two'", Some(true)),
            ("'a' in data && 'two' in data.list && size(data.list) == 3", Some(true)),
            ("data.list.exists(x, x == data.a)", Some(true)),
            ("data.list.filter(data, data == 1).size() == 1", Some(true)),
            ("data.rows.all(r, r.all(c, c > 0))", Some(true)),
            ("data.?none.orValue(5) == 5", Some(true)),
            ("query.role == 'A\"B' && 'trainNo' in query && size(query) == 2", Some(true)),
            ("claims.sub == 'u1' && auth == null && sid == 'sid0' && ip == '::1'", Some(true)),
            ("namespace == '/n' && event == 'e' && size(args) == 2 && args[1] == 'second'", Some(true)),
            ("namespace + data.namespace == '/nfield' && 'namespace' in data && has(data.namespace)", Some(true)),
            ("{'namespace': namespace}.namespace == '/n' && data.?namespace.hasValue()", Some(true)),
            ("state == {}", Some(true)),
            ("data.o.y == null && null == data.o.y && data.o != null && null != data.a", Some(true)),
            ("data.none == null", None),
            ("data.none != null", None),
            ("data.list.exists(x, x == null) || [null][0] == null", Some(true)),
            ("sid != null && query != null && captures == {}", Some(true)),
            ("data.big > 9007199254740993 && data.big > 18446744073709551614u", Some(true)),
            ("data.yes", Some(true)),
            ("data.a", None),
            ("data.none == 1", None),
            ("data.none == 1 || data.a == 1", Some(true)),
            ("1 / (data.a - 1) == 1", None),
            ("data.min / -1 > 0", None),
            ("data.min % -1 == 0", None),
            ("-data.min > 0", None),
            ("int(data.huge) > 0", None),
            ("'x' + data.list[1] == 'xtwo'", Some(true)),
            ("data.list[7] == 1", None),
            ("args[18446744073709551615u] == 1", None),
        ] {
            let rules = on_e(&format!("allow = '''{expression}'''")).unwrap();
            let data = r#"{"a":1,"o":{"y":null},"list":[1,"two",3],"rows":[[1],[2,3]],"big":18446744073709551615,
                "yes":true,"min":-9223372036854775808,"huge":1e300,"namespace":"field"}"#;
            let outcome = Client::new(&rules).says("e", &[data, "\"second\""]);
            let found = match &outcome {
                Ok(_) => Some(true),
                Err(reason) if reason == "not allowed" => Some(false),
                Err(_) => None,
            };
            assert_eq!(found, holds, "{expression}: {outcome:?}");
        }
    }

    #[test]
    fn conditions_look_at_so_much_and_no_more() {
        let rules = on_e("allow = 'size(data.list) > 0 && has(data.other)'\njoin = ['r{data.id}']").unwrap();
        let message =
            |items: usize| format!(r#"{{"list":[{}1],"other":"{}","id":1}}"#, "1,".repeat(items), "x".repeat(1 << 20));
        assert!(says(&rules, &message(1000)).is_ok(), "what stands beside is not looked at");
        let reason = says(&rules, &message(2000)).unwrap_err();
        assert!(reason.starts_with("data.list is not valid Unicode, or too large"), "{reason}");
    }

    #[test]
    fn mistakes_name_rule_key_and_character() {
        for (rule, error) in [
            ("join = ['a', 'route:{dta.id}']", "join[1]: \"route:{dta.id}\", at character 8: unknown variable dta"),
            ("join = ['é{ dta }']", "join[0]: \"é{ dta }\", at character 4: unknown variable dta"),
            ("when = 'data.x +'", "when: \"data.x +\", at character 9: the expression ends too early"),
            ("allow = 'fetch(data)'", "allow: \"fetch(data)\", at character 6: unknown function fetch"),
            ("allow = 'data.matches(data.p)'", "the pattern of matches must be a string written here"),
            ("allow = \"data.matches('(a')\"", "unclosed group"),
            ("allow = 'args.all(x, args.all(y, x == y))'", "a macro within a macro can only go over a part of x"),
            (
                "reply = { event = 'r', data = { a = [1, '{'] } }",
                "reply[0].data.a[1]: \"{\", at character 1: a { without",
            ),
            ("reply = { event = 'r}' }", "reply[0].event: \"r}\", at character 2: a } without its {"),
            ("reply = { event = 'r', data = 1, args = [] }", "a reply has either data or args"),
            ("leave = ['a*b']", "leave[0]: \"a*b\", at character 2: a * can only be the last character"),
            ("ack = '{data}'", "ack: \"{data}\", at character 1: this is an array of arguments"),
            ("error = { message = 'x{' }", "error.message: \"x{\", at character 2: a { without its }"),
            ("error = { message = 'x', data = ['{y}'] }", "error.data[0]: \"{y}\", at character 2: unknown variable y"),
            ("set = { a = '{}' }", "set.a: \"{}\", at character 2: the expression ends too early"),
        ] {
            let found = on_e(rule).unwrap_err().to_string();
            assert!(found.starts_with("namespace \"/n\", on[0] \"e\", key "), "{found}");
            assert!(found.contains(error), "{found}\nexpected {error}");
        }
        let connect = "[[namespace]]\nname = '/'\n[[namespace.connect]]\nwhen = 'has(data.x)'";
        let found = try_rules(connect).unwrap_err().to_string();
        assert!(found.contains("connect[0], key when: \"has(data.x)\", at character 5: data is not known"), "{found}");
    }

    #[test]
    fn unknown_keys_are_errors() {
        let toml = "name = '/'\n[[on]]\nevent = 'e'\njion = ['a']";
        assert!(toml::from_str::<RulesSource>(toml).unwrap_err().to_string().contains("jion"));
        let toml = "name = '/'\n[[on]]\nevent = 'e'\nreply = { event = 'r', dat = 1 }";
        assert!(toml::from_str::<RulesSource>(toml).unwrap_err().to_string().contains("dat"));
    }

    // ---- whatever clients send ----

    /// JSON values with the names that the rules ask for, so that they get somewhere.
    fn any_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|b| b.to_string()),
            any::<i64>().prop_map(|n| n.to_string()),
            any::<u64>().prop_map(|n| n.to_string()),
            any::<f64>().prop_filter("JSON has no NaN", |f| f.is_finite()).prop_map(|f| format!("{f:?}")),
            Just("1e999".to_owned()),
            "[a-b*:{}é]{0,6}".prop_map(|s| quoted(&s)),
            any::<String>().prop_map(|s| quoted(&s)),
            Just(r#""\ud83d\ude00\u0000\/""#.to_owned()),
        ];
        let key = prop_oneof![
            "trainNo|role|irctcId|room_type|room_id|user_id|a|b|n|list|x|rows|cells".prop_map(|s| quoted(&s)),
            any::<String>().prop_map(|s| quoted(&s)),
        ];
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(" , "))),
                prop::collection::vec((key.clone(), inner), 0..6).prop_map(|members| {
                    let members: Vec<_> = members.iter().map(|(k, v)| format!("{k} :{v}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_message_panics_and_all_that_goes_out_is_json(
            args in prop::collection::vec(any_json(), 0..3), other in any_json(), state in any_json(),
        ) {
            let mut scratch = json::Scratch::default();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let state = [("\"role\"", state), ("\"trainNo\"", other.clone())];
            let state = State::default().with(&state).unwrap_or_default();
            let query = [("trainNo".into(), other.as_str().into())];
            let facts = Facts {
                namespace: "/", sid: "s", ip: "::1", query: &query, auth_json: &other, claims_json: &other,
                captures: &[("a", "b")], state: &state, args: &args,
            };
            for rules in [rules(MANY_TRAINS), rules(HOUSING_SOCIETY), rules(EVERYTHING)] {
                let events = rules.events.keys().map(|event| rules.on_event(event, &facts));
                for outcome in events.chain([rules.on_connect(&facts)]).flatten() {
                    let Outcome { state, replies, ack, .. } = outcome;
                    let mut texts: Vec<String> = replies.iter().map(|r| format!("[{}]", r.args_json)).collect();
                    texts.extend(replies.into_iter().map(|r| r.name_json));
                    texts.extend(ack.map(|ack| format!("[{}]", ack.json)));
                    texts.extend(state.map(|state| state.as_json().to_owned()));
                    for text in texts {
                        prop_assert!(json::validate(text.as_bytes(), &mut scratch).is_ok(), "{}", text);
                    }
                }
            }
        }

        #[test]
        fn no_config_string_panics(text in r#"[a-d{}'"\\r*()\[\]., :?+&|0-9éx]{0,24}"#) {
            let rule = EventRule {
                event: "e".to_owned(),
                when: Some(Condition::Expression(text.clone())),
                ..EventRule::default()
            };
            let (join, leave) = (vec![text.clone()], vec![text]);
            let join = EventRule { event: "e".to_owned(), join, leave, ..EventRule::default() };
            for rule in [rule, join] {
                let source = RulesSource { name: Some("/".to_owned()), on: vec![rule], ..RulesSource::default() };
                match NamespaceRules::compile(&source) {
                    Ok(rules) => drop(says(&rules, r#"{"a":1,"b":"x"}"#)),
                    Err(error) => drop(error.to_string()),
                }
            }
        }
    }
}
