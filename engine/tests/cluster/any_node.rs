//! Any node takes any request: the quick start works on each, whoever leads.

use std::time::Duration;

use walrus_engine::protocol::SeekTo;

use crate::support::cluster::Cluster;

#[test]
fn the_quick_start_works_on_every_node() {
    let cluster = Cluster::start(3);
    for id in cluster.ids() {
        let topic = format!("logs-{id}");
        cluster.client(id).register(&topic, walrus_engine::protocol::TopicSettings::default()).expect("REGISTER");
        cluster.client(id).put(&topic, b"hello world").expect("PUT");
        for other in cluster.ids() {
            let mut client = cluster.client(other);
            let group = format!("reader-{other}");
            assert_eq!(client.get(&topic, Some(&group)).expect("GET"), Some(&b"hello world"[..]), "node {other}");
            assert_eq!(client.get(&topic, Some(&group)).expect("GET"), None, "node {other}");
            let fetched = client.fetch(&topic, 0, 10, 1 << 20, Duration::ZERO).expect("FETCH");
            assert_eq!(fetched.records.iter().collect::<Vec<_>>(), [b"hello world"], "node {other}");
        }
    }
}

#[test]
fn every_verb_works_on_every_node() {
    let cluster = Cluster::start(3);
    cluster.register("t", &[]);
    for (turn, id) in (0..).zip(cluster.ids()) {
        let mut client = cluster.client(id);
        let appended = client.append("t", [b"a".as_slice(), b"b", b"c"]).expect("APPEND");
        assert_eq!((appended.first_offset, appended.count), (turn * 3, 3), "node {id}");
        client.seek("t", "group", SeekTo::Offset(turn * 3 + 1)).expect("SEEK");
        assert_eq!(client.get("t", Some("group")).expect("GET"), Some(&b"b"[..]), "node {id}");
        assert_eq!(client.call_raw(b"PUT nowhere x").expect("a reply").get(..16), Some(&b"ERR UnknownTopic"[..]));
        client.ping().expect("PING");
        let topics: serde_json::Value = serde_json::from_str(client.topics().expect("TOPICS")).expect("JSON");
        assert_eq!(topics[0]["topic"], "t", "node {id}");
        let metrics: serde_json::Value = serde_json::from_str(client.metrics().expect("METRICS")).expect("JSON");
        assert!(metrics["current_leader"].is_u64() && metrics["state"].is_string(), "{metrics}");
    }
    let leaders: Vec<u64> = cluster.ids().iter().map(|id| cluster.leader(*id, "t")).collect();
    assert!(leaders.windows(2).all(|pair| pair[0] == pair[1]), "all nodes name the same leader: {leaders:?}");
    cluster.client(2).delete("t").expect("DELETE");
    for id in cluster.ids() {
        let reply = cluster.client(id).call_raw(b"GET t").expect("a reply").to_vec();
        assert!(reply.starts_with(b"ERR UnknownTopic"), "node {id}: {}", String::from_utf8_lossy(&reply));
    }
}
