//! `walrus-cli` as a user runs it: real processes, a real broker, exit codes and both outputs.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::Broker;

/// What a run of the command line client left behind.
struct Run {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Run {
    fn of(output: Output) -> Self {
        Run {
            code: output.status.code().expect("an exit code"),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text")
    }

    #[track_caller]
    fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }
}

fn command(addr: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walrus-cli"));
    command.args(["--addr", addr]).args(arguments).stdin(Stdio::null());
    command
}

fn cli(broker: &Broker, arguments: &[&str]) -> Run {
    Run::of(command(broker.addr(), arguments).output().expect("walrus-cli runs"))
}

fn cli_with_input(broker: &Broker, arguments: &[&str], input: &[u8]) -> Run {
    let mut command = command(broker.addr(), arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("walrus-cli runs");
    child.stdin.take().expect("a pipe").write_all(input).expect("input is taken");
    Run::of(child.wait_with_output().expect("it ends"))
}

#[test]
fn a_first_record_and_back() {
    let broker = Broker::start();
    let run = cli(&broker, &["register", "logs"]).succeeded();
    assert_eq!((run.text(), run.stderr.as_str()), ("", "OK\n"), "data to stdout, talk to stderr");
    cli(&broker, &["register", "logs"]).succeeded();
    cli(&broker, &["put", "logs", "hello world"]).succeeded();
    cli(&broker, &["put", "logs", "two", "words"]).succeeded();
    assert_eq!(cli(&broker, &["get", "logs"]).succeeded().text(), "hello world\n");
    assert_eq!(cli(&broker, &["get", "logs", "auditors"]).succeeded().text(), "hello world\n");
    assert_eq!(cli(&broker, &["get", "logs"]).succeeded().text(), "two words\n");
    let nothing = cli(&broker, &["get", "logs"]);
    assert_eq!((nothing.code, nothing.text(), nothing.stderr.as_str()), (3, "", "no record\n"));
    cli(&broker, &["seek", "logs", "auditors", "last"]).succeeded();
    assert_eq!(cli(&broker, &["get", "logs", "auditors"]).code, 3);
}

#[test]
fn failures_have_an_exit_code_and_a_reason() {
    let broker = Broker::start();
    let run = cli(&broker, &["put", "nowhere", "x"]);
    assert_eq!((run.code, run.text()), (1, ""));
    assert!(run.stderr.starts_with("error: UnknownTopic"), "{}", run.stderr);
    let run = cli(&broker, &["--json", "get", "nowhere"]);
    let error: Value = serde_json::from_str(&run.stderr).expect("JSON");
    assert_eq!((run.code, &error["code"]), (1, &"UnknownTopic".into()));
    assert_eq!(cli(&broker, &["put"]).code, 2, "wrong usage");
    assert_eq!(cli(&broker, &["register", "logs", "color=red"]).code, 2);
    assert_eq!(cli(&broker, &["register", "a/b"]).code, 1);
    let nobody = Run::of(command("127.0.0.1:1", &["ping"]).output().expect("it runs"));
    assert_eq!(nobody.code, 1);
    assert!(nobody.stderr.contains("is `walrus --node-id 1` running?"), "{}", nobody.stderr);
}

#[test]
fn json_for_programs() {
    let broker = Broker::start();
    let json = |arguments: &[&str]| -> Value {
        let run = cli(&broker, &[&["--json"], arguments].concat()).succeeded();
        assert_eq!(run.stderr, "");
        serde_json::from_slice(&run.stdout).expect("one JSON value")
    };
    assert_eq!(json(&["register", "logs"])["ok"], true);
    let appended = json(&["append", "logs", "a", "b", "c"]);
    assert_eq!((&appended["first_offset"], &appended["count"]), (&0.into(), &3.into()));
    assert_eq!(json(&["get", "logs"])["value"], "a");
    assert_eq!(json(&["fetch", "logs", "2"])["offset"], 2);
    assert_eq!(json(&["state", "logs"])["next_offset"], 3);
    assert_eq!(json(&["topics"])[0]["topic"], "logs");
    assert_eq!(json(&["metrics"])["id"], 1);
    assert!(json(&["ping"])["round_trip_us"].as_u64().expect("a number") > 0);
    cli(&broker, &["delete", "logs"]).succeeded();
    assert_eq!(json(&["topics"]), Value::Array(Vec::new()));
}

#[test]
fn lines_of_stdin_become_records() {
    const LINES: usize = 30_000;
    let broker = Broker::start();
    let mut input: Vec<u8> = (0..LINES).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    input.extend_from_slice(b"\nthe last one has no newline");
    for (verb, topic) in [("put", "one-by-one"), ("append", "in-batches")] {
        cli(&broker, &["register", topic]).succeeded();
        let run = cli_with_input(&broker, &[verb, topic, "-"], &input).succeeded();
        assert!(run.stderr.starts_with("OK 30,002 records in"), "{}", run.stderr);
        let back = cli(&broker, &["fetch", topic]).succeeded();
        assert!(back.stdout == [&input, b"\n".as_slice()].concat(), "{topic}: what went in comes out");
        let some = cli(&broker, &["fetch", topic, "29999", "1"]).succeeded();
        assert_eq!(some.text(), "line 29999\n");
    }
    assert!(cli_with_input(&broker, &["put", "one-by-one", "-"], b"").stderr.starts_with("OK 0 records"));
    let run = cli_with_input(&broker, &["put", "nowhere", "-"], b"a\nb\n");
    assert_eq!(run.code, 1);
    assert!(run.stderr.starts_with("error: line 1: UnknownTopic"), "{}", run.stderr);
}

/// The broker hangs up in the midst of such a line, and says why.
#[test]
fn a_line_above_the_limit_is_named_with_the_reason() {
    let broker = Broker::start();
    cli(&broker, &["register", "t"]).succeeded();
    let large = vec![b'x'; 32 << 20];
    for input in [large.clone(), [b"1\n2\n".as_slice(), &large].concat()] {
        for verb in ["put", "append"] {
            let run = cli_with_input(&broker, &[verb, "t", "-"], &input);
            assert_eq!(run.code, 1);
            assert!(run.stderr.contains("FrameTooLarge"), "{verb}: {}", run.stderr);
        }
    }
}

#[test]
fn any_byte_survives() {
    let broker = Broker::start();
    let every_byte: Vec<u8> = (0..=255).collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &every_byte).expect("written");
    let path = file.path().to_str().expect("a path");
    cli(&broker, &["register", "bytes"]).succeeded();
    cli(&broker, &["put", "bytes", "--file", path]).succeeded();
    assert_eq!(cli(&broker, &["--raw", "fetch", "bytes"]).succeeded().stdout, every_byte);
    let json: Value = serde_json::from_slice(&cli(&broker, &["--json", "get", "bytes"]).stdout).expect("JSON");
    assert!(json["value_base64"].as_str().expect("base64").starts_with("AAECAwQFBgc"));
}

#[test]
fn follow_prints_records_as_they_come() {
    let broker = Broker::start();
    cli(&broker, &["register", "logs"]).succeeded();
    cli(&broker, &["put", "logs", "before"]).succeeded();
    let mut follower =
        command(broker.addr(), &["fetch", "logs", "--follow"]).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "before");
    cli(&broker, &["put", "logs", "after"]).succeeded();
    assert_eq!(lines.next().expect("a line").expect("text"), "after");
    follower.kill().expect("it runs still");
    follower.wait().expect("it ends");
}

#[test]
fn without_a_subcommand_stdin_is_a_script() {
    let broker = Broker::start();
    let script = b"# quotes work as in a shell\nREGISTER logs\nPUT logs \"hello  world\"\nput logs -\n\nGET logs\nget logs\nget logs\n";
    let run = cli_with_input(&broker, &[], script).succeeded();
    assert_eq!(run.text(), "hello  world\n-\n");
    let run = cli_with_input(&broker, &[], b"PING\nPUT nowhere x\nPING\n");
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("line 2 failed"), "{}", run.stderr);
}

#[test]
fn help_is_complete() {
    let run = Run::of(command("127.0.0.1:1", &["--help"]).output().expect("it runs")).succeeded();
    for word in ["register", "append", "WALRUS_ADDR", "Exit codes", "--json"] {
        assert!(run.text().contains(word), "{word}");
    }
}
