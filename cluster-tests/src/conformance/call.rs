//! Sends one call by reflection: bytes out, bytes in, and the descriptors to read them with.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::script::Call;

/// Longer than any server-side time-out of etcd: who answers decides, not we.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// What a member answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The response message.
    Ok(DynamicMessage),
    /// The status.
    Err(Code, String),
    /// What came on a watch stream for one request, events left out, and the status if the stream ended.
    Stream(Vec<DynamicMessage>, Option<(Code, String)>),
}

impl Answer {
    /// Whether no member could answer for the cluster: that says nothing about what it would have answered.
    pub fn is_outage(&self) -> bool {
        let code = match self {
            Self::Ok(_) => None,
            Self::Err(code, _) => Some(*code),
            Self::Stream(_, end) => end.as_ref().map(|(code, _)| *code),
        };
        matches!(code, Some(Code::Unavailable | Code::DeadlineExceeded))
    }
}

/// The descriptors of everything in `proto/`.
pub fn descriptors() -> DescriptorPool {
    DescriptorPool::decode(holdfast_proto::FILE_DESCRIPTOR_SET).expect("the embedded descriptors decode")
}

/// Sends the call to the member behind `channel`. A response that does not decode is reported as an error of ours.
pub async fn send(channel: &Channel, call: &Call, request: Bytes, token: Option<&str>) -> Answer {
    send_to(channel, &call.method, request, token).await
}

/// As [`send`], for a method that no script names.
pub(super) async fn send_to(
    channel: &Channel,
    method: &MethodDescriptor,
    request: Bytes,
    token: Option<&str>,
) -> Answer {
    match unary(channel, path(method), with_token(request, token)).await {
        Err(status) => Answer::Err(status.code(), status.message().to_owned()),
        Ok(body) => match DynamicMessage::decode(method.output(), body) {
            Ok(message) => Answer::Ok(message),
            Err(error) => Answer::Err(Code::Internal, format!("conformance: undecodable response: {error}")),
        },
    }
}

/// The request, in the name of who has the token.
pub(super) fn with_token<T>(request: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(request);
    if let Some(token) = token {
        let token = MetadataValue::try_from(token).expect("a token is made of letters, digits and dots");
        request.metadata_mut().insert("token", token);
    }
    request
}

/// Where a method is found.
pub(super) fn path(method: &MethodDescriptor) -> PathAndQuery {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    PathAndQuery::try_from(path).expect("method names are legal in a path")
}

async fn unary(channel: &Channel, path: PathAndQuery, request: Request<Bytes>) -> Result<Bytes, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone())
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|error| Status::unavailable(format!("conformance: {error}")))?;
    let answer = tokio::time::timeout(CALL_TIMEOUT, grpc.unary(request, path, BytesCodec)).await;
    let answer = answer.map_err(|_| Status::deadline_exceeded("conformance: no answer"))?;
    answer.map(tonic::Response::into_inner)
}

/// Passes messages through as they are on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
