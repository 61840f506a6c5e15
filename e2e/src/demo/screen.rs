//! The output of something that goes on: lines that stay and, on a terminal, a last line that is replaced.

use std::io::{IsTerminal as _, Stdout, Write};

/// Begins the last line anew.
const CLEAR: &str = "\r\x1b[2K";
/// Cuts a line that is longer than the terminal, instead of going on in the next one.
const CUT: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// The output.
#[derive(Debug)]
pub(super) struct Screen<W: Write = Stdout> {
    out: W,
    is_terminal: bool,
    /// True if the last line is one that is replaced.
    has_last: bool,
}

impl Screen {
    /// Returns standard output.
    #[expect(clippy::disallowed_methods, reason = "what the demo shows goes to standard output")]
    pub(super) fn stdout() -> Self {
        Self::new(std::io::stdout(), std::io::stdout().is_terminal())
    }
}

impl<W: Write> Screen<W> {
    fn new(out: W, is_terminal: bool) -> Self {
        Self { out, is_terminal, has_last: false }
    }

    /// Returns true if there is a last line that can be replaced.
    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Writes a line that stays.
    pub(super) fn line(&mut self, text: &str) {
        let clear = if std::mem::take(&mut self.has_last) { CLEAR } else { "" };
        // Without a reader there is nobody to tell.
        let _ = writeln!(self.out, "{clear}{text}");
    }

    /// Replaces the last line on a terminal; elsewhere writes a line that stays.
    pub(super) fn last(&mut self, text: &str) {
        if !self.is_terminal {
            return self.line(text);
        }
        self.has_last = true;
        let _ = write!(self.out, "{CLEAR}{CUT}{text}{WRAP}");
        let _ = self.out.flush();
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        if self.has_last {
            let _ = writeln!(self.out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(is_terminal: bool) -> String {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, is_terminal);
        screen.line("a");
        screen.last("1");
        screen.last("2");
        screen.line("b");
        screen.line("c");
        screen.last("3");
        drop(screen);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_terminal_has_a_last_line_that_is_replaced() {
        let last = |text: &str| format!("\r\x1b[2K\x1b[?7l{text}\x1b[?7h");
        assert_eq!(written(true), format!("a\n{}{}\r\x1b[2Kb\nc\n{}\n", last("1"), last("2"), last("3")));
        assert_eq!(written(false), "a\n1\n2\nb\nc\n3\n");
    }
}
