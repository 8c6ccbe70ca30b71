//! Settings of the systems: the tables of `drivers/profiles/<system>.toml`.
//!
//! A row uses `[vanilla]` if its variant says so, else `[latency]` in an open loop, `[synced]` in
//! the synced tier, and `[tuned]` otherwise. A table inside it that is named after another word of
//! the variant (`[tuned.batch]`) is laid over it; `[tuned.cluster]` on a cluster.

use std::path::{Path, PathBuf};

use walrus_drivers::Tier;

/// Why a system has no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is wrong.
    #[error("{path}: {why}")]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Names of the tables that are profiles.
const TABLES: [&str; 4] = ["vanilla", "tuned", "latency", "synced"];

/// Profiles as they were when the harness was built; a copied binary needs no checkout.
const BUILT_IN: [(&str, &str); 8] = [
    ("kafka", include_str!("../../drivers/profiles/kafka.toml")),
    ("kafka-java", include_str!("../../drivers/profiles/kafka-java.toml")),
    ("null", include_str!("../../drivers/profiles/null.toml")),
    ("raw", include_str!("../../drivers/profiles/raw.toml")),
    ("rocksdb", include_str!("../../drivers/profiles/rocksdb.toml")),
    ("upstream", include_str!("../../drivers/profiles/upstream.toml")),
    ("walrus", include_str!("../../drivers/profiles/walrus.toml")),
    ("walrus-embedded", include_str!("../../drivers/profiles/walrus-embedded.toml")),
];

/// The table for one row; empty if the system has no file or no such table.
pub fn for_row(
    dir: Option<&Path>,
    system: &str,
    variant: &[String],
    tier: Tier,
    is_latency: bool,
) -> Result<toml::Table, SettingsError> {
    let file = read(dir, system)?;
    let name = table_name(&file, variant, tier, is_latency);
    let Some(toml::Value::Table(table)) = file.get(name) else { return Ok(toml::Table::new()) };
    Ok(lay_over(table.clone(), variant))
}

/// Which of the tables in `file` a row uses.
pub fn table_name(file: &toml::Table, variant: &[String], tier: Tier, is_latency: bool) -> &'static str {
    if variant.iter().any(|word| word == "vanilla") {
        "vanilla"
    } else if is_latency && file.contains_key("latency") {
        "latency"
    } else if tier == Tier::Synced && file.contains_key("synced") {
        "synced"
    } else {
        "tuned"
    }
}

/// Takes the tables named after words of the variant into the table itself.
fn lay_over(mut table: toml::Table, variant: &[String]) -> toml::Table {
    for word in variant {
        if let Some(toml::Value::Table(special)) = table.remove(word) {
            table.extend(special);
        }
    }
    // Tables for words that this variant does not have.
    for word in ["put", "append", "batch", "idempotent", "fd", "mmap", "cluster", "session"] {
        if table.get(word).is_some_and(toml::Value::is_table) {
            table.remove(word);
        }
    }
    table
}

/// All tables of a system.
pub fn read(dir: Option<&Path>, system: &str) -> Result<toml::Table, SettingsError> {
    let path = dir.map(|dir| dir.join(format!("{system}.toml")));
    let text = match &path {
        Some(path) if path.exists() => std::fs::read_to_string(path)
            .map_err(|error| SettingsError::Bad { path: path.clone(), why: error.to_string() })?,
        _ => BUILT_IN.iter().find(|(name, _)| *name == system).map_or_else(String::new, |(_, text)| (*text).to_owned()),
    };
    let path = path.unwrap_or_else(|| format!("{system}.toml").into());
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| SettingsError::Bad { path, why: error.to_string() })?;
    Ok(table)
}

/// Is this the name of a profile's table (and not `grid`, `machine` …)?
pub fn is_profile(name: &str) -> bool {
    TABLES.contains(&name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn settings(variant: &[&str], tier: Tier, is_latency: bool) -> toml::Table {
        let dir = tempfile::tempdir().unwrap();
        let text = "[vanilla]\na = 0\n[tuned]\na = 1\nb = 1\n[tuned.batch]\nb = 2\n[latency]\na = 3\n[synced]\na = 4\n";
        std::fs::write(dir.path().join("x.toml"), text).unwrap();
        let words: Vec<String> = variant.iter().map(|&word| word.to_owned()).collect();
        for_row(Some(dir.path()), "x", &words, tier, is_latency).unwrap()
    }

    #[test]
    fn the_variant_tier_and_load_choose_the_table() {
        assert_eq!(settings(&["vanilla"], Tier::Synced, true)["a"].as_integer(), Some(0));
        assert_eq!(settings(&["tuned"], Tier::PageCache, true)["a"].as_integer(), Some(3));
        assert_eq!(settings(&["tuned"], Tier::Synced, false)["a"].as_integer(), Some(4));
        let put = settings(&["put", "tuned"], Tier::PageCache, false);
        assert_eq!(put.to_string(), "a = 1\nb = 1\n");
        let batch = settings(&["batch", "tuned"], Tier::PageCache, false);
        assert_eq!(batch["b"].as_integer(), Some(2));
    }

    #[test]
    fn every_reader_asks_for_the_same_number_of_bytes() {
        let tuned = |system: &str, key: &str| read(None, system).unwrap()["tuned"][key].as_integer().unwrap();
        let kafka = tuned("kafka", "consumer.fetch.message.max.bytes");
        for system in ["walrus", "walrus-embedded", "rocksdb"] {
            assert_eq!(tuned(system, "fetch_bytes"), kafka, "{system}");
        }
    }

    #[test]
    fn a_system_without_a_file_has_no_settings_and_a_broken_file_is_an_error() {
        assert!(for_row(None, "nosuch", &[], Tier::PageCache, false).unwrap().is_empty());
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x.toml"), "= 3").unwrap();
        assert!(read(Some(dir.path()), "x").is_err());
    }
}
