//! The KV service.

use std::sync::Arc;

use holdfast_mvcc::command::{Command, Range, Response as CommandResponse, TxnResponse};
use holdfast_mvcc::types::{RangeEnd, Revision};
use holdfast_mvcc::validate::{validate, validate_range, validate_txn};
use holdfast_proto::etcdserverpb as pb;
use holdfast_storage::{Answer, Storage};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::range_stream::{self, Pieces};
use crate::auth::Asking;
use crate::auth::rules;
use crate::codec::list::{EncodedList, ListWriter, broken_off};
use crate::codec::{request, response};
use crate::frontend::{Call, Consistency, Frontend, Read, Service};
use crate::metrics::RequestKind;
use crate::status::Failure;

/// Serves [`pb::kv_server::Kv`].
pub struct KvService {
    frontend: Arc<Frontend>,
}

/// What a read has found, ready to be sent.
pub enum Found {
    /// Short, as a message.
    Pairs(pb::RangeResponse),
    /// In bytes.
    Encoded(EncodedList),
}

/// An answer without its header.
struct Answered {
    revision: Revision,
    response: CommandResponse,
}

impl KvService {
    /// Serves through `frontend`.
    pub fn new(frontend: Arc<Frontend>) -> Self {
        Self { frontend }
    }

    /// What a read finds.
    async fn find(&self, inner: pb::RangeRequest, call: Call) -> Result<Found, Failure> {
        // An empty key is reported before an unknown sort option.
        if inner.key.is_empty() {
            return Err(holdfast_mvcc::command::Invalid::EmptyKey.into());
        }
        let decoded = request::range(inner)?;
        validate_range(&decoded.range)?;
        let consistency =
            if decoded.serializable { Consistency::Serializable } else { Consistency::Linearizable };
        // Not before it is known that the value is not in memory: most gets end there.
        let begin = |range: &Range| {
            let frontend = Arc::clone(&self.frontend);
            let (early, sent) = oneshot::channel();
            // One key is short, and nobody would look for what comes early.
            let early = (range.range.end != RangeEnd::Single).then_some(early);
            let list = move |storage: &Storage, range: &Range| {
                let writer = |newest| ListWriter::new(frontend.header(newest), early);
                Ok(ListWriter::finish(storage.range_into(range, writer)?))
            };
            (list, sent)
        };
        let found = self.frontend.read_by(decoded.range, consistency, call, begin).await?;
        Ok(match found {
            Read::Hot(pairs, revision) => {
                Found::Pairs(response::range(pairs, self.frontend.header(revision)))
            }
            Read::Cold(list) => Found::Encoded(list),
        })
    }

    /// Answers a range, with the pairs in bytes already when there may be many: [`pb::kv_server::Kv::range`] for who sends them
    /// as they are. The time of a list that is sent while it is read is observed when it begins.
    #[tracing::instrument(name = "range", level = "debug", skip_all)]
    pub async fn list(&self, request: Request<pb::RangeRequest>) -> Result<Response<Found>, Status> {
        let service = if request.get_ref().serializable { Service::Everyone } else { Service::Voters };
        let call = self.frontend.admit_data(Asking::of(&request), rules::RANGE, service).await?;
        let result = self.find(request.into_inner(), call).await;
        self.frontend.answer(RequestKind::Range, call, result)
    }

    async fn write(&self, command: Command, call: Call) -> Result<Answered, Failure> {
        validate(&command, self.frontend.limits.txn_ops_max)?;
        let Answer { outcome, .. } = self.frontend.propose(command, call).await?;
        Ok(Answered { revision: outcome.revision, response: outcome.response? })
    }

    async fn do_put(&self, inner: pb::PutRequest, call: Call) -> Result<pb::PutResponse, Failure> {
        let answered = self.write(Command::Put(request::put(inner)), call).await?;
        let CommandResponse::Put(result) = answered.response else {
            unreachable!("a put is answered as a put")
        };
        Ok(response::put(result, self.frontend.header(answered.revision)))
    }

    async fn do_delete_range(
        &self,
        inner: pb::DeleteRangeRequest,
        call: Call,
    ) -> Result<pb::DeleteRangeResponse, Failure> {
        let answered = self.write(Command::DeleteRange(request::delete_range(inner)), call).await?;
        let CommandResponse::DeleteRange(result) = answered.response else {
            unreachable!("a delete is answered as a delete")
        };
        Ok(response::delete_range(result, self.frontend.header(answered.revision)))
    }

    async fn do_txn(&self, inner: pb::TxnRequest, call: Call) -> Result<pb::TxnResponse, Failure> {
        let decoded = request::txn(inner)?;
        self.frontend.metrics.txns.inc();
        let (result, revision) = if decoded.txn.is_read_only() {
            self.read_txn(decoded, call).await?
        } else {
            let answered = self.write(Command::Txn(decoded.txn), call).await?;
            let CommandResponse::Txn(result) = answered.response else {
                unreachable!("a transaction is answered as a transaction")
            };
            (result, answered.revision)
        };
        Ok(response::txn(result, self.frontend.header(revision)))
    }

    async fn read_txn(
        &self,
        decoded: request::DecodedTxn,
        call: Call,
    ) -> Result<(TxnResponse, Revision), Failure> {
        validate_txn(&decoded.txn, self.frontend.limits.txn_ops_max)?;
        let consistency =
            if decoded.serializable { Consistency::Serializable } else { Consistency::Linearizable };
        self.frontend.make_consistent(consistency, call).await?;
        self.frontend.read_txn(decoded.txn, call).await
    }

    async fn do_compact(
        &self,
        inner: pb::CompactionRequest,
        call: Call,
    ) -> Result<pb::CompactionResponse, Failure> {
        let answered = self.write(request::compact(&inner), call).await?;
        if inner.physical {
            // Bounded by the client: the transport drops us at its deadline or when it goes away.
            let reached = Revision::new(u64::try_from(inner.revision).unwrap_or(0));
            self.frontend.storage.scrubbed(reached).await.map_err(|_| Failure::Stopped)?;
        }
        Ok(pb::CompactionResponse { header: Some(self.frontend.header(answered.revision)) })
    }
}

#[tonic::async_trait]
impl pb::kv_server::Kv for KvService {
    type RangeStreamStream = Pieces;

    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let (metadata, found, extensions) = self.list(request).await?.into_parts();
        let response = match found {
            Found::Pairs(response) => response,
            // For who has it compressed, or as JSON: seldom, so that another form of reading is not worth it.
            Found::Encoded(list) => list.decode().await.ok_or_else(broken_off)?,
        };
        Ok(Response::from_parts(metadata, response, extensions))
    }

    /// Not on learners, also when stale answers will do.
    #[tracing::instrument(name = "range_stream", level = "debug", skip_all)]
    async fn range_stream(&self, request: Request<pb::RangeRequest>) -> Result<Response<Pieces>, Status> {
        let call =
            self.frontend.admit_data(Asking::of(&request), rules::RANGE_STREAM, Service::Voters).await?;
        let leader = Frontend::leader_wanted(request.metadata());
        let opened = range_stream::open(&self.frontend, request.into_inner(), call, leader).await;
        self.frontend.answer(RequestKind::RangeStream, call, opened)
    }

    #[tracing::instrument(name = "put", level = "debug", skip_all)]
    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let call = self.frontend.admit_data(Asking::of(&request), rules::PUT, Service::Voters).await?;
        let result = self.do_put(request.into_inner(), call).await;
        self.frontend.answer(RequestKind::Put, call, result)
    }

    #[tracing::instrument(name = "delete_range", level = "debug", skip_all)]
    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let call =
            self.frontend.admit_data(Asking::of(&request), rules::DELETE_RANGE, Service::Voters).await?;
        let result = self.do_delete_range(request.into_inner(), call).await;
        self.frontend.answer(RequestKind::DeleteRange, call, result)
    }

    #[tracing::instrument(name = "txn", level = "debug", skip_all)]
    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let call = self.frontend.admit_data(Asking::of(&request), rules::TXN, Service::Voters).await?;
        let result = self.do_txn(request.into_inner(), call).await;
        self.frontend.answer(RequestKind::Txn, call, result)
    }

    #[tracing::instrument(name = "compact", level = "debug", skip_all)]
    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let call = self.frontend.admit_data(Asking::of(&request), rules::COMPACT, Service::Voters).await?;
        let result = self.do_compact(request.into_inner(), call).await;
        self.frontend.answer(RequestKind::Compact, call, result)
    }
}
