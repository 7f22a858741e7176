//! Makes the data directory of a member that begins with a snapshot's file, of etcd or ours.
//!
//! # How
//! The file becomes a snapshot of this member's own kind, with who takes part in it, at a place in the log where no leader
//! has ever written ([`holdfast_raft::founding_position`]). The log itself is empty. So a start finds what a member finds
//! that has lost its stable store and kept its snapshot: it builds the store, and takes part with a log that begins behind
//! the snapshot. Every member of the new cluster is restored from the same file with the same `--initial-cluster`, and has
//! the same snapshot then.
//!
//! IDENTITY, which makes a directory one that a member can be started on, is written last: what a restore that was cut off
//! leaves behind is refused by a start, and by a restore.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_env::Env;
use holdfast_mvcc::Head;
use holdfast_mvcc::command::Alarm;
use holdfast_mvcc::types::{Lease, LeaseId};
use holdfast_raft::founding_position;
use holdfast_storage::{Founding, StorageError};
use sha2::{Digest, Sha256};

use super::file::{Checksum, Database, FileError};
use super::history::{Bump, History};
use super::schema::{self, bucket, name};
use super::{look, rights};
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError};
use crate::identity::Identity;
use crate::server::initial_members;

/// What becomes of users and roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// They are as they were, and count when they did.
    Kept,
    /// There are none, and everybody may do everything.
    LeftOut,
}

/// What is to be restored.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The file.
    pub snapshot: &'a Path,
    /// Whether its checksum counts.
    pub checksum: Checksum,
    /// Higher revisions, with all that came before compacted.
    pub bump: Option<Bump>,
    /// What becomes of users and roles.
    pub rights: Rights,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The member's id.
    pub member_id: u64,
    /// The cluster's id.
    pub cluster_id: u64,
    /// The newest revision.
    pub revision: u64,
    /// Records.
    pub records: u64,
    /// Leases.
    pub leases: usize,
    /// Keys whose lease is not in the file: they live on without one.
    pub orphans: usize,
    /// The directory.
    pub data_dir: PathBuf,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// It belongs to a member.
    #[error(
        "data directory {}: it belongs to a member already: give an empty or new directory with --data-dir",
        path.display()
    )]
    Taken {
        /// The directory.
        path: PathBuf,
    },
    /// The snapshot could not be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Restores. Blocks on files, and takes about the memory of the member's key index.
///
/// # Errors
/// Nothing is left in the data directory that a member could be started on.
pub fn restore(env: &Env, config: &Config, request: &Request<'_>) -> Result<Restored, RestoreError> {
    if DataDir::owner(env, &config.data_dir)?.is_some() {
        return Err(RestoreError::Taken { path: config.data_dir.clone() });
    }
    let database = Database::open(&env.disk, request.snapshot, request.checksum)?;
    let auth = match request.rights {
        Rights::Kept => Arc::new(rights::read(&database)?),
        Rights::LeftOut => Arc::default(),
    };
    let leases = leases(&database)?;
    let ids: HashSet<LeaseId> = leases.iter().map(|(id, _)| *id).collect();
    let history = History::judge(&database, look::compact_revision(&database)?, &ids, request.bump)?;
    let head = Head {
        revision: history.revision,
        compact_revision: history.compact_revision,
        // They tell their names when they start.
        members: Vec::new(),
        alarms: alarms(&database)?,
        auth,
    };
    let digest = digest(&database, request)?;
    let identity = Identity::of(config);
    let data_dir = DataDir::lock(env, &config.data_dir, &identity)?;
    let mut records = 0;
    let founded = found(env, &data_dir, config, (head, digest), &leases, |founding| {
        history.each(&database, |record| {
            records += 1;
            Ok(founding.record(record)?)
        })
    });
    if let Err(error) = founded.and_then(|()| Ok(data_dir.mark()?)) {
        clear(env, &data_dir);
        return Err(error);
    }
    Ok(Restored {
        member_id: identity.member_id.0,
        cluster_id: identity.cluster_id,
        revision: history.revision.get(),
        records,
        leases: leases.len(),
        orphans: history.orphans(),
        data_dir: config.data_dir.clone(),
    })
}

fn found(
    env: &Env,
    data_dir: &DataDir,
    config: &Config,
    (head, digest): (Head, u16),
    leases: &[(LeaseId, Lease)],
    records: impl FnOnce(&mut Founding) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    let position = founding_position(&initial_members(config), head.revision, digest);
    let mut founding = Founding::begin(env, &data_dir.store_dir(), head, position)?;
    founding.leases(leases)?;
    records(&mut founding)?;
    founding.finish()?;
    Ok(())
}

/// Of all that becomes the state, and of how: two files of one revision may differ in leases, users and roles, and one file may
/// be restored with them and without.
fn digest(database: &Database, request: &Request<'_>) -> Result<u16, FileError> {
    let mut sha = Sha256::new();
    let mut add = |bytes: &[u8]| {
        sha.update((bytes.len() as u64).to_le_bytes());
        sha.update(bytes);
    };
    let rights = [bucket::AUTH, bucket::AUTH_ROLES, bucket::AUTH_USERS];
    let rights = if request.rights == Rights::Kept { &rights[..] } else { &[] };
    for bucket in [bucket::KEY, bucket::LEASE, bucket::ALARM].iter().chain(rights) {
        add(bucket);
        database.each(bucket, |key, value| {
            add(key);
            add(value);
            Ok::<_, FileError>(())
        })?;
    }
    for revision in [name::FINISHED_COMPACTION, name::SCHEDULED_COMPACTION] {
        add(&database.value(bucket::META, revision)?.unwrap_or_default());
    }
    add(&request.bump.map_or(0, |bump| bump.by).to_le_bytes());
    let digest = sha.finalize();
    Ok(u16::from_le_bytes([digest[0], digest[1]]))
}

/// Takes away what was written, so that the directory can be used again.
fn clear(env: &Env, data_dir: &DataDir) {
    // First what would have a start take the rest for whole.
    let cleared = data_dir.unmark().and_then(|()| env.disk.remove_dir_all(&data_dir.store_dir()));
    if let Err(error) = cleared {
        tracing::warn!(%error, "a part of what was to be restored stays in the data directory");
    }
}

/// The leases of a file, ascending by id as holdfast counts them.
fn leases(database: &Database) -> Result<Vec<(LeaseId, Lease)>, FileError> {
    let mut leases = Vec::new();
    database.each(bucket::LEASE, |key, value| {
        leases.push(schema::decode_lease(key, value).ok_or_else(|| database.impossible("a lease is none"))?);
        Ok::<_, FileError>(())
    })?;
    leases.sort_unstable_by_key(|(id, _)| *id);
    Ok(leases)
}

fn alarms(database: &Database) -> Result<Vec<Alarm>, FileError> {
    let mut alarms = Vec::new();
    database.each(bucket::ALARM, |key, _| {
        alarms.extend(schema::decode_alarm(key));
        Ok::<_, FileError>(())
    })?;
    alarms.sort_unstable();
    alarms.dedup();
    Ok(alarms)
}
