//! Clients of the original Walrus work unchanged, on a cluster that `scripts/cluster.py` runs.

use std::path::Path;
use std::process::Command;

/// The script has ports of its own choice, so it may run beside the other scenarios; it takes its
/// turn all the same, because their time limits expect an idle machine.
fn run(arguments: &[&str]) {
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: python3 is not installed");
        return;
    }
    let _turn = crate::support::cluster::turn();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/original_clients.py");
    let output = Command::new("python3")
        .arg(script)
        .args(["--walrus", env!("CARGO_BIN_EXE_walrus")])
        .args(arguments)
        .output()
        .expect("it runs");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn leaders_rotate_and_everything_is_read_back() {
    run(&["--short"]);
}

#[test]
#[ignore = "long: single nodes and all of them are stopped and started"]
fn through_stops_and_starts() {
    run(&[]);
}
