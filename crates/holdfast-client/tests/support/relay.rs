//! A wire between a client and a member that can be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes bytes on, to and from one member.
pub(crate) struct Relay {
    pub(crate) endpoint: String,
    connections: Arc<AtomicUsize>,
    /// Whether it refuses connections. Each change cuts those that there are.
    refuses: watch::Sender<bool>,
}

impl Relay {
    /// One to the member with this URL.
    pub(crate) async fn to(member: &str) -> Self {
        let member = member.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let (refuses, cut) = watch::channel(false);
        let counted = Arc::clone(&connections);
        // Ends with the test's runtime.
        drop(tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (member, mut cut) = (member.clone(), cut.clone());
                if *cut.borrow_and_update() {
                    continue;
                }
                drop(tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(member).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {}
                    }
                }));
            }
        }));
        Self { endpoint, connections, refuses }
    }

    /// Cuts all connections that there are. New ones can be made.
    pub(crate) fn cut(&self) {
        self.refuses.send_modify(|_| {});
    }

    /// Cuts all connections, and each new one at once, as long as it refuses.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.refuses.send_replace(refuses);
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}
