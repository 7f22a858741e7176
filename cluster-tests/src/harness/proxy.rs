//! A way to a member that can be cut: a TCP proxy that counts what goes through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How much is passed on at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Listens on loopback and passes connections on. Dropping it ends them, and it listens no more.
#[derive(Debug)]
pub struct Proxy {
    url: String,
    toward: Arc<AtomicU64>,
    cuts: watch::Sender<u64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A way to what listens, or will listen, at the URL `target`.
    pub async fn to(target: &str) -> Result<Self> {
        let target: Arc<str> = target.strip_prefix("http://").unwrap_or(target).into();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port for a proxy")?;
        let url = format!("http://{}", listener.local_addr().context("a proxy without an address")?);
        let toward = Arc::<AtomicU64>::default();
        let cuts = watch::Sender::new(0);
        let accepting = tokio::spawn(accept(listener, target, Arc::clone(&toward), cuts.subscribe()));
        Ok(Self { url, toward, cuts, accepting })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Bytes that went to the target.
    pub fn toward(&self) -> u64 {
        self.toward.load(Ordering::Relaxed)
    }

    /// Breaks every connection that is open now. New ones are passed on.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: Arc<str>, toward: Arc<AtomicU64>, cuts: watch::Receiver<u64>) {
    while let Ok((from, _)) = listener.accept().await {
        let (target, toward, mut cuts) = (Arc::clone(&target), Arc::clone(&toward), cuts.clone());
        cuts.mark_unchanged();
        tokio::spawn(async move {
            tokio::select! {
                // Nothing that is lost here was promised to anybody.
                _ = cuts.changed() => {}
                () = connect(from, &target, &toward) => {}
            }
        });
    }
}

/// Passes one connection on until either end closes it. What cannot be reached is closed at once.
async fn connect(from: TcpStream, target: &str, toward: &AtomicU64) {
    let Ok(to) = TcpStream::connect(target).await else { return };
    // Without it small frames would wait for each other; where it cannot be set they do.
    drop(from.set_nodelay(true));
    drop(to.set_nodelay(true));
    let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
    let nobody = AtomicU64::new(0);
    tokio::select! {
        // The end of either direction is the end of the connection: gRPC has no half-open ones.
        () = pass(from_read, to_write, toward) => {}
        () = pass(to_read, from_write, &nobody) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, passed: &AtomicU64) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut chunk).await {
        if to.write_all(&chunk[..bytes]).await.is_err() {
            return;
        }
        passed.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_passes_bytes_on_counts_them_and_cuts() {
        let echo = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let target = format!("http://{}", echo.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        let proxy = Proxy::to(&target).await.unwrap();
        let address = proxy.url().strip_prefix("http://").unwrap().to_owned();
        for round in 1..=2 {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"hello");
            assert_eq!(proxy.toward(), 5 * round);
            proxy.cut();
            // An end or an error: the connection is gone.
            assert!(!matches!(stream.read(&mut answer).await, Ok(1..)));
        }
    }
}
