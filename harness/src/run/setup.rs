//! What a driver is told before a run: topics, settings, bounds.

use walrus_drivers::{Deployment, Setup};

use super::{Env, Task};
use crate::child::RunError;
use crate::profile::RowName;
use crate::settings;
use crate::workload::Kind;

/// The setup of a task; `endpoint` and topics of a server that is shared come later.
pub(super) fn setup(env: &Env, task: &Task) -> Result<Setup, RunError> {
    let variant: Vec<String> = task.row.variant.split('-').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let is_latency = matches!(task.case.kind, Kind::Open | Kind::Tail | Kind::Failover);
    let best_raw = env.raw_settings.get(&task.case.ceiling_key()).filter(|_| is_embedded_raw(&task.row));
    // The networked ceiling is driven by our client, with our client's settings.
    let is_networked_raw = task.row.system == "raw" && task.row.deployment == Deployment::Networked;
    let whose = if is_networked_raw { "walrus" } else { &task.row.system };
    let mut words = variant.clone();
    words.extend((task.case.nodes > 1).then(|| "cluster".to_owned()));
    let mut settings = match env.settings_override.as_ref().or(best_raw) {
        Some(table) => table.clone(),
        None => settings::for_row(env.settings_dir.as_deref(), whose, &words, task.case.tier, is_latency)
            .map_err(|error| RunError::System(error.to_string()))?,
    };
    if is_networked_raw {
        settings.remove("server");
    }
    Ok(Setup {
        data_dir: env.bench_dir.join("run"),
        topics: (0..task.case.topics).map(|topic| format!("bench-{topic}")).collect(),
        tier: task.case.tier,
        producers: task.case.producers,
        one_in_flight: task.case.window_bytes.is_none(),
        in_flight_bytes: task.case.window_bytes.unwrap_or(task.case.record_bytes.max as u64),
        variant,
        settings,
        tools: env.tools.clone(),
        endpoint: env.kafka_bootstrap.clone().filter(|_| task.row.system.starts_with("kafka")),
        nodes: task.case.nodes,
    })
}

fn is_embedded_raw(row: &RowName) -> bool {
    row.system == "raw" && row.deployment == Deployment::Embedded
}
