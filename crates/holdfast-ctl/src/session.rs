//! Leases that are kept alive: by `lease keep-alive`, and behind locks and elections.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::etcdserverpb as pb;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use crate::client::{Client, service};
use crate::error::{CtlError, Done};

/// Between two attempts when no endpoint answers.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Grants a lease; the server chooses its id.
pub(crate) async fn grant(client: &Client, ttl: i64) -> Result<pb::LeaseGrantResponse, CtlError> {
    let request = pb::LeaseGrantRequest { ttl, id: 0 };
    client.write(async |conn| service::lease(conn).lease_grant(request).await).await
}

/// Keeps a lease alive once; `None` when there is none.
pub(crate) async fn once(client: &Client, id: i64) -> Result<Option<pb::LeaseKeepAliveResponse>, CtlError> {
    let ask = async |conn| {
        let (send, requests) = mpsc::channel(1);
        let request = pb::LeaseKeepAliveRequest { id };
        send.try_send(request).map_err(|_| Status::internal("the queue has room for one"))?;
        let mut answers =
            service::lease(conn).lease_keep_alive(ReceiverStream::new(requests)).await?.into_inner();
        let answer = answers.message().await?;
        // Until then the server may take the end of the requests for the end of the wait.
        drop(send);
        answer.map(Response::new).ok_or_else(|| Status::unavailable("the member has ended the stream"))
    };
    let answer = client.read(ask).await?;
    Ok((answer.ttl > 0).then_some(answer))
}

/// Keeps a lease alive until it is gone, three times in its time to live; `each` sees the answers.
///
/// Errors: no endpoint has answered for as long as the lease lives, or at all; what `each` gives.
pub(crate) async fn keep(
    client: &Client,
    id: i64,
    mut each: impl FnMut(&pb::LeaseKeepAliveResponse) -> Done,
) -> Done {
    // Of the last answer.
    let mut ttl = Duration::ZERO;
    let mut waited = Duration::ZERO;
    loop {
        match once(client, id).await {
            Ok(None) => return Ok(()),
            Ok(Some(answer)) => {
                each(&answer)?;
                ttl = Duration::from_secs(answer.ttl.unsigned_abs());
                waited = Duration::ZERO;
                tokio::time::sleep(ttl / 3).await;
            }
            // The lease is there until its time is over, whoever answers.
            Err(_) if waited < ttl => {
                tokio::time::sleep(RETRY_AFTER).await;
                waited += RETRY_AFTER;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A lease with a task that keeps it alive.
pub(crate) struct Session {
    /// Its id.
    pub(crate) id: i64,
    client: Arc<Client>,
    keeper: JoinHandle<()>,
    lost: watch::Receiver<bool>,
}

impl Session {
    /// Begins one.
    pub(crate) async fn begin(client: &Arc<Client>, ttl: i64) -> Result<Self, CtlError> {
        let id = grant(client, ttl).await?.id;
        let (end, lost) = watch::channel(false);
        let keeping = Arc::clone(client);
        let keeper = tokio::task::spawn_local(async move {
            // However it ends, the lease is not kept alive any longer.
            drop(keep(&keeping, id, |_| Ok(())).await);
            end.send_replace(true);
        });
        Ok(Self { id, client: Arc::clone(client), keeper, lost })
    }

    /// Returns when the lease is gone.
    pub(crate) async fn lost(&self) {
        // Without a keeper it is as good as gone.
        drop(self.lost.clone().wait_for(|lost| *lost).await);
    }

    /// Ends it, with all keys that belong to it.
    pub(crate) async fn end(self) {
        self.keeper.abort();
        let request = pb::LeaseRevokeRequest { id: self.id };
        // If that fails it ends by itself, a little later.
        drop(self.client.write(async |conn| service::lease(conn).lease_revoke(request).await).await);
    }
}
