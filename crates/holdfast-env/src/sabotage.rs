//! What tests may do to a member from inside: stop it at a named point, or plant a fault that a judge must find.
//!
//! The points are those of the crash table in `docs/storage.md` (K1 and so on): each is a moment at which what is on
//! disk differs from the moment before. A member stopped there must come back with everything it had promised.
//!
//! None of this is in a release build: [`ENABLED`] is false there, and with it all calls are empty, unless the crate is
//! built with the feature `failpoints`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// True in builds that can be sabotaged: debug builds, and release builds with the feature `failpoints`.
pub const ENABLED: bool = cfg!(any(debug_assertions, feature = "failpoints"));

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name, as it is given on a command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The one with this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.name() == name)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named! {
    /// A point at which a member can be stopped.
    Failpoint {
        /// K1: an entry is committed and in the log, its effects are not yet in the stable store.
        ApplyAfterCommit = "apply.after_commit",
        /// K2: one of several engine batches of a commit was applied.
        CommitMidBatch = "commit.mid_batch",
        /// K3: a commit was applied and not flushed.
        CommitBeforeFlush = "commit.before_flush",
        /// K4: a dump was asked for.
        DumpStartQueued = "dump.start.queued",
        /// K5: the fence of a dump has passed the workers.
        DumpStartFenced = "dump.start.fenced",
        /// K5: the memtable is sealed.
        DumpStartSealed = "dump.start.sealed",
        /// K6: the stable store stands at the dump's position and is not flushed.
        DumpStartDrained = "dump.start.drained",
        /// K7: a page of the stable store was read for a dump.
        DumpReadBlock = "dump.read.block_n",
        /// K7: a block of a snapshot was written.
        DumpWriteBlock = "dump.write.block_n",
        /// K8: a snapshot file is whole and synced, and has no name yet.
        DumpFileSynced = "dump.file.synced",
        /// K9: a snapshot file is renamed, its directory is not synced.
        DumpFileRenamed = "dump.file.renamed",
        /// K10: a snapshot is published, the dispatcher does not know yet.
        DumpCurrentUpdated = "dump.current.updated",
        /// K11: the overlay is sealed, the merge has not begun.
        DumpFinishFenced = "dump.finish.fenced",
        /// K12: a part of the overlay is in the stable store.
        MergeMid = "merge.mid",
        /// K13: all of the overlay is in the stable store.
        MergeDone = "merge.done",
        /// K14: the log's purge is recorded, its segments are still there.
        PurgeMarked = "purge.marked",
        /// K14: a segment of the purged log was retired.
        PurgeSegment = "purge.segment_n",
        /// K15: a retired segment was removed or recycled.
        CleanupInSnapshot = "cleanup.in_snapshot",
        /// K16: a part of a snapshot from the leader was received.
        InstallRecv = "install.recv_n",
        /// K17: a received snapshot is verified.
        InstallVerified = "install.verified",
        /// K17: the next generation is built from it, and is not current.
        InstallGenWritten = "install.gen_written",
        /// K18: the next generation is current, the log is not reset.
        InstallSwitched = "install.switched",
        /// K19: the generation before is about to be removed.
        InstallCleanup = "install.cleanup",
        /// K20: a part of the overlay went to the stable store while the dump goes on.
        DrainUnderDumpMid = "drain_under_dump.mid",
        /// K26: a block of a checkpoint of the index was written.
        CheckpointWriteBlock = "checkpoint.write.block_n",
        /// K27: a checkpoint is whole and synced, and has no name yet.
        CheckpointSynced = "checkpoint.synced",
        /// K28: a checkpoint is renamed, its directory is not synced.
        CheckpointRenamed = "checkpoint.renamed",
    }
}

named! {
    /// A fault that can be planted, to show that a judge finds what it does.
    Fault {
        /// The log is written and never made durable.
        NoFsync = "no-fsync",
        /// The log says that it is durable before it is: one write later.
        AckBeforeFsync = "ack-before-fsync",
        /// A vote is not written to the log.
        VoteNotSaved = "vote-not-saved",
        /// The applied position is stored in a batch of its own, before the records.
        PositionApart = "position-apart",
        /// A dump begins without waiting for what was dispatched before it.
        DumpWithoutFence = "dump-without-fence",
        /// A merge stores what was put while the dump ran and forgets what was deleted, so that deleted keys come back
        /// with a restart. (Records carry their revision and are stored in log order by one thread, so an older one
        /// cannot replace a newer one here; a merge that knows no deletes is what is left of that mistake.)
        MergeWithoutGuard = "merge-without-guard",
        /// The log is purged beyond the durable snapshot.
        PurgeBeyondSnapshot = "purge-beyond-snapshot",
        /// A linearizable read does not ask a quorum.
        ReadIndexOff = "read-index-off",
        /// A linearizable read joins a round that began before the read came.
        ReadJoinsOlderRound = "read-joins-older-round",
        /// A keep-alive is answered by who believes that it leads, without asking a quorum.
        KeepAliveUnconfirmed = "keep-alive-unconfirmed",
        /// The end of a lease is proposed like any other write, so that it is passed on to whoever leads, and counts in
        /// every term. (Two fences are missing: as long as a proposal never leaves the member that judged, a term that
        /// is not compared makes a difference only when that member leads again before its own log has taken it.)
        LeaseExpiryUnfenced = "lease-expiry-unfenced",
        /// A start keeps what an interrupted commit has left above the stored head, so that entries are evaluated again
        /// behind their own effects, and the compares of a transaction see the future. (Compares see the index alone,
        /// and that is built before the first entry: this is the one way in which it can be ahead of the log.)
        ReplaySeesFuture = "replay-sees-future",
        /// A watch that names a revision to start from begins behind it, as if that one had been seen already.
        WatchResumeOffByOne = "watch-resume-off-by-one",
        /// A stream is told that it has seen all there is while some of its watchers still read history.
        ProgressBeforeEvents = "progress-before-events",
    }
}

/// Who decides what happens at a point.
pub trait Sabotage: Send + Sync + 'static {
    /// The member has come to this point. May not return.
    fn hit(&self, at: Failpoint);
    /// True when this fault is planted.
    fn is_planted(&self, fault: Fault) -> bool;
}

/// A member's view of the sabotage that it is under; by default none. Cheap to clone.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<dyn Sabotage>>);

impl Faults {
    /// Asks this one.
    pub fn new(sabotage: Arc<dyn Sabotage>) -> Self {
        Self(Some(sabotage))
    }

    /// What the tests of all crates are under: the fault that the variable `HOLDFAST_PLANT` names, none without it. So
    /// whoever starts the tests can see which of them find it. Panics when there is no such fault.
    pub fn of_tests() -> Self {
        #[expect(clippy::disallowed_methods, reason = "tests are configured by the environment")]
        let name = std::env::var(PLANT_VARIABLE);
        let Ok(name) = name else { return Self::default() };
        let fault = Planted::parse(&name).unwrap_or_else(|rule| panic!("{PLANT_VARIABLE}: {rule}"));
        Self::new(Arc::new(fault))
    }

    /// The member has come to this point.
    #[inline]
    pub fn hit(&self, at: Failpoint) {
        if ENABLED && let Some(sabotage) = &self.0 {
            sabotage.hit(at);
        }
    }

    /// True when this fault is planted.
    #[inline]
    pub fn is_planted(&self, fault: Fault) -> bool {
        ENABLED && self.0.as_ref().is_some_and(|sabotage| sabotage.is_planted(fault))
    }
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faults")
    }
}

/// Names the fault that tests are under.
const PLANT_VARIABLE: &str = "HOLDFAST_PLANT";

/// Plants one fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planted(pub Fault);

impl Planted {
    /// The fault with this name.
    ///
    /// # Errors
    /// A text that says which faults there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        Fault::named(name).map(Self).ok_or_else(|| {
            let names: Vec<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
            format!("no fault is named \"{name}\"; there are {}", names.join(", "))
        })
    }
}

impl Sabotage for Planted {
    fn hit(&self, _: Failpoint) {}

    fn is_planted(&self, fault: Fault) -> bool {
        fault == self.0
    }
}

/// Kills this process, as SIGKILL does, when it comes to a point for the n-th time.
#[derive(Debug)]
pub struct KillAt {
    at: Failpoint,
    /// Hits still to come, the last of which kills.
    left: AtomicU64,
}

impl KillAt {
    /// From `POINT` or `POINT:N`; N is 1 when it is missing.
    ///
    /// # Errors
    /// A text that says what is wrong, and which points there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, times) = text.split_once(':').unwrap_or((text, "1"));
        let at = Failpoint::named(name).ok_or_else(|| {
            let names: Vec<_> = Failpoint::ALL.iter().map(|point| point.name()).collect();
            format!("no failpoint is named \"{name}\"; there are {}", names.join(", "))
        })?;
        match times.parse() {
            Ok(times) if times > 0 => Ok(Self { at, left: AtomicU64::new(times) }),
            _ => Err(format!("\"{times}\" is not a count of hits: give 1 or more")),
        }
    }
}

impl Sabotage for KillAt {
    fn hit(&self, at: Failpoint) {
        if at == self.at && self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let killed =
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            // The signal reaches this thread before the call returns, unless the system refused to send it.
            panic!("at {at}: the process cannot kill itself: {killed:?}");
        }
    }

    fn is_planted(&self, _: Fault) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for &point in Failpoint::ALL {
            assert_eq!(Failpoint::named(point.name()), Some(point));
        }
        for &fault in Fault::ALL {
            assert_eq!(Fault::named(fault.name()), Some(fault));
        }
    }

    #[test]
    fn one_fault_is_planted_and_no_other() {
        let planted = Planted::parse("no-fsync").unwrap();
        let found: Vec<_> = Fault::ALL.iter().filter(|fault| planted.is_planted(**fault)).collect();
        assert_eq!(found, [&Fault::NoFsync]);
        assert!(Planted::parse("fsync").unwrap_err().contains("ack-before-fsync"));
    }

    #[test]
    fn a_point_to_kill_at_is_parsed() {
        assert!(KillAt::parse("merge.mid").is_ok());
        assert!(KillAt::parse("merge.mid:3").is_ok());
        assert!(KillAt::parse("merge.mid:0").unwrap_err().contains("1 or more"));
        assert!(KillAt::parse("merge").unwrap_err().contains("merge.mid"));
    }
}
