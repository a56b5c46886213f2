//! Conditions of bindings and deny rules: expressions of CEL, read when a policy is set and asked when it is used.
//!
//! Reading and evaluating is the `cel` crate's. This file keeps both small: what an expression may say is a short list (no loops, so that
//! evaluating is linear in its length), its length and nesting are bounded, and what goes wrong inside is an expression that is not true.
//! Source of names and limits: cloud.google.com/iam/docs/conditions-attribute-reference and /linting-policies.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
    thread,
};

use cel::{
    Context, Env, Program, Value,
    common::ast::{CallExpr, Expr, IdedExpr, LiteralValue},
    extractors::This,
};
use model::{Status, Timestamp, policy::Condition};

/// Google gives no number; a name of a resource has some hundred.
const EXPRESSION_MAX_BYTES: usize = 4096;
/// Google's. Each of `&&`, `||` and `!`.
const LOGICAL_OPERATORS_MAX: usize = 12;
/// Brackets in brackets.
const NESTING_MAX: usize = 12;
/// Signs outside of texts, and `in`: what a parser's depth can come from.
const SIGNS_MAX: usize = 256;
/// Parts in parts of what was read. Evaluating goes as deep, on the stack of whoever serves the request: some 40 KB each without optimisation.
const DEPTH_MAX: usize = 20;
/// Where expressions are read: nothing within the limits above comes near it, and what is not touched costs nothing.
const READING_STACK_BYTES: usize = 256 << 20;
/// Google's, of the list in `hasOnly`.
const ONLY_MAX: usize = 10;
const TITLE_MAX_BYTES: usize = 100;
const DESCRIPTION_MAX_BYTES: usize = 256;

/// What a condition of a binding may call, beside operators.
const FUNCTIONS: &[&str] = &[
    "startsWith",
    "endsWith",
    "contains",
    "extract",
    "timestamp",
    "duration",
    "size",
    "hasOnly",
    "getAttribute",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
];
const OPERATORS: &[&str] = &["_&&_", "_||_", "!_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "_?_:_", "_+_", "_-_", "-_", "@in", "_in_"];
const LOGICAL: &[&str] = &["_&&_", "_||_", "!_"];
/// Of deny rules: tags alone, as at Google.
const TAG_FUNCTIONS: &[&str] = &["matchTag", "matchTagId", "hasTagKey", "hasTagKeyId"];
/// What `api.getAttribute` knows.
const ATTRIBUTES: &[&str] = &["storage.googleapis.com/objectListPrefix"];
const REQUEST: &[&str] = &["time", "path", "host"];
const RESOURCE: &[&str] = &["name", "type", "service"];

/// What a request says of itself and of what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes<'a> {
    pub time: Timestamp,
    pub service: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    /// Of a request that IAP looks at; elsewhere there is none.
    pub path: Option<&'a str>,
    pub host: Option<&'a str>,
    /// Of a request that lists objects: the prefix asked for.
    pub list_prefix: Option<&'a str>,
}

/// A condition, read.
#[derive(Debug)]
pub(crate) struct Compiled(Program);

/// How an expression came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    True,
    False,
    /// It names what this request does not have, or is no boolean: not true.
    Failed,
}

/// Where an expression stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Binding,
    DenyRule,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Google's name of the check: `ConditionCompileCheck`, `ConditionComplexityCheck`, ...
    pub check: &'static str,
    pub message: String,
}

impl Fault {
    fn compile(message: impl Into<String>) -> Self {
        Self { check: "ConditionCompileCheck", message: message.into() }
    }
}

/// Reads `condition` as one of `place`.
///
/// # Errors
/// `INVALID_ARGUMENT` at `field`, in the linter's words.
pub(crate) fn compile(condition: &Condition, place: Place, field: &str) -> Result<Compiled, Status> {
    let bad = |name: &str, why: String| Err(Status::invalid_field(format!("{field}.{name}"), why));
    if condition.title.is_empty() {
        return bad("title", "a condition has a title".to_owned());
    }
    for (name, text, max) in [("title", &condition.title, TITLE_MAX_BYTES), ("description", &condition.description, DESCRIPTION_MAX_BYTES)] {
        if text.len() > max {
            return bad(name, format!("has at most {max} bytes in UTF-8"));
        }
    }
    match expression_read(&condition.expression, place) {
        Ok(compiled) => Ok(compiled),
        Err(Fault { check, message }) => bad("expression", format!("LintValidationUnits/{check} Error: {message}")),
    }
}

/// What is wrong with an expression of a binding; `None` when nothing is.
pub fn lint(expression: &str) -> Option<Fault> {
    expression_read(expression, Place::Binding).err()
}

pub(crate) fn expression_read(text: &str, place: Place) -> Result<Compiled, Fault> {
    if text.trim().is_empty() {
        return Err(Fault::compile("ERROR: Parse expression: the expression is empty"));
    }
    if text.len() > EXPRESSION_MAX_BYTES {
        return Err(Fault {
            check: "ConditionComplexityCheck",
            message: format!("an expression has at most {EXPRESSION_MAX_BYTES} bytes; it has {}", text.len()),
        });
    }
    shape_check(text)?;
    on_large_stack(|| parsed_read(text, place)).unwrap_or_else(|| Err(Fault::compile("ERROR: Parse expression: it was not understood")))
}

/// Not one expression may end this server: what it takes to read one is bounded by [`shape_check`], and does not depend on who asks.
/// `None` when the work panicked or there is no thread for it.
fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("condition".to_owned()).stack_size(READING_STACK_BYTES).spawn_scoped(scope, work);
        thread.ok()?.join().ok()
    })
}

fn parsed_read(text: &str, place: Place) -> Result<Compiled, Fault> {
    let program = Program::compile(text).map_err(|errors| Fault::compile(parse_error(&errors.to_string())))?;
    let mut walk = Walk { place, logical: 0, depth: 0 };
    walk.check(program.expression())?;
    if walk.logical > LOGICAL_OPERATORS_MAX {
        return Err(Fault { check: "ConditionComplexityCheck", message: format!("Logical operators count must not be more than {LOGICAL_OPERATORS_MAX}") });
    }
    let compiled = Compiled(program);
    compiled.type_check()?;
    Ok(compiled)
}

/// The parser's errors as the linter writes them: `ERROR: Parse expression:1:5: ...` and where it is.
fn parse_error(errors: &str) -> String {
    let text = errors.replace("ERROR: <input>:", "ERROR: Parse expression:").replace("Syntax error: ", "");
    if text.starts_with("ERROR: Parse expression") { text } else { format!("ERROR: Parse expression: {text}") }
}

/// Length and depth, before a parser sees it.
///
/// What is a text here must be one to the parser, or signs hide in it: texts of one line between single quotes with escapes that
/// both know, and no comments, are the only kind.
fn shape_check(text: &str) -> Result<(), Fault> {
    let refused = |what: &str| Err(Fault::compile(format!("ERROR: Parse expression: {what} not supported in conditions")));
    let (mut depth, mut signs, mut word) = (0usize, 0, String::new());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        if c.is_ascii_alphanumeric() || c == '_' {
            word.push(c);
            rest = after;
            continue;
        }
        let before = std::mem::take(&mut word);
        signs += usize::from(before == "in");
        rest = after;
        match c {
            '"' | '\'' if after.starts_with([c; 2].iter().collect::<String>().as_str()) => return refused("texts in three quotes are"),
            '"' | '\'' if !before.is_empty() && before != "in" => return refused("raw texts and bytes are"),
            '"' | '\'' => match text_end(c, after) {
                Some(end) => rest = &after[end..],
                None => return refused("a text that has no end, more than one line or another escape than \\\\, \\', \\\", \\n, \\r or \\t is"),
            },
            '/' if after.starts_with('/') => return refused("comments are"),
            ',' | ' ' | '\t' | '\n' | '\r' => {}
            '(' | '[' | '{' => (depth, signs) = (depth + 1, signs + 1),
            ')' | ']' | '}' => (depth, signs) = (depth.saturating_sub(1), signs + 1),
            c if c.is_ascii_punctuation() && !matches!(c, '`' | '\\' | '#' | '@' | '$' | '~' | '^' | ';') => signs += 1,
            c => return refused(&format!("{:?} outside of a text is", c.to_string())),
        }
        if depth > NESTING_MAX || signs > SIGNS_MAX {
            return Err(too_deep());
        }
    }
    Ok(())
}

/// How long the text is that `quote` opened, with the quote that closes it.
fn text_end(quote: char, rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Some(at + 1),
            '\\' => drop(chars.next().filter(|(_, escaped)| matches!(escaped, '\\' | '\'' | '"' | 'n' | 'r' | 't'))?),
            '\n' | '\r' => return None,
            _ => {}
        }
    }
    None
}

fn too_deep() -> Fault {
    let message = format!("an expression nests at most {NESTING_MAX} deep in brackets and {DEPTH_MAX} deep in all, and has at most {SIGNS_MAX} signs");
    Fault { check: "ConditionComplexityCheck", message }
}

/// Goes over an expression: it says nothing but what is known here.
struct Walk {
    place: Place,
    logical: usize,
    depth: usize,
}

impl Walk {
    fn check(&mut self, at: &IdedExpr) -> Result<(), Fault> {
        if self.depth == DEPTH_MAX {
            return Err(too_deep());
        }
        self.depth += 1;
        self.part(at)?;
        self.depth -= 1;
        Ok(())
    }

    fn part(&mut self, at: &IdedExpr) -> Result<(), Fault> {
        match &at.expr {
            Expr::Literal(_) => Ok(()),
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.check(element)),
            Expr::Call(call) => self.call(call),
            Expr::Select(select) => {
                let Expr::Ident(variable) = &select.operand.expr else { return Err(unsupported("a field of that")) };
                let fields = match (variable.as_str(), self.place) {
                    ("request", Place::Binding) => REQUEST,
                    ("resource", Place::Binding) => RESOURCE,
                    _ => return Err(undeclared(variable)),
                };
                if fields.contains(&select.field.as_str()) { Ok(()) } else { Err(Fault::compile(format!("ERROR: undefined field '{}'", select.field))) }
            }
            Expr::Ident(name) => Err(undeclared(name)),
            Expr::Comprehension(_) => Err(unsupported("a macro")),
            Expr::Map(_) | Expr::Struct(_) => Err(unsupported("a map")),
            Expr::Unspecified => Err(unsupported("an empty part")),
        }
    }

    fn call(&mut self, call: &CallExpr) -> Result<(), Fault> {
        let name = call.func_name.as_str();
        let known = match self.place {
            Place::Binding => OPERATORS.contains(&name) || FUNCTIONS.contains(&name),
            Place::DenyRule => LOGICAL.contains(&name) || TAG_FUNCTIONS.contains(&name),
        };
        if !known {
            return Err(undeclared(name));
        }
        self.logical += usize::from(LOGICAL.contains(&name));
        if name == "hasOnly" {
            only_check(call)?;
        }
        match (&call.target, name) {
            (Some(target), "getAttribute") => {
                if !matches!(&target.expr, Expr::Ident(api) if api == "api") {
                    return Err(undeclared("getAttribute"));
                }
                attribute_check(call)?;
            }
            (None, "getAttribute") => return Err(undeclared("getAttribute")),
            (Some(target), name) if TAG_FUNCTIONS.contains(&name) => {
                if !matches!(&target.expr, Expr::Ident(resource) if resource == "resource") {
                    return Err(undeclared(name));
                }
            }
            (Some(target), _) => self.check(target)?,
            (None, _) => {}
        }
        call.args.iter().try_for_each(|argument| self.check(argument))
    }
}

/// A list of at most ten constants.
fn only_check(call: &CallExpr) -> Result<(), Fault> {
    let [argument] = &call.args[..] else { return Err(Fault::compile("ERROR: hasOnly takes one list")) };
    let Expr::List(list) = &argument.expr else {
        return Err(Fault { check: "HasOnlyListConstCheck", message: "hasOnly() function accepts only a list of constants".to_owned() });
    };
    if !list.elements.iter().all(|element| matches!(element.expr, Expr::Literal(_))) {
        return Err(Fault { check: "HasOnlyListConstCheck", message: "hasOnly() function accepts only a list of constants".to_owned() });
    }
    if list.elements.len() > ONLY_MAX {
        return Err(Fault { check: "HasOnlyListLengthCheck", message: format!("hasOnly() function takes at most {ONLY_MAX} elements") });
    }
    Ok(())
}

fn attribute_check(call: &CallExpr) -> Result<(), Fault> {
    let Some(Expr::Literal(LiteralValue::String(name))) = call.args.first().map(|argument| &argument.expr) else {
        return Err(Fault::compile("ERROR: api.getAttribute takes a name and what to give when there is none"));
    };
    let name = name.inner();
    if call.args.len() == 2 && ATTRIBUTES.contains(&name) {
        return Ok(());
    }
    Err(Fault {
        check: "RestrictedAttributesCheck",
        message: format!("the API attribute {name:?} is not supported by this server; {} is", ATTRIBUTES.join(", ")),
    })
}

fn undeclared(name: &str) -> Fault {
    Fault::compile(format!("ERROR: undeclared reference to '{name}' (in container '')"))
}

fn unsupported(what: &str) -> Fault {
    Fault::compile(format!("ERROR: {what} is not supported in conditions"))
}

/// The functions of the language, made once.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

impl Compiled {
    pub(crate) fn evaluate(&self, attributes: &Attributes<'_>) -> Outcome {
        match self.value(attributes) {
            Ok(Value::Bool(true)) => Outcome::True,
            Ok(Value::Bool(false)) => Outcome::False,
            Ok(_) | Err(_) => Outcome::Failed,
        }
    }

    fn value(&self, attributes: &Attributes<'_>) -> Result<Value, String> {
        // Not one request may end this server, whatever is wrong in an expression.
        catch_unwind(AssertUnwindSafe(|| self.0.execute(&context(attributes)).map_err(|error| error.to_string())))
            .unwrap_or_else(|_| Err("it could not be evaluated".to_owned()))
    }

    /// An expression that says neither yes nor no for a request that has everything.
    fn type_check(&self) -> Result<(), Fault> {
        let sample = Attributes {
            time: Timestamp::UNIX_EPOCH,
            service: "run.googleapis.com",
            kind: "run.googleapis.com/Service",
            name: "projects/p/locations/l/services/s",
            path: Some("/"),
            host: Some("localhost"),
            list_prefix: Some(""),
        };
        match self.value(&sample) {
            Ok(Value::Bool(_)) => Ok(()),
            Ok(other) => Err(Fault::compile(format!("ERROR: expected type 'bool' but found '{}'", type_name(&other)))),
            Err(why) => Err(Fault::compile(format!("ERROR: {why}"))),
        }
    }
}

fn context(attributes: &Attributes<'_>) -> Context<'static, 'static> {
    let mut context = Context::with_env(ENV.clone());
    let mut request: HashMap<&str, Value> = HashMap::new();
    if let Some(time) = timestamp(attributes.time) {
        request.insert("time", time);
    }
    for (name, value) in [("path", attributes.path), ("host", attributes.host)] {
        if let Some(value) = value {
            request.insert(name, text(value));
        }
    }
    let resource: HashMap<&str, Value> =
        [("name", attributes.name), ("type", attributes.kind), ("service", attributes.service)].map(|(name, value)| (name, text(value))).into();
    context.add_variable_from_value("request", request);
    context.add_variable_from_value("resource", resource);
    let list_prefix = attributes.list_prefix.map(text);
    context.add_variable_from_value("api", text(""));
    let ours = "a name that the language does not have";
    context.add_function("getAttribute", move |This(_): This<Value>, _: Arc<String>, default: Value| list_prefix.clone().unwrap_or(default)).expect(ours);
    context.add_function("extract", |This(this): This<Arc<String>>, template: Arc<String>| extract(&this, &template).to_owned()).expect(ours);
    context.add_function("hasOnly", |This(this): This<Arc<Vec<Value>>>, only: Arc<Vec<Value>>| this.iter().all(|one| only.contains(one))).expect(ours);
    // No resource here has tags.
    for name in ["hasTagKey", "hasTagKeyId"] {
        context.add_function(name, |This(_): This<Value>, _: Arc<String>| false).expect(ours);
    }
    for name in ["matchTag", "matchTagId"] {
        context.add_function(name, |This(_): This<Value>, _: Arc<String>, _: Arc<String>| false).expect(ours);
    }
    context
}

fn text(value: &str) -> Value {
    Value::String(Arc::new(value.to_owned()))
}

fn timestamp(time: Timestamp) -> Option<Value> {
    let nanosecond = u32::try_from(time.subsec_nanosecond()).unwrap_or(0);
    Some(Value::Timestamp(chrono::DateTime::from_timestamp(time.as_second(), nanosecond)?.fixed_offset()))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::List(_) => "list",
        Value::Map(_) => "map",
        Value::Int(_) => "int",
        Value::UInt(_) => "uint",
        Value::Float(_) => "double",
        Value::String(_) => "string",
        Value::Bytes(_) => "bytes",
        Value::Timestamp(_) => "google.protobuf.Timestamp",
        Value::Duration(_) => "google.protobuf.Duration",
        Value::Null => "null",
        _ => "another",
    }
}

/// What stands in `from` in the place of the braces of `template`; empty when it does not fit.
///
/// `"projects/_/buckets/b".extract("buckets/{name}")` is `b`. Before the braces the first place counts, behind them too.
fn extract<'a>(from: &'a str, template: &str) -> &'a str {
    let Some((before, rest)) = template.split_once('{') else { return "" };
    let Some((_, after)) = rest.split_once('}') else { return "" };
    let Some(begin) = from.find(before).map(|at| at + before.len()) else { return "" };
    if after.is_empty() {
        return &from[begin..];
    }
    from[begin..].find(after).map_or("", |end| &from[begin..begin + end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(time: &str) -> Attributes<'static> {
        Attributes {
            time: time.parse().unwrap(),
            service: "storage.googleapis.com",
            kind: "storage.googleapis.com/Object",
            name: "projects/_/buckets/b/objects/a/x.txt",
            path: None,
            host: None,
            list_prefix: None,
        }
    }

    #[test]
    fn expressions_are_true_or_not() {
        use Outcome::{Failed, False, True};
        let check = |expression: &str, expect: Outcome| {
            let compiled = expression_read(expression, Place::Binding).unwrap_or_else(|fault| panic!("{expression}: {fault:?}"));
            assert_eq!(compiled.evaluate(&at("2026-11-02T23:30:00Z")), expect, "{expression}");
        };
        for (expression, expect) in [
            ("true", True),
            ("request.time < timestamp('2027-01-01T00:00:00Z')", True),
            ("request.time < timestamp(\"2026-11-02T23:30:00Z\")", False),
            ("request.time >= timestamp('2026-11-02T23:30:00Z')", True),
            ("request.time < timestamp('2026-11-02T00:00:00Z') + duration('86400s')", True),
            ("request.time.getHours() == 23", True),
            ("request.time.getHours('Asia/Tokyo') == 8", True),
            ("request.time.getDayOfWeek('Europe/Berlin') == 2", True),
            ("request.time.getFullYear() == 2026 && request.time.getMonth() == 10", True),
            ("resource.name.startsWith('projects/_/buckets/b/objects/a/')", True),
            ("resource.name.startsWith('projects/_/buckets/b/objects/b/')", False),
            ("resource.name.endsWith('.txt')", True),
            ("resource.type == 'storage.googleapis.com/Object' && resource.service == 'storage.googleapis.com'", True),
            ("resource.type != 'storage.googleapis.com/Object' || resource.name.extract('objects/{name}') == 'a/x.txt'", True),
            ("resource.name.extract('buckets/{bucket}/objects') == 'b'", True),
            ("resource.name.extract('nothing/{x}') == ''", True),
            ("!(resource.service in ['run.googleapis.com', 'storage.googleapis.com'])", False),
            ("api.getAttribute('storage.googleapis.com/objectListPrefix', 'none') == 'none'", True),
            ("request.path == '/'", Failed),
            ("request.path.startsWith('/admin') || true", True),
            ("['a'].hasOnly(['a', 'b'])", True),
            ("['a', 'c'].hasOnly(['a', 'b'])", False),
        ] {
            check(expression, expect);
        }
        let listed = expression_read("api.getAttribute('storage.googleapis.com/objectListPrefix', '').startsWith('a/')", Place::Binding).unwrap();
        assert_eq!(listed.evaluate(&Attributes { list_prefix: Some("a/b"), ..at("2026-01-01T00:00:00Z") }), True);
        assert_eq!(listed.evaluate(&at("2026-01-01T00:00:00Z")), False);
    }

    #[test]
    fn what_is_no_condition_is_refused_in_the_linters_words() {
        let check = |expression: &str, unit: &str, word: &str| {
            let fault = expression_read(expression, Place::Binding).expect_err(expression);
            assert_eq!(fault.check, unit, "{expression}: {}", fault.message);
            assert!(fault.message.contains(word), "{expression}: {}", fault.message);
        };
        let compile = "ConditionCompileCheck";
        for bad in ["", "  ", "1 <", "true=false", "(", "'open", "request.time <", "a b", "request.", "\u{0}", "true &&"] {
            check(bad, compile, "ERROR: Parse expression");
        }
        check("user == 'x'", compile, "undeclared reference to 'user' (in container '')");
        check("request.time.matches('x')", compile, "undeclared reference to 'matches'");
        check("request.user == 'x'", compile, "undefined field 'user'");
        check("request.auth.claims == 'x'", compile, "ERROR");
        check("resource.name", compile, "expected type 'bool' but found 'string'");
        check("1 + 2", compile, "expected type 'bool' but found 'int'");
        check("resource.name > 1", compile, "ERROR");
        check("resource.name.startsWith(1)", compile, "ERROR");
        check("[1, 2].all(x, x > 0)", compile, "ERROR");
        check("{'a': 1}.size() == 1", compile, "ERROR");
        check("request", compile, "undeclared reference to 'request'");
        check("resource.matchTag('1/env', 'prod')", compile, "undeclared reference to 'matchTag'");
        check(&vec!["1 < 2"; 14].join(" || "), "ConditionComplexityCheck", "Logical operators count must not be more than 12");
        check(&format!("{}true{}", "(".repeat(13), ")".repeat(13)), "ConditionComplexityCheck", "12 deep");
        check(&format!("{}true", "!".repeat(257)), "ConditionComplexityCheck", "256 signs");
        // What would hide signs from the count.
        let signs = "-".repeat(2000);
        for (hidden, what) in [
            (format!("//'\n{signs}1"), "comments"),
            (format!("r'\\' == {signs}1 + 'x'"), "raw texts"),
            (format!("bR'\\' == {signs}1 + 'x'"), "raw texts"),
            (format!("\"\"\"\"\"\"{signs}1"), "three quotes"),
            (format!("'a\n{signs}1 + 'x'"), "no end"),
            (format!("'\\z{signs}1 + 'x'"), "no end"),
            (format!("true || `{signs}`"), "outside of a text"),
        ] {
            check(&hidden, compile, what);
        }
        check(&"1in ".repeat(257), compile, "ERROR");
        check(&format!("{}[1]", "1 in ".repeat(257)), "ConditionComplexityCheck", "256 signs");
        check(&format!("resource.name == '{}'", "x".repeat(4096)), "ConditionComplexityCheck", "4096 bytes");
        check("['a'].hasOnly([resource.name])", "HasOnlyListConstCheck", "list of constants");
        check("['a'].hasOnly(['1','2','3','4','5','6','7','8','9','10','11'])", "HasOnlyListLengthCheck", "10");
        check("api.getAttribute('iam.googleapis.com/modifiedGrantsByRole', []).hasOnly(['roles/viewer'])", "RestrictedAttributesCheck", "not supported");
        assert!(expression_read(&vec!["1 < 2"; 13].join(" || "), Place::Binding).is_ok());
    }

    /// Whoever asks has the stack of a worker at most.
    fn on_a_small_stack(bytes: usize, work: impl FnOnce() + Send) {
        thread::scope(|scope| thread::Builder::new().stack_size(bytes).spawn_scoped(scope, work).unwrap().join().unwrap());
    }

    #[test]
    fn as_many_signs_as_there_may_be_end_no_thread() {
        on_a_small_stack(512 << 10, || {
            for part in ["1 in ", "1+", "1-", "1<", "1==", "true?1:", "true && ", "- ! ", "1.", "size ", "'' ", "x in"] {
                let signs = part.chars().filter(|c| c.is_ascii_punctuation()).count() + part.matches("in").count();
                let times = SIGNS_MAX.checked_div(signs).unwrap_or(800).min(800);
                for expression in [format!("{}1", part.repeat(times)), format!("{}1{}", "(".repeat(12), ")".repeat(12)), part.repeat(times)] {
                    lint(&expression);
                }
            }
            lint(&format!("{}{}", "[".repeat(12), "(".repeat(500)));
            lint(&format!("1{}", ".size()".repeat(85)));
            lint(&format!("1{}", ".x".repeat(256)));
            lint(&format!("1{}", "[0]".repeat(85)));
        });
    }

    /// Half of a worker's 2 MiB, without optimisation.
    #[test]
    fn the_deepest_that_is_let_in_is_evaluated_on_a_workers_stack() {
        let deepest = |part: &str, begin: &str, end: &str| {
            let of = |times: usize| format!("{}{begin}{end}", part.repeat(times));
            let times = (1..40).take_while(|times| expression_read(&of(*times), Place::Binding).is_ok()).last().unwrap();
            assert_eq!(expression_read(&of(times + 1), Place::Binding).unwrap_err().message, too_deep().message, "{part}");
            expression_read(&of(times), Place::Binding).unwrap()
        };
        let compiled = [
            deepest("1 + ", "1", " < 2"),
            deepest("true ? true : ", "true", ""),
            deepest("false ? false : ", "resource.name.extract('{x}').startsWith('projects/')", ""),
        ];
        on_a_small_stack(1 << 20, || {
            for compiled in compiled {
                compiled.evaluate(&at("2026-11-02T23:30:00Z"));
                drop(compiled);
            }
        });
    }

    #[test]
    fn deny_rules_speak_of_tags_alone() {
        for good in ["!resource.matchTag('1/env', 'prod')", "resource.hasTagKey('1/env') || !resource.hasTagKeyId('tagKeys/1')"] {
            let compiled = expression_read(good, Place::DenyRule).unwrap_or_else(|fault| panic!("{good}: {fault:?}"));
            assert_eq!(compiled.evaluate(&at("2026-01-01T00:00:00Z")), Outcome::True, "{good}");
        }
        for bad in ["request.time < timestamp('2027-01-01T00:00:00Z')", "resource.name == 'x'", "resource.hasTagKey('a') == true"] {
            assert!(expression_read(bad, Place::DenyRule).is_err(), "{bad}");
        }
    }

    #[test]
    fn parts_of_names() {
        for (from, template, expect) in [
            ("projects/p/secrets/s/versions/1", "secrets/{x}/versions", "s"),
            ("projects/p/secrets/s/versions/1", "versions/{x}", "1"),
            ("projects/p", "{x}", "projects/p"),
            ("projects/p", "{x}/p", "projects"),
            ("a", "b{x}", ""),
            ("a", "a", ""),
            ("a", "{", ""),
            ("é/x", "/{y}", "x"),
        ] {
            assert_eq!(extract(from, template), expect, "{from} {template}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Of any text, and of texts made of an expression's parts.
        #[test]
        fn nothing_that_is_read_breaks(text in "\\PC{0,60}", parts in prop::collection::vec(prop::sample::select(&[
            "request.time", "resource.name", "(", ")", "[", "]", "&&", "||", "!", "-", "<", "==", " in ", "'a'", "1", ".startsWith(", "timestamp(", "duration(", "?", ":", ",",
            "9223372036854775807", "+", ".getHours(", "{", "}", "\\", "\"", ".", "true", "null",
        ][..]), 0..30)) {
            for expression in [text, parts.concat()] {
                if let Ok(compiled) = expression_read(&expression, Place::Binding) {
                    compiled.evaluate(&at("2026-11-02T23:30:00Z"));
                }
            }
        }
    }
}
