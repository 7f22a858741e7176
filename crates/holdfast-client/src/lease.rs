//! Leases: granted, kept alive, and given up.

use std::time::Duration;

use holdfast_proto::etcdserverpb as pb;
use pb::lease_client::LeaseClient;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::client::{Client, Repeat};
use crate::codec::{LeaseId, signed, unsigned};
use crate::error::Error;

/// How often a lease that is not needed any more is revoked before it is left to end by itself.
const REVOKE_ATTEMPTS: u32 = 5;

fn stub(channel: Channel) -> LeaseClient<Channel> {
    LeaseClient::new(channel)
}

/// No time to live is longer, as in etcd; a clock can show when it ends.
const TTL_MAX: Duration = Duration::from_secs(9_000_000_000);

/// An id that nobody else has: positive, random. Known before the lease is granted, so that it can be revoked even when
/// nobody knows whether it was.
pub(crate) fn new_id() -> LeaseId {
    LeaseId(rand::random_range(1..=i64::MAX))
}

impl Client {
    /// Grants a lease. Gives the time to live that the server chose, which is at least the one wanted.
    pub(crate) async fn grant(&self, id: LeaseId, ttl: Duration) -> Result<Duration, Error> {
        let seconds = signed(ttl.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)).max(1);
        let request = pb::LeaseGrantRequest { id: id.0, ttl: seconds };
        let grant = async |channel, request| stub(channel).lease_grant(request).await;
        let answer = self.call(Repeat::Harmful, request, grant, Ok).await?;
        Ok(time(answer.ttl))
    }

    /// Gives a lease all of its time again; `None` when it does not exist any more. Not later than then: the lease may
    /// have ended, and a call may take longer than it lives.
    pub(crate) async fn keep_alive(&self, id: LeaseId, until: Instant) -> Result<Option<Duration>, Error> {
        let answer = self.call_until(until, Repeat::Harmless, id, keep_alive_once, Ok).await?;
        Ok((answer.ttl > 0).then(|| time(answer.ttl)))
    }

    /// Revokes a lease, and its keys with it. That it does not exist is fine.
    pub(crate) async fn revoke(&self, id: LeaseId) -> Result<(), Error> {
        let request = pb::LeaseRevokeRequest { id: id.0 };
        let revoke = async |channel, request| stub(channel).lease_revoke(request).await;
        match self.call(Repeat::Idempotent, request, revoke, Ok).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_refused_with(Code::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Revokes a lease that nobody keeps alive. When that cannot be done, it ends by itself within its time.
    pub(crate) async fn abandon(&self, id: LeaseId) {
        for _ in 0..REVOKE_ATTEMPTS {
            match self.revoke(id).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "a lease is not revoked yet"),
            }
        }
    }
}

/// A time to live, of which servers may say anything.
fn time(seconds: i64) -> Duration {
    Duration::from_secs(unsigned(seconds)).min(TTL_MAX)
}

/// One renewal on a stream of its own: the service has no other call for it.
async fn keep_alive_once(
    channel: Channel,
    request: Request<LeaseId>,
) -> Result<Response<pb::LeaseKeepAliveResponse>, Status> {
    let request = request.map(|id| tokio_stream::once(pb::LeaseKeepAliveRequest { id: id.0 }));
    let mut answers = stub(channel).lease_keep_alive(request).await?.into_inner();
    let answer = answers.message().await?;
    Ok(Response::new(answer.ok_or_else(|| Status::unavailable("no answer to a keep-alive"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_to_live_is_too_long_for_the_clock() {
        assert_eq!(time(5), Duration::from_secs(5));
        assert_eq!(time(-1), Duration::ZERO);
        assert!(Instant::now().checked_add(time(i64::MAX)).is_some());
    }
}
