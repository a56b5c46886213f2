//! The query of a call: every parameter is known to its method or refused by name.
//!
//! Parameters that only change how an answer is written, or that the front has looked at already (a quota project), are known
//! to every method.

use control::Preconditions;
use serde_json::Value;

use super::{error::Error, fields};
use crate::{Response, error::json_response, surface::Call};

/// Known to every method. `projection` chooses whether ACLs are shown, and there are none.
const COMMON: &[&str] =
    &["alt", "fields", "prettyPrint", "key", "quotaUser", "userIp", "userProject", "projection", "$.xgafv", "upload_protocol", "uploadType"];

/// Conditions of a write or read.
pub(crate) const CONDITIONS: &[&str] = &["ifGenerationMatch", "ifGenerationNotMatch", "ifMetagenerationMatch", "ifMetagenerationNotMatch"];

/// Refused everywhere, with what to do instead.
const REFUSED: &[(&str, &str)] = &[
    ("access_token", "send the token in the Authorization header, where it stands in no log"),
    ("predefinedAcl", "access is by IAM only; leave it out"),
    ("predefinedDefaultObjectAcl", "access is by IAM only; leave it out"),
    ("destinationPredefinedAcl", "access is by IAM only; leave it out"),
    ("kmsKeyName", "objects are not encrypted with keys of Cloud KMS; leave it out"),
    ("destinationKmsKeyName", "objects are not encrypted with keys of Cloud KMS; leave it out"),
    ("callback", "JSONP is not served"),
];

/// Parameters that are known as long as they ask for nothing, to methods that do not know them themselves.
const OFF: &[(&str, &str)] = &[
    ("enableObjectRetention", "it is enabled when a bucket is made; leave it out"),
    ("softDeleted", "deleted buckets are gone; leave it out"),
    ("versions", "this method has nothing of versions; leave it out"),
    ("overrideUnlockedRetention", "this method changes no retention; leave it out"),
    ("returnPartialSuccess", "every list is whole; leave it out"),
];

/// One call's parameters.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query of `call`, of which the method knows `known`.
    ///
    /// # Errors
    /// 400 for a parameter that is not known, or written twice (`permissions` apart).
    pub(crate) fn of(call: &Call, known: &[&[&str]]) -> Result<Self, Error> {
        Self::parse(call.uri.query().unwrap_or_default(), known)
    }

    fn parse(text: &str, known: &[&[&str]]) -> Result<Self, Error> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
        for (at, (name, value)) in pairs.iter().enumerate() {
            let name = name.as_str();
            if let Some((_, hint)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
                return Err(Error::not_served(name, hint));
            }
            let is_known = COMMON.contains(&name) || known.iter().any(|names| names.contains(&name));
            if let Some((_, hint)) = OFF.iter().find(|(off, _)| *off == name && !is_known) {
                if !value.eq_ignore_ascii_case("false") {
                    return Err(Error::not_served(&format!("{name}={value}"), hint));
                }
                continue;
            }
            if !is_known {
                return Err(Error::not_served(name, "no parameter of this method that it knows has this name"));
            }
            if name != "permissions" && pairs[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(Error::invalid(format!("The parameter {name} is written twice.")));
            }
        }
        Ok(Self(pairs))
    }

    /// A parameter that is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn required(&self, name: &str) -> Result<&str, Error> {
        self.get(name).ok_or_else(|| Error::invalid(format!("Required parameter: {name}")))
    }

    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, Error> {
        let parse = |text: &str| text.parse().map_err(|_| Error::invalid(format!("Invalid value for {name}: {text:?} is no whole number.")));
        self.get(name).map(parse).transpose()
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.get(name) {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => Err(Error::invalid(format!("Invalid value for {name}: {text:?} is neither true nor false."))),
        }
    }

    pub(crate) fn preconditions(&self) -> Result<Preconditions, Error> {
        self.conditions("if")
    }

    /// Those on the source of a copy.
    pub(crate) fn source_preconditions(&self) -> Result<Preconditions, Error> {
        self.conditions("ifSource")
    }

    fn conditions(&self, begin: &str) -> Result<Preconditions, Error> {
        Ok(Preconditions {
            generation_match: self.integer(&format!("{begin}GenerationMatch"))?,
            generation_not_match: self.integer(&format!("{begin}GenerationNotMatch"))?,
            metageneration_match: self.integer(&format!("{begin}MetagenerationMatch"))?,
            metageneration_not_match: self.integer(&format!("{begin}MetagenerationNotMatch"))?,
        })
    }

    /// A JSON answer with the `fields` that were asked for.
    pub(crate) fn answer(&self, body: Value) -> Result<Response, Error> {
        let body = match self.get("fields") {
            Some(text) => fields::Fields::parse(text).map_err(|why| Error::invalid(format!("Invalid field selection {text}: {why}")))?.of(body),
            None => body,
        };
        Ok(json_response(http::StatusCode::OK, &body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_or_refused_by_name() {
        let check = |text: &str, refused: Option<&str>| match (Query::parse(text, &[&["prefix"], CONDITIONS]), refused) {
            (Ok(_), None) => {}
            (Err(error), Some(name)) => assert!(format!("{error:?}").contains(name), "{text}: {error:?}"),
            (result, _) => panic!("{text}: {:?}", result.err()),
        };
        check("alt=json&fields=a&projection=noAcl&prettyPrint=True&userProject=p", None);
        check("prefix=a&ifGenerationMatch=0", None);
        check("enableObjectRetention=False&softDeleted=false", None);
        check("versions=True", Some("versions=True"));
        check("enableObjectRetention=True", Some("enableObjectRetention=True"));
        check("predefinedAcl=publicRead", Some("predefinedAcl"));
        check("kmsKeyName=k", Some("kmsKeyName"));
        check("matchGlob=**", Some("matchGlob"));
        check("prefix=a&prefix=b", Some("twice"));
        check("access_token=x", Some("access_token"));
    }

    #[test]
    fn conditions_are_numbers() {
        let parse = |text: &str| Query::parse(text, &[CONDITIONS]).unwrap().preconditions();
        assert_eq!(parse("ifGenerationMatch=0").unwrap().generation_match, Some(0));
        assert_eq!(parse("").unwrap().generation_match, None);
        assert!(parse("ifGenerationMatch=x").is_err());
    }
}
