//! Frames on a socket: four bytes of length, big-endian, and that many bytes. An empty one is a sign of life.
//!
//! One task per connection moves both directions. It ends, and with it the connection, when either end is dropped, when the
//! socket breaks, when a frame is larger than allowed, and when nothing has come for too long.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::PeerNetConfig;

/// What is read from a socket at once, at most, while frames are small.
const READ_BYTES: usize = 32 << 10;

/// What is gathered for one write, exceeded by less than a frame.
const WRITE_BYTES: usize = 64 << 10;

/// A frame up to this size gets memory of its own. In that of a read, which holds many, it would keep all of them as long as
/// one of its values is cached.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// How long a closed connection may take to send what it was given before.
const LAST_FRAMES: Duration = Duration::from_secs(1);

/// Our ends of the channels whose other ends the connection's user has.
pub(super) struct Ends {
    /// To the other member.
    pub(super) outbound: mpsc::Receiver<Bytes>,
    /// From the other member.
    pub(super) inbound: mpsc::Sender<Bytes>,
}

/// Moves frames until the connection ends, and says why when that was not asked for.
pub(super) async fn carry(
    stream: impl AsyncRead + AsyncWrite,
    ends: Ends,
    config: &PeerNetConfig,
) -> io::Result<()> {
    let Ends { outbound, inbound } = ends;
    let (from, to) = tokio::io::split(stream);
    let closed = inbound.clone();
    let silence_max = config.keepalive_interval + config.keepalive_timeout;
    let reading = read(FramedRead::with_capacity(from, codec(config), READ_BYTES), inbound, silence_max);
    let writing = write(FramedWrite::new(to, codec(config)), outbound, config.keepalive_interval);
    tokio::select! {
        // Whatever ends first ends the connection; the others are dropped with what they hold.
        biased;
        () = closed.closed() => Ok(()),
        read = reading => read,
        written = writing => written,
    }
}

fn codec(config: &PeerNetConfig) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(config.frame_bytes_max).new_codec()
}

/// Hands frames on until the other end closes. While nobody takes them, it reads no further, and expects no sign of life.
async fn read(
    mut frames: FramedRead<impl AsyncRead + Unpin, LengthDelimitedCodec>,
    inbound: mpsc::Sender<Bytes>,
    silence_max: Duration,
) -> io::Result<()> {
    // One timer for all frames: what is set anew for each of them costs more than the frame.
    let mut heard = Instant::now();
    let mut silence = Box::pin(sleep(silence_max));
    loop {
        let frame = tokio::select! {
            biased;
            // Cancel-safe: what was read of a frame stays in the buffer.
            frame = frames.next() => frame,
            () = &mut silence => {
                if heard.elapsed() >= silence_max {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no sign of life"));
                }
                silence.as_mut().reset(heard + silence_max);
                continue;
            }
        };
        let Some(frame) = frame.transpose()? else { return Ok(()) };
        if !frame.is_empty() {
            let frame =
                if frame.len() <= COPIED_BYTES_MAX { Bytes::copy_from_slice(&frame) } else { frame.freeze() };
            if inbound.send(frame).await.is_err() {
                return Ok(());
            }
        }
        heard = Instant::now();
    }
}

/// Sends what there is, together, until there will be no more.
async fn write(
    mut frames: FramedWrite<impl AsyncWrite + Unpin, LengthDelimitedCodec>,
    mut outbound: mpsc::Receiver<Bytes>,
    interval: Duration,
) -> io::Result<()> {
    frames.set_backpressure_boundary(WRITE_BYTES);
    let mut said = Instant::now();
    let mut quiet = Box::pin(sleep(interval));
    loop {
        let frame = tokio::select! {
            biased;
            // Cancel-safe: a frame is taken or stays.
            frame = outbound.recv() => frame,
            () = &mut quiet => {
                if said.elapsed() < interval {
                    quiet.as_mut().reset(said + interval);
                    continue;
                }
                Some(Bytes::new())
            }
        };
        let Some(frame) = frame else {
            // What was sent before the end arrives, if the other end takes it.
            return timeout(LAST_FRAMES, SinkExt::<Bytes>::close(&mut frames)).await.unwrap_or(Ok(()));
        };
        frames.feed(frame).await?;
        while let Ok(frame) = outbound.try_recv() {
            frames.feed(frame).await?;
        }
        SinkExt::<Bytes>::flush(&mut frames).await?;
        said = Instant::now();
        if quiet.is_elapsed() {
            quiet.as_mut().reset(said + interval);
        }
    }
}
