//! Writes many keys in transactions, where only what they leave behind is asked for.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest, TxnResponse, request_op};
use prost::Message;
use tokio::task::JoinSet;

use super::Connections;
use super::keys::{KeyNumber, KeySpace};
use crate::error::Error;
use crate::grpc::{Caller, Frame, TXN};

/// Puts in a transaction: below what servers take by default, which is 128.
const PUTS: u64 = 100;
/// Bytes of values in a transaction, when values are large: below what servers take.
const BYTES: u64 = 1024 * 1024;
/// Transactions under way at a time.
const WRITERS: u64 = 32;

/// Writes the keys with these numbers, each once, and so one revision of each.
pub(crate) async fn write(
    space: &KeySpace,
    numbers: Range<u64>,
    connections: &Connections,
) -> Result<(), Error> {
    let next = Arc::new(AtomicU64::new(numbers.start));
    let puts = puts_of(space.value().len() as u64);
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let mut txn = connections.of(number).caller(TXN);
        let (next, space, end) = (Arc::clone(&next), space.clone(), numbers.end);
        writers.spawn(async move {
            loop {
                let first = next.fetch_add(puts, Ordering::Relaxed);
                if first >= end {
                    return Ok::<(), Error>(());
                }
                write_some(&mut txn, &space, first..end.min(first + puts)).await?;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.map_err(|_| Error::Interrupted)??;
    }
    Ok(())
}

fn puts_of(value_bytes: u64) -> u64 {
    (BYTES / value_bytes.max(1)).clamp(1, PUTS)
}

async fn write_some(txn: &mut Caller, space: &KeySpace, numbers: Range<u64>) -> Result<(), Error> {
    let puts = numbers.map(|number| PutRequest {
        key: KeySpace::key(KeyNumber(number)),
        value: space.value(),
        ..PutRequest::default()
    });
    let success = puts.map(|put| RequestOp { request: Some(request_op::Request::RequestPut(put)) });
    let request = TxnRequest { success: success.collect(), ..TxnRequest::default() };
    let answer = TxnResponse::decode(txn.call(Frame::of(&request)).await?)?;
    if answer.succeeded { Ok(()) } else { Err(Error::Answer("a transaction without conditions has failed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_stay_below_what_servers_take() {
        assert_eq!((puts_of(0), puts_of(16), puts_of(64 * 1024), puts_of(4 << 20)), (100, 100, 16, 1));
    }
}
