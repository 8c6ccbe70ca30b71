//! The clients of `docs/clients`, each against a real broker.

mod support;

use std::path::PathBuf;
use std::process::Command;

use support::Broker;

/// Runs `program file addr`. Where the language is not installed, says so and passes.
fn converses(program: &str, arguments: &[&str], file: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/clients").join(file);
    let version = if program == "go" { "version" } else { "--version" };
    if !Command::new(program).arg(version).output().is_ok_and(|output| output.status.success()) {
        println!("skipped {file}: {program} is not installed");
        return;
    }
    let broker = Broker::start();
    let output = Command::new(program)
        .args(arguments)
        .arg(path)
        .arg(broker.addr())
        // The C compiler would only make `go run` slower.
        .env("CGO_ENABLED", "0")
        .output()
        .expect("it runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{file}: {stderr}");
    assert_eq!(stdout.replace("\r\n", "\n"), "OK\nOK\nOK hello world\n", "{file}: {stderr}");
}

#[test]
fn python() {
    converses("python3", &[], "walrus.py");
}

#[test]
fn node() {
    converses("node", &[], "walrus.mjs");
}

#[test]
fn go() {
    converses("go", &["run"], "walrus.go");
}

#[test]
fn shell() {
    converses("bash", &[], "walrus.sh");
}
