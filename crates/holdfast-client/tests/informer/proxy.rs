//! A way to a member that can be cut.

use std::sync::Mutex;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Passes connections on to a member, as long as it is open.
pub(crate) struct Proxy {
    endpoint: String,
    is_open: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// To the member with this URL.
    pub(crate) async fn to(member: &str) -> Self {
        let member = member.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (is_open, seen) = watch::channel(true);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (member, seen) = (member.clone(), seen.clone());
                drop(tokio::spawn(pass(near, member, seen)));
            }
        });
        Self { endpoint, is_open, task: Mutex::new(Some(task)) }
    }

    pub(crate) fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// Ends all connections; new ones end at once.
    pub(crate) fn cut(&self) {
        self.is_open.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.is_open.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap().take() {
            task.abort();
        }
    }
}

async fn pass(mut near: TcpStream, member: String, mut is_open: watch::Receiver<bool>) {
    if !*is_open.borrow_and_update() {
        return;
    }
    let Ok(mut far) = TcpStream::connect(member).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        _ = is_open.wait_for(|is_open| !is_open) => {}
    }
}
