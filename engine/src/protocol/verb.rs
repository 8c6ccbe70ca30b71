//! The verbs of the protocol, each with the line that explains it. Error texts of the broker and
//! the help of the command line client are made from this table.

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Creates a topic.
    Register,
    /// Appends one record.
    Put,
    /// Reads the next record of a cursor.
    Get,
    /// Describes a topic.
    State,
    /// Describes the node.
    Metrics,
    /// Appends many records as one batch.
    Append,
    /// Reads by offset.
    Fetch,
    /// Moves a cursor.
    Seek,
    /// Lists the topics.
    Topics,
    /// Removes a topic.
    Delete,
    /// Lets a node go.
    Leave,
    /// Is anybody there?
    Ping,
}

impl Verb {
    /// All verbs, in the order of the documentation.
    pub const ALL: [Verb; 12] = [
        Verb::Register,
        Verb::Put,
        Verb::Get,
        Verb::State,
        Verb::Metrics,
        Verb::Append,
        Verb::Fetch,
        Verb::Seek,
        Verb::Topics,
        Verb::Delete,
        Verb::Leave,
        Verb::Ping,
    ];

    /// The verb as it stands in a request.
    pub fn name(self) -> &'static str {
        self.describe().0
    }

    /// Verb and arguments.
    pub fn usage(self) -> &'static str {
        self.describe().1
    }

    /// What it does, in one line.
    pub fn help(self) -> &'static str {
        self.describe().2
    }

    /// Finds a verb by its exact name.
    pub fn from_name(name: &str) -> Option<Verb> {
        Verb::ALL.into_iter().find(|verb| verb.name() == name)
    }

    fn describe(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Verb::Register => ("REGISTER", "REGISTER <topic> [key=value …]", "create a topic; the same again is fine"),
            Verb::Put => ("PUT", "PUT <topic> <payload>", "append one record"),
            Verb::Get => ("GET", "GET <topic> [group]", "read the next record and move the cursor"),
            Verb::State => ("STATE", "STATE <topic>", "show a topic's segments, leaders and settings"),
            Verb::Metrics => ("METRICS", "METRICS", "show the node's metrics"),
            Verb::Append => ("APPEND", "APPEND <topic>\\n<records>", "append many records as one batch, all or none"),
            Verb::Fetch => (
                "FETCH",
                "FETCH <topic> <offset> <max records> [max bytes [wait ms]]",
                "read by offset, moving no cursor",
            ),
            Verb::Seek => ("SEEK", "SEEK <topic> <group> <offset|first|last>", "move a cursor"),
            Verb::Topics => ("TOPICS", "TOPICS", "list the topics"),
            Verb::Delete => ("DELETE", "DELETE <topic>", "remove a topic and its data"),
            Verb::Leave => ("LEAVE", "LEAVE <node id>", "let a node go for good, once others hold its copies"),
            Verb::Ping => ("PING", "PING", "check that the broker answers"),
        }
    }
}
