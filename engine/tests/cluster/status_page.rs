//! The status page in a real browser: it shows the cluster, and notices when a node goes.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::eventually;

/// Exit code of the script where there is no Chromium.
const NO_CHROMIUM: i32 = 77;

/// What a person sees on a node's page; `None` where there is no browser to look with.
fn look(cluster: &Cluster, id: u64) -> Option<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/page.py");
    let url = format!("http://{}/", cluster.node(id).admin_address());
    let output = Command::new("python3").arg(script).args([&url, "--seconds", "4"]).output();
    let Some(output) = output.ok().filter(|output| output.status.code() != Some(NO_CHROMIUM)) else {
        println!("skipped: no Chromium or no python3 here");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[test]
#[ignore = "long: starts a browser"]
fn the_page_shows_the_cluster() {
    let mut cluster = Cluster::start(3);
    cluster.register("clicks", &[]);
    cluster.client(1).put("clicks", b"x").expect("PUT");
    let Some(seen) = look(&cluster, 2) else { return };
    assert_eq!(
        (&seen["health"], &seen["stale"], &seen["errors"]),
        (&"healthy".into(), &false.into(), &Value::Array(vec![]))
    );
    assert_eq!(seen["overflow"], false, "nothing is cut off");
    let rows = seen["nodes"].as_array().expect("rows");
    assert!(rows.len() == 3 && rows.iter().all(|row| row.as_str().is_some_and(|row| row.contains("ready"))), "{seen}");
    assert_eq!(rows.iter().filter(|row| row.as_str().is_some_and(|row| row.contains("Raft leader"))).count(), 1);
    assert!(seen["topics"][0].as_str().is_some_and(|row| row.starts_with("clicks")), "{seen}");
    cluster.node_mut(3).kill();
    eventually("the page shows that a node is gone", || look(&cluster, 2).filter(|seen| seen["health"] != "healthy"));
}
