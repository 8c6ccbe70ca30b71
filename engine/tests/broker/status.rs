//! `STATE`, `METRICS`, `TOPICS`: the fields that others rely on.

use crate::support::TestBroker;

#[test]
fn state_has_the_original_fields_and_ours() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    client.call("PUT t x");
    let state = client.json("STATE t");
    assert_eq!(state["current_segment"], 1);
    assert_eq!(state["leader_node"], 1);
    assert_eq!(state["last_sealed_entry_offset"], 0);
    assert!(state["sealed_segments"].is_object() && state["segment_leaders"].is_object());
    assert_eq!((&state["first_offset"], &state["next_offset"]), (&0.into(), &1.into()));
    assert_eq!(state["possible_loss"], serde_json::json!([]));
    assert_eq!(state["settings"]["segment_entries"], 1_000_000);
}

#[test]
fn metrics_have_the_shape_of_openraft_s() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    let metrics = client.json("METRICS");
    assert_eq!(metrics["id"], 1);
    assert_eq!(metrics["state"], "Leader");
    assert_eq!(metrics["current_leader"], 1);
    assert_eq!(metrics["last_applied"]["index"], metrics["last_log_index"]);
    assert_eq!(metrics["membership_config"]["membership"]["configs"], serde_json::json!([[1]]));
    assert_eq!(metrics["walrus"]["topics"], 1);
    assert_eq!(metrics["walrus"]["possible_losses"], 0);
}

#[test]
fn topics_are_listed_by_name_with_heads_and_tails() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    assert_eq!(client.call("TOPICS"), "[]");
    client.call("REGISTER b");
    client.call("REGISTER a");
    client.call("PUT b x");
    let topics = client.json("TOPICS");
    assert_eq!((&topics[0]["topic"], &topics[1]["topic"]), (&"a".into(), &"b".into()));
    assert_eq!((&topics[1]["first_offset"], &topics[1]["next_offset"]), (&0.into(), &1.into()));
    assert_eq!(topics[1]["leader_node"], 1);
}
