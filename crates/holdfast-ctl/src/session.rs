//! Leases that are kept alive: by `lease keep-alive`, and behind locks and elections.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::etcdserverpb as pb;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
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
    ttl: Option<Duration>,
    mut each: impl FnMut(&pb::LeaseKeepAliveResponse) -> Done,
) -> Done {
    let mut ttl = ttl;
    // It lives for so long from the moment on at which what was answered was asked, by any clock.
    let mut asked = Instant::now();
    loop {
        let asking = Instant::now();
        // Until there was an answer nobody knows how long it lives.
        let left = ttl.map(|ttl| (asked + ttl).saturating_duration_since(asking));
        // A refusal may be quicker than the timer of no time at all.
        if left.is_some_and(|left| left.is_zero()) {
            return Err(too_late());
        }
        let answer = match left {
            Some(left) => tokio::time::timeout(left, once(client, id)).await,
            None => Ok(once(client, id).await),
        };
        match answer {
            Ok(Ok(None)) => return Ok(()),
            Ok(Ok(Some(answer))) => {
                each(&answer)?;
                let lives = Duration::from_secs(answer.ttl.unsigned_abs());
                (ttl, asked) = (Some(lives), asking);
                tokio::time::sleep(lives / 3).await;
            }
            // The lease is there until its time is over, whoever answers.
            Ok(Err(_)) if ttl.is_some() => tokio::time::sleep(RETRY_AFTER).await,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(too_late()),
        }
    }
}

fn too_late() -> CtlError {
    CtlError::Word("the lease could not be kept alive in its time".to_owned())
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
        let granted = grant(client, ttl).await?;
        let (id, ttl) = (granted.id, Duration::from_secs(granted.ttl.unsigned_abs()));
        let (end, lost) = watch::channel(false);
        let keeping = Arc::clone(client);
        let keeper = tokio::task::spawn_local(async move {
            // However it ends, the lease is not kept alive any longer.
            drop(keep(&keeping, id, Some(ttl), |_| Ok(())).await);
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
