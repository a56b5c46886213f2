//! A build's log: lines as they come, bounded in length and in sum, without what would steer a terminal.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::LogLine;

/// Bytes of one line; the rest goes to the next.
pub(crate) const LINE_MAX_BYTES: usize = 4096;
/// Bytes of a whole log.
const LOG_MAX_BYTES: usize = 10 << 20;

/// Where lines go. Clones share the bound.
#[derive(Clone)]
pub(crate) struct BuildLog {
    sink: Arc<dyn Fn(LogLine) + Send + Sync>,
    left: Arc<Mutex<usize>>,
}

impl BuildLog {
    pub(crate) fn new(sink: Arc<dyn Fn(LogLine) + Send + Sync>) -> Self {
        Self { sink, left: Arc::new(Mutex::new(LOG_MAX_BYTES)) }
    }

    /// A line of ours: said even when what programs wrote has used the log up.
    pub(crate) fn say(&self, line: impl Into<String>) {
        (self.sink)(cleaned(line.into().as_bytes()));
    }

    /// A line of a program.
    pub(crate) fn program(&self, line: &str) {
        let mut left = self.left.lock();
        if *left == 0 {
            return;
        }
        let spent = line.len() + 1;
        if spent > *left {
            *left = 0;
            drop(left);
            return self.say("[the log ends here: more than 10 MiB]");
        }
        *left -= spent;
        drop(left);
        (self.sink)(line.to_owned());
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Calls `each` for every line that is whole now.
    pub(crate) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(String)) {
        for byte in bytes {
            if *byte == b'\n' {
                each(cleaned(&std::mem::take(&mut self.partial)));
                continue;
            }
            self.partial.push(*byte);
            if self.partial.len() == LINE_MAX_BYTES {
                each(cleaned(&std::mem::take(&mut self.partial)));
            }
        }
    }

    pub(crate) fn finish(&mut self, mut each: impl FnMut(String)) {
        if !self.partial.is_empty() {
            each(cleaned(&std::mem::take(&mut self.partial)));
        }
    }
}

/// As text, without escape sequences and control characters but the tab. What a carriage return overwrote is gone.
fn cleaned(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\r').rsplit('\r').next().unwrap_or("");
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                // CSI: up to its final letter; any other escape is two characters.
                if chars.next() == Some('[') {
                    chars.find(|c| ('@'..='~').contains(c));
                }
            }
            '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered() -> (BuildLog, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        (BuildLog::new(Arc::new(move |line| sink.lock().push(line))), lines)
    }

    #[test]
    fn bytes_become_clean_lines() {
        fn check(chunks: &[&[u8]], expect: &[&str]) {
            let mut lines = Lines::default();
            let mut got = Vec::new();
            for chunk in chunks {
                lines.push(chunk, |line| got.push(line));
            }
            lines.finish(|line| got.push(line));
            assert_eq!(got, expect);
        }
        check(&[b"a\nb"], &["a", "b"]);
        check(&[b"a", b"b\n"], &["ab"]);
        check(&[b"\n\n"], &["", ""]);
        check(&[b"\x1b[31merror\x1b[0m: x\r\n"], &["error: x"]);
        check(&[b"10%\r20%\r30%\n"], &["30%"]);
        check(&[b"a\0\x07b\tc\n"], &["ab\tc"]);
        check(&[b"\xff\n"], &["\u{fffd}"]);
        check(&[&[b'x'; LINE_MAX_BYTES + 1]], &[&"x".repeat(LINE_MAX_BYTES), "x"]);
        check(&[b"\x1b"], &[""]);
    }

    #[test]
    fn a_log_ends_at_its_bound_and_ours_go_on() {
        let (log, lines) = gathered();
        let line = "x".repeat(LINE_MAX_BYTES);
        for _ in 0..10_000 {
            log.program(&line);
        }
        log.say("ended");
        let lines = lines.lock();
        assert_eq!(lines.len(), LOG_MAX_BYTES / (LINE_MAX_BYTES + 1) + 2);
        assert_eq!(lines[lines.len() - 2..], ["[the log ends here: more than 10 MiB]", "ended"]);
    }
}
