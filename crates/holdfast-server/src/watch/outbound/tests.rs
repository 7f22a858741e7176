//! The queue of a stream: order, bound, what is refused and when it may go on.

use futures::FutureExt;
use futures::stream::StreamExt;
use holdfast_proto::etcdserverpb as pb;
use tonic::Code;

use super::*;
use crate::codec::watch::NO_WATCH;
use crate::metrics::{Fixed, Metrics};

struct Fixture {
    outbound: Arc<Outbound>,
    responses: Responses,
    inbox: Arc<Inbox>,
    counts: WatchCounts,
}

const STREAM: StreamId = StreamId::new(7);

fn fixture(queue_max: usize) -> Fixture {
    let metrics = Metrics::new(&Fixed { member_id: 1, quota_bytes: 1 });
    let counts = metrics.watch.clone();
    let inbox = Arc::new(Inbox::new(1 << 20, metrics.events.clone(), counts.clone()));
    let header = Arc::new(Header::new(&pb::ResponseHeader::default()));
    let bytes = OutboundBytes { queue_max, fragment: 500 };
    let outbound = Arc::new(Outbound::new(STREAM, bytes, header, Arc::clone(&inbox), counts.clone()));
    Fixture { responses: Responses::new(Arc::clone(&outbound)), outbound, inbox, counts }
}

/// One event of about so many bytes, encoded.
fn event(bytes: usize) -> Bytes {
    let mut buffer = bytes::BytesMut::new();
    let kv = holdfast_proto::mvccpb::KeyValue { value: Bytes::from(vec![1; bytes]), ..Default::default() };
    let event = holdfast_proto::mvccpb::Event { kv: Some(kv), ..Default::default() };
    prost::encoding::message::encode(11, &event, &mut buffer);
    buffer.freeze()
}

fn delivered(watch_id: i64, revision: u64, bytes: usize) -> Delivered {
    let revision = Revision::new(revision);
    Delivered { watch_id, revision, encoded: event(bytes), events: 1, fragments: false }
}

fn created(watch_id: i64) -> Response {
    Response { watch_id, revision: Revision::new(1), content: Content::Created }
}

fn progress(revision: u64) -> Response {
    Response { watch_id: NO_WATCH, revision: Revision::new(revision), content: Content::Progress }
}

impl Fixture {
    /// What the transport gets now.
    fn read(&mut self) -> Option<Response> {
        self.responses.next().now_or_never().map(|response| response.unwrap().unwrap())
    }

    fn read_all(&mut self) -> Vec<(i64, u64)> {
        std::iter::from_fn(|| self.read()).map(|read| (read.watch_id, read.revision.get())).collect()
    }
}

#[test]
fn responses_come_out_as_they_went_in() {
    let mut f = fixture(100_000);
    f.outbound.push(created(0));
    f.outbound.deliver(delivered(0, 5, 10), None).unwrap();
    f.outbound.deliver(delivered(1, 5, 10), None).unwrap();
    f.outbound.push(progress(5));
    assert_eq!(f.read_all(), [(0, 1), (0, 5), (1, 5), (-1, 5)]);
    assert_eq!((f.counts.bytes_pending.get(), f.counts.events_pending.get()), (0, 0));
}

#[test]
fn an_unsent_response_takes_further_events_of_its_watcher() {
    let mut f = fixture(1 << 20);
    let first = f.outbound.deliver(delivered(0, 5, 10), None).unwrap();
    f.outbound.deliver(delivered(1, 5, 10), None).unwrap();
    let second = f.outbound.deliver(delivered(0, 6, 10), Some(first)).unwrap();
    assert_eq!(first, second);
    assert_eq!(f.counts.events_pending.get(), 3);
    let joined = f.read().unwrap();
    let Content::Events(events) = &joined.content else { panic!("{joined:?}") };
    assert_eq!((joined.revision.get(), events.bytes()), (6, 2 * event(10).len()));
    assert_eq!(f.read_all(), [(1, 5)]);
    // It is gone now: what comes later is a response of its own.
    let third = f.outbound.deliver(delivered(0, 7, 10), Some(second)).unwrap();
    assert_ne!(third, second);
    assert_eq!(f.read_all(), [(0, 7)]);
}

#[test]
fn nothing_is_added_in_front_of_progress() {
    let mut f = fixture(1 << 20);
    let place = f.outbound.deliver(delivered(0, 5, 10), None).unwrap();
    f.outbound.push(progress(5));
    f.outbound.deliver(delivered(0, 6, 10), Some(place)).unwrap();
    assert_eq!(f.read_all(), [(0, 5), (-1, 5), (0, 6)]);
}

#[test]
fn a_response_takes_only_so_much() {
    let mut f = fixture(8 << 20);
    let mut place = None;
    for revision in 1..=10 {
        place = Some(f.outbound.deliver(delivered(0, revision, COALESCED_BYTES_MAX / 4), place).unwrap());
    }
    assert_eq!(f.read_all(), [(0, 3), (0, 6), (0, 9), (0, 10)]);
}

#[test]
fn a_full_queue_refuses_until_there_is_room_and_says_so_once() {
    let mut f = fixture(10_000);
    for revision in 1..=3 {
        f.outbound.deliver(delivered(0, revision, 3_000), None).unwrap();
    }
    assert_eq!(f.outbound.deliver(delivered(1, 4, 3_000), None), Err(Taken::Full));
    // The watcher that was refused must get on, so that nobody may pass it.
    assert_eq!(f.outbound.deliver(delivered(2, 4, 1), None), Err(Taken::Full));
    assert!(!f.outbound.has_room());
    assert!(f.inbox.take().rooms.is_empty());
    assert_eq!(f.read_all(), [(0, 1), (0, 2), (0, 3)]);
    assert_eq!(f.inbox.take().rooms, [STREAM]);
    f.outbound.deliver(delivered(1, 4, 3_000), None).unwrap();
    assert_eq!(f.read_all(), [(1, 4)]);
    assert!(f.inbox.take().rooms.is_empty(), "nobody waits");
    assert_eq!(f.counts.refusals.get(), 2);
}

#[test]
fn what_is_larger_than_the_queue_goes_through_alone() {
    let mut f = fixture(10_000);
    f.outbound.deliver(delivered(0, 1, 100), None).unwrap();
    assert_eq!(f.outbound.deliver(delivered(0, 2, 50_000), None), Err(Taken::Full));
    assert_eq!(f.read_all(), [(0, 1)]);
    assert_eq!(f.inbox.take().rooms, [STREAM]);
    f.outbound.deliver(delivered(0, 2, 50_000), None).unwrap();
    assert_eq!(f.outbound.deliver(delivered(0, 3, 1), None), Err(Taken::Full));
    assert_eq!(f.read_all(), [(0, 2)]);
    assert_eq!((f.inbox.take().rooms, f.counts.bytes_pending.get()), (vec![STREAM], 0));
}

#[test]
fn what_the_transport_holds_still_counts() {
    let mut f = fixture(10_000);
    for revision in 1..=3 {
        f.outbound.deliver(delivered(0, revision, 3_000), None).unwrap();
    }
    assert_eq!(f.read().unwrap().revision.get(), 1);
    assert_eq!(f.outbound.deliver(delivered(0, 4, 3_000), None), Err(Taken::Full), "two of three are held");
}

#[test]
fn fragments_are_cut_for_those_who_take_them() {
    let mut f = fixture(1 << 20);
    for fragments in [false, true] {
        let several = Bytes::from([event(200), event(200), event(200)].concat());
        let whole = Delivered { encoded: several, events: 3, fragments, ..delivered(0, 5, 0) };
        f.outbound.deliver(whole, None).unwrap();
    }
    assert_eq!(f.read_all(), [(0, 5), (0, 5), (0, 5)], "one whole, one in two pieces");
    assert_eq!((f.counts.bytes_pending.get(), f.counts.events_pending.get()), (0, 0));
}

#[test]
fn an_end_lets_what_is_queued_out_and_a_failure_does_not() {
    let mut f = fixture(10_000);
    f.outbound.push(created(0));
    f.outbound.end();
    assert_eq!(f.read().unwrap().watch_id, 0);
    assert!(f.responses.next().now_or_never().unwrap().is_none());
    let mut f = fixture(10_000);
    f.outbound.deliver(delivered(0, 1, 10), None).unwrap();
    f.outbound.fail(Failure::LeaderRequired);
    f.outbound.fail(Failure::Stopped);
    let status = f.responses.next().now_or_never().unwrap().unwrap().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
    assert!(f.responses.next().now_or_never().unwrap().is_none());
    assert_eq!((f.counts.bytes_pending.get(), f.counts.events_pending.get()), (0, 0));
}

#[test]
fn a_reader_that_goes_away_takes_everything_with_it() {
    let mut f = fixture(10_000);
    f.outbound.deliver(delivered(0, 1, 10), None).unwrap();
    f.outbound.deliver(delivered(1, 1, 10), None).unwrap();
    assert_eq!(f.read().unwrap().watch_id, 0);
    let Fixture { outbound, responses, counts, .. } = f;
    assert!(outbound.reader_gone().now_or_never().is_none());
    drop(responses);
    assert!(outbound.reader_gone().now_or_never().is_some());
    assert_eq!(
        outbound.deliver(delivered(0, 2, 10), None),
        Ok(Place(0)),
        "it goes nowhere, and that is fine"
    );
    outbound.push(created(3));
    assert_eq!((counts.bytes_pending.get(), counts.events_pending.get()), (0, 0));
}

#[test]
fn a_session_waits_for_room() {
    let mut f = fixture(300);
    f.outbound.deliver(delivered(0, 1, 500), None).unwrap();
    assert!(f.outbound.room().now_or_never().is_none());
    f.read_all();
    assert!(f.outbound.room().now_or_never().is_some());
}
