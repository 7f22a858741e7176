//! What becomes of responses, and of a member that says little.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Response;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use super::*;
use crate::range::KeyRange;
use crate::watch::WatchOptions;
use crate::watch_stream::{BUFFER_BYTES, BUFFER_DELIVERIES};

/// A watch on the carrier, and where it hears.
fn joined(carrier: &mut Carrier, id: i64) -> mpsc::Receiver<(Delivery, usize)> {
    let (deliveries, told) = mpsc::channel(BUFFER_DELIVERIES);
    let tell = Tell { deliveries, buffered: Arc::new(AtomicUsize::new(0)) };
    carrier.watchers.insert(id, Watcher { tell, partial: Vec::new(), confirmed_at: None });
    carrier.unconfirmed.push_back(id);
    told
}

fn event(revision: i64, value_bytes: usize) -> mvccpb::Event {
    let value = vec![0; value_bytes].into();
    let kv = mvccpb::KeyValue { key: "k".into(), value, mod_revision: revision, ..Default::default() };
    mvccpb::Event { kv: Some(kv), ..Default::default() }
}

fn events(id: i64, revisions: &[i64], fragment: bool) -> pb::WatchResponse {
    let events = revisions.iter().map(|revision| event(*revision, 1)).collect();
    pb::WatchResponse { watch_id: id, events, fragment, ..Default::default() }
}

fn created(id: i64) -> pb::WatchResponse {
    pb::WatchResponse { watch_id: id, created: true, ..Default::default() }
}

/// The revisions of the changes that were told, told by told.
fn told(receiver: &mut mpsc::Receiver<(Delivery, usize)>) -> Vec<Vec<i64>> {
    let mut all = Vec::new();
    while let Ok((delivery, _)) = receiver.try_recv() {
        if let Delivery::Events(events) = delivery {
            all.push(events.iter().map(mod_revision).collect());
        }
    }
    all
}

#[test]
fn a_revision_is_told_when_all_pieces_of_it_are_there() {
    let mut carrier = Carrier::default();
    let mut receiver = joined(&mut carrier, 1);
    carrier.take(created(1)).unwrap();
    carrier.take(events(1, &[3, 4, 4], true)).unwrap();
    assert_eq!(told(&mut receiver), [[3]], "the fourth may go on");
    carrier.take(events(1, &[4], true)).unwrap();
    assert!(told(&mut receiver).is_empty());
    carrier.take(events(1, &[4, 5], false)).unwrap();
    assert_eq!(told(&mut receiver), [[4, 4, 4, 4, 5]]);
}

#[test]
fn a_watch_that_cannot_be_made_is_known_by_its_place() {
    let mut carrier = Carrier::default();
    let (mut first, mut second) = (joined(&mut carrier, 1), joined(&mut carrier, 2));
    let cancel_reason = "mvcc: watcher range is empty".to_owned();
    let refused = pb::WatchResponse { canceled: true, cancel_reason, ..created(-1) };
    carrier.take(refused).unwrap();
    carrier.take(created(2)).unwrap();
    assert!(matches!(first.try_recv(), Ok((Delivery::Refused(_), _))));
    assert!(matches!(second.try_recv(), Ok((Delivery::Created(_), _))));
    assert!(carrier.take(created(3)).is_err(), "nobody asked for it");
}

#[test]
fn watches_that_are_made_in_another_order_break_the_stream() {
    let mut carrier = Carrier::default();
    let _receivers = (joined(&mut carrier, 1), joined(&mut carrier, 2));
    assert!(carrier.take(created(2)).is_err());
}

#[test]
fn a_token_that_does_not_hold_breaks_the_stream() {
    let mut carrier = Carrier::default();
    let _receiver = joined(&mut carrier, 1);
    let cancel_reason = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token".to_owned();
    let refused = pb::WatchResponse { canceled: true, cancel_reason, ..created(-1) };
    assert!(auth::is_token_failure(&carrier.take(refused).unwrap_err()));
}

#[test]
fn a_watch_without_room_is_taken_off_and_the_others_stay() {
    let mut carrier = Carrier::default();
    let (mut slow, mut quick) = (joined(&mut carrier, 1), joined(&mut carrier, 2));
    for id in [1, 2] {
        carrier.take(created(id)).unwrap();
    }
    let large = |id, revision| {
        let events = vec![event(revision, BUFFER_BYTES)];
        pb::WatchResponse { watch_id: id, events, ..Default::default() }
    };
    carrier.take(large(1, 2)).unwrap();
    assert!(carrier.outbox.is_empty(), "one is taken whatever its size");
    carrier.take(large(1, 3)).unwrap();
    carrier.take(events(1, &[4], false)).unwrap();
    carrier.take(events(2, &[4], false)).unwrap();
    let cancel = carrier.outbox.pop_front().unwrap().request_union.unwrap();
    assert!(matches!(cancel, RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 1 })));
    assert_eq!((told(&mut slow), told(&mut quick)), (vec![vec![2]], vec![vec![4]]));
    assert!(slow.is_closed() && carrier.watchers.contains_key(&2));
}

/// A client with more watches than the transport takes at once has all of them asked for when a stream opens.
#[test]
fn what_the_transport_does_not_take_at_once_is_not_lost() {
    let mut carrier = Carrier::default();
    let create = |watch_id| pb::WatchCreateRequest { watch_id, ..Default::default() };
    carrier.outbox.extend((1..=5).map(|id| request(RequestUnion::CreateRequest(create(id)))));
    let (requests, mut outgoing) = mpsc::channel(2);
    let mut sent = Vec::new();
    while !carrier.outbox.is_empty() {
        carrier.send_what_fits(&requests);
        while let Ok(pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }) =
            outgoing.try_recv()
        {
            sent.push(create.watch_id);
        }
    }
    assert_eq!(sent, [1, 2, 3, 4, 5]);
}

/// AW42: who may answer before it has told the changes is not asked for progress.
#[test]
fn aw42_progress_is_asked_for_by_the_members_version() {
    for version in ["3.4.31", "3.5.13", "3.6.0", "3.6.0-rc.1", "3.7.0", "4.0.0"] {
        assert!(is_progress_in_order(version), "{version}");
    }
    for version in ["3.4.30", "3.5.1", "3.5.12", "3.3.99", "2.9.9", "3.5", "3.6", "", "unknown"] {
        assert!(!is_progress_in_order(version), "{version}");
    }
}

/// A watch goes on over an outage, also when it has to ask for a token then.
#[test]
fn only_what_a_server_has_said_refuses_a_watch() {
    assert!(refusal_in(&Error::Unavailable { attempts: Vec::new() }).is_none());
    let code = Code::InvalidArgument;
    let message = "etcdserver: authentication failed, invalid user ID or password".to_owned();
    let refused = refusal_in(&Error::Refused { code, message }).unwrap();
    assert!(is_refused(&refused));
    let mut broken = Status::permission_denied("h2 protocol error");
    broken.set_source(Arc::new(std::io::Error::other("go away")));
    assert!(!is_refused(&broken));
}

/// A member that confirms each watch.
struct Confirming;

#[tonic::async_trait]
impl pb::watch_server::Watch for Confirming {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        requests: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let answers = requests.into_inner().filter_map(|asked| match asked.ok()?.request_union? {
            RequestUnion::CreateRequest(create) => Some(Ok(created(create.watch_id))),
            RequestUnion::CancelRequest(_) | RequestUnion::ProgressRequest(_) => None,
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// It never says what its version is.
#[derive(Clone)]
struct Mute;

impl NamedService for Mute {
    const NAME: &'static str = "etcdserverpb.Maintenance";
}

impl Service<http::Request<Body>> for Mute {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Pending<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        std::future::pending()
    }
}

/// A watch starts when the member confirms it, whenever it says what its version is.
#[tokio::test]
async fn a_member_that_does_not_tell_its_version_starts_a_watch_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder()
        .add_service(pb::watch_server::WatchServer::new(Confirming))
        .add_service(Mute)
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let client = Client::new([endpoint]).unwrap();
    let mut watch = client.watch(KeyRange::all(), WatchOptions::new());
    timeout(CREATE_MAX / 2, watch.started()).await.expect("not when the version is given up").unwrap();
    server.abort();
}
