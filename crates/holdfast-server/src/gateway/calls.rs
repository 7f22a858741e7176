//! gRPC's framing: JSON objects of a body as the requests of a call, and its answers as JSON.

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::json::{self, Objects};
use super::paths::Method;
use super::{broken_off, too_large};
use crate::limits::MESSAGE_TIMEOUT;
use crate::receiving::{Share, late};

/// Why a call's requests have ended early, for who tells its client. The first reason counts.
pub(super) type Refused = Arc<OnceLock<Status>>;

/// What is in front of a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A message as gRPC sends it.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a request is far below 4 GiB"));
    framed.put_slice(message);
    framed.freeze()
}

struct Requests {
    method: &'static Method,
    body: Body,
    objects: Objects,
    has_ended: bool,
    bytes_max: usize,
    /// What is here of an object that is not whole.
    share: Share,
    /// When that has to be whole.
    due: Option<Instant>,
    refused: Refused,
}

/// The requests in a body, each as soon as all of it is here. One that is no request, or is too large, ends them.
pub(super) fn requests(
    method: &'static Method,
    body: Body,
    bytes_max: usize,
    share: Share,
    refused: Refused,
) -> tonic::body::Body {
    let (objects, has_ended, due) = (Objects::default(), false, None);
    let requests = Requests { method, body, objects, has_ended, bytes_max, share, due, refused };
    let frames = stream::unfold(requests, |mut requests| async move {
        match requests.next().await {
            Ok(message) => message.map(|message| (Ok(Frame::data(frame(&message))), requests)),
            Err(status) => {
                requests.has_ended = true;
                // An earlier reason stays.
                requests.refused.get_or_init(|| status.clone());
                Some((Err(status), requests))
            }
        }
    });
    tonic::body::Body::new(StreamBody::new(frames))
}

impl Requests {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            let object = self.objects.next().or_else(|| self.has_ended.then(|| self.objects.rest())?);
            if let Some(object) = object {
                self.due = None;
                return json::decode(&self.method.input, &object).map(Some).map_err(Status::invalid_argument);
            }
            if self.has_ended {
                return Ok(None);
            }
            if self.objects.waiting() > self.bytes_max {
                return Err(too_large(self.bytes_max));
            }
            self.share.set(self.objects.waiting())?;
            let next = self.body.frame();
            let next = if self.objects.waiting() == 0 {
                next.await
            } else {
                let due = *self.due.get_or_insert_with(|| Instant::now() + MESSAGE_TIMEOUT);
                timeout_at(due, next).await.map_err(|_| late())?
            };
            match next {
                // Trailers say nothing here.
                Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|bytes| self.objects.push(bytes)),
                Some(Err(error)) => return Err(broken_off(&error)),
                None => self.has_ended = true,
            }
        }
    }
}

/// The answers of a call, as JSON.
pub(super) struct Answers<B> {
    method: &'static Method,
    body: B,
    /// How the call ended, once that is known.
    ended: Option<Status>,
    waiting: BytesMut,
    refused: Refused,
}

impl<B> Answers<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// Of a call whose answer has these headers, which say how it ended when nothing else follows.
    pub(super) fn new(method: &'static Method, headers: &HeaderMap, body: B, refused: Refused) -> Self {
        Self { method, body, ended: Status::from_header_map(headers), waiting: BytesMut::new(), refused }
    }

    /// The next one; `None` behind the last of a call that went well.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.message() {
                return json::encode(&self.method.output, message).map(Some).map_err(Status::internal);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => self.waiting.extend_from_slice(&bytes),
                    Err(frame) => {
                        self.ended =
                            frame.trailers_ref().and_then(Status::from_header_map).or(self.ended.take());
                    }
                },
                Some(Err(error)) => return Err(Status::internal(format!("the call broke off: {error}"))),
                None => return self.end(),
            }
        }
    }

    fn end(&mut self) -> Result<Option<Bytes>, Status> {
        // What is wrong with the requests is the cause of whatever the call then ended with.
        if let Some(refused) = self.refused.get() {
            return Err(refused.clone());
        }
        match self.ended.take() {
            Some(status) if status.code() == tonic::Code::Ok => Ok(None),
            Some(status) => Err(status),
            None => Err(Status::unknown("the call ended without a status")),
        }
    }

    /// The next message that is here as a whole.
    fn message(&mut self) -> Option<Bytes> {
        let len = self.waiting.get(1..PREFIX_BYTES)?.try_into().map(u32::from_be_bytes).ok()?;
        let end = PREFIX_BYTES + usize::try_from(len).ok()?;
        if self.waiting.len() < end {
            return None;
        }
        let mut framed = self.waiting.split_to(end).freeze();
        framed.advance(PREFIX_BYTES);
        Some(framed)
    }
}
