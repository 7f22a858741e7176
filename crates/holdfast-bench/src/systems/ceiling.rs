//! A gRPC server that stores nothing and answers at once: no server on the same stack can be faster.
//!
//! It is built on the parts the real server is built on. A read answers with a value of the size it was told; a put, a
//! transaction and a compaction with a header. Every watcher is sent every put, whatever it asked for.

mod watch;

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use holdfast_proto::etcdserverpb::kv_server::{Kv, KvServer};
use holdfast_proto::etcdserverpb::watch_server::WatchServer;
use holdfast_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RangeStreamResponse, ResponseHeader, TxnRequest, TxnResponse,
};
use holdfast_proto::mvccpb::{Event, KeyValue};
use tokio::sync::{broadcast, oneshot};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::error::Error;

/// The empty store.
#[derive(Clone)]
struct Empty {
    revision: Arc<AtomicI64>,
    value: Bytes,
    /// Each put, for every watch stream.
    puts: broadcast::Sender<Event>,
}

/// Puts a watch stream may be behind before it ends; the benchmark then says that events are missing.
const BEHIND_MAX: usize = 8192;

impl Empty {
    fn header(&self) -> Option<ResponseHeader> {
        let revision = self.revision.fetch_add(1, Ordering::Relaxed);
        Some(ResponseHeader { cluster_id: 1, member_id: 1, revision, raft_term: 1 })
    }
}

#[tonic::async_trait]
impl Kv for Empty {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let key = request.into_inner().key;
        let pair = KeyValue {
            key,
            create_revision: 1,
            mod_revision: 1,
            version: 1,
            value: self.value.clone(),
            lease: 0,
        };
        let kvs = vec![pair];
        Ok(Response::new(RangeResponse { header: self.header(), kvs, more: false, count: 1 }))
    }

    type RangeStreamStream = tokio_stream::Empty<Result<RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        _request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("the empty server streams nothing"))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let header = self.header();
        if self.puts.receiver_count() > 0 {
            let PutRequest { key, value, .. } = request.into_inner();
            let mod_revision = header.map_or(0, |header| header.revision);
            let pair = KeyValue { key, create_revision: 1, mod_revision, version: 1, value, lease: 0 };
            let event = Event { kv: Some(pair), ..Event::default() };
            // The last stream may have ended just now.
            self.puts.send(event).unwrap_or_default();
        }
        Ok(Response::new(PutResponse { header, prev_kv: None }))
    }

    async fn delete_range(
        &self,
        _request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        Ok(Response::new(DeleteRangeResponse { header: self.header(), ..DeleteRangeResponse::default() }))
    }

    async fn txn(&self, _request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Ok(Response::new(TxnResponse { header: self.header(), succeeded: true, responses: Vec::new() }))
    }

    async fn compact(
        &self,
        _request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Ok(Response::new(CompactionResponse { header: self.header() }))
    }
}

/// Serves on `listen` until standard input is closed.
pub(crate) async fn serve(listen: SocketAddr, value_bytes: usize) -> Result<(), Error> {
    // Set on each socket: the builder's own setting does not reach connections it is handed.
    let incoming = TcpIncoming::bind(listen).map_err(Error::io(format!("listen on {listen}")))?;
    let store = Empty {
        revision: Arc::new(AtomicI64::new(1)),
        value: Bytes::from(vec![b'v'; value_bytes]),
        puts: broadcast::Sender::new(BEHIND_MAX),
    };
    tonic::transport::Server::builder()
        .add_service(KvServer::new(store.clone()))
        .add_service(WatchServer::new(store))
        .serve_with_incoming_shutdown(incoming.with_nodelay(Some(true)), parent_is_gone())
        .await
        .map_err(|error| Error::Setting(format!("the empty server failed: {error}")))
}

/// Nothing is ever written to our standard input; its end and an error both mean that nobody is there any more. The
/// thread that reads it ends with the process.
async fn parent_is_gone() {
    let (gone, is_gone) = oneshot::channel();
    let watch = move || {
        let mut byte = [0];
        while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
        // The server may have failed meanwhile; then nobody listens.
        gone.send(()).unwrap_or_default();
    };
    if std::thread::Builder::new().name("parent".to_owned()).spawn(watch).is_ok() {
        drop(is_gone.await);
    }
}
