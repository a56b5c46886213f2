//! `multipart/form-data` whose last field is a file, read as the bytes arrive.
//!
//! Source: RFC 7578; fields after the file are not read, as at Google.

use bytes::{Buf, Bytes, BytesMut};

/// All fields but the file, with their headers, in bytes.
const FIELDS_MAX_BYTES: usize = 64 << 10;
const FIELDS_MAX: usize = 100;

/// The parser of one body.
pub(super) struct Form {
    /// CRLF and `--BOUNDARY`.
    delimiter: Vec<u8>,
    held: BytesMut,
    state: State,
    /// Name and value.
    pub fields: Vec<(String, String)>,
    /// Of the file: its name and the type it claims.
    pub filename: String,
    pub content_type: String,
    bytes: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    /// Before a part's headers; the first delimiter has been read.
    Headers,
    Field(String),
    File,
    Ended,
}

/// Why a body was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormError {
    #[error("the Content-Type is no multipart/form-data with a boundary")]
    Boundary,
    #[error("the fields before the file are larger than 64 KiB or more than 100")]
    TooLarge,
    #[error("a part is malformed")]
    Malformed,
    #[error("it has no file, which is the last field")]
    NoFile,
}

impl Form {
    pub(super) fn new(content_type: &str) -> Result<Self, FormError> {
        let kind: mime::Mime = content_type.parse().map_err(|_| FormError::Boundary)?;
        let boundary = kind.get_param("boundary").filter(|_| kind.essence_str() == "multipart/form-data").ok_or(FormError::Boundary)?;
        if !(1..=70).contains(&boundary.as_str().len()) {
            return Err(FormError::Boundary);
        }
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        // The first delimiter has no line end before it.
        Ok(Self {
            delimiter,
            held: BytesMut::from(&b"\r\n"[..]),
            state: State::Field(String::new()),
            fields: Vec::new(),
            filename: String::new(),
            content_type: String::new(),
            bytes: 0,
        })
    }

    /// Whether all fields before the file have been read.
    pub(super) fn at_file(&self) -> bool {
        matches!(self.state, State::File | State::Ended)
    }

    /// Takes bytes, gives those of the file.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Option<Bytes>, FormError> {
        if self.state == State::Ended {
            return Ok(None);
        }
        self.held.extend_from_slice(bytes);
        loop {
            match self.state.clone() {
                State::Headers => {
                    if self.held.starts_with(b"--") {
                        return Err(FormError::NoFile);
                    }
                    let Some(end) = memchr::memmem::find(&self.held, b"\r\n\r\n") else { break };
                    let head = String::from_utf8(self.held.split_to(end).to_vec()).map_err(|_| FormError::Malformed)?;
                    self.held.advance(4);
                    self.bytes += head.len();
                    self.headers(&head)?;
                }
                State::Field(name) => {
                    let Some(at) = memchr::memmem::find(&self.held, &self.delimiter) else { break };
                    let value = self.held.split_to(at);
                    self.held.advance(self.delimiter.len());
                    self.bytes += value.len();
                    if self.fields.len() == FIELDS_MAX || self.bytes > FIELDS_MAX_BYTES {
                        return Err(FormError::TooLarge);
                    }
                    if !name.is_empty() {
                        self.fields.push((name, String::from_utf8(value.to_vec()).map_err(|_| FormError::Malformed)?));
                    } else if !value.is_empty() {
                        return Err(FormError::Malformed);
                    }
                    self.state = State::Headers;
                }
                State::File => {
                    if let Some(at) = memchr::memmem::find(&self.held, &self.delimiter) {
                        self.state = State::Ended;
                        let last = self.held.split_to(at).freeze();
                        self.held.clear();
                        return Ok(Some(last));
                    }
                    // What may be the beginning of a delimiter waits.
                    let sure = self.held.len().saturating_sub(self.delimiter.len() - 1);
                    return Ok((sure > 0).then(|| self.held.split_to(sure).freeze()));
                }
                State::Ended => return Ok(None),
            }
        }
        if self.held.len() > FIELDS_MAX_BYTES { Err(FormError::TooLarge) } else { Ok(None) }
    }

    /// The body has ended.
    pub(super) fn finish(&self) -> Result<(), FormError> {
        match self.state {
            State::Ended => Ok(()),
            State::File => Err(FormError::Malformed),
            _ => Err(FormError::NoFile),
        }
    }

    fn headers(&mut self, head: &str) -> Result<(), FormError> {
        let (mut name, mut filename, mut content_type) = (None, None, String::new());
        for line in head.split("\r\n").filter(|line| !line.is_empty()) {
            let (header, value) = line.split_once(':').ok_or(FormError::Malformed)?;
            if header.eq_ignore_ascii_case("content-type") {
                content_type = value.trim().to_owned();
            } else if header.eq_ignore_ascii_case("content-disposition") {
                name = parameter(value, "name");
                filename = parameter(value, "filename");
            }
        }
        let name = name.filter(|name| !name.is_empty()).ok_or(FormError::Malformed)?;
        self.state = if name == "file" {
            (self.filename, self.content_type) = (filename.unwrap_or_default(), content_type);
            State::File
        } else {
            State::Field(name)
        };
        Ok(())
    }
}

/// The quoted parameter `name` of a Content-Disposition.
fn parameter(value: &str, name: &str) -> Option<String> {
    let begin = format!("{name}=\"");
    let mut from = 0;
    loop {
        let at = from + value[from..].find(&begin)?;
        // `filename="` ends in `name="`.
        if at > 0 && !value[..at].ends_with([' ', ';', '\t']) {
            from = at + 1;
            continue;
        }
        let rest = &value[at + begin.len()..];
        return Some(rest[..rest.find('"')?].to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\na/${filename}\r\n--b\r\nContent-Disposition: form-data; name=\"empty\"\r\n\r\n\r\n--b\r\nContent-Disposition: form-data; filename=\"x.txt\"; name=\"file\"\r\nContent-Type: text/plain\r\n\r\nbytes\r\n--not\r\n--b--\r\n";

    /// Fields, the file's name, its bytes.
    type Read = (Vec<(String, String)>, String, Vec<u8>);

    fn read(body: &str, piece: usize) -> Result<Read, FormError> {
        let mut form = Form::new("multipart/form-data; boundary=b")?;
        let mut file = Vec::new();
        for chunk in body.as_bytes().chunks(piece) {
            file.extend(form.push(chunk)?.unwrap_or_default());
        }
        form.finish()?;
        assert!(form.at_file());
        Ok((form.fields, form.filename, file))
    }

    #[test]
    fn fields_and_file_are_read_in_pieces_of_any_size() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for piece in [1, 2, 5, 1000] {
            let expect = (vec![field("key", "a/${filename}"), field("empty", "")], "x.txt".to_owned(), b"bytes\r\n--not".to_vec());
            assert_eq!(read(BODY, piece), Ok(expect), "{piece}");
        }
    }

    #[test]
    fn malformed_forms_are_refused() {
        for (body, expect) in [
            ("", FormError::NoFile),
            ("--b--", FormError::NoFile),
            ("x\r\n--b\r\n", FormError::Malformed),
            (&BODY[..BODY.len() - 6], FormError::Malformed),
            (&BODY.replace("name=\"file\"", "name=\"other\""), FormError::NoFile),
            (&BODY.replace("name=\"key\"", "x"), FormError::Malformed),
            (&BODY.replace("a/$", &"a".repeat(70_000)), FormError::TooLarge),
        ] {
            assert_eq!(read(body, 7), Err(expect), "{}", body.len());
        }
        for kind in ["multipart/related; boundary=b", "multipart/form-data", ""] {
            assert!(Form::new(kind).is_err(), "{kind}");
        }
    }
}
