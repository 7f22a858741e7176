//! What is in a snapshot's file: etcdctl's four figures, and more.

use holdfast_mvcc::types::Revision;

use super::file::{Database, FileError};
use super::schema::{self, RecordKey, StoredMember, bucket, name};

/// What `snapshot status` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Status {
    /// CRC-32C over the names of all buckets, each followed by its keys and values: etcdctl's.
    pub hash: u32,
    /// The last revision of the bucket of keys.
    pub revision: u64,
    /// Pairs in all buckets.
    #[serde(rename = "totalKey")]
    pub pairs: u64,
    /// The length of the database.
    #[serde(rename = "totalSize")]
    pub bytes: u64,
}

/// What is in a file beside its keys.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Contents {
    /// True when a checksum was at the end of the file.
    pub checksum: bool,
    /// The length of the database.
    pub bytes: u64,
    /// The buckets, ascending by name.
    pub buckets: Vec<BucketSize>,
    /// The first revision of which something is kept; 0 when nothing is.
    pub first_revision: u64,
    /// The last one; 0 when nothing is kept.
    pub last_revision: u64,
    /// Deletes among the records.
    pub deletes: u64,
    /// The lowest revision that can be read; `None` when nothing was ever compacted.
    pub compact_revision: Option<u64>,
    /// Up to here what a compaction frees is gone.
    pub compacted_through: Option<u64>,
    /// The log entry that the state contains.
    pub consistent_index: Option<u64>,
    /// Its term.
    pub term: Option<u64>,
    /// The version of the cluster.
    pub cluster_version: Option<String>,
    /// True when clients have to say who they are.
    pub auth_enabled: bool,
    /// How many leases there are.
    pub leases: u64,
    /// Keys that are attached to one, counted once per record.
    pub leased_records: u64,
    /// Who took part.
    pub members: Vec<StoredMember>,
    /// Active alarms, each as `member:KIND`.
    pub alarms: Vec<String>,
}

/// How large a bucket is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BucketSize {
    /// Its name.
    pub name: String,
    /// Its pairs.
    pub pairs: u64,
    /// Bytes of its keys and values.
    pub bytes: u64,
}

/// Goes through all of a file as etcdctl does.
///
/// # Errors
/// The file cannot be read.
pub fn status(database: &Database) -> Result<Status, FileError> {
    let (mut hash, mut pairs, mut revision) = (0, 0, 0);
    for (name, at) in database.reader.buckets().map_err(|e| database.damaged(e))? {
        hash = crc32c::crc32c_append(hash, &name);
        let mut scan = database.reader.scan(&at);
        while let Some(pair) = scan.next().map_err(|e| database.damaged(e))? {
            hash = crc32c::crc32c_append(hash, pair.key);
            hash = crc32c::crc32c_append(hash, pair.value);
            pairs += 1;
            if name == bucket::KEY {
                revision = pair.key.first_chunk().map_or(revision, |main| u64::from_be_bytes(*main));
            }
        }
    }
    Ok(Status { hash, revision, pairs, bytes: database.reader.bytes() })
}

/// What a file holds.
///
/// # Errors
/// The file cannot be read, or its keys are no revisions.
pub fn contents(database: &Database) -> Result<Contents, FileError> {
    let mut buckets = Vec::new();
    for (name, at) in database.reader.buckets().map_err(|e| database.damaged(e))? {
        let mut size = BucketSize { name: String::from_utf8_lossy(&name).into_owned(), pairs: 0, bytes: 0 };
        let mut scan = database.reader.scan(&at);
        while let Some(pair) = scan.next().map_err(|e| database.damaged(e))? {
            size.pairs += 1;
            size.bytes += (pair.key.len() + pair.value.len()) as u64;
        }
        buckets.push(size);
    }
    let number =
        |key| Ok::<_, FileError>(database.value(bucket::META, key)?.and_then(|v| schema::number(&v)));
    let compaction = |key| Ok::<_, FileError>(compacted(database, key)?.map(Revision::get));
    let version = database.value(bucket::CLUSTER, name::CLUSTER_VERSION)?;
    let mut contents = Contents {
        checksum: database.has_checksum,
        bytes: database.reader.bytes(),
        leases: buckets
            .iter()
            .find(|size| size.name.as_bytes() == bucket::LEASE)
            .map_or(0, |size| size.pairs),
        buckets,
        first_revision: 0,
        last_revision: 0,
        deletes: 0,
        compact_revision: compact_revision(database)?.map(Revision::get),
        compacted_through: compaction(name::FINISHED_COMPACTION)?,
        consistent_index: number(name::CONSISTENT_INDEX)?,
        term: number(name::TERM)?,
        cluster_version: version.map(|version| String::from_utf8_lossy(&version).into_owned()),
        auth_enabled: is_auth_enabled(database)?,
        leased_records: 0,
        members: members(database)?,
        alarms: alarms(database)?,
    };
    database.each(bucket::KEY, |key, value| {
        let key = RecordKey::decode(key).ok_or_else(|| database.impossible("a key is no revision"))?;
        let revision = key.id.revision.get();
        if contents.first_revision == 0 {
            contents.first_revision = revision;
        }
        contents.last_revision = revision;
        contents.deletes += u64::from(key.is_delete);
        let leased = schema::key_value(value).is_ok_and(|kv| kv.lease != 0);
        contents.leased_records += u64::from(leased);
        Ok::<_, FileError>(())
    })?;
    Ok(contents)
}

/// The lowest revision that can be read: of the newest compaction, whether it was finished or not.
///
/// # Errors
/// The file cannot be read, or holds something else there.
pub fn compact_revision(database: &Database) -> Result<Option<Revision>, FileError> {
    let finished = compacted(database, name::FINISHED_COMPACTION)?;
    Ok(finished.max(compacted(database, name::SCHEDULED_COMPACTION)?))
}

fn compacted(database: &Database, key: &[u8]) -> Result<Option<Revision>, FileError> {
    let Some(value) = database.value(bucket::META, key)? else { return Ok(None) };
    let revision =
        RecordKey::decode(&value).ok_or_else(|| database.impossible("a compaction has no revision"))?;
    Ok(Some(revision.id.revision))
}

/// True when clients have to say who they are.
///
/// # Errors
/// The file cannot be read.
pub fn is_auth_enabled(database: &Database) -> Result<bool, FileError> {
    Ok(database.value(bucket::AUTH, name::AUTH_ENABLED)?.is_some_and(|value| value == [1]))
}

fn members(database: &Database) -> Result<Vec<StoredMember>, FileError> {
    let mut members = Vec::new();
    database.each(bucket::MEMBERS, |_, value| {
        let member = serde_json::from_slice(value);
        members.push(member.map_err(|error| database.impossible(format!("a member: {error}")))?);
        Ok::<_, FileError>(())
    })?;
    Ok(members)
}

fn alarms(database: &Database) -> Result<Vec<String>, FileError> {
    let mut alarms = Vec::new();
    database.each(bucket::ALARM, |key, _| {
        alarms
            .extend(schema::decode_alarm(key).map(|alarm| format!("{:x}:{:?}", alarm.member.0, alarm.kind)));
        Ok::<_, FileError>(())
    })?;
    Ok(alarms)
}
