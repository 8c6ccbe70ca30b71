//! Ports for servers that are about to start.
//!
//! A program of its own: another test that starts a process lends it, between `fork` and `exec`, every
//! socket that is open here, and a port that was just let go is then taken for a moment longer.

use std::net::{Ipv4Addr, TcpListener};

use walrus_drivers::ports::free_ports;

#[test]
fn ports_are_free_and_differ_and_the_kernel_gives_them_to_nobody() {
    let ports = free_ports(50).unwrap();
    // All at once: a port that was found twice could not be held twice.
    let held: Vec<TcpListener> =
        ports.iter().map(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap()).collect();
    assert_eq!(held.len(), 50);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let ephemeral_min: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    assert!(ports.iter().all(|&port| port < ephemeral_min), "{ports:?}");
}
