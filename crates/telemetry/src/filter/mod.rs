//! Google's Logging query language: which entries a filter matches.
//!
//! `syntax` turns text into an expression, `field` knows the fields of an entry, `test` compares. Not understood, and
//! refused by name, are its functions other than `log_id`.

mod field;
pub mod syntax;
mod test;

use model::{
    Timestamp,
    log::{Entry, LogName, Severity, Source},
};
use std::cell::OnceCell;

use self::{
    syntax::Expression,
    test::{Test, TimeRange},
};

/// What was not understood, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// 1-based, in characters.
    line: usize,
    column: usize,
    message: String,
}

impl std::fmt::Display for FilterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at line {}, column {}", self.message, self.line, self.column)
    }
}

/// A filter, ready to be asked.
pub(crate) struct Filter {
    node: Node,
}

enum Node {
    /// All of them; true when empty.
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Test(Test),
}

/// What is known of an entry: always its head, and its body once it was read.
pub(crate) struct Subject<'a> {
    pub(crate) id: i64,
    pub(crate) time: Timestamp,
    pub(crate) severity: Severity,
    pub(crate) log: LogName,
    /// Its instance counts for nothing: it is part of the body.
    pub(crate) source: &'a Source,
    pub(crate) body: Option<&'a Entry>,
    /// The payload's JSON, parsed once for all tests.
    pub(crate) json: OnceCell<serde_json::Value>,
}

impl Filter {
    /// # Errors
    /// With line and column of what was not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, FilterError> {
        let expression = syntax::parse(text)?;
        Ok(Self { node: compile(&expression).map_err(|error| error.at(text))? })
    }

    /// Whether the filter matches. `None`: only the body can tell, and the subject has none.
    pub(crate) fn matches(&self, subject: &Subject<'_>) -> Option<bool> {
        self.node.matches(subject)
    }

    /// No entry outside of it matches.
    pub(crate) fn time_range(&self) -> TimeRange {
        self.node.time_range()
    }
}

impl Node {
    /// Three-valued: unknown only when it matters.
    fn matches(&self, subject: &Subject<'_>) -> Option<bool> {
        match self {
            Node::And(nodes) => first_or(nodes, subject, false),
            Node::Or(nodes) => first_or(nodes, subject, true),
            Node::Not(node) => node.matches(subject).map(|matches| !matches),
            Node::Test(test) => test.matches(subject),
        }
    }

    fn time_range(&self) -> TimeRange {
        match self {
            Node::And(nodes) => nodes.iter().map(Node::time_range).fold(TimeRange::ALL, TimeRange::intersection),
            Node::Or(nodes) => nodes.iter().map(Node::time_range).reduce(TimeRange::hull).unwrap_or(TimeRange::ALL),
            Node::Not(_) => TimeRange::ALL,
            Node::Test(test) => test.time_range(),
        }
    }
}

/// `decisive` when one of the nodes is that, its opposite when all are, else unknown.
fn first_or(nodes: &[Node], subject: &Subject<'_>, decisive: bool) -> Option<bool> {
    let mut answer = Some(!decisive);
    for node in nodes {
        match node.matches(subject) {
            Some(matches) if matches == decisive => return Some(decisive),
            Some(_) => {}
            None => answer = None,
        }
    }
    answer
}

fn compile(expression: &Expression) -> Result<Node, syntax::Misfit> {
    let all = |expressions: &[Expression]| expressions.iter().map(compile).collect::<Result<Vec<_>, _>>();
    Ok(match expression {
        Expression::And(expressions) => Node::And(all(expressions)?),
        Expression::Or(expressions) => Node::Or(all(expressions)?),
        Expression::Not(expression) => Node::Not(Box::new(compile(expression)?)),
        Expression::Compare(comparison) => Node::Test(Test::compare(comparison)?),
        Expression::Global(text) => Node::Test(Test::global(text)),
        Expression::Call(call) => Node::Test(Test::call(call)?),
    })
}

#[cfg(test)]
mod tests;
