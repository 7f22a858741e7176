//! How the generated services put messages into bytes: prost's encoding, with long messages aside.
//!
//! A message of many MiB takes a thread for a tenth of a second and more. On a thread that serves a runtime's tasks the
//! others (a heartbeat, an answer) would wait for it: so that thread hands them to another one first.

use std::marker::PhantomData;

use prost::Message;
use tokio::runtime::{Handle, RuntimeFlavor};
use tonic::Status;
use tonic::codec::{BufferSettings, EncodeBuf, Encoder};
use tonic_prost::ProstCodec;

/// Messages from this many bytes on are encoded aside: some hundred microseconds of work, beside some ten that it takes
/// to hand the tasks over.
const ASIDE_BYTES: usize = 1 << 20;

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

impl<T: Message> Encoder for AsideEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // The message is dropped there, too: with a million pairs that takes as long.
        let bytes = item.encoded_len();
        let encoded =
            if bytes < ASIDE_BYTES { item.encode(buffer) } else { aside(move || item.encode(buffer)) };
        encoded.map_err(|error| {
            Status::internal(format!("a message of {bytes} bytes cannot be encoded: {error}"))
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
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

    #[test]
    fn work_is_done_where_nothing_can_be_handed_over() {
        assert_eq!(aside(|| 1), 1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(async { aside(|| 2) }), 2);
    }
}
