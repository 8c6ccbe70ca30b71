//! What `env.json` tells about the run: machine, versions, command line, warnings.
//!
//! The page shows the file as it is, so that a new field appears without a change here; only the
//! command line and the warnings are looked for by name.

use serde_json::Value;

use crate::stats::human_bytes;

/// The command that made this run, as it was typed.
pub fn command_line(env: &Value) -> Option<String> {
    match find(env, "command_line").or_else(|| find(env, "command"))? {
        Value::String(text) => Some(text.clone()),
        Value::Array(words) => Some(words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
        _ => None,
    }
}

/// Warnings that the harness wrote down, such as a profile from another machine.
pub fn warnings(env: &Value) -> Vec<String> {
    match find(env, "warnings") {
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// `env.json` as names and values, nested names joined by dots.
pub fn flatten(env: &Value) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    collect("", env, &mut pairs);
    pairs
}

/// The first value under this name, at any depth, outer levels first.
pub fn find<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let Value::Object(map) = value else { return None };
    map.get(name).or_else(|| map.values().find_map(|inner| find(inner, name)))
}

fn collect(name: &str, value: &Value, pairs: &mut Vec<(String, String)>) {
    let join = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Null => {}
        Value::Object(map) => map.iter().for_each(|(key, inner)| collect(&join(key), inner, pairs)),
        Value::Array(items) if items.iter().any(|i| i.is_object() || i.is_array()) => {
            for (i, item) in items.iter().enumerate() {
                collect(&join(&i.to_string()), item, pairs);
            }
        }
        Value::Array(items) => pairs.push((name.to_owned(), items.iter().map(plain).collect::<Vec<_>>().join(" "))),
        other => pairs.push((name.to_owned(), readable(name, other))),
    }
}

/// A value as people read it: names that end in `_bytes` tell a size.
pub fn readable(name: &str, value: &Value) -> String {
    let bytes = value.as_f64().filter(|_| name.ends_with("_bytes"));
    bytes.map_or_else(|| plain(value), human_bytes)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_found_as_text_or_words_at_any_depth() {
        let words = serde_json::json!({"run": {"command_line": ["harness", "run"]}});
        assert_eq!(command_line(&words).as_deref(), Some("harness run"));
        let text = serde_json::json!({"command_line": "make bench-all"});
        assert_eq!(command_line(&text).as_deref(), Some("make bench-all"));
        assert_eq!(command_line(&Value::Null), None);
    }

    #[test]
    fn nested_values_are_listed_by_their_path() {
        let env = serde_json::json!({"cpu": {"model": "X", "cores": 2}, "flags": ["a", "b"]});
        let pairs = flatten(&env);
        assert!(pairs.contains(&("cpu.model".into(), "X".into())));
        assert!(pairs.contains(&("flags".into(), "a b".into())));
    }
}
