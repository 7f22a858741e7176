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

/// The usual ports when all six are free, else six that are.
pub(super) fn choose() -> io::Result<[Ports; 3]> {
    let is_free = |port| listen(port).is_ok();
    if USUAL.iter().all(|ports| is_free(ports.client) && is_free(ports.peer)) {
        return Ok(USUAL);
    }
    // Held together until all are known, so that no port is handed out twice.
    let held = (0..6).map(|_| listen(0)).collect::<io::Result<Vec<_>>>()?;
    let found = held.iter().map(|l| Ok(l.local_addr()?.port())).collect::<io::Result<Vec<u16>>>()?;
    Ok([0, 2, 4].map(|at| Ports { client: found[at], peer: found[at + 1] }))
}

fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}
