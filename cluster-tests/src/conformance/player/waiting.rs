//! Calls that are made and left waiting, while the script goes on.
//!
//! A call that stands in a line has its key there before the next call is made, and one that went away has none: both
//! change the store, and the player waits for that.

use anyhow::{Context, bail};
use bytes::Bytes;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::{PATIENCE, POLL, Player};
use crate::conformance::call::{Answer, BytesCodec, path, send_to};
use crate::conformance::script::Call;

/// A call whose answers were not asked for yet.
#[derive(Debug)]
pub(super) enum Waiting {
    /// It has one answer.
    Call(JoinHandle<Answer>),
    /// It has any number of them.
    Stream(JoinHandle<()>, mpsc::Receiver<Answer>),
}

/// Answers of a stream that wait to be asked for. Full, the stream is read no further.
const ANSWERS_MAX: usize = 64;

impl Drop for Waiting {
    fn drop(&mut self) {
        match self {
            Self::Call(call) => call.abort(),
            Self::Stream(reader, _) => reader.abort(),
        }
    }
}

impl Player<'_> {
    pub(super) async fn begin(&mut self, number: usize, call: &Call, name: &str) -> anyhow::Result<Answer> {
        let channel = self.members.channel(number).clone();
        let (method, request) = (call.method.clone(), call.request(self.revisions)?);
        let waiting = if method.is_server_streaming() {
            let (sender, answers) = mpsc::channel(ANSWERS_MAX);
            Waiting::Stream(tokio::spawn(read(channel, method, request, sender)), answers)
        } else {
            let waiting = tokio::spawn(async move { send_to(&channel, &method, request, None).await });
            let waiting = Waiting::Call(waiting);
            self.until_changed(number).await?;
            waiting
        };
        self.waiting.insert(name.to_owned(), waiting);
        Ok(Answer::Stream(Vec::new(), None))
    }

    pub(super) async fn await_answer(&mut self, name: &str) -> anyhow::Result<Answer> {
        let Some(waiting) = self.waiting.get_mut(name) else { bail!("no call is waiting as {name}") };
        let answer = match waiting {
            Waiting::Call(call) => timeout(PATIENCE, call).await.map(|answer| Ok(answer?)),
            Waiting::Stream(_, answers) => {
                timeout(PATIENCE, answers.recv()).await.map(|answer| answer.context("it has ended before"))
            }
        };
        if let Waiting::Call(_) = waiting {
            self.waiting.remove(name);
        }
        match answer {
            Ok(answer) => answer,
            Err(_) => {
                self.fault(format!("{name} was not answered in time"));
                Ok(Answer::Stream(Vec::new(), None))
            }
        }
    }

    pub(super) async fn quit(&mut self, number: usize, name: &str) -> anyhow::Result<Answer> {
        let Some(left) = self.waiting.remove(name) else { bail!("no call is waiting as {name}") };
        let has_place = matches!(left, Waiting::Call(_));
        drop(left);
        if has_place {
            self.until_changed(number).await?;
        }
        Ok(Answer::Stream(Vec::new(), None))
    }

    /// Waits until the store has a revision that no answer has shown yet.
    async fn until_changed(&mut self, number: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.members.revision(number).await.context("reading the store's revision")?;
            if now > self.revisions.head {
                self.revisions.head = now;
                return Ok(());
            }
            if Instant::now() >= deadline {
                self.fault("a call that was to change the store did not in time".to_owned());
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Hands on what comes, and last how the stream ended. It may be opened by its first answer only.
async fn read(channel: Channel, method: MethodDescriptor, request: Bytes, answers: mpsc::Sender<Answer>) {
    let mut stream = match open(&channel, &method, request).await {
        Ok(stream) => stream,
        Err(status) => return drop(answers.send(refused(&status)).await),
    };
    loop {
        let answer = next(&method, &mut stream).await;
        let is_last = !matches!(answer, Answer::Ok(_));
        // Nobody listens any more: the script has gone away from it.
        if answers.send(answer).await.is_err() || is_last {
            return;
        }
    }
}

async fn open(
    channel: &Channel,
    method: &MethodDescriptor,
    request: Bytes,
) -> Result<Streaming<Bytes>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|error| Status::unavailable(format!("conformance: {error}")))?;
    Ok(grpc.server_streaming(Request::new(request), path(method), BytesCodec).await?.into_inner())
}

async fn next(method: &MethodDescriptor, answers: &mut Streaming<Bytes>) -> Answer {
    match answers.message().await {
        Ok(Some(body)) => match DynamicMessage::decode(method.output(), body) {
            Ok(message) => Answer::Ok(message),
            Err(error) => refused(&Status::internal(format!("conformance: undecodable response: {error}"))),
        },
        Ok(None) => refused(&Status::ok("the stream ended")),
        Err(status) => refused(&status),
    }
}

fn refused(status: &Status) -> Answer {
    Answer::Err(status.code(), status.message().to_owned())
}
