//! Links and greetings over an in-memory network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_env::net::FRAMES_MAX;
use holdfast_env::{BoxFuture, Duplex, Env, Incoming, Lane, Net, NetError};
use holdfast_proto::internal as pb;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::hello::{HelloError, Identity, heed};
use super::link::{Link, LinkError};
use super::roster::{Departure, Roster};
use crate::codec::rpc::{Body, decode_message, encode_message};
use crate::types::PeerNode;

const LIMIT: Duration = Duration::from_secs(10);
const CLUSTER: u64 = 7;

/// Connections within the process, by address.
#[derive(Clone, Default)]
struct Wires(Arc<Mutex<BTreeMap<String, mpsc::Sender<Incoming>>>>);

impl Net for Wires {
    fn connect(&self, address: &str, lane: Lane) -> BoxFuture<'static, Result<Duplex, NetError>> {
        let listener = self.0.lock().get(address).cloned();
        let address = address.to_owned();
        Box::pin(async move {
            let unreachable = || NetError::Unreachable { address, reason: "nobody listens".to_owned() };
            let (to_server, from_client) = mpsc::channel(FRAMES_MAX);
            let (to_client, from_server) = mpsc::channel(FRAMES_MAX);
            let incoming = Incoming { lane, duplex: Duplex { send: to_client, recv: from_client } };
            let listener = listener.ok_or_else(unreachable.clone())?;
            listener.send(incoming).await.map_err(|_| unreachable())?;
            Ok(Duplex { send: to_server, recv: from_server })
        })
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, Result<mpsc::Receiver<Incoming>, NetError>> {
        let (accepted, incoming) = mpsc::channel(FRAMES_MAX);
        self.0.lock().insert(address.to_owned(), accepted);
        Box::pin(std::future::ready(Ok(incoming)))
    }
}

struct Fixture {
    env: Env,
    link: Link,
    incoming: mpsc::Receiver<Incoming>,
    stop: CancellationToken,
}

fn identity(member: u64) -> Identity {
    Identity { cluster_id: CLUSTER, member }
}

fn roster() -> Arc<Roster> {
    Arc::new(Roster::new(None))
}

/// A link of member 1 to member 2, whose end is in the test's hands.
async fn fixture() -> Fixture {
    let wires = Wires::default();
    let incoming = wires.listen("two").await.unwrap();
    let env = Env::real(tokio::runtime::Handle::current(), Arc::new(wires));
    let node =
        PeerNode { peer_urls: vec!["one is gone".to_owned(), "two".to_owned()].into(), votes_later: false };
    let link = Link::new(env.clone(), identity(1), roster(), 2, node);
    let stop = CancellationToken::new();
    drop(env.spawn.task("link", Box::pin(link.clone().run(stop.clone()))));
    Fixture { env, link, incoming, stop }
}

impl Fixture {
    async fn accept(&mut self) -> Duplex {
        let mut duplex = self.incoming.recv().await.unwrap().duplex;
        assert_eq!(identity(2).welcome(&roster(), &*self.env.clock, &mut duplex).await.unwrap(), 1);
        self.link.wait_connected(LIMIT).await.unwrap();
        duplex
    }
}

fn question() -> Body {
    Body::ReadIndexRequest(pb::ReadIndexRequest::default())
}

fn answer(reason: &str) -> Body {
    Body::Refused(pb::Refused { reason: reason.to_owned(), cause: 0 })
}

#[tokio::test]
async fn answers_find_their_requests_in_any_order() {
    let mut fixture = fixture().await;
    let mut duplex = fixture.accept().await;
    let mut first = fixture.link.begin(question()).await.unwrap();
    let mut second = fixture.link.begin(question()).await.unwrap();
    let given_up = fixture.link.begin(question()).await.unwrap();
    drop(given_up);
    let mut requests = Vec::new();
    for _ in 0..3 {
        requests.push(decode_message(duplex.recv.recv().await.unwrap()).unwrap().0);
    }
    for place in [2, 1, 0] {
        let frame = encode_message(requests[place], answer(&place.to_string()));
        duplex.send.send(frame).await.unwrap();
    }
    assert_eq!(first.answer().await.unwrap(), answer("0"));
    assert_eq!(second.answer().await.unwrap(), answer("1"));
}

#[tokio::test]
async fn a_broken_connection_ends_requests_and_is_opened_again() {
    let mut fixture = fixture().await;
    assert_eq!(fixture.link.request(question(), LIMIT).await, Err(LinkError::Down));
    let duplex = fixture.accept().await;
    let mut pending = fixture.link.begin(question()).await.unwrap();
    assert_eq!(fixture.link.request(question(), Duration::from_millis(5)).await, Err(LinkError::TimedOut));
    drop(duplex);
    assert_eq!(pending.answer().await, Err(LinkError::Broken));
    let duplex = fixture.accept().await;
    assert!(fixture.link.is_connected());
    fixture.stop.cancel();
    duplex.send.closed().await;
}

#[tokio::test]
async fn strangers_are_refused_with_the_reason() {
    let env = Env::real(tokio::runtime::Handle::current(), Arc::new(Wires::default()));
    let clock = &*env.clock;
    let meet = async |from: Identity, to: u64, accepting: Identity| {
        let (to_server, from_client) = mpsc::channel(1);
        let (to_client, from_server) = mpsc::channel(1);
        let mut ours = Duplex { send: to_server, recv: from_server };
        let mut theirs = Duplex { send: to_client, recv: from_client };
        let (ours_roster, theirs_roster) = (roster(), roster());
        tokio::join!(
            from.introduce(&ours_roster, clock, &mut ours, to),
            accepting.welcome(&theirs_roster, clock, &mut theirs)
        )
    };
    let (ours, theirs) = meet(identity(1), 2, identity(2)).await;
    assert!(ours.is_ok() && theirs.is_ok_and(|peer| peer == 1));

    let foreign = Identity { cluster_id: CLUSTER + 1, member: 1 };
    for (from, to, accepting, reason) in [
        (foreign, 2, identity(2), "cluster 8"),
        (identity(1), 3, identity(2), "meant for member 3"),
        (identity(2), 2, identity(2), "our own id"),
    ] {
        let (ours, theirs) = meet(from, to, accepting).await;
        assert!(matches!(&theirs, Err(HelloError::Refused(why)) if why.contains(reason)), "{theirs:?}");
        assert!(matches!(&ours, Err(HelloError::RefusedByPeer(why)) if why.contains(reason)), "{ours:?}");
    }
}

#[tokio::test]
async fn a_removed_peer_is_told_so_for_good() {
    let env = Env::real(tokio::runtime::Handle::current(), Arc::new(Wires::default()));
    let clock = &*env.clock;
    let (to_server, from_client) = mpsc::channel(1);
    let (to_client, from_server) = mpsc::channel(1);
    let mut ours = Duplex { send: to_server, recv: from_server };
    let mut theirs = Duplex { send: to_client, recv: from_client };
    let (removed, knowing) = (roster(), roster());
    knowing.set_removed(&[1].into());
    let (greeted, welcomed) = tokio::join!(
        identity(1).introduce(&removed, clock, &mut ours, 2),
        identity(2).welcome(&knowing, clock, &mut theirs)
    );
    assert!(
        matches!(&welcomed, Err(HelloError::Refused(why)) if why.contains("was removed")),
        "{welcomed:?}"
    );
    assert!(matches!(&greeted, Err(HelloError::RefusedByPeer(_))), "{greeted:?}");
    assert_eq!(*removed.departed().borrow(), Some(Departure::Removed));
    assert_eq!(*knowing.departed().borrow(), None);
}

/// A greeting from before its first entry is read by a busy peer that was told meanwhile, on another connection, what the member
/// has taken since.
#[test]
fn a_member_whose_greeting_was_overtaken_does_not_end() {
    let not_empty = roster();
    assert!(!not_empty.own_log_is_empty());
    let reason = "member 1 comes with an empty log, but it had one".to_owned();
    heed(&not_empty, &pb::Refused { reason, cause: pb::RefusedCause::Wiped.into() });
    assert_eq!(*not_empty.departed().borrow(), None);
}
