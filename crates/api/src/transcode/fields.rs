//! The system parameter `fields`: which parts of an answer the caller wants, such as `name,template(containers/image)`.
//!
//! Source of the syntax: Google's "partial response" pages. A part that the answer does not have is passed over: what is
//! not set is not there, which a mask cannot tell from what does not exist.

use std::collections::BTreeMap;

use model::Status;
use serde_json::{Map, Value as Json};

/// A parsed mask. A name without children stands for all beneath it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fields(BTreeMap<String, Fields>);

/// How deep a mask may go.
const DEPTH_MAX: usize = 32;

impl Fields {
    /// # Errors
    /// `INVALID_ARGUMENT` for unbalanced parentheses, empty names or a mask that is too deep.
    pub(super) fn parse(text: &str) -> Result<Self, Status> {
        let mut rest = text;
        let fields = Self::list(&mut rest, 0).filter(|_| rest.is_empty());
        fields.ok_or_else(|| Status::invalid_field("fields", format!("{text:?} is no mask of fields; an example of one is name,template(containers/image)")))
    }

    fn list(rest: &mut &str, depth: usize) -> Option<Self> {
        let mut fields = Self::default();
        loop {
            fields.path(rest, depth)?;
            match rest.strip_prefix(',') {
                Some(next) => *rest = next,
                None => return Some(fields),
            }
        }
    }

    /// One path: names joined by slashes or dots, the last one perhaps with a list in parentheses.
    fn path(&mut self, rest: &mut &str, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        let end = rest.find([',', '/', '.', '(', ')']).unwrap_or(rest.len());
        let name = rest[..end].trim();
        if name.is_empty() {
            return None;
        }
        *rest = &rest[end..];
        let new = !self.0.contains_key(name);
        let child = self.0.entry(name.to_owned()).or_default();
        if let Some(next) = rest.strip_prefix(['/', '.']) {
            *rest = next;
            // `a,a/b` asks for all of `a` already.
            return if new || !child.0.is_empty() { child.path(rest, depth + 1) } else { Self::default().path(rest, depth + 1) };
        }
        if let Some(next) = rest.strip_prefix('(') {
            *rest = next;
            let list = Self::list(rest, depth + 1)?;
            *rest = rest.strip_prefix(')')?;
            if new || !child.0.is_empty() {
                child.0.extend(list.0);
            }
            return Some(());
        }
        child.0.clear();
        Some(())
    }

    /// What of `value` the mask names.
    pub(super) fn apply(&self, value: Json) -> Json {
        if self.0.is_empty() {
            return value;
        }
        match value {
            Json::Object(object) => Json::Object(object.into_iter().filter_map(|(name, value)| self.part(name, value)).collect::<Map<_, _>>()),
            Json::Array(list) => Json::Array(list.into_iter().map(|value| self.apply(value)).collect()),
            value => value,
        }
    }

    fn part(&self, name: String, value: Json) -> Option<(String, Json)> {
        let child = self.0.get(&name).or_else(|| self.0.get("*"))?;
        Some((name, child.apply(value)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn masks_select() {
        let value = json!({"name": "s", "uid": "u", "template": {"containers": [{"image": "i", "name": "c"}], "timeout": "3s"}});
        let check = |mask: &str, expect: Json| assert_eq!(Fields::parse(mask).unwrap().apply(value.clone()), expect, "{mask}");
        check("name", json!({"name": "s"}));
        check("name,uid", json!({"name": "s", "uid": "u"}));
        check("template/timeout", json!({"template": {"timeout": "3s"}}));
        check("template.timeout", json!({"template": {"timeout": "3s"}}));
        check("template(containers(image),timeout)", json!({"template": {"containers": [{"image": "i"}], "timeout": "3s"}}));
        check("template/containers/name,template/timeout", json!({"template": {"containers": [{"name": "c"}], "timeout": "3s"}}));
        check("template,template/timeout", json!({"template": value["template"]}));
        check("template/timeout,template", json!({"template": value["template"]}));
        check("*/timeout", json!({"name": "s", "uid": "u", "template": {"timeout": "3s"}}));
        check("absent", json!({}));
    }

    #[test]
    fn what_is_no_mask_is_refused() {
        for bad in ["", ",", "a,", "a(", "a)", "a(b", "a()", "/a", "a//b", &"a(".repeat(1000)] {
            assert!(Fields::parse(bad).is_err(), "{bad}");
        }
    }
}
