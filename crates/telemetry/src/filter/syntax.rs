//! The grammar: text to expression and back.
//!
//! ```text
//! expression = sequence of disjunctions, joined by AND or by nothing
//! disjunction = term { OR term }            OR binds tighter than AND, as Google documents
//! term        = [ NOT | - ] ( "(" expression ")" | restriction )
//! restriction = field operator argument | function "(" argument ")" | text
//! argument    = text | * | "(" texts joined by AND, OR, NOT ")"
//! ```
//! Text is quoted or a bare word; `--` begins a comment.

use std::{
    fmt::{self, Display, Write as _},
    ops::Range,
};

use super::FilterError;

/// How deep parentheses and negations may nest: the parser and all that walks an expression recurse.
const DEPTH_MAX: usize = 60;

#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    Compare(Comparison),
    /// Any field contains the text.
    Global(String),
    Call(Call),
}

#[derive(Clone, Debug)]
pub struct Comparison {
    /// Never empty.
    pub field: Vec<String>,
    pub operator: Operator,
    pub value: Value,
    /// Where the field and the value stand in the text.
    pub(super) field_at: usize,
    pub(super) value_at: usize,
}

/// What it says counts, not where it stands.
impl PartialEq for Comparison {
    fn eq(&self, other: &Self) -> bool {
        (&self.field, self.operator, &self.value) == (&other.field, other.operator, &other.value)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    /// `:*`, the field is there.
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Has,
    Matches,
    NotMatches,
}

/// The longer ones first.
const OPERATORS: [(&str, Operator); 9] = [
    ("!=", Operator::NotEqual),
    ("!~", Operator::NotMatches),
    ("=~", Operator::Matches),
    (">=", Operator::GreaterEqual),
    ("<=", Operator::LessEqual),
    ("=", Operator::Equal),
    (">", Operator::Greater),
    ("<", Operator::Less),
    (":", Operator::Has),
];

#[derive(Clone, Debug)]
pub struct Call {
    pub function: String,
    pub argument: String,
    pub(super) at: usize,
}

impl PartialEq for Call {
    fn eq(&self, other: &Self) -> bool {
        (&self.function, &self.argument) == (&other.function, &other.argument)
    }
}

/// What does not fit, by its place in the text in bytes.
#[derive(Debug)]
pub(super) struct Misfit {
    pub(super) at: usize,
    pub(super) message: String,
}

impl Misfit {
    pub(super) fn at(self, text: &str) -> FilterError {
        let before = &text[..self.at];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        FilterError { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1, message: self.message }
    }
}

/// Parses a whole filter. An empty one matches everything.
pub fn parse(text: &str) -> Result<Expression, FilterError> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    parser.whole().map_err(|misfit| misfit.at(text))
}

struct Parser<'a> {
    text: &'a str,
    /// In bytes.
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn whole(&mut self) -> Result<Expression, Misfit> {
        self.space_skip();
        if self.rest().is_empty() {
            return Ok(Expression::And(Vec::new()));
        }
        let expression = self.conjunction(Self::term)?;
        // Only a parenthesis too many ends an expression early.
        if self.rest().is_empty() { Ok(expression) } else { Err(self.unexpected("a comparison")) }
    }

    /// Disjunctions of what `atom` reads, joined by AND or by nothing, up to a closing parenthesis or the end.
    fn conjunction(&mut self, atom: impl Fn(&mut Self) -> Result<Expression, Misfit> + Copy) -> Result<Expression, Misfit> {
        let mut parts = vec![self.disjunction(atom)?];
        loop {
            self.space_skip();
            if self.rest().is_empty() || self.rest().starts_with(')') {
                return Ok(joined(parts, Expression::And));
            }
            self.keyword_take("AND");
            parts.push(self.disjunction(atom)?);
        }
    }

    fn disjunction(&mut self, atom: impl Fn(&mut Self) -> Result<Expression, Misfit> + Copy) -> Result<Expression, Misfit> {
        let mut parts = vec![self.negation(atom)?];
        loop {
            self.space_skip();
            if !self.keyword_take("OR") {
                return Ok(joined(parts, Expression::Or));
            }
            parts.push(self.negation(atom)?);
        }
    }

    fn negation(&mut self, atom: impl Fn(&mut Self) -> Result<Expression, Misfit> + Copy) -> Result<Expression, Misfit> {
        self.space_skip();
        if self.keyword_take("NOT") {
            return self.deeper(|parser| Ok(Expression::Not(Box::new(parser.negation(atom)?))));
        }
        if self.take("(") {
            let inner = self.deeper(|parser| parser.conjunction(atom))?;
            // A conjunction ends at a parenthesis or at the end.
            return if self.take(")") { Ok(inner) } else { Err(self.unexpected("a closing parenthesis")) };
        }
        atom(self)
    }

    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Result<Expression, Misfit>) -> Result<Expression, Misfit> {
        if self.depth == DEPTH_MAX {
            return Err(self.misfit(format!("parentheses and negations nest deeper than {DEPTH_MAX}")));
        }
        self.depth += 1;
        let expression = read(self)?;
        self.depth -= 1;
        Ok(expression)
    }

    /// A negated term by its minus, or a restriction.
    fn term(&mut self) -> Result<Expression, Misfit> {
        if self.take("-") {
            return self.deeper(|parser| Ok(Expression::Not(Box::new(parser.negation(Self::term)?))));
        }
        self.restriction()
    }

    fn restriction(&mut self) -> Result<Expression, Misfit> {
        let start = self.at;
        if self.is_keyword() {
            return Err(self.unexpected("a comparison"));
        }
        let path = self.path()?;
        let raw = start..self.at;
        if self.rest().starts_with('(') && path.quoted == 0 {
            return self.call(raw);
        }
        self.space_skip();
        let Some(operator) = self.operator() else {
            // One quoted text is what it holds; anything else is searched for as it was written.
            let text = if path.quoted == path.segments.len() && path.quoted == 1 { path.segments.concat() } else { self.text[raw].to_owned() };
            return Ok(Expression::Global(text));
        };
        if path.segments.iter().any(String::is_empty) {
            return Err(Misfit { at: start, message: format!("invalid field name '{}'", &self.text[raw]) });
        }
        self.space_skip();
        self.argument(path.segments, operator, start)
    }

    fn operator(&mut self) -> Option<Operator> {
        OPERATORS.iter().find(|(text, _)| self.take(text)).map(|(_, operator)| *operator)
    }

    fn argument(&mut self, field: Vec<String>, operator: Operator, field_at: usize) -> Result<Expression, Misfit> {
        // `!= (a OR b)` means neither of them.
        let (each, negated) = match operator {
            Operator::NotEqual => (Operator::Equal, true),
            Operator::NotMatches => (Operator::Matches, true),
            other => (other, false),
        };
        if !self.take("(") {
            let (value, value_at) = self.value(operator)?;
            return Ok(Expression::Compare(Comparison { field, operator, value, field_at, value_at }));
        }
        let list = self.deeper(|parser| {
            parser.conjunction(|parser| {
                if parser.rest().starts_with('-') && !parser.rest()[1..].starts_with(|next: char| next.is_ascii_digit()) {
                    parser.take("-");
                    let (value, value_at) = parser.value(each)?;
                    let compare = Comparison { field: field.clone(), operator: each, value, field_at, value_at };
                    return Ok(Expression::Not(Box::new(Expression::Compare(compare))));
                }
                let (value, value_at) = parser.value(each)?;
                Ok(Expression::Compare(Comparison { field: field.clone(), operator: each, value, field_at, value_at }))
            })
        })?;
        if !self.take(")") {
            return Err(self.unexpected("a closing parenthesis"));
        }
        Ok(if negated { Expression::Not(Box::new(list)) } else { list })
    }

    fn value(&mut self, operator: Operator) -> Result<(Value, usize), Misfit> {
        let at = self.at;
        if self.rest().starts_with(['"', '\'']) {
            return Ok((Value::Text(self.quoted()?), at));
        }
        if self.is_keyword() {
            return Err(self.unexpected("a value"));
        }
        let word = self.while_char(|char, _| !char.is_whitespace() && !"()\",=<>".contains(char));
        match word {
            "" => Err(self.unexpected("a value")),
            "*" if operator == Operator::Has => Ok((Value::Any, at)),
            word => Ok((Value::Text(word.to_owned()), at)),
        }
    }

    fn call(&mut self, function: Range<usize>) -> Result<Expression, Misfit> {
        let at = function.start;
        let function = self.text[function].to_owned();
        self.take("(");
        self.space_skip();
        let (argument, _) = self.value(Operator::Equal)?;
        self.space_skip();
        if !self.take(")") {
            return Err(self.unexpected("a closing parenthesis"));
        }
        let Value::Text(argument) = argument else {
            return Err(Misfit { at, message: "a function takes a text".into() });
        };
        Ok(Expression::Call(Call { function, argument, at }))
    }

    /// Segments joined by dots, each bare or quoted.
    fn path(&mut self) -> Result<Path, Misfit> {
        let mut path = Path { segments: Vec::new(), quoted: 0 };
        let start = self.at;
        loop {
            if self.rest().starts_with('"') || (self.at == start && self.rest().starts_with('\'')) {
                path.segments.push(self.quoted()?);
                path.quoted += 1;
            } else {
                let word = self.while_char(is_bare);
                path.segments.push(word.to_owned());
            }
            if !self.take(".") {
                break;
            }
        }
        if self.at == start { Err(self.unexpected("a comparison")) } else { Ok(path) }
    }

    fn quoted(&mut self) -> Result<String, Misfit> {
        let start = self.at;
        let mut chars = self.rest().char_indices();
        let quote = chars.next().map_or('"', |(_, quote)| quote);
        let mut text = String::new();
        while let Some((index, char)) = chars.next() {
            match char {
                '\\' => escape(&mut chars, &mut text),
                char if char == quote => {
                    self.at += index + char.len_utf8();
                    return Ok(text);
                }
                char => text.push(char),
            }
        }
        Err(Misfit { at: start, message: "unterminated string: it has no closing quote".into() })
    }

    /// Takes `keyword` where it stands as a word of its own.
    fn keyword_take(&mut self, keyword: &str) -> bool {
        let is_there = self.rest().strip_prefix(keyword).is_some_and(ends_word);
        if is_there {
            self.at += keyword.len();
        }
        is_there
    }

    fn is_keyword(&self) -> bool {
        ["AND", "OR", "NOT"].iter().any(|keyword| self.rest().strip_prefix(keyword).is_some_and(ends_word))
    }

    fn space_skip(&mut self) {
        loop {
            self.at += self.rest().len() - self.rest().trim_start().len();
            if !self.rest().starts_with("--") {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn while_char(&mut self, keep: impl Fn(char, &str) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.char_indices().find(|(index, char)| !keep(*char, &rest[index + char.len_utf8()..])).map_or(rest.len(), |(index, _)| index);
        self.at += end;
        &rest[..end]
    }

    fn take(&mut self, text: &str) -> bool {
        let is_there = self.rest().starts_with(text);
        if is_there {
            self.at += text.len();
        }
        is_there
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn misfit(&self, message: String) -> Misfit {
        Misfit { at: self.at, message }
    }

    fn unexpected(&self, expected: &str) -> Misfit {
        let token: String = match self.rest().chars().next() {
            None => {
                return self.misfit(format!("syntax error: expected {expected}, found the end"));
            }
            Some(char) if is_bare(char, "") => self.rest().chars().take_while(|char| is_bare(*char, "")).take(40).collect(),
            Some(char) => char.to_string(),
        };
        self.misfit(format!("syntax error: expected {expected}, found '{token}'"))
    }
}

struct Path {
    segments: Vec<String>,
    /// How many of them were quoted.
    quoted: usize,
}

/// Whether a bare word goes on with `char`, which `rest` follows.
fn is_bare(char: char, rest: &str) -> bool {
    match char {
        '!' => !rest.starts_with(['=', '~']),
        _ => !char.is_whitespace() && !"\"()=<>:,~.".contains(char),
    }
}

fn ends_word(rest: &str) -> bool {
    rest.chars().next().is_none_or(|next| next.is_whitespace() || "()\"'".contains(next))
}

fn joined(mut parts: Vec<Expression>, join: impl FnOnce(Vec<Expression>) -> Expression) -> Expression {
    if parts.len() == 1 { parts.remove(0) } else { join(parts) }
}

/// Behind a backslash. Escapes that are none stay as they are written: `"\d"` is a regular expression's.
fn escape(chars: &mut std::str::CharIndices<'_>, text: &mut String) {
    match chars.next() {
        Some((_, char @ ('"' | '\'' | '\\'))) => text.push(char),
        Some((_, 'n')) => text.push('\n'),
        Some((_, 'r')) => text.push('\r'),
        Some((_, 't')) => text.push('\t'),
        Some((_, 'u')) => match hex4(chars.as_str()) {
            Some(char) => {
                text.push(char);
                chars.by_ref().take(4).for_each(drop);
            }
            None => text.push_str("\\u"),
        },
        Some((_, other)) => {
            text.push('\\');
            text.push(other);
        }
        // The string has no end: its caller says so.
        None => {}
    }
}

fn hex4(rest: &str) -> Option<char> {
    let digits = rest.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    char::from_u32(u32::from_str_radix(digits, 16).ok()?)
}

/// Canonical text: parses to the same expression.
impl Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expression::And(parts) => parts_write(f, parts, " AND "),
            Expression::Or(parts) => parts_write(f, parts, " OR "),
            Expression::Not(inner) => write!(f, "NOT {}", Inner(inner)),
            Expression::Global(text) => text_write(f, text),
            Expression::Call(call) => {
                write!(f, "{}(", call.function)?;
                text_write(f, &call.argument)?;
                f.write_char(')')
            }
            Expression::Compare(comparison) => {
                for (index, segment) in comparison.field.iter().enumerate() {
                    if index > 0 {
                        f.write_char('.')?;
                    }
                    text_write(f, segment)?;
                }
                let operator = OPERATORS.iter().find(|(_, operator)| *operator == comparison.operator).map_or("", |(text, _)| text);
                f.write_str(operator)?;
                match &comparison.value {
                    Value::Any => f.write_char('*'),
                    Value::Text(text) => text_write(f, text),
                }
            }
        }
    }
}

fn parts_write(f: &mut fmt::Formatter<'_>, parts: &[Expression], join: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(join)?;
        }
        write!(f, "{}", Inner(part))?;
    }
    Ok(())
}

/// An expression inside another one.
struct Inner<'a>(&'a Expression);

impl Display for Inner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expression::And(_) | Expression::Or(_) => write!(f, "({})", self.0),
            other => other.fmt(f),
        }
    }
}

fn text_write(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for char in text.chars() {
        match char {
            '"' | '\\' => write!(f, "\\{char}")?,
            '\n' => f.write_str("\\n")?,
            char => f.write_char(char)?,
        }
    }
    f.write_char('"')
}
