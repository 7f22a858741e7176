//! The Watch service.
//!
//! Written by hand where the others are generated, because its responses are encoded by hand: see
//! [`crate::codec::watch`].

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt, ready};
use holdfast_mvcc::types::KeyRange;
use holdfast_proto::etcdserverpb as pb;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use crate::auth::Asking;
use crate::auth::rules;
use crate::codec::watch::WatchCodec;
use crate::frontend::{Frontend, Service};
use crate::status::{Failure, denied_watch};
use crate::watch::Responses;

/// Serves `etcdserverpb.Watch`.
#[derive(Clone)]
pub struct WatchService {
    frontend: Arc<Frontend>,
    request_bytes_max: usize,
}

impl WatchService {
    /// A service over the given frontend, for requests up to this size.
    pub fn new(frontend: Arc<Frontend>, request_bytes_max: usize) -> Self {
        Self { frontend, request_bytes_max }
    }
}

impl NamedService for WatchService {
    const NAME: &'static str = pb::watch_server::SERVICE_NAME;
}

impl tower::Service<http::Request<Body>> for WatchService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != "/etcdserverpb.Watch/Watch" {
            let failure = Failure::Unimplemented("this method of the Watch service");
            return ready(Ok(Status::from(failure).into_http())).boxed();
        }
        let method = Watch(Arc::clone(&self.frontend));
        let mut grpc = Grpc::new(WatchCodec::new(self.frontend.watches.header()))
            .apply_max_message_size_config(Some(self.request_bytes_max), Some(usize::MAX));
        async move { Ok(grpc.streaming(method, request).await) }.boxed()
    }
}

/// The one method.
struct Watch(Arc<Frontend>);

impl StreamingService<pb::WatchRequest> for Watch {
    type Response = crate::codec::watch::Response;
    type ResponseStream = Responses;
    type Future = BoxFuture<'static, Result<Response<Responses>, Status>>;

    fn call(&mut self, request: Request<Streaming<pb::WatchRequest>>) -> Self::Future {
        let frontend = Arc::clone(&self.0);
        async move {
            let call = frontend.admit_data(Asking::of(&request), rules::WATCH, Service::Voters).await?;
            let leader = Frontend::leader_wanted(request.metadata());
            let judge = Arc::clone(&frontend);
            // Judged when a watcher is created, and not again: as in etcd, what is revoked later does not end it.
            let permit = move |range: &KeyRange| {
                let permitted = judge.pass(call, |granted| granted.read(range));
                permitted.map_err(|failure| denied_watch(&failure))
            };
            Ok(Response::new(frontend.watches.open(request.into_inner(), leader, Arc::new(permit))))
        }
        .boxed()
    }
}
