//! Clients that ping too often are sent away, by gRPC's rule.
//!
//! The HTTP/2 library answers pings and tells nobody. So the bytes of a connection are looked at where they pass
//! ([`crate::cork`]): frame headers only. A ping that comes within `--grpc-keepalive-min-time` of the one before is a
//! strike, unless this side has sent headers or data in between, which forgives what was; at the third strike the
//! connection ends with GOAWAY, ENHANCE_YOUR_CALM, "too_many_pings". Clients of gRPC know it and ping less often then.

use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{Clock, Monotonic};

use crate::limits::PING_STRIKES_MAX;

/// What a connection over HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const PING: u8 = 0x6;
const ACK: u8 = 0x1;

/// GOAWAY on stream 0 with 22 bytes, of which the first four name the last stream that was taken.
const GOAWAY_HEAD: [u8; 9] = [0, 0, 22, 0x7, 0, 0, 0, 0, 0];
/// ENHANCE_YOUR_CALM, and what gRPC says with it.
const GOAWAY_TAIL: &[u8] = b"\0\0\0\x0btoo_many_pings";

/// The rule, for all connections of a member.
#[derive(Clone)]
pub struct PingRule {
    /// The least time between two pings; zero for no rule.
    pub time_min: Duration,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Watches one connection.
pub struct PingWatch {
    rule: PingRule,
    /// `None` when the client does not speak HTTP/2, or when there is no rule.
    frames: Option<Frames>,
    strikes: u32,
    /// Headers or data were sent since the last ping.
    forgives: bool,
    last_ping: Option<Monotonic>,
    verdict: Verdict,
}

/// What comes and goes.
struct Frames {
    /// So much of the preface has been seen.
    preface: usize,
    received: FrameReader,
    sent: FrameReader,
    last_stream: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The connection goes on.
    Open,
    /// It ends where the frame ends that is being sent.
    Ending,
    /// Its last frame is on its way.
    Ended,
}

impl PingWatch {
    /// For a new connection.
    pub fn new(rule: PingRule) -> Self {
        let empty = || Frames {
            preface: 0,
            received: FrameReader::default(),
            sent: FrameReader::default(),
            last_stream: 0,
        };
        let frames = (!rule.time_min.is_zero()).then(empty);
        Self { rule, frames, strikes: 0, forgives: false, last_ping: None, verdict: Verdict::Open }
    }

    /// These bytes have come.
    pub fn received(&mut self, mut bytes: &[u8]) {
        let Some(frames) = &mut self.frames else { return };
        let rest = &PREFACE[frames.preface..];
        let shared = rest.len().min(bytes.len());
        if rest[..shared] != bytes[..shared] {
            self.frames = None;
            return;
        }
        frames.preface += shared;
        bytes = &bytes[shared..];
        let mut pings = 0;
        let last_stream = &mut frames.last_stream;
        frames.received.read(bytes, |frame| match frame.kind {
            PING if frame.flags & ACK == 0 => pings += 1,
            HEADERS => *last_stream = frame.stream.max(*last_stream),
            _ => {}
        });
        for _ in 0..pings {
            self.ping();
        }
    }

    /// These bytes go.
    pub fn sent(&mut self, bytes: &[u8]) {
        let Some(frames) = &mut self.frames else { return };
        let forgives = &mut self.forgives;
        frames.sent.read(bytes, |frame| *forgives |= matches!(frame.kind, DATA | HEADERS));
    }

    /// The last frame, once, when the connection is to end and no other frame is half sent.
    pub fn goodbye(&mut self) -> Option<Vec<u8>> {
        let frames = self.frames.as_ref()?;
        if self.verdict != Verdict::Ending || !frames.sent.is_between_frames() {
            return None;
        }
        self.verdict = Verdict::Ended;
        Some([&GOAWAY_HEAD[..], &frames.last_stream.to_be_bytes()[..], GOAWAY_TAIL].concat())
    }

    /// True when the last frame was sent: nothing comes or goes behind it.
    pub fn has_ended(&self) -> bool {
        self.verdict == Verdict::Ended
    }

    fn ping(&mut self) {
        let now = self.rule.clock.now();
        let is_early = self.last_ping.is_some_and(|last| now.since(last) < self.rule.time_min);
        self.last_ping = Some(now);
        if std::mem::take(&mut self.forgives) {
            self.strikes = 0;
        } else if is_early {
            self.strikes += 1;
        }
        if self.strikes > PING_STRIKES_MAX && self.verdict == Verdict::Open {
            tracing::debug!(time_min = ?self.rule.time_min, "a client pings too often and is sent away");
            self.verdict = Verdict::Ending;
        }
    }
}

/// The head of a frame.
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Finds the heads of frames in a stream of bytes, however it is cut.
#[derive(Default)]
struct FrameReader {
    head: [u8; 9],
    /// So much of it is known.
    known: usize,
    /// What is left of the payload of the last frame.
    payload: usize,
}

impl FrameReader {
    fn read(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        loop {
            let skipped = self.payload.min(bytes.len());
            self.payload -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let taken = (self.head.len() - self.known).min(bytes.len());
            self.head[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
            self.known += taken;
            bytes = &bytes[taken..];
            if self.known < self.head.len() {
                return;
            }
            let [a, b, c, kind, flags, stream @ ..] = self.head;
            self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            self.known = 0;
            // Its highest bit is reserved.
            each(Frame { kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) });
        }
    }

    fn is_between_frames(&self) -> bool {
        self.known == 0 && self.payload == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use holdfast_env::{BoxFuture, UnixMillis};

    use super::*;

    /// Moved by hand, in milliseconds.
    #[derive(Default)]
    struct HandClock(AtomicU64);

    impl Clock for HandClock {
        fn now(&self) -> Monotonic {
            Monotonic::from_start(Duration::from_millis(self.0.load(Ordering::Relaxed)))
        }
        fn wall(&self) -> UnixMillis {
            UnixMillis(0)
        }
        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn watched(time_min_ms: u64) -> (Arc<HandClock>, PingWatch) {
        let clock = Arc::new(HandClock::default());
        let rule = PingRule { time_min: Duration::from_millis(time_min_ms), clock: clock.clone() };
        let mut watch = PingWatch::new(rule);
        watch.received(PREFACE);
        watch.received(&frame(0x4, 0, 0, &[]));
        watch.received(&frame(HEADERS, 0x4, 7, b"headers"));
        watch.sent(&frame(0x4, 0, 0, &[0; 6]));
        (clock, watch)
    }

    fn ping(watch: &mut PingWatch) {
        watch.received(&frame(PING, 0, 0, &[1; 8]));
    }

    #[test]
    fn the_fourth_ping_in_a_row_that_is_too_early_ends_the_connection() {
        let (clock, mut watch) = watched(5_000);
        for at in 1..=3 {
            clock.0.store(at * 100, Ordering::Relaxed);
            ping(&mut watch);
            assert_eq!(watch.goodbye(), None, "the ping {at}");
        }
        ping(&mut watch);
        let expected = frame(0x7, 0, 0, b"\0\0\0\x07\0\0\0\x0btoo_many_pings");
        assert_eq!(watch.goodbye(), Some(expected));
        assert!(watch.has_ended());
        assert_eq!(watch.goodbye(), None, "once");
    }

    #[test]
    fn pings_in_time_answers_to_ours_and_pings_behind_data_are_no_strikes() {
        let (clock, mut watch) = watched(5_000);
        for at in 1..20 {
            clock.0.store(at * 5_000, Ordering::Relaxed);
            ping(&mut watch);
        }
        for _ in 0..20 {
            watch.received(&frame(PING, ACK, 0, &[1; 8]));
        }
        for _ in 0..20 {
            ping(&mut watch);
            watch.sent(&frame(PING, ACK, 0, &[1; 8]));
            ping(&mut watch);
            watch.sent(&frame(DATA, 0, 7, b"data"));
        }
        assert_eq!(watch.goodbye(), None);
        assert!(!watch.has_ended());
    }

    #[test]
    fn a_frame_that_is_half_sent_is_sent_first() {
        let (_, mut watch) = watched(5_000);
        let data = frame(0x8, 0, 0, &[0; 4]);
        watch.sent(&data[..11]);
        (0..9).for_each(|_| ping(&mut watch));
        assert_eq!(watch.goodbye(), None);
        watch.sent(&data[11..]);
        assert!(watch.goodbye().is_some());
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let bytes = [
            PREFACE.to_vec(),
            frame(HEADERS, 0, 1, &[6; 300]),
            frame(PING, 0, 0, &[6; 8]),
            frame(DATA, 0, 1, &[]),
        ]
        .concat();
        for cut in 1..bytes.len() {
            let rule = PingRule { time_min: Duration::from_secs(5), clock: Arc::new(HandClock::default()) };
            let mut watch = PingWatch::new(rule);
            watch.received(&bytes[..cut]);
            watch.received(&bytes[cut..]);
            assert_eq!((watch.strikes, watch.last_ping.is_some()), (0, true), "cut at {cut}");
            (0..3).for_each(|_| ping(&mut watch));
            assert!(watch.goodbye().is_some(), "cut at {cut}");
        }
    }

    #[test]
    fn without_a_rule_and_without_http2_nothing_is_looked_at() {
        let (_, mut free) = watched(0);
        (0..100).for_each(|_| ping(&mut free));
        assert_eq!(free.goodbye(), None);
        let rule = PingRule { time_min: Duration::from_secs(5), clock: Arc::new(HandClock::default()) };
        let mut plain = PingWatch::new(rule);
        plain.received(b"GET /metrics HTTP/1.1\r\n\r\n");
        (0..100).for_each(|_| ping(&mut plain));
        assert_eq!(plain.goodbye(), None);
    }
}
