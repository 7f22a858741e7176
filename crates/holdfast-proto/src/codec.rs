//! How the generated services put messages into bytes: prost's encoding, with long messages aside.
//!
//! A message of many MiB takes a thread for a tenth of a second and more. On a thread that serves a runtime's tasks the
//! others (a heartbeat, an answer) would wait for it: so that thread hands them to another one first.

use std::any::Any;
use std::marker::PhantomData;

use bytes::BufMut;
use prost::{EncodeError, Message};
use tokio::runtime::{Handle, RuntimeFlavor};
use tonic::Status;
use tonic::codec::{BufferSettings, EncodeBuf, Encoder};
use tonic_prost::ProstCodec;

use crate::etcdserverpb::RangeResponse;

/// Messages from this many bytes on are encoded aside: some hundred microseconds of work, beside some ten that it takes
/// to hand the tasks over.
const ASIDE_BYTES: usize = 1 << 20;

/// Lists of so many pairs are put together and encoded aside, too, whatever their bytes.
pub const LONG_LIST_PAIRS: usize = 4_096;

/// Pairs of a long list that are put together or encoded before other threads may run: some ten microseconds of work.
pub const TURN_PAIRS: usize = 64;

/// What a pair takes in a list beside itself, at most, below a length of 2 MiB: its tag and its length.
const PAIR_FRAME_BYTES: usize = 4;

/// gRPC's protobuf codec.
#[derive(Debug)]
pub struct Codec<T, U> {
    messages: PhantomData<(T, U)>,
}

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self { messages: PhantomData }
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = AsideEncoder<T>;
    type Decoder = <ProstCodec<T, U> as tonic::codec::Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        AsideEncoder { messages: PhantomData }
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::default().decoder()
    }
}

/// Encodes messages, long ones aside.
#[derive(Debug)]
pub struct AsideEncoder<T> {
    messages: PhantomData<T>,
}

impl<T: Message + 'static> Encoder for AsideEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, mut item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let list = (&mut item as &mut dyn Any).downcast_mut::<RangeResponse>();
        if let Some(list) = list.filter(|list| list.kvs.len() >= LONG_LIST_PAIRS) {
            let list = std::mem::take(list);
            return aside(move || encode_list(list, buffer)).map_err(|error| failed(&error));
        }
        // The message is dropped there, too: what is large takes as long.
        let encoded = if item.encoded_len() < ASIDE_BYTES {
            item.encode(buffer)
        } else {
            aside(move || item.encode(buffer))
        };
        encoded.map_err(|error| failed(&error))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// Encodes a long list. Pairs are freed as they are encoded, and other threads run in between: on busy CPUs each step of a
/// write would wait until this thread's time slice is over.
fn encode_list(list: RangeResponse, buffer: &mut EncodeBuf<'_>) -> Result<(), EncodeError> {
    let mut bytes = 0;
    for pairs in list.kvs.chunks(TURN_PAIRS) {
        bytes += pairs.iter().map(|pair| PAIR_FRAME_BYTES + pair.encoded_len()).sum::<usize>();
        std::thread::yield_now();
    }
    buffer.reserve(bytes);
    encode_in_turns(list, buffer)
}

/// Messages one behind the other are one message with the fields of all; in this order prost's own.
fn encode_in_turns(list: RangeResponse, buffer: &mut impl BufMut) -> Result<(), EncodeError> {
    let RangeResponse { header, kvs, more, count } = list;
    RangeResponse { header, ..RangeResponse::default() }.encode(buffer)?;
    let mut kvs = kvs.into_iter();
    while kvs.len() > 0 {
        let kvs = kvs.by_ref().take(TURN_PAIRS).collect();
        RangeResponse { kvs, ..RangeResponse::default() }.encode(buffer)?;
        std::thread::yield_now();
    }
    RangeResponse { more, count, ..RangeResponse::default() }.encode(buffer)
}

fn failed(error: &EncodeError) -> Status {
    Status::internal(format!("a message cannot be encoded: {error}"))
}

/// Runs work that takes long on this thread, after its tasks were handed to another one when it serves any.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(work)
        }
        Ok(_) | Err(_) => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// The one serving thread is busy aside; a task still runs.
    #[test]
    fn tasks_go_on_while_work_is_done_aside() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (ran, has_run) = mpsc::sync_channel(1);
        let busy = runtime.spawn(async move {
            tokio::spawn(async move { ran.send(()).unwrap() });
            aside(|| has_run.recv_timeout(Duration::from_secs(60)))
        });
        assert_eq!(runtime.block_on(busy).unwrap(), Ok(()));
    }

    /// Pieces of a list make the bytes that prost makes of the whole.
    #[test]
    fn a_long_list_has_the_bytes_of_a_short_one() {
        let pair = |number: usize| crate::mvccpb::KeyValue {
            key: format!("key/{number}").into(),
            value: vec![7; 300].into(),
            mod_revision: 9,
            ..Default::default()
        };
        let header = Some(crate::etcdserverpb::ResponseHeader { revision: 9, ..Default::default() });
        let list = RangeResponse { header, kvs: (0..150).map(pair).collect(), more: true, count: 2_000 };
        let expected = list.encode_to_vec();
        let mut bytes = Vec::new();
        encode_in_turns(list, &mut bytes).unwrap();
        assert!(bytes == expected, "{} bytes are not the {} of prost", bytes.len(), expected.len());
    }

    #[test]
    fn work_is_done_where_nothing_can_be_handed_over() {
        assert_eq!(aside(|| 1), 1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(async { aside(|| 2) }), 2);
    }
}
