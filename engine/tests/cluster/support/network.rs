//! A network that can be cut: each node in a namespace of its own, all on one bridge.
//!
//! ```text
//!            tests (198.18.x.254)
//!                        │
//!        ════════════════╧════════════════ bridge
//!          │            │             │
//!     [node 1]      [node 2]      [node 3]      namespaces, 198.18.x.1 …
//! ```
//!
//! The bridge has a namespace as well: a machine's own rules for what it forwards (Docker drops
//! everything foreign) do not count there.
//!
//! A direction from one node to another is cut by a wrong hardware address for the other in the
//! first one's neighbour table: packets leave, and nobody takes them. So connections stay open and
//! only fall silent, as with a broken cable, and clients still reach every node. Needs root.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Nobody has this hardware address.
const NOWHERE: &str = "02:00:00:00:00:99";

/// The namespaces; they go when it is dropped.
pub struct Network {
    key: u32,
    nodes: u64,
}

impl Network {
    /// A network for so many nodes; `None`, and a line that says why, where this is not allowed.
    pub fn build(nodes: u64) -> Option<Self> {
        static BUILT: AtomicU32 = AtomicU32::new(0);
        let key = (std::process::id().wrapping_mul(7) + BUILT.fetch_add(1, Ordering::Relaxed)) % 512;
        let network = Network { key, nodes };
        match network.set_up() {
            Ok(()) => Some(network),
            Err(reason) => {
                println!("skipped: no network namespaces here ({})", reason.trim());
                None
            }
        }
    }

    pub fn host(&self, node: u64) -> String {
        format!("198.{}.{}.{node}", 18 + self.key / 256, self.key % 256)
    }

    pub fn namespace(&self, node: u64) -> String {
        format!("walrus{}n{node}", self.key)
    }

    /// Nothing that `from` sends to `to` arrives any more.
    pub fn cut(&self, from: u64, to: u64) {
        self.neighbour(from, &["replace", &self.host(to), "lladdr", NOWHERE, "nud", "permanent"]).expect("can be cut");
    }

    /// Nothing passes between this node and any other, in either direction.
    pub fn isolate(&self, node: u64) {
        for other in (1..=self.nodes).filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// Everything arrives again.
    pub fn heal(&self) {
        for from in 1..=self.nodes {
            for to in (1..=self.nodes).filter(|to| *to != from) {
                // Fails where nothing was cut.
                let _ = self.neighbour(from, &["del", &self.host(to)]);
            }
        }
    }

    fn neighbour(&self, node: u64, change: &[&str]) -> Result<(), String> {
        let namespace = self.namespace(node);
        let mut words = vec!["-n", &namespace, "neigh"];
        words.extend_from_slice(change);
        words.extend_from_slice(&["dev", "eth0"]);
        ip(&words)
    }

    /// Namespace of the bridge.
    fn middle(&self) -> String {
        format!("walrus{}b", self.key)
    }

    /// The tests' own end of the cable to the bridge.
    fn own_link(&self) -> String {
        format!("walrus{}", self.key)
    }

    fn set_up(&self) -> Result<(), String> {
        let (middle, own_link) = (self.middle(), self.own_link());
        ip(&["netns", "add", &middle])?;
        ip(&["-n", &middle, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &middle, "link", "set", "bridge", "up"])?;
        ip(&["link", "add", &own_link, "type", "veth", "peer", "name", "tests", "netns", &middle])?;
        ip(&["-n", &middle, "link", "set", "tests", "master", "bridge", "up"])?;
        ip(&["addr", "add", &format!("{}/24", self.host(254)), "dev", &own_link])?;
        ip(&["link", "set", &own_link, "up"])?;
        for node in 1..=self.nodes {
            let (namespace, port) = (self.namespace(node), format!("node{node}"));
            ip(&["netns", "add", &namespace])?;
            ip(&["-n", &middle, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
            ip(&["-n", &middle, "link", "set", &port, "master", "bridge", "up"])?;
            ip(&["-n", &namespace, "addr", "add", &format!("{}/24", self.host(node)), "dev", "eth0"])?;
            ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What was not made cannot be removed, and that is fine.
        for node in 1..=self.nodes {
            let _ = ip(&["netns", "del", &self.namespace(node)]);
        }
        let _ = ip(&["link", "del", &self.own_link()]);
        let _ = ip(&["netns", "del", &self.middle()]);
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(words).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
