//! What a function writes to stdout and stderr, as log entries.
//!
//! One line is one entry. A function that floods its log is slowed down by its own pipe: above 1 MB/s its lines are counted and
//! dropped, and the reader looks only a few times a second, so that a flood costs this process next to nothing. What the lines
//! mean (JSON, severity, trace) is `telemetry`'s knowledge.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use model::log::{Entry, LogName, Severity};
use parking_lot::Mutex;
use telemetry::line_parse;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe::Receiver,
    time::{Instant, sleep, timeout},
};

use crate::instances::Instance;

/// Reads `fd` to its end.
pub(crate) async fn pump(instance: Arc<Instance>, fd: OwnedFd, log: LogName) {
    let mut pipe = match Receiver::from_owned_fd(fd) {
        Ok(pipe) => pipe,
        Err(error) => return tracing::error!(%error, "a function's output cannot be read"),
    };
    let mut lines = Lines::default();
    let mut budget = Budget::new(Instant::now());
    let mut buffer = vec![0; READ_BYTES];
    loop {
        // What was dropped is told when the flood is over, also when nothing comes after it.
        let quiet = if budget.dropped > 0 { QUIET } else { Duration::MAX };
        let Ok(read) = timeout(quiet, pipe.read(&mut buffer)).await else {
            budget.dropped_take().into_iter().for_each(|dropped| entry_dropped(&instance, log, dropped));
            continue;
        };
        let read = match read {
            Ok(0) => break,
            Ok(read) => &buffer[..read],
            Err(error) => {
                tracing::warn!(%error, "a function's output ended early");
                break;
            }
        };
        instance.tail.lock().push(read);
        let now = Instant::now();
        if budget.take(now, read.len()) {
            if let Some(dropped) = budget.dropped_take() {
                entry_dropped(&instance, log, dropped);
            }
            lines.push(read, |line| entry(&instance, log, line));
        } else {
            // What was begun is lost with the rest.
            budget.dropped += lines.skip(read);
            if !drain(&pipe, &mut buffer, &mut budget, &mut lines) {
                break;
            }
            sleep(PAUSE).await;
        }
    }
    lines.finish(|line| entry(&instance, log, line));
    if let Some(dropped) = budget.dropped_take() {
        entry_dropped(&instance, log, dropped);
    }
}

const READ_BYTES: usize = 64 << 10;
/// A line is cut here; the rest of it is lost.
const LINE_MAX_BYTES: usize = 256 << 10;
const BYTES_PER_SECOND: f64 = 1e6;
const BURST_BYTES: f64 = 2e6;
/// Between two reads of a flood, and how much of it is read at a time.
const PAUSE: Duration = Duration::from_millis(50);
const DRAIN_MAX_BYTES: usize = 1 << 20;
const QUIET: Duration = Duration::from_secs(1);
/// Of the end of the output, kept for the error of a failed start.
const TAIL_BYTES: usize = 4 << 10;

/// Throws away what is in the pipe now. `false` at its end.
fn drain(pipe: &Receiver, buffer: &mut [u8], budget: &mut Budget, lines: &mut Lines) -> bool {
    let mut total = 0;
    while total < DRAIN_MAX_BYTES {
        match pipe.try_read(buffer) {
            Ok(0) => return false,
            Ok(read) => {
                budget.dropped += lines.skip(&buffer[..read]);
                total += read;
            }
            Err(_) => break,
        }
    }
    true
}

pub(crate) fn entry(instance: &Instance, log: LogName, line: &[u8]) {
    let shared = &instance.pool.shared;
    let parsed = line_parse(&instance.source.project, line, shared.clock.now(), Severity::Default);
    shared.telemetry.log(Entry {
        source: instance.source.clone(),
        log,
        time: parsed.time,
        severity: parsed.severity,
        payload: parsed.payload,
        http: parsed.http,
        trace: parsed.trace,
        span: parsed.span,
        trace_sampled: parsed.trace_sampled,
        labels: parsed.labels,
    });
}

fn entry_dropped(instance: &Instance, log: LogName, lines: u64) {
    let stream = if log == LogName::Stderr { "stderr" } else { "stdout" };
    instance.system_log(Severity::Warning, format!("dropped {lines} lines of {stream}: an instance may log 1 MB/s"));
}

/// Bytes that may be logged.
struct Budget {
    bytes: f64,
    at: Instant,
    /// Lines that were not.
    dropped: u64,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { bytes: BURST_BYTES, at: now, dropped: 0 }
    }

    fn take(&mut self, now: Instant, bytes: usize) -> bool {
        self.bytes = (self.bytes + now.saturating_duration_since(self.at).as_secs_f64() * BYTES_PER_SECOND).min(BURST_BYTES);
        self.at = now;
        #[expect(clippy::cast_precision_loss, reason = "a read is at most 64 KiB")]
        let bytes = bytes as f64;
        let enough = self.bytes >= bytes;
        if enough {
            self.bytes -= bytes;
        }
        enough
    }

    fn dropped_take(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.dropped)).filter(|dropped| *dropped > 0)
    }
}

/// Lines out of pieces.
#[derive(Default)]
pub(crate) struct Lines {
    begun: Vec<u8>,
    /// The line that was begun is too long, or part of it was dropped: nothing more of it is wanted.
    skipping: bool,
}

impl Lines {
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (piece, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.skipping {
                self.skipping = false;
            } else if self.begun.is_empty() {
                emit(&piece[..piece.len().min(LINE_MAX_BYTES)], &mut line);
            } else {
                self.begin(piece);
                emit(&self.begun, &mut line);
            }
            self.begun.clear();
            bytes = rest;
        }
        if !self.skipping {
            self.begin(bytes);
            if self.begun.len() >= LINE_MAX_BYTES {
                emit(&self.begun, &mut line);
                self.begun.clear();
                self.skipping = true;
            }
        }
    }

    fn begin(&mut self, piece: &[u8]) {
        let room = LINE_MAX_BYTES - self.begun.len();
        self.begun.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// Drops `bytes` and the line that was begun. How many lines that were.
    fn skip(&mut self, bytes: &[u8]) -> u64 {
        let ends = bytes.iter().filter(|b| **b == b'\n').count();
        self.begun.clear();
        self.skipping = bytes.last().is_some_and(|last| *last != b'\n');
        u64::try_from(ends).unwrap_or(u64::MAX) + u64::from(self.skipping && ends == 0)
    }

    pub(crate) fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.skipping {
            emit(&self.begun, &mut line);
        }
        self.begun = Vec::new();
    }
}

/// Empty lines are no entries.
fn emit(text: &[u8], line: &mut impl FnMut(&[u8])) {
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if !text.is_empty() {
        line(text);
    }
}

/// The end of an instance's output while it starts.
#[derive(Default)]
pub(crate) struct Tail {
    bytes: Vec<u8>,
    closed: bool,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        if self.closed {
            return;
        }
        self.bytes.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        let over = self.bytes.len().saturating_sub(TAIL_BYTES);
        self.bytes.drain(..over);
    }

    pub(crate) fn text(tail: &Mutex<Self>) -> String {
        String::from_utf8_lossy(&tail.lock().bytes).trim().to_owned()
    }

    /// The start went well: nobody will ask.
    pub(crate) fn close(tail: &Mutex<Self>) {
        *tail.lock() = Self { bytes: Vec::new(), closed: true };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut all = Vec::new();
        let mut lines = Lines::default();
        for piece in pieces {
            lines.push(piece, |line| all.push(String::from_utf8_lossy(line).into_owned()));
        }
        lines.finish(|line| all.push(String::from_utf8_lossy(line).into_owned()));
        all
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        assert_eq!(lines(&[b"one\ntwo\n\nthr", b"ee", b"\r\nfour"]), ["one", "two", "three", "four"]);
        assert_eq!(lines(&[b"\n\n"]), Vec::<String>::new());
    }

    proptest::proptest! {
        #[test]
        fn lines_do_not_depend_on_the_pieces(text in "[ab\n\r]{0,200}", cuts in proptest::collection::vec(0_usize..200, 0..20)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            proptest::prop_assert_eq!(lines(&pieces), lines(&[bytes]));
        }
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let long = vec![b'x'; LINE_MAX_BYTES - 1];
        let got = lines(&[&long, b"yyyy", b"zzz\nnext\n"]);
        assert_eq!(got.iter().map(String::len).collect::<Vec<_>>(), [LINE_MAX_BYTES, 4]);
        assert_eq!(got[1], "next");
        let got = lines(&[&[&long[..], b"yyyy\nnext\n"].concat()]);
        assert_eq!(got.iter().map(String::len).collect::<Vec<_>>(), [LINE_MAX_BYTES, 4]);
    }

    #[tokio::test]
    async fn a_flood_is_counted() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let mut taken = 0;
        for _ in 0..100 {
            if budget.take(start, 64 << 10) {
                taken += 64 << 10;
            }
        }
        assert!((1_900_000..=2_000_000).contains(&taken), "{taken}");
        assert!(budget.take(start + Duration::from_secs(1), 900_000));
        let mut lines = Lines::default();
        assert_eq!(lines.skip(b"a\nb\nc"), 2);
        let mut got = Vec::new();
        lines.push(b"ccc\nwhole\n", |line| got.push(line.to_vec()));
        assert_eq!(got, [b"whole"]);
    }

    #[test]
    fn the_tail_keeps_the_end() {
        let mut tail = Tail::default();
        tail.push(&vec![b'a'; TAIL_BYTES]);
        tail.push(b"the end");
        assert_eq!(tail.bytes.len(), TAIL_BYTES);
        assert!(tail.bytes.ends_with(b"the end"));
    }
}
