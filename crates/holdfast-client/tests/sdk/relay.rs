//! A wire between a client and a member that can be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes bytes on, to and from one member.
pub(crate) struct Relay {
    pub(crate) endpoint: String,
    connections: Arc<AtomicUsize>,
    refuses: Arc<AtomicBool>,
    cuts: watch::Sender<()>,
}

impl Relay {
    /// One to the member with this URL.
    pub(crate) async fn to(member: &str) -> Self {
        let member = member.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let (cuts, cut) = watch::channel(());
        let counted = Arc::clone(&connections);
        let refuses = Arc::new(AtomicBool::new(false));
        let is_refusing = Arc::clone(&refuses);
        // Ends with the test's runtime.
        drop(tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                if is_refusing.load(Ordering::Relaxed) {
                    continue;
                }
                let (member, mut cut) = (member.clone(), cut.clone());
                cut.mark_unchanged();
                drop(tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(member).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {}
                    }
                }));
            }
        }));
        Self { endpoint, connections, refuses, cuts }
    }

    /// Cuts all connections that there are. New ones can be made.
    pub(crate) fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// Cuts all connections, and each new one at once, as long as it refuses.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
        self.cut();
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}
