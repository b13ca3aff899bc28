//! Conditions of rules in words: `claims.role == 'ADMIN'` is "an ADMIN". Knows the usual shapes of conditions; those
//! that it does not know stay as they are. Does not know what they are conditions of.

use cel::Env;
use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use cel::parser::Expression as Ast;

/// A condition as a reader of a config wants it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// Whom the condition is about, as in `an ADMIN or a TTE`, if it names roles that the client has proven.
    pub(super) who: Option<String>,
    /// What else must hold, each a clause: `its trainNo is given`.
    pub(super) clauses: Vec<String>,
}

impl Words {
    /// Reads a condition. Whatever has no words is a clause as it stands, on one line.
    pub(super) fn of(condition: &str) -> Words {
        let mut words = Words::default();
        for part in parts(condition) {
            let ast = parsed(part);
            match ast.as_ref().and_then(roles) {
                Some(who) if words.who.is_none() => words.who = Some(who),
                _ => words.clauses.push(ast.and_then(|ast| clause(&ast, false)).unwrap_or_else(|| one_line(part))),
            }
        }
        words
    }

    /// All of it as one clause: `it is an ADMIN, and its trainNo is given`.
    pub(super) fn clause(&self) -> String {
        let who = self.who.iter().map(|who| format!("it is {who}"));
        who.chain(self.clauses.iter().cloned()).collect::<Vec<_>>().join(", and ")
    }
}

/// `a` or `an`, as the word wants it.
pub(super) fn with_article(word: &str) -> String {
    let article = if word.starts_with(['a', 'e', 'i', 'o', 'A', 'E', 'I', 'O']) { "an" } else { "a" };
    format!("{article} {word}")
}

fn parsed(source: &str) -> Option<Ast> {
    Env::stdlib().parser().parse(source).ok()
}

fn one_line(expression: &str) -> String {
    expression.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The conditions that `&&` joins on the outermost level, as they stand; one if it joins none there.
fn parts(condition: &str) -> Vec<&str> {
    let pieces = split_at_and(condition);
    // A ternary or an || around it: then the pieces mean nothing by themselves.
    let joined = parsed(condition).map_or(1, |ast| count_joined(&ast));
    if joined == pieces.len() { pieces } else { vec![condition] }
}

fn count_joined(ast: &Ast) -> usize {
    match &ast.expr {
        Expr::Call(call) if call.func_name == operators::LOGICAL_AND => call.args.iter().map(count_joined).sum(),
        _ => 1,
    }
}

/// Cuts at each `&&` outside brackets and strings.
fn split_at_and(text: &str) -> Vec<&str> {
    let (mut pieces, mut start, mut depth, mut quote) = (Vec::new(), 0, 0, None);
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth -= 1,
            (None, b'&') if depth == 0 && bytes.get(at + 1) == Some(&b'&') => {
                pieces.push(&text[start..at]);
                start = at + 2;
                at += 1;
            }
            _ => {}
        }
        at += 1;
    }
    pieces.push(&text[start..]);
    pieces
}

/// The roles that a condition asks of the token or of what is remembered: what clients merely say proves nothing.
fn roles(ast: &Ast) -> Option<String> {
    let Expr::Call(call) = &ast.expr else { return None };
    let [left, right] = call.args.as_slice() else { return None };
    let roles = match call.func_name.as_str() {
        operators::EQUALS if is_role(left) => vec![text(right)?],
        operators::EQUALS if is_role(right) => vec![text(left)?],
        operators::IN if is_role(left) => match &right.expr {
            Expr::List(list) => list.elements.iter().map(text).collect::<Option<_>>()?,
            _ => return None,
        },
        operators::IN if is_role(right) => vec![text(left)?],
        _ => return None,
    };
    let roles: Vec<String> = roles.into_iter().map(with_article).collect();
    (!roles.is_empty()).then(|| roles.join(" or "))
}

fn is_role(ast: &Ast) -> bool {
    matches!(path(ast).as_deref(), Some(["claims" | "state", "role" | "roles"]))
}

/// The names in `a.b.c` and `a["b"].c`, and in `a.?b.orValue(…)`, which is `a.b` for who is about to read it.
fn path(ast: &Ast) -> Option<Vec<&str>> {
    match &ast.expr {
        Expr::Ident(name) => Some(vec![name]),
        Expr::Select(select) if !select.test => extended(&select.operand, &select.field),
        Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::INDEX | operators::OPT_SELECT, [operand, field]) => extended(operand, text(field)?),
            ("orValue", [_]) => path(call.target.as_deref()?),
            // Whoever converts a value means that value.
            ("string" | "int" | "uint" | "double" | "dyn", [value]) if call.target.is_none() => path(value),
            _ => None,
        },
        _ => None,
    }
}

fn extended<'a>(operand: &'a Ast, field: &'a str) -> Option<Vec<&'a str>> {
    let mut names = path(operand)?;
    names.push(field);
    Some(names)
}

fn text(ast: &Ast) -> Option<&str> {
    match &ast.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// A value in words: `its trainNo`, `"TTE"`, `7`.
fn value(ast: &Ast) -> Option<String> {
    if let Some(names) = path(ast) {
        let rest = names[1..].join(".");
        return Some(match (names[0], rest.as_str()) {
            ("data", "") => "its data".to_owned(),
            ("data", rest) => format!("its {rest}"),
            ("query", rest) if !rest.is_empty() => format!("the query's {rest}"),
            ("auth", "") => "the auth payload".to_owned(),
            ("auth", rest) => format!("the auth payload's {rest}"),
            ("claims", "") => "the token".to_owned(),
            ("claims", rest) => format!("the token's {rest}"),
            ("state", rest) if !rest.is_empty() => format!("the remembered {rest}"),
            ("captures", rest) if !rest.is_empty() => format!("the {rest} in the namespace's name"),
            ("ip", "") => "its address".to_owned(),
            ("sid", "") => "its socket id".to_owned(),
            ("event", "") => "the event's name".to_owned(),
            _ => return None,
        });
    }
    match &ast.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(format!("{:?}", text.inner())),
        Expr::Literal(LiteralValue::Int(n)) => Some(n.inner().to_string()),
        Expr::Literal(LiteralValue::UInt(n)) => Some(n.inner().to_string()),
        Expr::Literal(LiteralValue::Double(n)) => Some(n.inner().to_string()),
        Expr::Literal(LiteralValue::Boolean(b)) => Some(b.inner().to_string()),
        Expr::Literal(LiteralValue::Null) => Some("null".to_owned()),
        Expr::Call(call) if call.func_name == "size" => {
            let of = call.target.as_deref().or(call.args.first())?;
            Some(format!("the size of {}", value(of)?))
        }
        _ => None,
    }
}

/// A condition as a clause, or its opposite; `None` if it has no words.
fn clause(ast: &Ast, not: bool) -> Option<String> {
    let is = if not { "is not" } else { "is" };
    match &ast.expr {
        Expr::Select(select) if select.test => {
            let names = extended(&select.operand, &select.field)?;
            if let ["state", rest @ ..] = names.as_slice() {
                return Some(format!("{} {is} remembered", rest.join(".")));
            }
            let held =
                Ast { id: 0, expr: Expr::Select(cel::common::ast::SelectExpr { test: false, ..select.clone() }) };
            Some(format!("{} {is} given", value(&held)?))
        }
        Expr::Call(call) => called(call, not, is).or_else(|| Some(format!("{} {is} true", value(ast)?))),
        Expr::Literal(_) => None,
        _ => Some(format!("{} {is} true", value(ast)?)),
    }
}

fn called(call: &CallExpr, not: bool, is: &str) -> Option<String> {
    let not_ = if not { "does not " } else { "" };
    let verb = |plain: &str, third: &str| format!("{not_}{}", if not { plain } else { third });
    match (call.func_name.as_str(), call.target.as_deref(), call.args.as_slice()) {
        (operators::LOGICAL_NOT, None, [inner]) => clause(inner, !not),
        (operators::LOGICAL_AND, None, [a, b]) if !not => Some(format!("{} and {}", inner(a)?, inner(b)?)),
        (operators::LOGICAL_OR, None, [a, b]) if !not => Some(format!("{} or {}", inner(a)?, inner(b)?)),
        (operators::EQUALS | operators::NOT_EQUALS, None, [a, b]) => {
            let is = if not == (call.func_name == operators::EQUALS) { "is not" } else { "is" };
            match typed(a, b).or_else(|| typed(b, a)) {
                Some((value, name)) => Some(format!("{value} {is} {name}")),
                None => Some(format!("{} {is} {}", value(a)?, value(b)?)),
            }
        }
        (operators::IN, None, [item, list]) => {
            let item = value(item)?;
            match &list.expr {
                Expr::List(list) => {
                    let items = list.elements.iter().map(value).collect::<Option<Vec<_>>>()?;
                    Some(format!("{item} {is} {}", items.join(" or ")))
                }
                _ => Some(format!("{item} {is} among {}", value(list)?)),
            }
        }
        (operators::LESS, None, [a, b]) => Some(format!("{} {is} below {}", value(a)?, value(b)?)),
        (operators::GREATER, None, [a, b]) => Some(format!("{} {is} above {}", value(a)?, value(b)?)),
        (operators::LESS_EQUALS, None, [a, b]) => Some(format!("{} {is} at most {}", value(a)?, value(b)?)),
        (operators::GREATER_EQUALS, None, [a, b]) => Some(format!("{} {is} at least {}", value(a)?, value(b)?)),
        ("matches", Some(a), [b]) | ("matches", None, [a, b]) => {
            Some(format!("{} {} {}", value(a)?, verb("match", "matches"), text(b)?))
        }
        ("startsWith", Some(a), [b]) => {
            Some(format!("{} {} {}", value(a)?, verb("begin with", "begins with"), value(b)?))
        }
        ("endsWith", Some(a), [b]) => Some(format!("{} {} {}", value(a)?, verb("end with", "ends with"), value(b)?)),
        ("contains", Some(a), [b]) => Some(format!("{} {} {}", value(a)?, verb("contain", "contains"), value(b)?)),
        _ => None,
    }
}

/// A part of an `&&` or `||`: roles are whom the client is.
fn inner(ast: &Ast) -> Option<String> {
    roles(ast).map(|who| format!("it is {who}")).or_else(|| clause(ast, false))
}

/// `type(data.room) == string` as the value and what it has to be.
fn typed(call: &Ast, name: &Ast) -> Option<(String, &'static str)> {
    let (Expr::Call(call), Expr::Ident(name)) = (&call.expr, &name.expr) else { return None };
    let [of] = call.args.as_slice() else { return None };
    let name = match (call.func_name.as_str(), name.as_str()) {
        ("type", "string") => "a string",
        ("type", "int" | "uint") => "a whole number",
        ("type", "double") => "a number with a point",
        ("type", "bool") => "true or false",
        ("type", "list") => "an array",
        ("type", "map") => "an object",
        _ => return None,
    };
    Some((value(of)?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_in_words() {
        for (condition, who, clauses) in [
            ("claims.role == 'ADMIN'", "an ADMIN", &[][..]),
            ("'TTE' == claims.role && has(query.trainNo)", "a TTE", &["the query's trainNo is given"][..]),
            ("state.role in ['ADMIN', \"TTE\"]", "an ADMIN or a TTE", &[]),
            ("'staff' in claims.roles", "a staff", &[]),
            // What it merely says is no role.
            ("query.role == 'ADMIN'", "", &["the query's role is \"ADMIN\""]),
            ("has(data.routeId) && !has(state.busy)", "", &["its routeId is given", "busy is not remembered"]),
            ("!(has(claims.trains))", "", &["the token's trains is not given"]),
            ("data.room_type in ['flat', 'society']", "", &["its room_type is \"flat\" or \"society\""]),
            ("query.trainNo in claims.trains", "", &["the query's trainNo is among the token's trains"]),
            ("!(data.id in claims.?rooms.orValue([]))", "", &["its id is not among the token's rooms"]),
            ("string(data.id).matches('^[a-z&&]+$')", "", &["its id matches ^[a-z&&]+$"]),
            ("type(data.room) == string", "", &["its room is a string"]),
            ("type(data) != string", "", &["its data is not a string"]),
            ("data.n <= 7 && size(data.list) > 0", "", &["its n is at most 7", "the size of its list is above 0"]),
            ("data == claims.sub", "", &["its data is the token's sub"]),
            ("auth != null", "", &["the auth payload is not null"]),
            ("data.yes && !data.no", "", &["its yes is true", "its no is not true"]),
            (
                "!has(query.userId) || query.userId == claims.sub",
                "",
                &["the query's userId is not given or the query's userId is the token's sub"],
            ),
            ("ip.startsWith('10.')", "", &["its address begins with \"10.\""]),
            // Without words.
            ("args.all(x,\n  x > 1 && x < 3) && has(data.a)", "", &["args.all(x, x > 1 && x < 3)", "its a is given"]),
            ("data.a ? data.b && data.c : data.d", "", &["data.a ? data.b && data.c : data.d"]),
            ("data.a + 1 == 3", "", &["data.a + 1 == 3"]),
            ("data.a == 1 && true", "", &["its a is 1", "true"]),
            // A word that CEL reserves: only the rule language's own compiler reads it.
            ("namespace == '/x' && has(data.a)", "", &["namespace == '/x' && has(data.a)"]),
        ] {
            let words = Words::of(condition);
            let expected = Words {
                who: (!who.is_empty()).then(|| who.to_owned()),
                clauses: clauses.iter().map(|clause| (*clause).to_owned()).collect(),
            };
            assert_eq!(words, expected, "{condition}");
        }
    }

    #[test]
    fn one_clause_of_all() {
        let words = Words::of("claims.role == 'ADMIN' && data.n == 1");
        assert_eq!(words.clause(), "it is an ADMIN, and its n is 1");
    }
}
