//! Maintenance.Snapshot: the state of this member at one revision, as the database file that etcd's tools read.
//!
//! The file is written first, aside, so that its length is known and a slow client holds up nothing: the compactions wait
//! as long as the file is written, not as long as it is sent. Then it is sent as etcd sends its own: pieces of 32 KiB, each
//! with what is left behind it, and last the SHA-256 of all, with nothing left.
//!
//! Everything is done when the transport asks for it: a client that has gone is not asked for, and with the stream the
//! file goes. As in etcd no leader is needed: what one member has left of a lost cluster can be saved.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use holdfast_proto::etcdserverpb as pb;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use crate::backup::build::{Build, Built, Cluster};
use crate::backup::room::NoSnapshot;
use crate::backup::schema;
use crate::frontend::{Blocking, Call, Frontend};
use crate::limits;
use crate::status::Failure;

/// The messages of a stream.
pub type Blobs = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

/// Takes a place, or says why there is none; the work begins when the stream is read.
pub fn open(frontend: &Arc<Frontend>, call: Call) -> Result<Blobs, Failure> {
    if frontend.is_poisoned() {
        return Err(Failure::Unfit);
    }
    let place = frontend.snapshots.enter(frontend.storage.status().logical_bytes)?;
    let sending = Sending { frontend: Arc::clone(frontend), _place: place };
    let begin = Next::Build(sending, call);
    Ok(Box::pin(stream::try_unfold(begin, |next| async move { next.go().await.map_err(Status::from) })))
}

/// One stream.
struct Sending {
    frontend: Arc<Frontend>,
    _place: OwnedSemaphorePermit,
}

/// A file on its way to a client.
struct Sent {
    built: Built,
    at: u64,
    sha: Sha256,
    /// Read, hashed, and not sent yet.
    read: Bytes,
}

/// What a stream does next.
enum Next {
    Build(Sending, Call),
    Send(Sending, Sent),
    End,
}

impl Next {
    async fn go(self) -> Result<Option<(pb::SnapshotResponse, Self)>, Failure> {
        let (sending, sent) = match self {
            Self::Build(sending, call) => {
                let built = sending.build(call).await?;
                (sending, Sent { built, at: 0, sha: Sha256::new(), read: Bytes::new() })
            }
            Self::Send(sending, sent) => (sending, sent),
            Self::End => return Ok(None),
        };
        sending.send(sent).await.map(Some)
    }
}

impl Sending {
    async fn build(&self, call: Call) -> Result<Built, Failure> {
        let frontend = &self.frontend;
        let began = frontend.now();
        let export = frontend.within_budget(call, frontend.storage.export()).await?;
        let export = export.map_err(|_| Failure::Stopped)?;
        let cluster = Cluster {
            members: frontend.node.members(),
            attributes: export.head().members.clone(),
            removed: frontend.node.removed_members(),
        };
        let room = Arc::clone(&frontend.snapshots);
        let mut build = self.aside(move || Build::begin(export, cluster, &room)).await?;
        loop {
            let room = Arc::clone(&frontend.snapshots);
            let step = move || build.step(&room).map(|is_more| (build, is_more));
            let before = frontend.now();
            let (again, is_more) = self.aside(step).await?;
            build = again;
            if !is_more {
                break;
            }
            // Leaves half of a core to others.
            frontend.rest(frontend.now().since(before).min(limits::SNAPSHOT_REST_MAX)).await;
        }
        let built = self.aside(move || build.finish()).await?;
        let took = frontend.now().since(began);
        tracing::info!(
            revision = built.revision.get(),
            bytes = built.bytes,
            ?took,
            "a snapshot goes to a client"
        );
        Ok(built)
    }

    async fn send(self, mut sent: Sent) -> Result<(pb::SnapshotResponse, Next), Failure> {
        if sent.read.is_empty() {
            sent = self.aside(move || sent.read_on()).await?;
        }
        if sent.read.is_empty() {
            let sum = sent.sha.finalize();
            return Ok((message(Bytes::copy_from_slice(&sum), 0), Next::End));
        }
        let blob = sent.read.split_to(limits::SNAPSHOT_BLOB_BYTES.min(sent.read.len()));
        let remaining = sent.built.bytes - sent.at + sent.read.len() as u64;
        Ok((message(blob, remaining), Next::Send(self, sent)))
    }

    /// Runs something that waits for the disk, on a thread that may block.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        if self.frontend.stop.is_cancelled() {
            return Err(Failure::Stopped);
        }
        self.frontend.blocking(self.frontend.internal_call(), Blocking::Short, move |_| work()).await?
    }
}

impl Sent {
    /// Reads the next part; nothing at the end.
    fn read_on(mut self) -> Result<Self, Failure> {
        let left = usize::try_from(self.built.bytes - self.at).unwrap_or(usize::MAX);
        let mut part = vec![0; left.min(limits::SNAPSHOT_READ_BYTES)];
        self.built.file.file.read_exact_at(&mut part, self.at).map_err(NoSnapshot::Disk)?;
        self.sha.update(&part);
        self.at += part.len() as u64;
        self.read = part.into();
        Ok(self)
    }
}

fn message(blob: Bytes, remaining_bytes: u64) -> pb::SnapshotResponse {
    // etcd's answers have no header.
    pb::SnapshotResponse { header: None, remaining_bytes, blob, version: schema::VERSION.to_owned() }
}

const _: () = assert!(limits::SNAPSHOT_READ_BYTES.is_multiple_of(limits::SNAPSHOT_BLOB_BYTES));
const _: () = assert!(limits::SNAPSHOT_REST_MAX.as_millis() < Duration::from_secs(1).as_millis());
