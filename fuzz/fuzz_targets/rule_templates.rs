//! The input's first line as every expression and template of a rule, its other lines as an event's arguments. Whatever
//! an operator writes is compiled or refused with its place; whatever a client sends, the outcome's JSON is JSON.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use roomcast::proto::json::{self, Scratch};
use roomcast::session::rules::{
    Args, ArgsSource, Condition, ConnectRule, ErrorSource, EventRule, Facts, NamespaceRules, Outcome, Refusal, Reply,
    ReplySource, RulesSource, State,
};
use roomcast_fuzz::{elements, raw_json};
use toml::Value;

/// Rules such as people write, with a value of the client's at each place.
static RULES: LazyLock<NamespaceRules> = LazyLock::new(|| {
    let source: RulesSource = toml::from_str(include_str!("../rules.toml")).unwrap();
    NamespaceRules::compile(&source).unwrap()
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let (rule, args) = text.split_once('\n').unwrap_or((text, ""));
    let mut scratch = Scratch::default();
    let args: Vec<&str> =
        args.lines().map(str::trim).filter(|arg| json::validate(arg.as_bytes(), &mut scratch).is_ok()).collect();
    for event in ["echo", "room", "text", "test", "keep", "deny", "loop"] {
        check(&RULES, event, &args);
    }
    for source in sources(rule) {
        match NamespaceRules::compile(&source) {
            Ok(rules) => check(&rules, "e", &args),
            Err(error) => {
                assert!(!error.message.is_empty() && !error.to_string().is_empty());
                assert!(error.at <= error.text.len() && error.text.is_char_boundary(error.at), "{error:?}");
                assert!(error.key.len() > 2, "{error:?} does not say where");
            }
        }
    }
});

/// Namespaces that have `text` in one place each, so that one that refuses it does not hide the others.
fn sources(text: &str) -> Vec<RulesSource> {
    let owned = || text.to_owned();
    let texts = || vec![owned()];
    let value = || Value::String(owned());
    let values = || ArgsSource::Args(vec![Value::Array(vec![value(), Value::Boolean(true)])]);
    let table = |name: &str| toml::Table::from_iter([(name.to_owned(), value())]);
    let rule = |change: &dyn Fn(&mut EventRule)| {
        let mut rule = EventRule { event: "e".to_owned(), ..EventRule::default() };
        change(&mut rule);
        RulesSource { name: Some("/".to_owned()), on: vec![rule], ..RulesSource::default() }
    };
    let connect = ConnectRule { allow: Some(Condition::Expression(owned())), join: texts(), ..ConnectRule::default() };
    vec![
        rule(&|rule| rule.when = Some(Condition::Expression(owned()))),
        rule(&|rule| rule.allow = Some(Condition::Expression(owned()))),
        rule(&|rule| rule.join = texts()),
        rule(&|rule| rule.leave = texts()),
        rule(&|rule| rule.ack = Some(values())),
        rule(&|rule| rule.set = table("a")),
        rule(&|rule| rule.set = table(text)),
        rule(&|rule| {
            let error = ErrorSource { message: owned(), data: Some(Value::Table(table(text))) };
            (rule.allow, rule.error) = (Some(Condition::Fixed(false)), Some(error));
        }),
        rule(&|rule| {
            let data = Some(Value::Table(table(text)));
            rule.reply = vec![ReplySource { event: owned(), data, args: None }];
        }),
        RulesSource { name: Some("/".to_owned()), connect: vec![connect], ..RulesSource::default() },
    ]
}

fn check(rules: &NamespaceRules, event: &str, args: &[&str]) {
    let (state, kept): (State, State);
    state = State::default();
    let mut facts = Facts {
        namespace: "/seats-7",
        captures: &[("number", "7")],
        sid: "abcdefghijklmnopqrst",
        ip: "203.0.113.9",
        query: &[("a".into(), "x\"\\\n\u{1f600}".into()), ("a".into(), "2".into())],
        auth_json: r#"{"a":[1,{"b":"\u00e9\n"}],"n":12345678901234567890}"#,
        claims_json: r#"{"role":"ADMIN","exp":1e3,"sub":"u 1"}"#,
        state: &state,
        args,
    };
    let first = rules.on_event(event, &facts);
    // An outcome may be remembered and compared: it does not depend on the order in which a map happens to be.
    assert_eq!(rules.on_event(event, &facts), first);
    check_judged(&first);
    if let Ok(Outcome { state: Some(set), .. }) = first {
        kept = set;
        facts.state = &kept;
        check_judged(&rules.on_event(event, &facts));
    }
    facts.args = &[];
    check_judged(&rules.on_connect(&facts));
}

fn check_judged(judged: &Result<Outcome, Refusal>) {
    match judged {
        Ok(outcome) => check_outcome(outcome),
        Err(Refusal { reason, data_json, own_words, .. }) => {
            assert!(*own_words || !reason.is_empty());
            if let Some(data) = data_json {
                raw_json(data);
            }
        }
    }
}

fn check_outcome(outcome: &Outcome) {
    for Reply { name_json, args_json, arg_count } in &outcome.replies {
        serde_json::from_str::<String>(name_json).unwrap_or_else(|error| panic!("{error} in the name {name_json}"));
        assert_eq!(elements(args_json).len(), *arg_count);
    }
    if let Some(Args { json, count }) = &outcome.ack {
        assert_eq!(elements(json).len(), *count);
    }
    if let Some(state) = &outcome.state {
        assert!(state.as_json().len() <= State::BYTES_MAX);
        raw_json(state.as_json());
    }
    // Whoever is told twice to do a thing does it twice.
    assert!(outcome.rooms.iter().enumerate().all(|(index, step)| !outcome.rooms[..index].contains(step)));
}
