//! The greeting: both sides of a connection say who they are before anything else.

use bytes::Bytes;
use holdfast_env::{Clock, Duplex};
use holdfast_proto::internal as pb;

use crate::codec::rpc::{Body, decode_message, encode_message};
use crate::limits::{CONNECT_TIMEOUT, within};

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
}

impl Identity {
    fn hello(self, to: u64) -> Bytes {
        encode_message(
            0,
            Body::Hello(pb::Hello {
                protocol_version: PROTOCOL_VERSION,
                cluster_id: self.cluster_id,
                from: self.member,
                to,
            }),
        )
    }

    /// What is wrong with a peer's greeting.
    fn objection(self, hello: &pb::Hello) -> Option<String> {
        if hello.protocol_version != PROTOCOL_VERSION {
            let found = hello.protocol_version;
            return Some(format!("protocol version {found}, this member speaks {PROTOCOL_VERSION} only"));
        }
        if hello.cluster_id != self.cluster_id {
            return Some(format!(
                "cluster {:x}, this member belongs to cluster {:x}: check --initial-cluster and --initial-cluster-token",
                hello.cluster_id, self.cluster_id
            ));
        }
        if hello.to != 0 && hello.to != self.member {
            return Some(format!("meant for member {:x}, this is member {:x}", hello.to, self.member));
        }
        if hello.from == self.member {
            return Some(format!("the peer has our own id {:x}", self.member));
        }
        None
    }

    /// Greets on a connection that we opened to member `to`, and waits for the answer.
    pub(crate) async fn introduce(
        self,
        clock: &dyn Clock,
        duplex: &mut Duplex,
        to: u64,
    ) -> Result<(), HelloError> {
        if duplex.send.send(self.hello(to)).await.is_err() {
            return Err(HelloError::Silent);
        }
        let hello = self.receive(clock, duplex).await?;
        if hello.from != to {
            return Err(HelloError::Refused(format!(
                "expected member {to:x}, found member {:x}",
                hello.from
            )));
        }
        Ok(())
    }

    /// Waits for the greeting on a connection that a peer opened, and answers. Gives the peer's id.
    pub(crate) async fn welcome(self, clock: &dyn Clock, duplex: &mut Duplex) -> Result<u64, HelloError> {
        match self.receive(clock, duplex).await {
            Ok(hello) => {
                let greeted = duplex.send.send(self.hello(hello.from)).await;
                greeted.map(|()| hello.from).map_err(|_| HelloError::Silent)
            }
            Err(HelloError::Refused(reason)) => {
                let refused = encode_message(0, Body::Refused(pb::Refused { reason: reason.clone() }));
                // The peer may be gone already; the refusal stands either way.
                duplex.send.send(refused).await.ok();
                Err(HelloError::Refused(reason))
            }
            Err(error) => Err(error),
        }
    }

    async fn receive(self, clock: &dyn Clock, duplex: &mut Duplex) -> Result<pb::Hello, HelloError> {
        let frame =
            within(clock, CONNECT_TIMEOUT, duplex.recv.recv()).await.flatten().ok_or(HelloError::Silent)?;
        match decode_message(frame) {
            Ok((_, Body::Hello(hello))) => match self.objection(&hello) {
                None => Ok(hello),
                Some(reason) => Err(HelloError::Refused(reason)),
            },
            Ok((_, Body::Refused(refused))) => Err(HelloError::RefusedByPeer(refused.reason)),
            Ok(_) | Err(_) => Err(HelloError::NotHello),
        }
    }
}
