//! Loopback ports for servers that are about to start.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use crate::DriverError;

/// The lowest port that is tried.
const LOWEST: u16 = 10_000;
/// Ports that are tried at least, wherever the kernel's own begin.
const TRIED_MIN: u16 = 1_000;
/// Where the kernel's own begin on most machines.
const EPHEMERAL_USUAL: u16 = 32_768;

/// So many different ports that are free now.
///
/// They lie below those that the kernel gives to connections (`ip_local_port_range`): those it may give
/// away before the server listens, also to a node of the same cluster that starts earlier.
pub fn free_ports(count: usize) -> Result<Vec<u16>, DriverError> {
    let span = first_ephemeral_port().saturating_sub(LOWEST).max(TRIED_MIN);
    // Anywhere, so that runs side by side seldom try the same ones.
    let start = (RandomState::new().hash_one(LOWEST) % u64::from(span)) as u16;
    let candidates = (0..span).map(|step| LOWEST + ((u32::from(start) + u32::from(step)) % u32::from(span)) as u16);
    // All are held until the last one is found, so that they differ.
    let free = candidates.filter_map(|port| Some((port, TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?)));
    let (ports, _held): (Vec<u16>, Vec<TcpListener>) = free.take(count).unzip();
    if ports.len() < count {
        return Err(DriverError::Unavailable {
            cause: format!("of the ports from {LOWEST} to {}, fewer than {count} are free", LOWEST + span - 1),
            remedy: "stop what listens there (`ss -ltnp`)".into(),
        });
    }
    Ok(ports)
}

/// One such port.
pub fn free_port() -> Result<u16, DriverError> {
    Ok(free_ports(1)?[0])
}

fn first_ephemeral_port() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    range.ok().and_then(|range| range.split_whitespace().next()?.parse().ok()).unwrap_or(EPHEMERAL_USUAL)
}
