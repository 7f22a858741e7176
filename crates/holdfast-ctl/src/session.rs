//! Leases that are kept alive: by `lease keep-alive`, and behind locks and elections.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::etcdserverpb as pb;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
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

/// Keeps a lease alive until it is gone, three times in its time to live; `each` sees the answers. It lives until `until` at
/// least; before the first answer that may not be known.
///
/// Errors: no endpoint has answered for as long as the lease lives, or at all; what `each` gives.
pub(crate) async fn keep(
    client: &Client,
    id: i64,
    mut until: Option<Instant>,
    mut each: impl FnMut(&pb::LeaseKeepAliveResponse) -> Done,
) -> Done {
    let too_late = || CtlError::Word("the lease could not be kept alive in its time".to_owned());
    loop {
        let asking = Instant::now();
        let answer = match until {
            // A refusal may be quicker than a timer that has run out already.
            Some(until) if until <= asking => return Err(too_late()),
            Some(until) => timeout_at(until, once(client, id)).await.map_err(|_| too_late())?,
            None => once(client, id).await,
        };
        match answer {
            Ok(None) => return Ok(()),
            Ok(Some(answer)) => {
                each(&answer)?;
                let lives = Duration::from_secs(answer.ttl.unsigned_abs());
                // From the moment on at which it was asked for, by any clock.
                until = Some(asking + lives);
                tokio::time::sleep(lives / 3).await;
            }
            // The lease is there until its time is over, whoever answers.
            Err(_) if until.is_some() => tokio::time::sleep(RETRY_AFTER).await,
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
        let asking = Instant::now();
        let granted = grant(client, ttl).await?;
        let (id, until) = (granted.id, asking + Duration::from_secs(granted.ttl.unsigned_abs()));
        let (end, lost) = watch::channel(false);
        let keeping = Arc::clone(client);
        let keeper = tokio::task::spawn_local(async move {
            // However it ends, the lease is not kept alive any longer.
            drop(keep(&keeping, id, Some(until), |_| Ok(())).await);
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
