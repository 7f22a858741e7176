//! Writes the file of a snapshot, a piece at a time: buckets in the order of their names, the keys' one from the export.

use holdfast_bolt::{WriteError, Writer};
use holdfast_mvcc::command::MemberAttributes;
use holdfast_mvcc::types::{LeaseId, MemberId, Revision};
use holdfast_raft::Member;
use holdfast_storage::{Export, ExportError};

use super::rights;
use super::room::{NoSnapshot, Room, TemporaryFile};
use super::schema::{self, ConfState, StoredMember, bucket, name};
use crate::limits;
use crate::status::Failure;

/// Who takes part, for the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The members, ascending by id.
    pub members: Vec<Member>,
    /// What they have told.
    pub attributes: Vec<MemberAttributes>,
    /// Who was a member before, ascending.
    pub removed: Vec<MemberId>,
}

/// A file that is being written.
pub struct Build {
    export: Export,
    cluster: Cluster,
    writer: Writer,
    file: TemporaryFile,
    written: u64,
}

/// A file that is whole.
pub struct Built {
    /// Its content.
    pub file: TemporaryFile,
    /// Its length.
    pub bytes: u64,
    /// The revision it is at.
    pub revision: Revision,
}

impl Build {
    /// Begins with what comes before the keys.
    ///
    /// # Errors
    /// The disk refused.
    pub fn begin(export: Export, cluster: Cluster, room: &Room) -> Result<Self, Failure> {
        let file = room.create()?;
        let mut build = Self { export, cluster, writer: Writer::new(), file, written: 0 };
        build.before_the_keys().expect("names and keys ascend, and are short");
        Ok(build)
    }

    /// Writes the next keys; false when there are no more. Blocks on the store and on the disk.
    ///
    /// # Errors
    /// The export or the disk cannot go on, or the log needs the room.
    pub fn step(&mut self, room: &Room) -> Result<bool, Failure> {
        room.check_free(limits::SNAPSHOT_FREE_BYTES / 2)?;
        let mut goes_on = true;
        // A page of the store is smaller, with packs of 4 KiB.
        while goes_on && self.writer.ready_bytes() < limits::SNAPSHOT_PIECE_BYTES {
            let page = self.export.page(limits::SNAPSHOT_PIECE_BYTES).map_err(|error| match error {
                ExportError::Store(reason) => Failure::Store(reason),
                ExportError::Replaced => NoSnapshot::Replaced.into(),
                ExportError::Closed => Failure::Stopped,
            })?;
            goes_on = page.is_some();
            for record in page.unwrap_or_default() {
                let (key, value) = schema::record(record);
                self.writer.put(&key, &value).expect("records ascend, and none is above the largest request");
            }
        }
        self.flush()?;
        Ok(goes_on)
    }

    /// Writes what comes behind the keys, and ends the file.
    ///
    /// # Errors
    /// The disk refused.
    pub fn finish(mut self) -> Result<Built, Failure> {
        self.behind_the_keys().expect("names and keys ascend, and are short");
        self.flush()?;
        let finished = self.writer.finish().expect("the last bucket's name is short");
        let write = |bytes: &[u8], at| self.file.file.write_all_at(bytes, at);
        let written = write(&finished.rest, self.written).and_then(|()| write(&finished.metas, 0));
        written.map_err(NoSnapshot::Disk)?;
        Ok(Built { file: self.file, bytes: finished.bytes, revision: self.export.head().revision })
    }

    /// In small parts, each made durable: the log's own writes wait behind what the disk has been given at once.
    fn flush(&mut self) -> Result<(), Failure> {
        let ready = self.writer.take();
        let file = &self.file.file;
        let flushed = file.write_all_at(&ready, self.written).and_then(|()| file.sync_data());
        flushed.map_err(NoSnapshot::Disk)?;
        self.written += ready.len() as u64;
        Ok(())
    }

    fn before_the_keys(&mut self) -> Result<(), WriteError> {
        let writer = &mut self.writer;
        writer.bucket(bucket::ALARM)?;
        let mut alarms: Vec<_> = self.export.head().alarms.iter().map(schema::alarm).collect();
        alarms.sort_unstable();
        alarms.iter().try_for_each(|alarm| writer.put(alarm, b""))?;
        rights::write(writer, &self.export.head().auth)?;
        writer.bucket(bucket::CLUSTER)?;
        writer.put(name::CLUSTER_VERSION, schema::VERSION.as_bytes())?;
        writer.bucket(bucket::KEY)
    }

    fn behind_the_keys(&mut self) -> Result<(), WriteError> {
        let (writer, export) = (&mut self.writer, &self.export);
        writer.bucket(bucket::LEASE)?;
        // As unsigned numbers, those below zero are the largest.
        let (below_zero, rest) =
            export.leases().split_at(export.leases().partition_point(|(id, _)| *id < LeaseId(0)));
        for (id, lease) in rest.iter().chain(below_zero) {
            let (key, value) = schema::lease(*id, lease);
            writer.put(&key, &value)?;
        }
        writer.bucket(bucket::MEMBERS)?;
        let mut members: Vec<_> =
            self.cluster.members.iter().map(|member| stored(member, &self.cluster)).collect();
        members.sort_unstable();
        members.iter().try_for_each(|(key, value)| writer.put(key, value))?;
        writer.bucket(bucket::MEMBERS_REMOVED)?;
        let mut removed: Vec<_> = self.cluster.removed.iter().map(|id| schema::member_key(id.0)).collect();
        removed.sort_unstable();
        removed.iter().try_for_each(|key| writer.put(key, b"removed"))?;
        self.meta()
    }

    fn meta(&mut self) -> Result<(), WriteError> {
        let ids = |is_learner| {
            let such = self.cluster.members.iter().filter(move |member| member.is_learner == is_learner);
            such.map(|member| member.id.0).collect()
        };
        let state = ConfState { voters: ids(false), learners: ids(true), auto_leave: false };
        let log_id = self.export.log_id();
        let index = log_id.map_or(0, |id| id.index().get());
        let term = log_id.map_or(0, |id| id.term().get());
        let writer = &mut self.writer;
        writer.bucket(bucket::META)?;
        writer.put(name::CONF_STATE, &json(&state))?;
        writer.put(name::CONSISTENT_INDEX, &index.to_be_bytes())?;
        if let Some(compacted) = self.export.head().compact_revision {
            // What is not retained is not in the file: whatever our scrub has still to do, here it is done.
            let compacted = schema::revision(compacted);
            writer.put(name::FINISHED_COMPACTION, &compacted)?;
            writer.put(name::SCHEDULED_COMPACTION, &compacted)?;
        }
        writer.put(name::TERM, &term.to_be_bytes())
    }
}

fn stored(member: &Member, cluster: &Cluster) -> (Vec<u8>, Vec<u8>) {
    let told = cluster.attributes.iter().find(|attributes| attributes.id == member.id);
    let value = StoredMember {
        id: member.id.0,
        peer_urls: member.peer_urls.clone(),
        is_learner: member.is_learner,
        name: told.map(|told| told.name.clone()).unwrap_or_default(),
        client_urls: told.map(|told| told.client_urls.clone()).unwrap_or_default(),
    };
    (schema::member_key(member.id.0), json(&value))
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("numbers and text become JSON")
}
