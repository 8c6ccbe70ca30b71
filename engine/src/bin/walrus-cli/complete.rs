//! Completion in the shell: verbs, names of topics, and the keys of `REGISTER`.

use std::time::{Duration, Instant};

use nu_ansi_term::Style;
use reedline::{Completer, CompletionResult, Highlighter, Span, StyledText, Suggestion};
use serde_json::Value;
use walrus_engine::client::{Client, ClientConfig};
use walrus_engine::protocol::Verb;

use crate::shell::BUILTINS;

/// Settings of `REGISTER`, as they are typed.
pub(crate) const SETTINGS: [(&str, &str); 8] = [
    ("replicas=", "copies of each segment"),
    ("tier=page-cache", "acknowledge once the kernel has it"),
    ("tier=synced", "acknowledge once it is flushed to the device"),
    ("acks=all", "acknowledge once every copy has it, not only most"),
    ("segment_entries=", "records a segment holds"),
    ("segment_bytes=", "bytes a segment holds"),
    ("retention_bytes=", "drop the oldest segments above this size"),
    ("retention_ms=", "drop segments older than this"),
];

/// Topics are asked for again after this long.
const TOPICS_FRESH: Duration = Duration::from_secs(2);

/// Completing must never make the user wait for a slow broker.
const TOPICS_TIMEOUT: Duration = Duration::from_millis(300);

/// Completes the word before the cursor.
pub(crate) struct ShellCompleter {
    config: ClientConfig,
    topics: Vec<String>,
    asked_at: Option<Instant>,
}

impl ShellCompleter {
    pub(crate) fn new(config: &ClientConfig) -> Self {
        let config =
            ClientConfig { connect_timeout: TOPICS_TIMEOUT, request_timeout: TOPICS_TIMEOUT, ..config.clone() };
        ShellCompleter { config, topics: Vec::new(), asked_at: None }
    }

    /// Candidates for the word at `position` (0 is the verb), with their explanations.
    fn candidates(&mut self, verb: &str, position: usize) -> Vec<(String, String)> {
        let pairs = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(value, help)| ((*value).to_owned(), (*help).to_owned())).collect()
        };
        let verb = Verb::from_name(&verb.to_ascii_uppercase());
        match (position, verb) {
            (0, _) => {
                let verbs = Verb::ALL.iter().map(|verb| (verb.name().to_owned(), verb.help().to_owned()));
                verbs.chain(BUILTINS.map(|(name, help)| (name.to_owned(), help.to_owned()))).collect()
            }
            (1, None) => Verb::ALL.iter().map(|verb| (verb.name().to_owned(), verb.help().to_owned())).collect(),
            (1, Some(Verb::Metrics | Verb::Topics | Verb::Leave | Verb::Ping)) => Vec::new(),
            (1, Some(_)) => self.topics().iter().map(|topic| (topic.clone(), String::new())).collect(),
            (_, Some(Verb::Register)) => pairs(&SETTINGS),
            (3, Some(Verb::Seek)) => pairs(&[("first", "the oldest record"), ("last", "behind the last record")]),
            (_, Some(Verb::Fetch)) => pairs(&[("--follow", "print records as they come")]),
            _ => Vec::new(),
        }
    }

    /// Names of the topics; those known last when the broker does not answer at once.
    fn topics(&mut self) -> &[String] {
        if self.asked_at.is_none_or(|at| at.elapsed() > TOPICS_FRESH) {
            self.asked_at = Some(Instant::now());
            let names =
                Client::with_config(self.config.clone()).and_then(|mut client| client.topics().map(topic_names));
            self.topics = names.unwrap_or_else(|_| std::mem::take(&mut self.topics));
        }
        &self.topics
    }
}

/// Finds the names in the reply to `TOPICS`.
fn topic_names(json: &str) -> Vec<String> {
    let name = |value: &Value| value.get("topic").or(value.get("name")).unwrap_or(value).as_str().map(String::from);
    match serde_json::from_str(json) {
        Ok(Value::Array(topics)) => topics.iter().filter_map(name).collect(),
        Ok(Value::Object(topics)) => topics.into_iter().map(|(name, _)| name).collect(),
        _ => Vec::new(),
    }
}

impl Completer for ShellCompleter {
    fn complete(&mut self, line: &str, pos: usize) -> CompletionResult {
        let before = &line[..pos];
        let start = before.rfind(char::is_whitespace).map_or(0, |space| space + 1);
        let word = &before[start..];
        let position = before[..start].split_whitespace().count();
        let verb = before.split_whitespace().next().unwrap_or("").to_owned();
        let suggestions: Vec<Suggestion> = self
            .candidates(&verb, position)
            .into_iter()
            .filter(|(value, _)| starts_with_ignoring_case(value, word))
            .map(|(value, help)| Suggestion {
                append_whitespace: !value.ends_with('='),
                description: (!help.is_empty()).then_some(help),
                span: Span::new(start, pos),
                value,
                ..Suggestion::default()
            })
            .collect();
        CompletionResult::fresh(suggestions)
    }
}

fn starts_with_ignoring_case(value: &str, prefix: &str) -> bool {
    value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Verbs are bold, and red while they are none.
pub(crate) struct VerbHighlighter;

impl Highlighter for VerbHighlighter {
    fn highlight(&self, line: &str, _cursor: usize) -> StyledText {
        let end = line.find(char::is_whitespace).unwrap_or(line.len());
        let (verb, rest) = line.split_at(end);
        let is_prefix = |name: &str| starts_with_ignoring_case(name, verb);
        let known = Verb::ALL.iter().map(|verb| verb.name()).chain(BUILTINS.map(|(name, _)| name)).any(is_prefix);
        let color = if known { nu_ansi_term::Color::Cyan } else { nu_ansi_term::Color::Red };
        let mut text = StyledText::new();
        text.push((color.bold(), verb.to_owned()));
        text.push((Style::new(), rest.to_owned()));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(line: &str) -> Vec<String> {
        // A port that nobody listens on: topics then are those known before.
        let mut completer = ShellCompleter::new(&ClientConfig::new("127.0.0.1:1"));
        completer.topics = vec!["logs".into(), "metrics".into()];
        let result = completer.complete(line, line.len());
        result.suggestions().iter().map(|suggestion| suggestion.value.clone()).collect()
    }

    #[test]
    fn verbs_topics_and_settings_are_completed() {
        assert_eq!(values("pu"), ["PUT"]);
        assert_eq!(values("GET lo"), ["logs"]);
        assert_eq!(values("get "), ["logs", "metrics"]);
        assert_eq!(values("REGISTER new ti"), ["tier=page-cache", "tier=synced"]);
        assert_eq!(values("SEEK logs g f"), ["first"]);
        assert!(values("PING ").is_empty());
        assert!(values("PUT logs l").is_empty(), "payloads are the user's own");
        assert!(values("help st").contains(&"STATE".to_owned()));
    }

    #[test]
    fn topic_names_are_found_in_lists_and_maps() {
        assert_eq!(topic_names(r#"[{"topic":"a","tail":3},{"name":"b"}]"#), ["a", "b"]);
        assert_eq!(topic_names(r#"{"a":{},"b":{}}"#), ["a", "b"]);
        assert!(topic_names("nonsense").is_empty());
    }
}
