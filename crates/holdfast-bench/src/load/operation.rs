//! One client's operations: what it asks, and what the answer must be like.

use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use holdfast_proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, request_op,
    response_op,
};
use prost::Message;

use super::keys::{KeyNumber, KeySpace, Random};
use super::leases;
use super::lists::{self, Way};
use crate::error::Error;
use crate::grpc::{Caller, Connection, Frame, LEASE_KEEP_ALIVE, PUT, RANGE, Requests, Stream, TXN};

/// What a load does over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Write a random key.
    Put,
    /// Read a random key, confirmed by a quorum.
    GetLinearizable,
    /// Read a random key from the member's own state.
    GetSerializable,
    /// Write a key of its own if it is as last seen.
    Cas,
    /// Linearizable reads with one write in five.
    Mixed,
    /// Read a thousand neighbouring keys at once, linearizable.
    List,
    /// Read the same in pages of a hundred at one revision; an operation is the whole list.
    ListPaged,
    /// Read every key there is; an operation is the whole list.
    ListAll(Way),
    /// Grant a lease.
    LeaseGrant,
    /// Keep a lease of its own alive, on a stream of its own.
    LeaseKeepAlive,
}

/// Longer than any run: no lease ends while others are granted or kept alive.
const LEASE_TTL: Duration = Duration::from_secs(36_000);
/// Keys of one list.
pub(crate) const LIST_KEYS: u64 = 1000;
const PAGE_KEYS: i64 = 100;
/// One operation in so many of the mixed load writes.
const MIXED_PUT_EVERY: u64 = 5;

impl Operation {
    /// Whether servers still have work to do when the answers are there.
    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::Put | Self::Cas | Self::Mixed | Self::LeaseGrant)
    }

    /// Whether what it does to the servers' memory is asked for.
    pub(crate) fn lists_all(self) -> bool {
        matches!(self, Self::ListAll(_))
    }

    /// Whether the keys must be there before.
    pub(crate) fn needs_keys(self) -> bool {
        !matches!(self, Self::Put | Self::Cas | Self::LeaseGrant | Self::LeaseKeepAlive)
    }
}

/// One of the clients of a load. It does one operation at a time.
pub(crate) struct Client {
    operation: Operation,
    space: KeySpace,
    random: Random,
    put: Caller,
    range: Caller,
    txn: Caller,
    /// Of the compare-and-swap: the key no other client touches, and its revision as last seen.
    own: Bytes,
    own_revision: i64,
    connection: Connection,
    /// Of the keep-alives: the frame for its lease, and the stream, once it has them.
    lease: Option<(Frame, Stream)>,
}

impl Client {
    /// The client with this number, on one of the connections.
    pub(crate) fn new(operation: Operation, space: &KeySpace, connection: &Connection, number: u64) -> Self {
        Self {
            operation,
            space: space.clone(),
            random: Random::seeded(number.wrapping_mul(0x2545_f491_4f6c_dd1d)),
            put: connection.caller(PUT),
            range: connection.caller(RANGE),
            txn: connection.caller(TXN),
            own: KeySpace::key(KeyNumber(number % space.keys)),
            own_revision: 0,
            connection: connection.clone(),
            lease: None,
        }
    }

    /// One operation, to its end.
    pub(crate) async fn operate(&mut self) -> Result<(), Error> {
        match self.operation {
            Operation::Put => self.put_any().await,
            Operation::GetLinearizable => self.get_any(false).await,
            Operation::GetSerializable => self.get_any(true).await,
            Operation::Cas => self.swap().await,
            Operation::Mixed if self.random.below(MIXED_PUT_EVERY) == 0 => self.put_any().await,
            Operation::Mixed => self.get_any(false).await,
            Operation::List => self.list().await,
            Operation::ListPaged => self.list_in_pages().await,
            Operation::ListAll(way) => lists::list(&mut self.range, way, self.space.keys).await,
            Operation::LeaseGrant => leases::grant(&self.connection, LEASE_TTL).await.map(drop),
            Operation::LeaseKeepAlive => self.keep_alive().await,
        }
    }

    /// Writes the key with this number.
    pub(crate) async fn put(&mut self, number: KeyNumber) -> Result<(), Error> {
        let request =
            PutRequest { key: KeySpace::key(number), value: self.space.value(), ..PutRequest::default() };
        self.put.call(Frame::of(&request)).await.map(drop)
    }

    async fn put_any(&mut self) -> Result<(), Error> {
        let number = self.space.any(&mut self.random);
        self.put(number).await
    }

    async fn get_any(&mut self, serializable: bool) -> Result<(), Error> {
        let key = KeySpace::key(self.space.any(&mut self.random));
        let request = RangeRequest { key, serializable, ..RangeRequest::default() };
        let answer = self.range.call(Frame::of(&request)).await?;
        // Decoding every answer would burn more than the server does; an answer without the value is shorter.
        if answer.len() < self.space.value().len() {
            return Err(Error::Answer("a key is not there"));
        }
        Ok(())
    }

    async fn swap(&mut self) -> Result<(), Error> {
        let request = compare_and_swap(&self.own, self.own_revision, self.space.value());
        let answer = TxnResponse::decode(self.txn.call(Frame::of(&request)).await?)?;
        if answer.succeeded {
            self.own_revision = answer.header.map_or(0, |header| header.revision);
            return Ok(());
        }
        let found = answer.responses.into_iter().next().and_then(|response| response.response);
        let Some(response_op::Response::ResponseRange(range)) = found else {
            return Err(Error::Answer("no range in a failed transaction"));
        };
        self.own_revision = range.kvs.first().map_or(0, |pair| pair.mod_revision);
        Ok(())
    }

    /// The first one begins with the grant.
    async fn keep_alive(&mut self) -> Result<(), Error> {
        let (_, stream) = match &mut self.lease {
            Some(lease) => {
                lease.1.send(lease.0.clone())?;
                lease
            }
            none => {
                let frame = leases::keep_alive(leases::grant(&self.connection, LEASE_TTL).await?);
                let stream = self.connection.stream(LEASE_KEEP_ALIVE, frame.clone(), Requests::Many).await?;
                none.insert((frame, stream))
            }
        };
        let mut answers = 0;
        let mut each = |answer: &[u8]| {
            answers += 1;
            leases::check(answer)
        };
        let is_open = stream.messages.receive(&mut each).await?;
        if is_open && answers == 1 { Ok(()) } else { Err(Error::Answer("not one answer to a keep-alive")) }
    }

    fn list_request(&mut self) -> RangeRequest {
        let first = self.random.below(self.space.keys.saturating_sub(LIST_KEYS) + 1);
        RangeRequest {
            key: KeySpace::key(KeyNumber(first)),
            range_end: KeySpace::key(KeyNumber(first + LIST_KEYS)),
            ..RangeRequest::default()
        }
    }

    async fn list(&mut self) -> Result<(), Error> {
        let request = self.list_request();
        let answer = self.range.call(Frame::of(&request)).await?;
        let keys = usize::try_from(LIST_KEYS.min(self.space.keys)).unwrap_or(usize::MAX);
        if answer.len() < keys * self.space.value().len() {
            return Err(Error::Answer("keys of a list are not there"));
        }
        Ok(())
    }

    async fn list_in_pages(&mut self) -> Result<(), Error> {
        let mut request = self.list_request();
        request.limit = PAGE_KEYS;
        let mut found = 0;
        loop {
            let answer = RangeResponse::decode(self.range.call(Frame::of(&request)).await?)?;
            found += answer.kvs.len() as u64;
            if !answer.more {
                break;
            }
            let last = answer.kvs.last().ok_or(Error::Answer("an empty page with more behind it"))?;
            request.key = [&last.key[..], &[0]].concat().into();
            request.revision = match request.revision {
                0 => answer.header.map_or(0, |header| header.revision),
                chosen => chosen,
            };
        }
        if found < LIST_KEYS.min(self.space.keys) {
            return Err(Error::Answer("keys of a list are not there"));
        }
        Ok(())
    }
}

/// Puts `value` if the key's newest revision is `expected` (0: it does not exist), else reads it.
fn compare_and_swap(key: &Bytes, expected: i64, value: Bytes) -> TxnRequest {
    let put = PutRequest { key: key.clone(), value, ..PutRequest::default() };
    let range = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone(),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::ModRevision(expected)),
        }],
        success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
        failure: vec![RequestOp { request: Some(request_op::Request::RequestRange(range)) }],
    }
}
