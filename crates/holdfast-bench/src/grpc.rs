//! The least gRPC client that can load a server: HTTP/2 streams, five bytes before each message, a status behind.
//!
//! Client and servers share the machine, so what the client burns is taken from what it measures. Therefore no
//! balancer, no queue and no boxed layers lie between a caller and its connection; a caller encodes into a buffer that
//! already has room for the prefix.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::error::Error;

/// One byte for compression, four for the length.
const PREFIX_BYTES: usize = 5;
/// Receive windows as the Go client has them after its estimator has settled: large enough to never be what stalls.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// Room that is made for an answer because its prefix says so; a longer one grows as it comes.
const RESERVED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// HTTP/2's own default: what a client that does not read holds before the server must stop.
const UNREAD_WINDOW: u32 = 65_535;

/// A method of a service, as its path says it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rpc(pub(crate) &'static str);

pub(crate) const PUT: Rpc = Rpc("/etcdserverpb.KV/Put");
pub(crate) const RANGE: Rpc = Rpc("/etcdserverpb.KV/Range");
pub(crate) const RANGE_STREAM: Rpc = Rpc("/etcdserverpb.KV/RangeStream");
pub(crate) const COMPACT: Rpc = Rpc("/etcdserverpb.KV/Compact");
pub(crate) const TXN: Rpc = Rpc("/etcdserverpb.KV/Txn");
pub(crate) const LEASE_GRANT: Rpc = Rpc("/etcdserverpb.Lease/LeaseGrant");
pub(crate) const LEASE_REVOKE: Rpc = Rpc("/etcdserverpb.Lease/LeaseRevoke");
pub(crate) const LEASE_KEEP_ALIVE: Rpc = Rpc("/etcdserverpb.Lease/LeaseKeepAlive");
pub(crate) const WATCH: Rpc = Rpc("/etcdserverpb.Watch/Watch");
pub(crate) const STATUS: Rpc = Rpc("/etcdserverpb.Maintenance/Status");

/// One connection, which serves any number of calls at a time. Cheap to clone: a clone shares the socket.
#[derive(Clone)]
pub(crate) struct Connection {
    send: SendRequest<Bytes>,
    authority: String,
}

/// What drives a connection's socket; the connection ends when this is dropped.
pub(crate) struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a connection treats what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// All of it is read.
    Everything,
    /// Streams are left unread: each holds HTTP/2's default window of bytes, and none holds up another.
    Nothing,
}

impl Connection {
    /// Connects to `authority`, host:port.
    pub(crate) async fn open(authority: &str, reading: Reading) -> Result<(Self, Driver), Error> {
        let action = || format!("connect to {authority}");
        let socket = TcpStream::connect(authority).await.map_err(Error::io(action()))?;
        socket.set_nodelay(true).map_err(Error::io(action()))?;
        let mut builder = h2::client::Builder::new();
        match reading {
            Reading::Everything => {
                builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW)
            }
            Reading::Nothing => {
                builder.initial_window_size(UNREAD_WINDOW).initial_connection_window_size(CONNECTION_WINDOW)
            }
        };
        let (send, connection) = builder.handshake(socket).await?;
        let driver = tokio::spawn(async move {
            // A broken connection shows in the calls that use it.
            drop(connection.await);
        });
        Ok((Self { send, authority: authority.to_owned() }, Driver(driver)))
    }

    /// A caller of one method, which makes one call at a time.
    pub(crate) fn caller(&self, rpc: Rpc) -> Caller {
        Caller { send: self.send.clone(), request: self.head(rpc) }
    }

    /// Opens a stream in both directions and sends `first`.
    pub(crate) async fn stream(&self, rpc: Rpc, first: Frame, requests: Requests) -> Result<Stream, Error> {
        let is_last = requests == Requests::One;
        let mut send = self.send.clone().ready().await?;
        let (response, mut requests) = send.send_request(self.head(rpc), false)?;
        requests.send_data(first.0, is_last)?;
        let response = response.await?;
        refused(response.headers())?;
        Ok(Stream { requests, messages: Messages { body: response.into_body(), rest: Vec::new() } })
    }

    fn head(&self, rpc: Rpc) -> Request<()> {
        let uri = Uri::builder().scheme("http").authority(self.authority.as_str()).path_and_query(rpc.0);
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri.build().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        request
    }
}

/// How many requests a stream has. A server may wait for the end of them before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requests {
    /// The first is the only one.
    One,
    /// More may follow.
    Many,
}

/// A message behind its prefix, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame(Bytes);

impl Frame {
    /// Encodes once, into one allocation.
    pub(crate) fn of(message: &impl Message) -> Self {
        let length = message.encoded_len();
        let mut buffer = BytesMut::with_capacity(PREFIX_BYTES + length);
        buffer.put_u8(0);
        buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        message.encode_raw(&mut buffer);
        Self(buffer.freeze())
    }
}

/// Calls one method over one connection, one call at a time.
pub(crate) struct Caller {
    send: SendRequest<Bytes>,
    request: Request<()>,
}

impl Caller {
    /// The answer's message, without its prefix.
    ///
    /// Errors: refused by the server, or a broken connection; then the call may have had its effect.
    pub(crate) async fn call(&mut self, frame: Frame) -> Result<Bytes, Error> {
        answer(self.begin(frame).await?).await
    }

    /// Hands over the answer in pieces as they arrive, the prefix in front of the first, and keeps none of them: an
    /// answer of many megabytes would cost the client more to put together than the server to send.
    ///
    /// Errors: those of [`Self::call`], and what `each` says.
    pub(crate) async fn call_in_pieces(
        &mut self,
        frame: Frame,
        each: &mut impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        pieces(self.begin(frame).await?, &mut |chunk: Bytes| each(&chunk)).await
    }

    async fn begin(&mut self, frame: Frame) -> Result<ResponseFuture, Error> {
        std::future::poll_fn(|context| self.send.poll_ready(context)).await?;
        let (response, mut body) = self.send.send_request(self.request.clone(), false)?;
        body.send_data(frame.0, true)?;
        Ok(response)
    }
}

async fn answer(response: ResponseFuture) -> Result<Bytes, Error> {
    // Nearly every answer is one chunk, which is not copied.
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    let mut each = |chunk: Bytes| {
        if first.is_empty() {
            first = chunk;
        } else {
            if more.is_empty() {
                more.reserve(whole_bytes(&first));
                more.extend_from_slice(&first);
            }
            more.extend_from_slice(&chunk);
        }
        Ok(())
    };
    pieces(response, &mut each).await?;
    let mut whole = if more.is_empty() { first } else { more.freeze() };
    if whole.len() < PREFIX_BYTES {
        return Err(Error::Answer("no message in it"));
    }
    whole.advance(PREFIX_BYTES);
    Ok(whole)
}

/// How long an answer that begins so says it is, its prefix included, up to a bound.
fn whole_bytes(first: &[u8]) -> usize {
    let length = first.get(1..PREFIX_BYTES).map_or(0, |mut length| length.get_u32() as usize);
    length.min(RESERVED_BYTES_MAX) + PREFIX_BYTES
}

/// Hands over an answer's chunks, and looks at its status.
async fn pieces(
    response: ResponseFuture,
    each: &mut impl FnMut(Bytes) -> Result<(), Error>,
) -> Result<(), Error> {
    let response = response.await?;
    // An answer that is only a status has it among the first headers.
    refused(response.headers())?;
    let mut body = response.into_body();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        each(chunk)?;
    }
    let trailers = body.trailers().await?.ok_or(Error::Answer("no status behind it"))?;
    refused(&trailers)
}

/// An error if the headers hold a status that is not OK.
fn refused(headers: &HeaderMap) -> Result<(), Error> {
    let Some(status) = headers.get("grpc-status") else { return Ok(()) };
    let code = status.to_str().ok().and_then(|text| text.parse().ok()).ok_or(Error::Answer("no status"))?;
    if code == 0 {
        return Ok(());
    }
    let words = headers.get("grpc-message").and_then(|value| value.to_str().ok());
    Err(Error::Refused { code, message: words.unwrap_or_default().to_owned() })
}

/// A stream in both directions.
pub(crate) struct Stream {
    requests: SendStream<Bytes>,
    /// What the server sends.
    pub(crate) messages: Messages,
}

impl Stream {
    /// Sends one more request.
    pub(crate) fn send(&mut self, frame: Frame) -> Result<(), Error> {
        Ok(self.requests.send_data(frame.0, false)?)
    }
}

/// The messages of a stream, put together from what arrives.
pub(crate) struct Messages {
    body: RecvStream,
    /// The beginning of a message whose end has not arrived.
    rest: Vec<u8>,
}

impl Messages {
    /// Waits until something arrives and hands every message that is whole to `each`, without its prefix. `false` at
    /// the end of the stream. Cancel-safe.
    pub(crate) async fn receive(
        &mut self,
        each: &mut impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let Some(chunk) = self.body.data().await else {
            if let Some(trailers) = self.body.trailers().await? {
                refused(&trailers)?;
            }
            return Ok(false);
        };
        let chunk = chunk?;
        self.body.flow_control().release_capacity(chunk.len())?;
        if self.rest.is_empty() {
            // Usually messages end where chunks do, and nothing is copied.
            let unread = split(&chunk, each)?;
            self.rest.extend_from_slice(unread);
        } else {
            self.rest.extend_from_slice(&chunk);
            let unread = split(&self.rest, each)?.len();
            let read = self.rest.len() - unread;
            self.rest.drain(..read);
        }
        Ok(true)
    }
}

/// Hands over each whole message; returns what is left behind the last of them.
fn split<'a>(
    mut bytes: &'a [u8],
    each: &mut impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<&'a [u8], Error> {
    while let Some(mut length) = bytes.get(1..PREFIX_BYTES) {
        let Some((message, behind)) = bytes[PREFIX_BYTES..].split_at_checked(length.get_u32() as usize)
        else {
            break;
        };
        each(message)?;
        bytes = behind;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use holdfast_proto::etcdserverpb::PutRequest;

    use super::*;

    #[test]
    fn messages_are_found_however_they_were_cut() {
        let frames: Vec<Frame> = [&b"a"[..], b"", b"longer"]
            .into_iter()
            .map(|key| Frame::of(&PutRequest { key: Bytes::copy_from_slice(key), ..PutRequest::default() }))
            .collect();
        let wire: Vec<u8> = frames.iter().flat_map(|frame| frame.0.to_vec()).collect();
        for cut in 0..=wire.len() {
            let mut keys = Vec::new();
            let mut each = |message: &[u8]| {
                keys.push(PutRequest::decode(message)?.key);
                Ok(())
            };
            let mut rest = split(&wire[..cut], &mut each).unwrap().to_vec();
            rest.extend_from_slice(&wire[cut..]);
            assert!(split(&rest, &mut each).unwrap().is_empty());
            assert_eq!(keys, [&b"a"[..], b"", b"longer"], "cut at {cut}");
        }
    }

    #[test]
    fn room_is_made_for_what_a_prefix_says_up_to_a_bound() {
        assert_eq!(whole_bytes(&[0, 0, 0, 1, 2, 9]), 258 + PREFIX_BYTES);
        assert_eq!(whole_bytes(&[0, 0xff, 0xff, 0xff, 0xff]), RESERVED_BYTES_MAX + PREFIX_BYTES);
        assert_eq!(whole_bytes(&[0, 0]), PREFIX_BYTES, "a cut prefix");
    }

    #[test]
    fn only_a_status_other_than_zero_refuses() {
        let mut headers = HeaderMap::new();
        assert!(refused(&headers).is_ok());
        headers.insert("grpc-status", HeaderValue::from_static("0"));
        assert!(refused(&headers).is_ok());
        headers.insert("grpc-status", HeaderValue::from_static("11"));
        headers.insert("grpc-message", HeaderValue::from_static("compacted"));
        let error = refused(&headers).unwrap_err();
        assert_eq!(error.to_string(), "the server refused with code 11: compacted");
        headers.insert("grpc-status", HeaderValue::from_static("x"));
        assert!(refused(&headers).is_err());
    }
}
