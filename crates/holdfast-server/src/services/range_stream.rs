//! KV.RangeStream: a list of any length at one revision, in pieces.
//!
//! A piece is read when the transport asks for it, which it does when the client's window has room: so a stream holds one
//! piece, however long the list and however slow its client. Between two pieces nothing is held, not even the revision: a
//! list that a compaction overtakes ends with "compacted", as in etcd, and no client can hold a compaction back. A client
//! that wants a leader gets no piece more once the member has been without one for too long.

use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{self, Stream};
use holdfast_mvcc::auth::Granted;
use holdfast_mvcc::command::{Invalid, Range, ReadAt, SortTarget};
use holdfast_mvcc::types::{KeyValue, Revision};
use holdfast_mvcc::validate::validate_range;
use holdfast_mvcc::{Piece, PieceMax};
use holdfast_proto::etcdserverpb as pb;
use holdfast_storage::{PieceRequest, ReadError, ReadPiece, Storage};
use tokio::sync::watch;
use tonic::Status;

use crate::codec::{request, response};
use crate::frontend::{Call, Consistency, Frontend};
use crate::limits;
use crate::status::Failure;
use crate::watch::LeaderWanted;

/// The answers of a stream.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

/// Begins a list. Its first piece is read here, so that what cannot be read is refused at once.
pub async fn open(
    frontend: &Arc<Frontend>,
    inner: pb::RangeRequest,
    call: Call,
    leader: LeaderWanted,
) -> Result<Pieces, Failure> {
    let leader_lost = (leader == LeaderWanted::Yes).then(|| frontend.watches.leader_lost());
    if inner.key.is_empty() {
        return Err(Invalid::EmptyKey.into());
    }
    let filters = [
        inner.min_mod_revision,
        inner.max_mod_revision,
        inner.min_create_revision,
        inner.max_create_revision,
    ];
    // Not the decoded order: what Range would sort is refused, whether or not the client said in which order.
    let is_descending = inner.sort_order() == pb::range_request::SortOrder::Descend;
    let decoded = request::range(inner)?;
    validate_range(&decoded.range)?;
    if is_descending || decoded.range.target != SortTarget::Key {
        return Err(Failure::StreamSorted);
    }
    if filters.iter().any(|bound| *bound != 0) {
        return Err(Failure::StreamFiltered);
    }
    let consistency =
        if decoded.serializable { Consistency::Serializable } else { Consistency::Linearizable };
    frontend.make_consistent(consistency, call).await?;
    frontend.metrics.ranges.inc();
    List::open(Arc::clone(frontend), decoded.range, call, leader_lost).await
}

/// A list on its way.
struct List {
    frontend: Arc<Frontend>,
    request: PieceRequest,
    /// The call that has opened it; each piece is read for who made it.
    call: Call,
    keys_only: bool,
    /// So many keys may still be given; `None` for all.
    left: Option<u64>,
    given: u64,
    /// The store's revision when the list began.
    newest: Revision,
    /// Changes when the member has been without a leader for too long, if the client wants one.
    leader_lost: Option<watch::Receiver<u64>>,
}

/// What a stream does next.
enum Next {
    /// Gives this piece, which is read already.
    Give(List, Piece),
    /// Reads on.
    Read(List),
    /// Ends.
    End,
}

impl List {
    async fn open(
        frontend: Arc<Frontend>,
        range: Range,
        call: Call,
        leader_lost: Option<watch::Receiver<u64>>,
    ) -> Result<Pieces, Failure> {
        let (limit, count_only) = (range.limit, range.count_only);
        let mut list = Self {
            frontend,
            request: PieceRequest { range: range.range, at: range.at, after: None },
            call,
            keys_only: range.keys_only,
            left: limit,
            given: 0,
            newest: Revision::NONE,
            leader_lost,
        };
        if count_only {
            let counted = list.count(call).await?;
            list.newest = counted.newest;
            let only = list.answer(Vec::new(), Some(Totals { count: counted.found, more: false }));
            return Ok(Box::pin(stream::iter([Ok(only)])));
        }
        let first = list.read(call).await?;
        list.newest = first.newest;
        list.request.at = ReadAt::Revision(first.at);
        let pieces = stream::try_unfold(Next::Give(list, first.found), |next| async move {
            match next {
                Next::Give(list, piece) => list.give(piece).await.map(Some),
                Next::Read(list) => {
                    let call = list.frontend.prolonged(list.call);
                    let piece = list.read(call).await?.found;
                    list.give(piece).await.map(Some)
                }
                Next::End => Ok(None),
            }
            .map_err(Status::from)
        });
        Ok(Box::pin(pieces))
    }

    async fn read(&self, call: Call) -> Result<ReadPiece<Piece>, Failure> {
        if self.frontend.stop.is_cancelled() {
            return Err(Failure::Stopped);
        }
        let is_lost = |lost: &watch::Receiver<u64>| lost.has_changed().unwrap_or(true);
        if self.leader_lost.as_ref().is_some_and(is_lost) {
            return Err(Failure::LeaderRequired);
        }
        let keys = self.left.unwrap_or(u64::MAX).min(limits::RANGE_STREAM_PIECE_KEYS);
        let max = PieceMax {
            keys: usize::try_from(keys).unwrap_or(usize::MAX),
            bytes: limits::RANGE_STREAM_PIECE_BYTES.min(self.frontend.limits.request_bytes_max),
            keys_only: self.keys_only,
        };
        self.permitted(call, move |storage, request| storage.range_piece(request, &max)).await
    }

    async fn count(&self, call: Call) -> Result<ReadPiece<u64>, Failure> {
        self.permitted(call, Storage::range_count).await
    }

    /// Reads what the caller may read when it has been read.
    async fn permitted<T: Send + 'static>(
        &self,
        call: Call,
        read: impl FnOnce(&Storage, &PieceRequest) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Failure> {
        let request = self.request.clone();
        let kind = self.frontend.blocking_of(&Range { limit: self.left, ..Range::of(request.range.clone()) });
        let read = self.frontend.read_blocking(call, kind, move |storage| read(storage, &request));
        let needs = |granted: &Granted<'_>| granted.read(&self.request.range);
        self.frontend.read_permitted(call, needs, read).await
    }

    async fn give(mut self, piece: Piece) -> Result<(pb::RangeStreamResponse, Next), Failure> {
        let given = piece.kvs.len() as u64;
        self.given += given;
        self.left = self.left.map(|left| left.saturating_sub(given));
        let is_cut = self.left == Some(0);
        self.request.after = piece.next;
        if self.request.after.is_some() && !is_cut {
            return Ok((self.answer(piece.kvs, None), Next::Read(self)));
        }
        let behind = match &self.request.after {
            Some(_) => self.count(self.frontend.prolonged(self.call)).await?.found,
            None => 0,
        };
        let totals = Totals { count: self.given + behind, more: behind > 0 };
        Ok((self.answer(piece.kvs, Some(totals)), Next::End))
    }

    /// The last piece alone has a header and says how many keys there are.
    fn answer(&self, kvs: Vec<KeyValue>, totals: Option<Totals>) -> pb::RangeStreamResponse {
        let header = totals.as_ref().map(|_| self.frontend.header(self.newest));
        let totals = totals.unwrap_or_default();
        let part = pb::RangeResponse {
            header,
            kvs: kvs.into_iter().map(response::key_value).collect(),
            more: totals.more,
            count: response::signed(totals.count),
        };
        pb::RangeStreamResponse { range_response: Some(part) }
    }
}

/// What is known at the end of a list.
#[derive(Default)]
struct Totals {
    /// The keys of the whole range.
    count: u64,
    /// True when the limit left some out.
    more: bool,
}
