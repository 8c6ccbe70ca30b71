//! The stable codes of `ERR` replies. The table in `docs/protocol.md` is printed from here.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

/// Whether the same request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Nothing was stored; the same request may succeed later.
    Safe,
    /// The request may have been carried out; sending it again may store its records twice.
    MayRepeat,
    /// The same request will fail again until something else changes.
    Useless,
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Retry::Safe => "safe",
            Retry::MayRepeat => "may store twice",
            Retry::Useless => "useless",
        })
    }
}

/// Why a request failed. Names are stable: clients may act on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request cannot be understood.
    BadRequest,
    /// The frame's length is above the limit.
    FrameTooLarge,
    /// No topic of this name.
    UnknownTopic,
    /// The topic exists with other settings.
    TopicExists,
    /// The offset lies below what is retained, or past the tail.
    OffsetOutOfRange,
    /// No quorum or no leader now.
    NotReady,
    /// No answer in time.
    Timeout,
    /// No space left on the device.
    DiskFull,
    /// Stored bytes are damaged.
    Corrupt,
    /// Too much is being asked at once.
    Overloaded,
    /// A fault of the broker.
    Internal,
}

impl ErrorCode {
    /// All codes, in the order of the documentation.
    pub const ALL: [ErrorCode; 11] = [
        ErrorCode::BadRequest,
        ErrorCode::FrameTooLarge,
        ErrorCode::UnknownTopic,
        ErrorCode::TopicExists,
        ErrorCode::OffsetOutOfRange,
        ErrorCode::NotReady,
        ErrorCode::Timeout,
        ErrorCode::DiskFull,
        ErrorCode::Corrupt,
        ErrorCode::Overloaded,
        ErrorCode::Internal,
    ];

    /// The code as it stands in a reply.
    pub fn name(self) -> &'static str {
        self.describe().0
    }

    /// What it tells the client, in one sentence.
    pub fn meaning(self) -> &'static str {
        self.describe().2
    }

    /// May the same request be sent again?
    pub fn retry(self) -> Retry {
        self.describe().1
    }

    fn describe(self) -> (&'static str, Retry, &'static str) {
        match self {
            ErrorCode::BadRequest => (
                "BadRequest",
                Retry::Useless,
                "The request is malformed: verb, arguments, topic name or record list. Nothing was stored.",
            ),
            ErrorCode::FrameTooLarge => (
                "FrameTooLarge",
                Retry::Useless,
                "The frame is above `--max-frame-bytes`. Nothing was stored; the connection is closed.",
            ),
            ErrorCode::UnknownTopic => ("UnknownTopic", Retry::Useless, "There is no such topic. `REGISTER` it first."),
            ErrorCode::TopicExists => (
                "TopicExists",
                Retry::Useless,
                "`REGISTER` named other settings than the existing topic has. Nothing was changed.",
            ),
            ErrorCode::OffsetOutOfRange => (
                "OffsetOutOfRange",
                Retry::Useless,
                "The offset is not there. The text's first word is the first offset that is kept; go on from there.",
            ),
            ErrorCode::NotReady => {
                ("NotReady", Retry::Safe, "There is no quorum or no leader now. Nothing was stored.")
            }
            ErrorCode::Timeout => (
                "Timeout",
                Retry::MayRepeat,
                "No answer in time. The records *may* have been stored; the client decides.",
            ),
            ErrorCode::DiskFull => (
                "DiskFull",
                Retry::Safe,
                "The device is full. Nothing was stored; reads go on, and writing resumes when there is space.",
            ),
            ErrorCode::Corrupt => (
                "Corrupt",
                Retry::Useless,
                "Stored records in this range are damaged and no whole copy is at hand. Nothing is skipped silently.",
            ),
            ErrorCode::Overloaded => (
                "Overloaded",
                Retry::Safe,
                "A limit on memory or connections is reached. Nothing was stored; wait, then try again.",
            ),
            ErrorCode::Internal => (
                "Internal",
                Retry::MayRepeat,
                "A fault of the broker; its log says more. A write *may* have been stored.",
            ),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ErrorCode {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        ErrorCode::ALL.into_iter().find(|code| code.name() == name).ok_or(())
    }
}

/// The table of `docs/protocol.md`, in Markdown.
pub fn markdown_table() -> String {
    let mut table = String::from("| code | same request again | meaning |\n|---|---|---|\n");
    for code in ErrorCode::ALL {
        // Writing to a `String` cannot fail.
        let _ = writeln!(table, "| `{code}` | {} | {} |", code.retry(), code.meaning());
    }
    table
}
