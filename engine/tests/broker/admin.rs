//! The admin port: health, metrics, the status page and its data, and its limits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::{PATIENCE, TestBroker};

fn broker() -> (TestBroker, SocketAddr) {
    let broker = TestBroker::start_with(|config| config.admin_port = Some(0));
    let admin = broker.admin_address().expect("an admin port");
    (broker, admin)
}

/// Sends `request` and returns status code, head and body.
fn http(admin: SocketAddr, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(admin).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.write_all(request.as_bytes()).expect("is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, then the end");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status code");
    (status, head.to_lowercase(), body.to_owned())
}

fn get(admin: SocketAddr, path: &str) -> (u16, String, String) {
    http(admin, &format!("GET {path} HTTP/1.1\r\nhost: walrus\r\nconnection: close\r\n\r\n"))
}

#[test]
fn a_node_that_serves_is_healthy_and_ready() {
    let (_broker, admin) = broker();
    assert_eq!((get(admin, "/healthz").0, get(admin, "/readyz").0), (200, 200));
}

#[test]
fn metrics_count_what_clients_do() {
    let (broker, admin) = broker();
    let mut client = broker.client();
    client.call("REGISTER t");
    (0..3).for_each(|n| assert_eq!(client.call(format!("PUT t {n}")), "OK"));
    let (status, head, metrics) = get(admin, "/metrics");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(metrics.contains("\nwalrus_records_in_total 3\n"), "{metrics}");
    assert!(metrics.contains("\nwalrus_topics 1\n") && metrics.contains("\nwalrus_topics_led 1\n"), "{metrics}");
    assert!(metrics.contains("\nwalrus_connections 1\n") && metrics.contains("\nwalrus_ready 1\n"), "{metrics}");
}

#[test]
fn the_status_shows_nodes_and_topics() {
    let (broker, admin) = broker();
    let mut client = broker.client();
    client.call("REGISTER logs");
    client.call("PUT logs x");
    let (status, head, body) = get(admin, "/status.json");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/json") && head.contains("cache-control: no-store"), "{head}");
    let status: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((&status["node_id"], &status["raft"]["leader"]), (&1.into(), &1.into()));
    let node = &status["nodes"][0];
    assert_eq!(
        (&node["node_id"], &node["reachable"], &node["ready"], &node["leads"], &node["records_in"], &node["raft_role"]),
        (&1.into(), &true.into(), &true.into(), &1.into(), &1.into(), &"voter".into())
    );
    let topic = &status["topics"][0];
    assert_eq!(
        (&topic["topic"], &topic["leader"], &topic["phase"], &topic["next_offset"], &topic["replicas"]),
        (&"logs".into(), &1.into(), &"open".into(), &1.into(), &serde_json::json!([1]))
    );
    assert_eq!(status["topics_total"], 1);
}

#[test]
fn the_page_is_one_file_that_loads_nothing_else() {
    let (_broker, admin) = broker();
    let (status, head, page) = get(admin, "/");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/html") && head.contains("default-src 'none'"), "{head}");
    assert!(page.ends_with("</html>\n"), "the page is whole");
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains(" src="), "nothing from outside");
}

#[test]
fn what_is_not_there_or_not_allowed_is_refused() {
    let (_broker, admin) = broker();
    assert_eq!(get(admin, "/nothing").0, 404);
    let post = "POST /metrics HTTP/1.1\r\nhost: walrus\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(http(admin, post).0, 405);
    assert_eq!(http(admin, "nonsense\r\n\r\n").0, 400);
    let endless = format!("GET / HTTP/1.1\r\nhost: walrus\r\nx: {}\r\n\r\n", "x".repeat(64 << 10));
    assert_eq!(refusal(admin, &endless), 431);
    assert_eq!(get(admin, "/healthz").0, 200, "and the port goes on");
}

/// The status code of a refused request. The server does not wait for the rest of what it refuses,
/// so the connection may be reset before the code could be read: that counts as 431.
fn refusal(admin: SocketAddr, request: &str) -> u16 {
    let mut stream = TcpStream::connect(admin).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    // Neither has to succeed.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let head = String::from_utf8_lossy(&answer);
    head.split(' ').nth(1).map_or(431, |code| code.parse().expect("a status code"))
}

/// A client that has just asked is given a second to close; as long, the stop can be watched.
#[test]
fn a_node_that_is_being_stopped_says_so_and_is_still_healthy() {
    let (mut broker, admin) = broker();
    let mut client = broker.client();
    assert_eq!(client.call("REGISTER t"), "OK");
    let mut watcher = TcpStream::connect(admin).expect("connects");
    watcher.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let (started, wait) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            started.send(()).expect("the test waits");
            broker.stop();
        });
        wait.recv().expect("the stop begins");
        while ask(&mut watcher, "/readyz") == "HTTP/1.1 200 OK" {}
        assert_eq!(ask(&mut watcher, "/healthz"), "HTTP/1.1 200 OK", "it still answers");
        let (status, _, body) = get(admin, "/readyz");
        assert_eq!((status, body.as_str()), (503, "not ready: the node is being stopped\n"));
        drop(client);
    });
}

/// Asks on a connection that stays; returns the status line, empty if the connection has ended.
fn ask(stream: &mut TcpStream, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: walrus\r\n\r\n").expect("is sent");
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let count = stream.read(&mut chunk).expect("is read");
        answer.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&answer);
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| body.len() >= length(head));
        if whole || count == 0 {
            return text.lines().next().unwrap_or_default().to_owned();
        }
    }
}

fn length(head: &str) -> usize {
    let head = head.to_lowercase();
    let line = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    line.parse().expect("a number")
}

#[test]
fn stopping_the_broker_frees_the_port() {
    let (mut broker, admin) = broker();
    let idle = TcpStream::connect(admin).expect("connects");
    broker.stop();
    TcpStream::connect(admin).expect_err("nobody listens");
    drop(idle);
}

#[test]
fn without_the_flag_no_port_is_opened() {
    assert_eq!(TestBroker::start().admin_address(), None);
}
