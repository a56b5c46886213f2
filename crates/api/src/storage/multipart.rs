//! `multipart/related` with two parts, metadata and media, read as the bytes arrive.
//!
//! Two forms are read. RFC 2387's has CRLF line ends and a boundary that is bare or in double quotes. The Google Cloud CLI's has
//! LF line ends and a boundary in single quotes, which the body's delimiters do not have. The first delimiter line tells
//! which one it is, for the whole body: media that ends in CR is not mistaken.
//!
//! The media is handed out in pieces; only the metadata part and part headers are held, up to [`METADATA_MAX_BYTES`].

use bytes::{Buf, Bytes, BytesMut};

/// How large the metadata may be, in bytes.
const METADATA_MAX_BYTES: usize = 1 << 20;
/// How large a part's headers may be, in bytes.
const HEADERS_MAX_BYTES: usize = 8 << 10;

/// What comes out, in this order: `Metadata`, `Media`, any number of `Bytes`, `End`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The first part, whole.
    Metadata(Bytes),
    /// The second part begins; its `Content-Type`, empty when it has none.
    Media { content_type: String },
    /// A piece of the second part.
    Bytes(Bytes),
    /// The closing delimiter was read.
    End,
}

/// Why a body was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MultipartError {
    #[error("the Content-Type names no boundary of 1 to 70 characters")]
    Boundary,
    #[error("the body does not begin with its boundary")]
    Preamble,
    #[error("a part's headers are larger than 8 KiB or the metadata is larger than 1 MiB")]
    TooLarge,
    #[error("a part's headers are malformed")]
    Headers,
    #[error("the body ends before its closing boundary")]
    Truncated,
    #[error("the body has one part; metadata and media are two")]
    OnePart,
    #[error("the body has more than two parts")]
    ManyParts,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Preamble,
    MetadataHeaders,
    Metadata,
    MediaHeaders,
    Media,
    Ended,
}

/// The parser of one body.
pub(crate) struct Multipart {
    /// `--BOUNDARY`, and how else it may be written.
    candidates: Vec<Vec<u8>>,
    /// Line end and `--BOUNDARY`, once the first line was seen.
    delimiter: Vec<u8>,
    newline: &'static [u8],
    state: State,
    held: BytesMut,
    /// No delimiter begins in `held` before here: each byte is searched once, however small the pieces are.
    searched: usize,
}

impl Multipart {
    /// # Errors
    /// [`MultipartError::Boundary`].
    pub(crate) fn new(content_type: &str) -> Result<Self, MultipartError> {
        let raw = boundary(content_type).ok_or(MultipartError::Boundary)?;
        let bare = raw.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        let candidates: Vec<Vec<u8>> =
            bare.into_iter().chain([raw]).filter(|boundary| (1..=70).contains(&boundary.len())).map(|boundary| format!("--{boundary}").into_bytes()).collect();
        if candidates.is_empty() {
            return Err(MultipartError::Boundary);
        }
        Ok(Self { candidates, delimiter: Vec::new(), newline: b"", state: State::Preamble, held: BytesMut::new(), searched: 0 })
    }

    /// Takes bytes, gives what they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, MultipartError> {
        if self.state == State::Ended {
            return Ok(Vec::new());
        }
        self.held.extend_from_slice(bytes);
        let mut events = Vec::new();
        while self.step(&mut events)? {}
        let held_max = match self.state {
            State::Media | State::Ended => return Ok(events),
            State::Metadata => METADATA_MAX_BYTES,
            State::Preamble | State::MetadataHeaders | State::MediaHeaders => HEADERS_MAX_BYTES,
        };
        if self.held.len() > held_max { Err(MultipartError::TooLarge) } else { Ok(events) }
    }

    /// The body has ended.
    ///
    /// # Errors
    /// When it ended before its closing delimiter.
    pub(crate) fn finish(&self) -> Result<(), MultipartError> {
        if self.state == State::Ended { Ok(()) } else { Err(MultipartError::Truncated) }
    }

    /// One step; `false` when more bytes are needed.
    fn step(&mut self, events: &mut Vec<Event>) -> Result<bool, MultipartError> {
        match self.state {
            State::Preamble => self.preamble(),
            State::MetadataHeaders => Ok(self.headers()?.is_some_and(|_| {
                self.state = State::Metadata;
                true
            })),
            State::Metadata => {
                let Some((at, Some((end, after)))) = self.delimiter_find() else { return Ok(false) };
                if end {
                    return Err(MultipartError::OnePart);
                }
                events.push(Event::Metadata(self.held.split_to(at).freeze()));
                self.held.advance(after - at);
                self.searched = 0;
                self.state = State::MediaHeaders;
                Ok(true)
            }
            State::MediaHeaders => {
                let Some(content_type) = self.headers()? else { return Ok(false) };
                events.push(Event::Media { content_type });
                self.state = State::Media;
                Ok(true)
            }
            State::Media => self.media(events),
            State::Ended => Ok(false),
        }
    }

    fn preamble(&mut self) -> Result<bool, MultipartError> {
        // Line ends before the first delimiter are allowed; other text is not, since no client of this API writes any.
        while self.held.starts_with(b"\n") || self.held.starts_with(b"\r\n") {
            let at = self.held.iter().position(|b| *b == b'\n').expect("just seen");
            self.held.advance(at + 1);
        }
        let Some(at) = memchr::memchr(b'\n', &self.held) else {
            let may_come = |c: &Vec<u8>| self.held.starts_with(c) || c.starts_with(&self.held) || &self.held[..] == b"\r";
            return if self.held.is_empty() || self.candidates.iter().any(may_come) { Ok(false) } else { Err(MultipartError::Preamble) };
        };
        let line = &self.held[..at];
        let (line, newline): (_, &'static [u8]) = match line.strip_suffix(b"\r") {
            Some(line) => (line, b"\r\n"),
            None => (line, b"\n"),
        };
        let found = self.candidates.iter().find(|c| **c == line.trim_ascii_end()).ok_or(MultipartError::Preamble)?;
        self.delimiter = [newline, found].concat();
        self.newline = newline;
        self.held.advance(at + 1);
        self.state = State::MetadataHeaders;
        Ok(true)
    }

    /// A part's headers up to the empty line: its `Content-Type`.
    fn headers(&mut self) -> Result<Option<String>, MultipartError> {
        let mut content_type = String::new();
        let mut from = 0;
        loop {
            let Some(length) = memchr::memmem::find(&self.held[from..], self.newline) else { return Ok(None) };
            let line = &self.held[from..from + length];
            from += length + self.newline.len();
            if line.is_empty() {
                self.held.advance(from);
                return Ok(Some(content_type));
            }
            let line = std::str::from_utf8(line).map_err(|_| MultipartError::Headers)?;
            let (name, value) = line.split_once(':').ok_or(MultipartError::Headers)?;
            if name.eq_ignore_ascii_case("content-type") {
                content_type = value.trim().to_owned();
            }
        }
    }

    fn media(&mut self, events: &mut Vec<Event>) -> Result<bool, MultipartError> {
        let found = self.delimiter_find();
        let searched = std::mem::take(&mut self.searched);
        match found {
            Some((at, Some((end, _)))) => {
                if at > 0 {
                    events.push(Event::Bytes(self.held.split_to(at).freeze()));
                }
                if !end {
                    return Err(MultipartError::ManyParts);
                }
                events.push(Event::End);
                self.state = State::Ended;
                self.held.clear();
            }
            // A delimiter whose next bytes are still to come: everything before it is media.
            Some((at, None)) => {
                if at > 0 {
                    events.push(Event::Bytes(self.held.split_to(at).freeze()));
                }
            }
            None => {
                // What was not searched may be the beginning of a delimiter.
                if searched > 0 {
                    events.push(Event::Bytes(self.held.split_to(searched).freeze()));
                }
            }
        }
        Ok(false)
    }

    /// The first delimiter: where it begins, and, when the bytes after it have come, whether it is the closing one and where
    /// the next part begins. Text that only begins like a delimiter is passed over.
    fn delimiter_find(&mut self) -> Option<(usize, Option<(bool, usize)>)> {
        loop {
            let from = self.searched;
            let Some(at) = memchr::memmem::find(&self.held[from..], &self.delimiter).map(|at| from + at) else {
                self.searched = from.max(self.held.len().saturating_sub(self.delimiter.len() - 1));
                return None;
            };
            self.searched = at;
            let end = at + self.delimiter.len();
            match self.delimiter_end(end) {
                End::Unknown => return Some((at, None)),
                End::Closing => return Some((at, Some((true, end + 2)))),
                End::Next(after) => return Some((at, Some((false, after)))),
                End::Text => self.searched = at + 1,
            }
        }
    }

    /// What follows the delimiter that ends at `end`.
    fn delimiter_end(&self, end: usize) -> End {
        let rest = &self.held[end..];
        if rest.starts_with(b"--") {
            return End::Closing;
        }
        // RFC 2046 allows blanks before the line end; a bound keeps text that is all blanks from being held.
        let blanks = rest.iter().take(64).take_while(|b| matches!(b, b' ' | b'\t')).count();
        let line = &rest[blanks..];
        if line.starts_with(self.newline) {
            End::Next(end + blanks + self.newline.len())
        } else if self.newline.starts_with(line) && blanks < 64 || (blanks == 0 && line == b"-") {
            End::Unknown
        } else {
            End::Text
        }
    }
}

enum End {
    /// `--` follows.
    Closing,
    /// A line end follows; the next part begins there.
    Next(usize),
    /// It was no delimiter.
    Text,
    /// Too few bytes have come.
    Unknown,
}

/// The value of the parameter `boundary`, without double quotes.
fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/related") {
        return None;
    }
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim();
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a body says, read in pieces of at most `piece` bytes.
    fn read(content_type: &str, body: &[u8], piece: usize) -> Result<(Vec<u8>, String, Vec<u8>), MultipartError> {
        let mut parser = Multipart::new(content_type)?;
        let (mut metadata, mut kind, mut media) = (Vec::new(), String::new(), Vec::new());
        for chunk in body.chunks(piece.max(1)) {
            for event in parser.push(chunk)? {
                match event {
                    Event::Metadata(bytes) => metadata.extend_from_slice(&bytes),
                    Event::Media { content_type } => kind = content_type,
                    Event::Bytes(bytes) => media.extend_from_slice(&bytes),
                    Event::End => {}
                }
            }
        }
        parser.finish()?;
        Ok((metadata, kind, media))
    }

    /// As the Google Cloud CLI 528 writes it.
    fn cli(boundary: &str, metadata: &str, media: &[u8]) -> Vec<u8> {
        let head = format!(
            "--{boundary}\nContent-Type: application/json\nMIME-Version: 1.0\n\n{metadata}\n--{boundary}\nContent-Type: application/zip\nMIME-Version: 1.0\nContent-Transfer-Encoding: binary\n\n"
        );
        [head.as_bytes(), media, format!("\n--{boundary}--\n").as_bytes()].concat()
    }

    /// As RFC 2387 has it, and Google's client libraries.
    fn rfc(boundary: &str, metadata: &str, media: &[u8]) -> Vec<u8> {
        let head =
            format!("--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{metadata}\r\n--{boundary}\r\nContent-Type: application/zip\r\n\r\n");
        [head.as_bytes(), media, format!("\r\n--{boundary}--").as_bytes()].concat()
    }

    const CLI: &str = "multipart/related; boundary='===============0349965609753506780=='";
    const CLI_BOUNDARY: &str = "===============0349965609753506780==";

    #[test]
    fn both_forms_are_read_in_pieces_of_any_size() {
        // The media holds what might be taken for line ends and delimiters.
        let media = b"PK\r\n--not\n--===============0349965609753506780==x\r\n--bound\n--bound-\r";
        for piece in [1, 2, 3, 7, 64, 4096] {
            let expect = (b"{}".to_vec(), "application/zip".to_owned(), media.to_vec());
            assert_eq!(read(CLI, &cli(CLI_BOUNDARY, "{}", media), piece), Ok(expect.clone()), "CLI, {piece}");
            for kind in ["multipart/related; boundary=bound", "Multipart/Related; charset=x; boundary=\"bound\""] {
                assert_eq!(read(kind, &rfc("bound", "{}", media), piece), Ok(expect.clone()), "{kind}, {piece}");
            }
        }
    }

    #[test]
    fn quotes_may_belong_to_the_boundary() {
        let (metadata, _, media) = read("multipart/related; boundary='b'", &rfc("'b'", "{}", b"x"), 3).unwrap();
        assert_eq!((metadata.as_slice(), media.as_slice()), (&b"{}"[..], &b"x"[..]));
    }

    #[test]
    fn malformed_bodies_are_refused() {
        let check = |kind: &str, body: &[u8], expect: MultipartError| {
            for piece in [1, 5, 4096] {
                assert_eq!(read(kind, body, piece), Err(expect), "{kind} {:?} {piece}", String::from_utf8_lossy(body));
            }
        };
        let kind = "multipart/related; boundary=b";
        check("multipart/related", b"", MultipartError::Boundary);
        check("multipart/related; boundary=", b"", MultipartError::Boundary);
        check("multipart/form-data; boundary=b", b"", MultipartError::Boundary);
        check(&format!("multipart/related; boundary={}", "b".repeat(71)), b"", MultipartError::Boundary);
        check(kind, b"", MultipartError::Truncated);
        check(kind, b"hello\r\n--b\r\n", MultipartError::Preamble);
        check(kind, b"--b\r\nno colon\r\n\r\n", MultipartError::Headers);
        check(kind, b"--b\r\n\r\n{}\r\n--b--", MultipartError::OnePart);
        check(kind, b"--b\r\n\r\n{}\r\n--b\r\n\r\nmedia", MultipartError::Truncated);
        check(kind, b"--b\r\n\r\n{}\r\n--b\r\n\r\nmedia\r\n--b\r\n\r\n", MultipartError::ManyParts);
        check(kind, &[b"--b\r\n\r\n".to_vec(), vec![b'x'; METADATA_MAX_BYTES + 1]].concat(), MultipartError::TooLarge);
        check(kind, &[b"--b\r\nx:".to_vec(), vec![b'x'; HEADERS_MAX_BYTES + 1]].concat(), MultipartError::TooLarge);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(media in prop::collection::vec(prop::sample::select(b"\r\n-b=' ax".to_vec()), 0..200), piece in 1usize..40) {
            // "bb" cannot stand after a line end in the media by chance and be a delimiter: that would be the writer's mistake.
            let boundary = "bb==bb";
            prop_assume!(memchr::memmem::find(&media, b"--bb==bb").is_none());
            let expect = (b"{\"name\":\"x\"}".to_vec(), "application/zip".to_owned(), media.clone());
            prop_assert_eq!(read("multipart/related; boundary='bb==bb'", &cli(boundary, "{\"name\":\"x\"}", &media), piece), Ok(expect.clone()));
            prop_assert_eq!(read("multipart/related; boundary=\"bb==bb\"", &rfc(boundary, "{\"name\":\"x\"}", &media), piece), Ok(expect));
        }

        #[test]
        fn nothing_panics(body in prop::collection::vec(prop::sample::select(b"\r\n-b:{}".to_vec()), 0..200), piece in 1usize..40) {
            let _ = read("multipart/related; boundary=b", &body, piece);
        }
    }
}
