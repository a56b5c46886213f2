//! A subscription's filter: which messages of the topic it wants, by their attributes.
//!
//! Parses and evaluates the language of cloud.google.com/pubsub/docs/subscription-message-filter: `attributes:KEY`,
//! `attributes.KEY = "V"`, `!=`, `hasPrefix(attributes.KEY, "P")`, `NOT` or `-` (which bind first), and `AND` or `OR`, which one
//! level of parentheses does not mix. It looks at nothing but attributes: a message's data cannot be filtered.

use model::Status;

/// The longest filter, in bytes.
pub const FILTER_MAX_BYTES: usize = 256;

/// A parsed filter. Immutable for the life of its subscription, as at Google.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Option<Expression>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression {
    Has(String),
    Equals(String, String),
    HasPrefix(String, String),
    Not(Box<Expression>),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

impl Filter {
    /// What lets every message pass: the filter of a subscription without one.
    pub const ALL: Filter = Filter(None);

    /// Empty text is [`Filter::ALL`].
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming `filter` when `text` is longer than 256 bytes or is not in the language.
    pub fn parse(text: &str) -> Result<Self, Status> {
        if text.is_empty() {
            return Ok(Self::ALL);
        }
        if text.len() > FILTER_MAX_BYTES {
            return Err(invalid(format!("the filter has {} bytes, and at most {FILTER_MAX_BYTES} are allowed", text.len())));
        }
        let mut parser = Parser { text, at: 0 };
        let expression = parser.expression()?;
        parser.space();
        if parser.at < text.len() {
            return Err(parser.error("expected AND, OR or the end"));
        }
        Ok(Self(Some(expression)))
    }

    /// Whether a message passes whose attributes `attribute` looks up by key.
    pub fn matches<'a>(&self, attribute: &dyn Fn(&str) -> Option<&'a str>) -> bool {
        self.0.as_ref().is_none_or(|expression| expression.matches(attribute))
    }
}

impl Expression {
    fn matches<'a>(&self, attribute: &dyn Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Expression::Has(key) => attribute(key).is_some(),
            Expression::Equals(key, value) => attribute(key) == Some(value),
            Expression::HasPrefix(key, prefix) => attribute(key).is_some_and(|value| value.starts_with(prefix)),
            Expression::Not(inner) => !inner.matches(attribute),
            Expression::All(parts) => parts.iter().all(|part| part.matches(attribute)),
            Expression::Any(parts) => parts.iter().any(|part| part.matches(attribute)),
        }
    }
}

fn invalid(why: String) -> Status {
    Status::invalid_field("filter", format!("Invalid filter: {why}"))
}

/// Recursive descent over the text; at most 256 bytes, so the depth is bounded as well.
struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    /// operand (AND operand)* | operand (OR operand)*
    fn expression(&mut self) -> Result<Expression, Status> {
        let first = self.operand()?;
        let mut parts = vec![first];
        let mut operator = "";
        loop {
            let start = self.at;
            self.space();
            let word = self.word();
            if word != "AND" && word != "OR" {
                self.at = start;
                break;
            }
            if !operator.is_empty() && operator != word {
                self.at -= word.len();
                return Err(self.error("AND and OR are combined without parentheses"));
            }
            operator = word;
            parts.push(self.operand()?);
        }
        Ok(match operator {
            "AND" => Expression::All(parts),
            "OR" => Expression::Any(parts),
            _ => parts.remove(0),
        })
    }

    /// `NOT` operand | `-` operand | `(` expression `)` | comparison | hasPrefix(..)
    fn operand(&mut self) -> Result<Expression, Status> {
        self.space();
        if self.take("-") {
            return Ok(Expression::Not(Box::new(self.operand()?)));
        }
        if self.take("(") {
            let inner = self.expression()?;
            self.expect(")")?;
            return Ok(inner);
        }
        let start = self.at;
        match self.word() {
            "NOT" => Ok(Expression::Not(Box::new(self.operand()?))),
            "attributes" => self.comparison(),
            "hasPrefix" => self.has_prefix(),
            _ => {
                self.at = start;
                Err(self.error("expected attributes, hasPrefix, NOT or a parenthesis"))
            }
        }
    }

    /// What follows `attributes`: `:KEY`, `.KEY = "VALUE"` or `.KEY != "VALUE"`.
    fn comparison(&mut self) -> Result<Expression, Status> {
        self.space();
        if self.take(":") {
            return Ok(Expression::Has(self.key()?));
        }
        self.expect(".")?;
        let key = self.key()?;
        self.space();
        let is_negated = self.take("!=");
        if !is_negated && !self.take("=") {
            return Err(self.error("expected = or != after the key"));
        }
        let equals = Expression::Equals(key, self.string()?);
        Ok(if is_negated { Expression::Not(Box::new(equals)) } else { equals })
    }

    fn has_prefix(&mut self) -> Result<Expression, Status> {
        self.expect("(")?;
        self.space();
        let start = self.at;
        if self.word() != "attributes" {
            self.at = start;
            return Err(self.error("expected attributes.KEY"));
        }
        self.expect(".")?;
        let key = self.key()?;
        self.expect(",")?;
        let prefix = self.string()?;
        self.expect(")")?;
        Ok(Expression::HasPrefix(key, prefix))
    }

    /// A word, or a string literal for whatever holds other characters.
    fn key(&mut self) -> Result<String, Status> {
        self.space();
        if self.rest().starts_with('"') {
            return self.string();
        }
        match self.word() {
            "" => Err(self.error("expected a key; one with other characters than letters, digits, - and _ is a string literal")),
            word => Ok(word.to_owned()),
        }
    }

    fn string(&mut self) -> Result<String, Status> {
        self.expect("\"")?;
        let mut value = String::new();
        loop {
            let Some(c) = self.rest().chars().next() else {
                return Err(self.error("the string literal has no end"));
            };
            if c.is_control() {
                return Err(self.error("a character that does not print is written as an escape"));
            }
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(value),
                '\\' => value.push(self.escape()?),
                c => value.push(c),
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<char, Status> {
        let Some(c) = self.rest().chars().next() else {
            return Err(self.error("the string literal has no end"));
        };
        if c.is_digit(8) {
            return self.code_point(8, 3);
        }
        let start = self.at;
        self.at += c.len_utf8();
        Ok(match c {
            '\\' | '"' | '\'' | '`' | '?' => c,
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'x' | 'X' => self.code_point(16, 2)?,
            'u' => self.code_point(16, 4)?,
            'U' => self.code_point(16, 8)?,
            _ => {
                self.at = start;
                return Err(self.error("no such escape"));
            }
        })
    }

    /// Exactly `digits` digits.
    fn code_point(&mut self, radix: u32, digits: usize) -> Result<char, Status> {
        let text = self.rest().get(..digits).filter(|text| text.chars().all(|c| c.is_digit(radix)));
        let Some(c) = text.and_then(|text| u32::from_str_radix(text, radix).ok()).and_then(char::from_u32) else {
            return Err(self.error("the escape names no character"));
        };
        self.at += digits;
        Ok(c)
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn word(&mut self) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn take(&mut self, sign: &str) -> bool {
        let is_there = self.rest().starts_with(sign);
        if is_there {
            self.at += sign.len();
        }
        is_there
    }

    fn expect(&mut self, sign: &str) -> Result<(), Status> {
        self.space();
        if self.take(sign) { Ok(()) } else { Err(self.error(&format!("expected {sign}"))) }
    }

    fn error(&self, why: &str) -> Status {
        invalid(format!("{why}, at byte {} of {:?}", self.at, self.text))
    }
}

#[cfg(test)]
mod tests {
    use model::Code;

    use super::*;

    #[test]
    fn filters_choose_by_attributes() {
        let check = |filter: &str, attributes: &[(&str, &str)], expect: bool| {
            let parsed = Filter::parse(filter).unwrap_or_else(|status| panic!("{filter}: {status}"));
            let attribute = |key: &str| attributes.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
            assert_eq!(parsed.matches(&attribute), expect, "{filter} on {attributes:?}");
        };
        let (com, net, none): (&[_], &[_], &[_]) = (&[("name", "com")], &[("name", "net")], &[]);
        let tagged: &[_] = &[("name", "com"), ("iana.org/language_tag", "en")];
        type Row<'r> = (&'r str, &'r [(&'r str, &'r str)], bool);
        let table: &[Row] = &[
            ("", none, true),
            ("attributes:name", com, true),
            ("attributes:name", none, false),
            ("attributes:Name", com, false),
            ("NOT attributes:name", none, true),
            ("-attributes:name", com, false),
            ("attributes.name = \"com\"", com, true),
            ("attributes.name=\"com\"", net, false),
            ("attributes.name = \"Com\"", com, false),
            ("attributes.name = \"\"", &[("name", "")], true),
            ("attributes.name = \"\"", none, false),
            ("attributes.name != \"com\"", net, true),
            ("attributes.name != \"com\"", com, false),
            ("attributes.name != \"com\"", none, true),
            ("hasPrefix(attributes.name, \"co\")", com, true),
            ("hasPrefix ( attributes.name , \"co\" )", net, false),
            ("hasPrefix(attributes.name, \"\")", none, false),
            ("NOT hasPrefix(attributes.name, \"co\")", none, true),
            ("attributes.\"iana.org/language_tag\" = \"en\"", tagged, true),
            ("attributes:\"iana.org/language_tag\" AND NOT attributes.name = \"com\"", tagged, false),
            ("attributes:\"iana.org/language_tag\" AND (attributes.name = \"com\" OR attributes.name = \"org\")", tagged, true),
            ("attributes.name = \"com\" AND -attributes:\"iana.org/language_tag\"", com, true),
            ("NOT attributes:x OR attributes:name", &[("x", ""), ("name", "")], true),
            ("NOT (attributes:x OR attributes:name)", com, false),
            ("\n attributes.name = \"com\"\n OR attributes.name = \"net\"\n", net, true),
            ("attributes:a AND attributes:b AND attributes:c", &[("a", ""), ("b", "")], false),
            ("attributes:ce-type_1", &[("ce-type_1", "")], true),
            ("attributes:\"\\u307F\\u3093\\u306A\"", &[("みんな", "")], true),
            ("attributes.name = \"\\x63\\157m\"", com, true),
            ("attributes.name = \"a\\\"b\\\\\\n\"", &[("name", "a\"b\\\n")], true),
            ("attributes.name = \"\\U0001F525\"", &[("name", "🔥")], true),
        ];
        for (filter, attributes, expect) in table {
            check(filter, attributes, *expect);
        }
    }

    #[test]
    fn what_is_not_in_the_language_is_refused() {
        for filter in [
            " ",
            "name",
            "attributes",
            "attributes:",
            "attributes.name",
            "attributes.name = com",
            "attributes.name = attributes.website",
            "attributes.name == \"com\"",
            "attributes.name > \"com\"",
            "\"com\" = attributes.name",
            "attributes:\\u307F",
            "attributes:みんな",
            "attributes:iana.org/language_tag",
            "attributes:a and attributes:b",
            "not attributes:a",
            "attributes:a AND",
            "attributes:a attributes:b",
            "attributes:a AND attributes:b OR attributes:c",
            "attributes.name = \"com\" AND (\"net\" OR \"org\")",
            "(attributes:a",
            "attributes:a)",
            "hasSuffix(attributes.a, \"b\")",
            "hasPrefix(attributes:a, \"b\")",
            "hasPrefix(attributes.a)",
            "attributes.name = \"com",
            "attributes.name = \"\\",
            "attributes.name = \"\\q\"",
            "attributes.name = \"\\u12\"",
            "attributes.name = \"\\uD800\"",
            "attributes.name = \"a\nb\"",
            "data = \"x\"",
        ] {
            let status = Filter::parse(filter).expect_err(filter);
            assert_eq!((status.code, status.fields[0].field.as_str()), (Code::InvalidArgument, "filter"), "{filter}");
        }
    }

    #[test]
    fn a_filter_has_at_most_256_bytes() {
        let of = |bytes: usize| format!("attributes:{}", "k".repeat(bytes - 11));
        assert!(Filter::parse(&of(256)).is_ok());
        assert!(Filter::parse(&of(257)).is_err());
        assert!(Filter::parse(&"(".repeat(256)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[ a-z\"\\\\().:=!,みux0-9ANDORT-]{0,60}") {
            let _ = Filter::parse(&text);
        }
    }
}
