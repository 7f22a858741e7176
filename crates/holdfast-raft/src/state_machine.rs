//! openraft's state machine on [`Storage`].
//!
//! Applying means handing entries to the dispatcher, in log order, each with the asker that waits for it on this
//! member. openraft's own responders get an empty answer at once: the real answers come from the dispatcher when the
//! effects are visible.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{Stream, StreamExt};
use holdfast_storage::{Applied, DispatchBody, DispatchItem, IncomingSnapshot, Snapshot, StorageError};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;

use crate::codec::{self, CodecError, EntryBody, Proposal};
use crate::limits::FRAME_PAYLOAD_BYTES;
use crate::peer::roster::Departure;
use crate::shared::{RunningDump, Shared};
use crate::types::{
    Membership, RaftEntry, RaftLogId, SnapshotMeta, StoredMembership, TypeConfig, from_raft, to_raft,
};

/// Entries that go to the dispatcher at once, so that one long backlog does not fill its queue in one step.
const DISPATCH_ENTRIES_MAX: usize = 512;

/// A snapshot, as openraft carries it around.
pub(crate) enum SnapshotData {
    /// On this member's disk, verified.
    Local(Snapshot),
    /// Received from the leader, to be verified and installed.
    Incoming(IncomingSnapshot),
    /// There is none: a dump failed before the first snapshot, or the last one was found damaged.
    None,
}

type RaftSnapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// The state machine, as openraft wants it.
pub(crate) struct StateMachine {
    shared: Arc<Shared>,
    /// What was handed to the dispatcher.
    applied: Applied,
    /// Who takes part as of `applied`, and who did before.
    ids: Ids,
}

/// The ids of a membership, and of those that are used up. Found from the applied entries alone, so that it is the
/// same on every member.
#[derive(Debug, Default)]
struct Ids {
    members: BTreeSet<u64>,
    removed: BTreeSet<u64>,
}

impl Ids {
    fn of(applied: &Applied) -> Result<Self, CodecError> {
        let Some((_, bytes)) = &applied.membership else { return Ok(Self::default()) };
        let membership = codec::decode_membership(bytes.clone())?;
        Ok(Self { members: node_ids(&membership), removed: codec::decode_removed(bytes.clone())? })
    }

    fn apply(&mut self, membership: &Membership) {
        let members = node_ids(membership);
        self.removed.extend(self.members.difference(&members));
        self.members = members;
    }
}

fn node_ids(membership: &Membership) -> BTreeSet<u64> {
    membership.nodes().map(|(id, _)| *id).collect()
}

impl StateMachine {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, CodecError> {
        let applied = shared.storage.applied();
        let ids = Ids::of(&applied)?;
        shared.roster.set_removed(&ids.removed);
        Ok(Self { shared, applied, ids })
    }

    fn item(&mut self, entry: RaftEntry) -> Result<(DispatchItem, usize), io::Error> {
        let log_id = from_raft(&entry.log_id);
        self.applied.log_id = Some(log_id);
        let (body, bytes) = match entry.payload {
            EntryPayload::Blank => (DispatchBody::Blank, 0),
            EntryPayload::Membership(membership) => {
                self.ids.apply(&membership);
                self.shared.roster.set_removed(&self.ids.removed);
                if self.ids.removed.contains(&self.shared.config.id.0) {
                    self.shared.roster.depart(Departure::Removed);
                }
                let bytes = codec::encode_applied_membership(&membership, &self.ids.removed);
                self.applied.membership = Some((log_id, bytes.clone()));
                let len = bytes.len();
                (DispatchBody::Membership(bytes), len)
            }
            EntryPayload::Normal(payload) => {
                let len = payload.0.len();
                let malformed = |what: String| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("log entry {log_id}: {what}"))
                };
                match codec::decode_body(payload.0).map_err(|error| malformed(error.to_string()))? {
                    EntryBody::Proposal(proposal) => {
                        let ours = proposal.origin == self.shared.config.id.0;
                        let respond =
                            if ours { self.shared.proposals.claim(proposal.sequence) } else { None };
                        let Proposal { command, caller, .. } = proposal;
                        (DispatchBody::Command { command, caller, respond }, len)
                    }
                    other => return Err(malformed(format!("expected a proposal, found {other:?}"))),
                }
            }
        };
        Ok((DispatchItem { log_id, body }, bytes))
    }

    /// Hands entries to the storage. Once the storage is poisoned they are dropped, their askers with them: they are
    /// applied after the restart that rebuilds it.
    async fn dispatch(&self, items: Vec<DispatchItem>, sizes: &[(u64, u64)]) -> Result<(), io::Error> {
        if self.shared.storage.is_poisoned() {
            return Ok(());
        }
        let commands = items.iter().filter(|item| matches!(item.body, DispatchBody::Command { .. })).count();
        match self.shared.storage.dispatch(items).await {
            Ok(()) => {}
            Err(error @ StorageError::Poisoned { .. }) => {
                tracing::error!(%error, "nothing is applied on this member any more");
                return Ok(());
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        self.shared.counters.proposals_committed.fetch_add(commands as u64, Ordering::Relaxed);
        let wants_dump = {
            let mut log_size = self.shared.log_size.lock();
            sizes.iter().for_each(|(index, bytes)| log_size.applied(*index, *bytes));
            log_size.wants_dump(self.shared.config.dump_log_bytes)
        };
        if wants_dump {
            self.shared.dump_hint.notify_one();
        }
        Ok(())
    }

    /// Takes up the dump that somebody has demanded, or seals the state for one.
    async fn start_builder(&self) -> Result<SnapshotBuilder, StorageError> {
        let demanded = self.shared.demanded.lock().take();
        let dump = match demanded {
            Some(dump) => dump,
            None => self.shared.storage.start_dump_by_policy().await?,
        };
        Ok(SnapshotBuilder { shared: Arc::clone(&self.shared), dump: Mutex::new(Some(dump)) })
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, StoredMembership), io::Error> {
        let meta = meta_of(&self.applied)?;
        Ok((meta.last_log_id, meta.last_membership))
    }

    #[tracing::instrument(level = "debug", name = "apply", skip_all)]
    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut items = Vec::new();
        let mut sizes = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let index = entry.log_id.index;
            let (item, item_bytes) = self.item(entry)?;
            items.push(item);
            sizes.push((index, holdfast_log::entry_bytes(item_bytes) as u64));
            bytes += item_bytes;
            if let Some(responder) = responder {
                responder.send(());
            }
            if items.len() >= DISPATCH_ENTRIES_MAX || bytes >= FRAME_PAYLOAD_BYTES {
                self.dispatch(std::mem::take(&mut items), &sizes).await?;
                sizes.clear();
                bytes = 0;
            }
        }
        if !items.is_empty() {
            self.dispatch(items, &sizes).await?;
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        match self.start_builder().await {
            Ok(builder) => Some(builder),
            Err(error) if force => {
                tracing::error!(%error, "a snapshot is needed and cannot be started");
                Some(SnapshotBuilder { shared: Arc::clone(&self.shared), dump: Mutex::new(None) })
            }
            Err(error) => {
                tracing::warn!(%error, "the dump does not start; it is tried again with more log");
                self.shared.log_size.lock().dump_failed(self.shared.config.dump_log_bytes);
                None
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let builder = self.try_create_snapshot_builder(true).await;
        builder.expect("a forced builder is always given")
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let incoming = match snapshot {
            SnapshotData::Incoming(incoming) => incoming,
            SnapshotData::Local(local) => copy(&self.shared, &local)?,
            SnapshotData::None => return Err(io::Error::other("there is no snapshot to install")),
        };
        self.shared.storage.install(incoming).await.map_err(io::Error::other)?;
        self.applied = self.shared.storage.applied();
        self.ids = Ids::of(&self.applied).map_err(io::Error::other)?;
        self.shared.roster.set_removed(&self.ids.removed);
        let installed = self.applied.log_id.map(to_raft);
        if installed != meta.last_log_id {
            return Err(io::Error::other(format!(
                "the installed snapshot ends at {installed:?}, announced was {:?}",
                meta.last_log_id
            )));
        }
        let bytes = self.shared.storage.current_snapshot().map_or(0, |snapshot| snapshot.bytes);
        self.shared.log_size.lock().snapshot_installed(bytes);
        Ok(())
    }

    /// None is the end of this member when a follower needs one. When one was found damaged, the follower waits for the
    /// dump that replaces it.
    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        match self.shared.storage.current_snapshot() {
            Some(snapshot) => into_raft(snapshot).map(Some),
            None if *self.shared.storage.damaged_snapshots().borrow() > 0 => Ok(Some(no_snapshot())),
            None => Ok(None),
        }
    }
}

/// Waits for a dump that has been sealed.
pub(crate) struct SnapshotBuilder {
    shared: Arc<Shared>,
    /// `None` when the dump did not start. Locked only because openraft wants builders that can be shared.
    dump: Mutex<Option<RunningDump>>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    /// The finished snapshot. When the dump fails (a full disk, for one), the snapshot before stays the newest and is
    /// given again: a failed dump must not stop the member.
    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        let dump = self.dump.get_mut().take();
        let built = match dump {
            Some(dump) => dump.await,
            None => Err(StorageError::Closed),
        };
        let result = match built {
            Ok(snapshot) => {
                let last = snapshot.applied.log_id.map_or(0, |id| id.index().get());
                self.shared.log_size.lock().snapshot_taken(snapshot.bytes, last);
                into_raft(snapshot)
            }
            Err(error) => {
                tracing::error!(%error, "the dump failed; it is tried again with more log, which cannot shrink meanwhile");
                self.shared.log_size.lock().dump_failed(self.shared.config.dump_log_bytes);
                match self.shared.storage.current_snapshot() {
                    Some(snapshot) => into_raft(snapshot),
                    None => Ok(no_snapshot()),
                }
            }
        };
        self.shared.dump_hint.notify_one();
        result
    }
}

fn no_snapshot() -> RaftSnapshot {
    RaftSnapshot { meta: SnapshotMeta::default(), snapshot: SnapshotData::None }
}

fn into_raft(snapshot: Snapshot) -> Result<RaftSnapshot, io::Error> {
    Ok(RaftSnapshot { meta: meta_of(&snapshot.applied)?, snapshot: SnapshotData::Local(snapshot) })
}

fn meta_of(applied: &Applied) -> Result<SnapshotMeta, io::Error> {
    let last_membership = match &applied.membership {
        Some((log_id, bytes)) => {
            let membership = codec::decode_membership(bytes.clone()).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("membership: {error}"))
            })?;
            StoredMembership::new(Some(to_raft(*log_id)), membership)
        }
        None => StoredMembership::new(None, Membership::default()),
    };
    Ok(SnapshotMeta { last_log_id: applied.log_id.map(to_raft), last_membership })
}

/// Takes a local snapshot in as if it came from a peer. Happens at a start only, when the stable store lost what the
/// snapshot holds.
fn copy(shared: &Shared, local: &Snapshot) -> Result<IncomingSnapshot, io::Error> {
    let mut incoming = shared.storage.receive_snapshot().map_err(io::Error::other)?;
    let mut offset = 0;
    while offset < local.bytes {
        let len = usize::try_from(local.bytes - offset).unwrap_or(usize::MAX).min(FRAME_PAYLOAD_BYTES);
        let mut chunk = vec![0; len];
        local.file.read_exact_at(&mut chunk, offset)?;
        incoming.write(&chunk).map_err(io::Error::other)?;
        offset += len as u64;
    }
    Ok(incoming)
}
