//! What the user sees: records and JSON on stdout, talk on stderr.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde_json::{Value, json};
use walrus_engine::protocol::ErrorCode;

use crate::args::ColorChoice;
use crate::commands::Failure;

/// How records are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// One a line, byte for byte.
    Lines,
    /// One a line; what could upset a terminal is escaped.
    Escaped,
    /// Byte for byte, nothing between.
    Raw,
    /// One JSON object a line.
    Json,
}

/// Prints.
#[derive(Debug)]
pub(crate) struct Output {
    style: Style,
    color_stdout: bool,
    color_stderr: bool,
}

impl Output {
    pub(crate) fn new(json: bool, raw: bool, color: ColorChoice) -> Self {
        let (stdout_is_terminal, stderr_is_terminal) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let style = match (json, raw) {
            (true, _) => Style::Json,
            (_, true) => Style::Raw,
            _ if stdout_is_terminal => Style::Escaped,
            _ => Style::Lines,
        };
        let wanted = |is_terminal: bool| match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        Output { style, color_stdout: wanted(stdout_is_terminal), color_stderr: wanted(stderr_is_terminal) }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.style == Style::Json
    }

    pub(crate) fn color_stdout(&self) -> bool {
        self.color_stdout
    }

    /// The same command once more as JSON, or not (`--json` on a line of the shell).
    pub(crate) fn done(&self, fields: Value, talk: &str) -> io::Result<()> {
        if self.is_json() {
            let mut object = json!({ "ok": true });
            if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
                object.extend(fields);
            }
            return writeln!(io::stdout(), "{object}");
        }
        let ok = paint(self.color_stderr, "32", "OK");
        let space = if talk.is_empty() { "" } else { " " };
        writeln!(io::stderr(), "{ok}{space}{talk}")
    }

    /// Something that is neither data nor an error.
    pub(crate) fn note(&self, text: &str) -> io::Result<()> {
        writeln!(io::stderr(), "{}", paint(self.color_stderr, "2", text))
    }

    /// An error, as one line.
    pub(crate) fn failure(&self, failure: &Failure) {
        // Nobody is left to tell when stderr is closed.
        let _ = if self.is_json() {
            let code = failure.code().map(ErrorCode::name);
            writeln!(io::stderr(), "{}", json!({ "ok": false, "code": code, "error": failure.to_string() }))
        } else if matches!(failure, Failure::NoRecord) {
            self.note(&failure.to_string())
        } else {
            let hint = match failure.code() {
                Some(ErrorCode::UnknownTopic) => "; `topics` lists those there are, `register <topic>` creates one",
                _ => "",
            };
            let label = paint(self.color_stderr, "31;1", "error:");
            writeln!(io::stderr(), "{label} {failure}{hint}")
        };
    }

    /// One record. `offset` is known for `fetch` only.
    pub(crate) fn record(&self, out: &mut impl Write, offset: Option<u64>, record: &[u8]) -> io::Result<()> {
        match self.style {
            Style::Raw => out.write_all(record),
            Style::Lines => {
                out.write_all(record)?;
                out.write_all(b"\n")
            }
            Style::Escaped => writeln!(out, "{}", escape(record)),
            Style::Json => {
                let mut object = match std::str::from_utf8(record) {
                    Ok(text) => json!({ "value": text }),
                    Err(_) => json!({ "value_base64": base64(record) }),
                };
                if let Some(offset) = offset {
                    object["offset"] = offset.into();
                }
                writeln!(out, "{object}")
            }
        }
    }

    /// JSON from the broker: as it came for programs, indented for people.
    pub(crate) fn document(&self, text: &str) -> io::Result<()> {
        match serde_json::from_str::<Value>(text) {
            Ok(value) if self.style == Style::Escaped => writeln!(io::stdout(), "{value:#}"),
            _ => writeln!(io::stdout(), "{text}"),
        }
    }
}

/// Wraps `text` in a terminal colour, if colours are on.
pub(crate) fn paint(on: bool, color: &str, text: &str) -> String {
    if on { format!("\x1b[{color}m{text}\x1b[0m") } else { text.into() }
}

/// Printable text stays; control characters and what is not UTF-8 become `\x1b`-like escapes, so
/// that a record cannot take over the terminal.
fn escape(record: &[u8]) -> String {
    let mut text = String::with_capacity(record.len());
    for chunk in record.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\n' | '\t' => text.push(char),
                control if control.is_control() => text.extend(control.escape_default()),
                other => text.push(other),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            let digit = (bits >> (18 - 6 * position)) & 63;
            text.push(if position <= chunk.len() { char::from(DIGITS[digit as usize]) } else { '=' });
        }
    }
    text
}

/// Whole units a second.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1_000_000) / elapsed_us
}

/// `1234567` → `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standard_one() {
        let pairs =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy"), ("\u{ff}~", "w79+")];
        for (plain, encoded) in pairs {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_record_cannot_take_over_the_terminal() {
        assert_eq!(escape(b"a\x1b[2Jb\xff\n"), "a\\u{1b}[2Jb\\xff\n");
        assert_eq!(escape("grüße".as_bytes()), "grüße");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"].map(String::from));
    }
}
