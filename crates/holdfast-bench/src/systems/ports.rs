//! Free ports on loopback.
//!
//! They lie below the range the kernel gives to outgoing connections, so that none of our own many client sockets can
//! sit on a server's port before the server does.

use std::net::{Ipv4Addr, TcpListener};

use crate::error::Error;

const RANGE: std::ops::Range<u16> = 15_000..31_000;

/// `count` different ports that nobody listens on now.
pub(crate) fn free(count: usize) -> Result<Vec<u16>, Error> {
    // Two runs at once must not try the same ports in the same order.
    let span = u32::from(RANGE.end - RANGE.start);
    let first = u16::try_from(std::process::id().wrapping_mul(997) % span).unwrap_or(0);
    let candidates = (RANGE.start + first..RANGE.end).chain(RANGE.start..RANGE.start + first);
    // Held together until all are known: the next call must not find the same ones.
    let held: Vec<TcpListener> = candidates
        .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .take(count)
        .collect();
    let ports: Vec<u16> = held.iter().filter_map(|socket| Some(socket.local_addr().ok()?.port())).collect();
    if ports.len() < count {
        return Err(Error::Setting(format!("there are no {count} free ports on 127.0.0.1 in {RANGE:?}")));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_lie_in_the_range() {
        let mut ports = free(20).unwrap();
        assert!(ports.iter().all(|port| RANGE.contains(port)));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}
