//! Where the demo's members listen.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// The ports of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub client: u16,
    pub peer: u16,
}

/// The first choice: etcd's own ports, and the ones its local clusters use beside them.
const USUAL: [Ports; 3] = [
    Ports { client: 2379, peer: 2380 },
    Ports { client: 22379, peer: 22380 },
    Ports { client: 32379, peer: 32380 },
];

/// Where other choices are: below the ports that the system gives to outgoing connections, so that a member that is down
/// finds its port free when it comes back.
const OTHERS: std::ops::Range<u16> = 20_000..32_000;

/// The usual ports when all six are free, else six that are.
pub(super) fn choose() -> io::Result<[Ports; 3]> {
    if USUAL.iter().all(|ports| is_free(ports.client) && is_free(ports.peer)) {
        return Ok(USUAL);
    }
    others()
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn others() -> io::Result<[Ports; 3]> {
    // Demos that start together begin in different places.
    let skip = std::process::id() as usize * 6 % OTHERS.len();
    let mut found = OTHERS.cycle().skip(skip).take(OTHERS.len()).filter(|port| is_free(*port));
    let mut next = || found.next().ok_or_else(|| io::Error::from(io::ErrorKind::AddrInUse));
    Ok([
        Ports { client: next()?, peer: next()? },
        Ports { client: next()?, peer: next()? },
        Ports { client: next()?, peer: next()? },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_ports_are_free_and_not_those_of_outgoing_connections() {
        let first = others().unwrap()[0];
        assert!(OTHERS.contains(&first.client) && is_free(first.client), "{first:?}");
        let _held = TcpListener::bind((Ipv4Addr::LOCALHOST, first.client)).unwrap();
        let found = others().unwrap();
        let ports: std::collections::BTreeSet<u16> =
            found.iter().flat_map(|ports| [ports.client, ports.peer]).collect();
        assert!(ports.len() == 6 && !ports.contains(&first.client), "{found:?}");
    }
}
