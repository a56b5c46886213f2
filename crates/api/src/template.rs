//! Path templates in the syntax of google.api.http: `/v1/{name=projects/*/locations/*}/services:list`.
//!
//! A variable without a pattern is one segment. `**` takes the rest, or everything before the literals that follow it.
//! Source of the syntax: google/api/http.proto.

use std::fmt;

use percent_encoding::percent_decode_str;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    segments: Vec<Segment>,
    variables: Vec<Variable>,
    /// What follows the last colon, such as `setIamPolicy`.
    verb: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    One,
    Many,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    name: String,
    from: usize,
    to: usize,
}

/// Why a template was not understood.
#[derive(Debug, thiserror::Error)]
#[error("path template {0:?} is malformed: {1}")]
pub(crate) struct Malformed(String, &'static str);

impl Template {
    /// # Errors
    /// [`Malformed`] for an unclosed brace, or for more than one `**`.
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        let bad = |why| Malformed(text.to_owned(), why);
        let (path, verb) = match text.rfind(':') {
            Some(at) if !text[at..].contains(['/', '}']) => (&text[..at], Some(text[at + 1..].to_owned())),
            _ => (text, None),
        };
        let mut template = Self { segments: Vec::new(), variables: Vec::new(), verb };
        let mut rest = path.strip_prefix('/').ok_or_else(|| bad("it does not begin with a slash"))?;
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').ok_or_else(|| bad("a brace is not closed"))? + open;
            template.push(&rest[..open]);
            let (name, pattern) = rest[open + 1..close].split_once('=').unwrap_or((&rest[open + 1..close], "*"));
            let from = template.segments.len();
            template.push(pattern);
            template.variables.push(Variable { name: name.to_owned(), from, to: template.segments.len() });
            rest = &rest[close + 1..];
        }
        template.push(rest);
        if template.segments.iter().filter(|s| **s == Segment::Many).count() > 1 {
            return Err(bad("it has more than one **"));
        }
        Ok(template)
    }

    fn push(&mut self, pattern: &str) {
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            self.segments.push(match part {
                "*" => Segment::One,
                "**" => Segment::Many,
                literal => Segment::Literal(literal.to_owned()),
            });
        }
    }

    /// The variables of `path` (still percent-encoded, beginning with a slash), each decoded; `None` when it does not match.
    pub(crate) fn matches(&self, path: &str) -> Option<Vec<(String, String)>> {
        let path = path.strip_prefix('/')?;
        let path = match &self.verb {
            Some(verb) => path.strip_suffix(verb.as_str())?.strip_suffix(':')?,
            None => path,
        };
        let parts: Vec<&str> = path.split('/').collect();
        // What follows a colon at the end is another method's verb, not part of a name.
        if self.verb.is_none() && self.segments.last() == Some(&Segment::One) && parts.last().is_some_and(|last| last.contains(':')) {
            return None;
        }
        let many = self.segments.iter().position(|s| *s == Segment::Many);
        match many {
            None if parts.len() == self.segments.len() => {}
            Some(_) if parts.len() + 1 > self.segments.len() => {}
            _ => return None,
        }
        // Where segment `at` begins among the parts: those behind `**` are counted from the end.
        let place = |at: usize| {
            if many.is_some_and(|many| at > many) { at + parts.len() - self.segments.len() } else { at }
        };
        for (at, segment) in self.segments.iter().enumerate() {
            let fits = match segment {
                Segment::Literal(literal) => parts[place(at)] == literal,
                Segment::One => !parts[place(at)].is_empty(),
                Segment::Many => true,
            };
            if !fits {
                return None;
            }
        }
        self.variables.iter().map(|v| Some((v.name.clone(), decode(&parts[place(v.from)..place(v.to)])?))).collect()
    }

    /// Whether the variable `name` can have a value of the form `pattern` (`projects/{project}`, or several with `|` between); true when
    /// there is no such variable.
    pub(crate) fn can_be(&self, name: &str, pattern: &str) -> bool {
        pattern.split('|').any(|pattern| self.can_be_one(name, pattern))
    }

    fn can_be_one(&self, name: &str, pattern: &str) -> bool {
        let Some(variable) = self.variables.iter().find(|v| v.name == name) else { return true };
        let (segments, parts): (_, Vec<&str>) = (&self.segments[variable.from..variable.to], pattern.split('/').collect());
        let many = segments.iter().position(|segment| *segment == Segment::Many);
        if many.is_none() && segments.len() != parts.len() {
            return false;
        }
        let fits = |(segment, part): (&Segment, &&str)| match segment {
            Segment::Literal(literal) => part.starts_with('{') || literal == part,
            Segment::One | Segment::Many => true,
        };
        // What follows `**` is not compared.
        segments.iter().take(many.unwrap_or(segments.len())).zip(&parts).all(fits)
    }

    /// Templates with a verb and with more literals are tried first.
    pub(crate) fn rank(&self) -> impl Ord + use<> {
        let literals = self.segments.iter().filter(|s| matches!(s, Segment::Literal(_))).count();
        let many = self.segments.contains(&Segment::Many);
        (self.verb.is_none(), many, std::cmp::Reverse(literals))
    }

    /// Equal for two templates that match the same paths.
    pub(crate) fn shape(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => write!(f, "/{literal}")?,
                Segment::One => f.write_str("/*")?,
                Segment::Many => f.write_str("/**")?,
            }
        }
        match &self.verb {
            Some(verb) => write!(f, ":{verb}"),
            None => Ok(()),
        }
    }
}

/// `None` for what is not UTF-8: no name of Google's is.
fn decode(parts: &[&str]) -> Option<String> {
    let decoded: Option<Vec<_>> = parts.iter().map(|part| percent_decode_str(part).decode_utf8().ok()).collect();
    Some(decoded?.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, path: &str, expect: Option<&[(&str, &str)]>) {
        let found = Template::parse(template).unwrap().matches(path);
        let expect = expect.map(|vars| vars.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>());
        assert_eq!(found, expect, "{template} {path}");
    }

    #[test]
    fn paths_match() {
        check("/v1/projects/{project}", "/v1/projects/demo", Some(&[("project", "demo")]));
        check("/v1/projects/{project}", "/v1/projects/demo/", None);
        check("/v1/projects/{project}", "/v1/projects/", None);
        check("/v1/projects/{project}:getIamPolicy", "/v1/projects/demo:getIamPolicy", Some(&[("project", "demo")]));
        check("/v1/projects/{project}:getIamPolicy", "/v1/projects/demo", None);
        check("/v2/{name=projects/*/locations/*}/x", "/v2/projects/p/locations/l/x", Some(&[("name", "projects/p/locations/l")]));
        check("/b/{bucket}/o/{object=**}", "/b/one/o/a%2Fb%20c", Some(&[("bucket", "one"), ("object", "a/b c")]));
        check("/b/{bucket}/o/{object=**}", "/b/one/o/a/b", Some(&[("bucket", "one"), ("object", "a/b")]));
        check("/b/{bucket}/o/{object=**}", "/b/one/o", None);
        check("/b/{bucket}/o/{object=**}/compose", "/b/one/o/a/b/compose", Some(&[("bucket", "one"), ("object", "a/b")]));
        check("/v1/{service.name=services/*}", "/v1/services/s", Some(&[("service.name", "services/s")]));
        check("/v1/{service.name=services/*}", "/v1/services/s:undelete", None);
        check("/b/{bucket}/o/{object=**}", "/b/one/o/a:b", Some(&[("bucket", "one"), ("object", "a:b")]));
        check("/x/{bad}", "/x/%FF", None);
        check("/", "/", None);
    }

    #[test]
    fn bindings_of_other_resources_are_told() {
        let check = |template: &str, pattern: &str, expect: bool| {
            assert_eq!(Template::parse(template).unwrap().can_be("name", pattern), expect, "{template} {pattern}")
        };
        check("/v2/{name=projects/*/services/*}", "projects/{project}/services/{service}", true);
        check("/v2/{name=projects/*/workerPools/*}", "projects/{project}/services/{service}", false);
        check("/v1/{name=*/*}/services", "projects/{project}", true);
        check("/v1/{name=folders/*}", "projects/{project}", false);
        check("/v1/{name=projects/*}", "projects/{project}/services/{service}", false);
        check("/v1/{other=folders/*}", "projects/{project}", true);
        check("/v1/{name=operations/**}", "projects/{project}", false);
        check("/v1/{name=projects/**}", "projects/{project}/services/{service}", true);
    }

    #[test]
    fn malformed_templates_are_refused() {
        for text in ["v1/x", "/v1/{x", "/{a=**}/{b=**}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
