//! The greeting: both sides of a connection say who they are before anything else.

use bytes::Bytes;
use holdfast_env::{Clock, Duplex};
use holdfast_proto::internal as pb;

use super::roster::{Departure, Roster};
use crate::codec::rpc::{Body, decode_message, encode_message};
use crate::limits::{CONNECT_TIMEOUT, REFUSAL_LINGER, within};

/// The version of what members say to each other.
const PROTOCOL_VERSION: u32 = 1;

/// Who speaks, and to which cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) cluster_id: u64,
    pub(crate) member: u64,
}

/// Why a connection is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    /// It ended, or stayed silent.
    #[error("the connection ended before the peer said who it is")]
    Silent,
    /// Not a greeting.
    #[error("the peer did not say who it is: is that a peer port of holdfast?")]
    NotHello,
    /// The peer does not want us.
    #[error("the peer refused us: {0}")]
    RefusedByPeer(String),
    /// We do not want the peer.
    #[error("refused: {0}")]
    Refused(String),
    /// Not a member: someone who wants to know who is.
    #[error("the peer asks who the members are")]
    Stranger,
}

/// What is wrong with a peer.
struct Objection {
    reason: String,
    cause: pb::RefusedCause,
}

impl Objection {
    fn other(reason: String) -> Self {
        Self { reason, cause: pb::RefusedCause::Other }
    }
}

impl Identity {
    fn hello(self, roster: &Roster, to: u64) -> Bytes {
        encode_message(
            0,
            Body::Hello(pb::Hello {
                protocol_version: PROTOCOL_VERSION,
                cluster_id: self.cluster_id,
                from: self.member,
                to,
                log_is_empty: roster.own_log_is_empty(),
            }),
        )
    }

    /// What is wrong with a peer's greeting.
    fn objection(self, roster: &Roster, hello: &pb::Hello) -> Option<Objection> {
        let Self { cluster_id, member } = self;
        let from = hello.from;
        if hello.protocol_version != PROTOCOL_VERSION {
            let found = hello.protocol_version;
            return Some(Objection::other(format!(
                "protocol version {found}, this member speaks {PROTOCOL_VERSION} only"
            )));
        }
        if hello.cluster_id != cluster_id {
            return Some(Objection::other(format!(
                "cluster {:x}, this member belongs to cluster {cluster_id:x}: check --initial-cluster and \
                 --initial-cluster-token",
                hello.cluster_id
            )));
        }
        if hello.to != 0 && hello.to != member {
            return Some(Objection::other(format!(
                "meant for member {:x}, this is member {member:x}",
                hello.to
            )));
        }
        if from == member {
            return Some(Objection::other(format!("the peer has our own id {member:x}")));
        }
        if roster.is_removed(from) {
            let reason = format!("member {from:x} was removed from the cluster");
            return Some(Objection { reason, cause: pb::RefusedCause::Removed });
        }
        if hello.log_is_empty && roster.had_log(from) {
            let reason = format!("member {from:x} comes with an empty log, but it had one");
            return Some(Objection { reason, cause: pb::RefusedCause::Wiped });
        }
        None
    }

    /// Greets on a connection that we opened to member `to`, and waits for the answer.
    pub(crate) async fn introduce(
        self,
        roster: &Roster,
        clock: &dyn Clock,
        duplex: &mut Duplex,
        to: u64,
    ) -> Result<(), HelloError> {
        if duplex.send.send(self.hello(roster, to)).await.is_err() {
            return Err(HelloError::Silent);
        }
        let hello = self.receive(roster, clock, duplex).await?;
        if hello.from != to {
            return Err(HelloError::Refused(format!(
                "expected member {to:x}, found member {:x}",
                hello.from
            )));
        }
        Ok(())
    }

    /// Waits for the greeting on a connection that a peer opened, and answers. Gives the peer's id.
    pub(crate) async fn welcome(
        self,
        roster: &Roster,
        clock: &dyn Clock,
        duplex: &mut Duplex,
    ) -> Result<u64, HelloError> {
        let hello = self.receive(roster, clock, duplex).await?;
        let greeted = duplex.send.send(self.hello(roster, hello.from)).await;
        greeted.map(|()| hello.from).map_err(|_| HelloError::Silent)
    }

    /// The peer's greeting. One that is refused is told so, also when it is an answer to ours: it may have to end.
    async fn receive(
        self,
        roster: &Roster,
        clock: &dyn Clock,
        duplex: &mut Duplex,
    ) -> Result<pb::Hello, HelloError> {
        let frame =
            within(clock, CONNECT_TIMEOUT, duplex.recv.recv()).await.flatten().ok_or(HelloError::Silent)?;
        match decode_message(frame) {
            Ok((_, Body::Hello(hello))) => match self.objection(roster, &hello) {
                None => Ok(hello),
                Some(Objection { reason, cause }) => {
                    let refused = pb::Refused { reason: reason.clone(), cause: cause.into() };
                    // The peer may be gone already; the refusal stands either way.
                    duplex.send.send(encode_message(0, Body::Refused(refused))).await.ok();
                    // The peer closes once it has read that; closing before could lose it.
                    drop(within(clock, REFUSAL_LINGER, duplex.recv.recv()).await);
                    Err(HelloError::Refused(reason))
                }
            },
            Ok((_, Body::Refused(refused))) => {
                heed(roster, &refused);
                Err(HelloError::RefusedByPeer(refused.reason))
            }
            Ok((_, Body::MembersRequest(_))) => Err(HelloError::Stranger),
            Ok(_) | Err(_) => Err(HelloError::NotHello),
        }
    }
}

/// Notes a refusal that is for good.
pub(crate) fn heed(roster: &Roster, refused: &pb::Refused) {
    match refused.cause() {
        pb::RefusedCause::Removed => roster.depart(Departure::Removed),
        // Greetings can be overtaken: a busy peer may read that our log is empty after it was told on another connection
        // what we have taken since. We have what we acknowledged, and greet again.
        pb::RefusedCause::Wiped if !roster.own_log_is_empty() => {}
        pb::RefusedCause::Wiped => roster.depart(Departure::Wiped),
        pb::RefusedCause::WentBack => roster.depart(Departure::WentBack),
        pb::RefusedCause::Other => {}
    }
}
