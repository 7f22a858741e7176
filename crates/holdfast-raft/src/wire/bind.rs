//! Listening sockets for a host name that may mean several addresses.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, lookup_host};

/// What a socket of an address family says that the kernel does not have (`EAFNOSUPPORT` on Linux).
const FAMILY_UNSUPPORTED: i32 = 97;

/// How many connections may wait to be accepted. The kernel makes less of it (`net.core.somaxconn`); who comes when it is full
/// tries again a second later.
const BACKLOG: u32 = 4096;

/// Listens on every address that `authority` (`host:port`) resolves to: a client may try any of them, and which one
/// comes first differs between machines. With port 0 all of them get the port that the first one got. An address that
/// this machine does not have, as `::1` where IPv6 is switched off, is left out as long as another one works.
///
/// # Errors
/// A name that does not resolve; a port that is taken on one of the addresses; no address of this machine.
pub async fn bind_all(authority: &str) -> io::Result<Vec<TcpListener>> {
    bind_each(lookup_host(authority).await?).await
}

async fn bind_each(addresses: impl IntoIterator<Item = SocketAddr>) -> io::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut missing = None;
    let mut seen = Vec::new();
    for mut address in addresses {
        if seen.contains(&address.ip()) {
            continue;
        }
        seen.push(address.ip());
        if let Some(first) = listeners.first() {
            address.set_port(first.local_addr()?.port());
        }
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_missing(&error) => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    if listeners.is_empty() {
        let none = || io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
        return Err(missing.unwrap_or_else(none));
    }
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A member that was restarted gets its port back, whatever connections it had.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(FAMILY_UNSUPPORTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn every_address_of_a_name_is_bound_at_one_port() {
        let named = addresses(&["127.0.0.2:0", "127.0.0.1:0", "127.0.0.2:0"]);
        let listeners = bind_each(named).await.unwrap();
        let bound: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let port = bound[0].port();
        assert_eq!(bound, addresses(&[&format!("127.0.0.2:{port}"), &format!("127.0.0.1:{port}")]));
        let again = bind_all(&format!("localhost:{port}")).await;
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn an_address_that_is_not_ours_matters_only_when_it_is_the_only_one() {
        // Reserved for documentation, so no machine has it.
        let others = "192.0.2.1:0";
        let refused = bind_all(others).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(bind_each(addresses(&[others, "127.0.0.1:0"])).await.unwrap().len(), 1);
    }
}
