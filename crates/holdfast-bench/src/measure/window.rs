//! A measuring window: what all members of a cluster used from one moment to another, at rest at both ends.
//!
//! A window around writes ends only when the servers have nothing more to do for them: the stable store has caught up,
//! no dump runs, and the processes are quiet. What is done later is paid for all the same.

use std::time::{Duration, Instant};

use super::page::Page;
use super::procfs::{Device, Pid, ProcessUsage, machine_busy};
use crate::error::Error;
use crate::systems::System;
use crate::systems::cluster::Cluster;

/// How long servers may take to come to rest.
const REST_MAX: Duration = Duration::from_secs(120);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);
/// Three members that only beat their hearts stay below this share of one CPU.
const QUIET_PERCENT: u32 = 8;
/// Looks in a row that must find the servers at rest: one could fall between two pieces of work.
const LOOKS: u32 = 3;

/// What a cluster has used since its start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    /// Of all members together; memory as the sum too.
    pub(crate) servers: ProcessUsage,
    /// Fsyncs of all Raft logs, from the servers' own metrics; `None` if there are none.
    pub(crate) log_fsyncs: Option<u64>,
    /// Bytes the disk under the servers was sent since the machine started, by anybody.
    pub(crate) device_bytes: Option<u64>,
    /// Bytes that wait for watchers, on all members; `None` if the servers do not say.
    pub(crate) watch_queued_bytes: Option<u64>,
    /// Members' newest snapshots, by the metrics; tells whether a dump fell into a window.
    pub(crate) snapshots: Vec<u64>,
    /// Checkpoints of the key index that members have written.
    pub(crate) checkpoints: u64,
    /// CPU of this process.
    pub(crate) own_cpu: Duration,
    /// When it was looked at.
    pub(crate) at: Option<Instant>,
    /// CPU of everybody on this machine.
    pub(crate) machine_cpu: Option<Duration>,
}

/// The difference of two usages.
#[derive(Debug, Clone)]
pub(crate) struct Used {
    /// CPU of all servers.
    pub(crate) server_cpu: Duration,
    /// CPU of this process.
    pub(crate) own_cpu: Duration,
    /// How long it was.
    pub(crate) window: Duration,
    /// CPU of everybody else on this machine.
    pub(crate) foreign_cpu: Option<Duration>,
    /// Bytes of the page cache made dirty by all servers.
    pub(crate) dirtied_bytes: u64,
    /// Bytes the disk was sent, by anybody.
    pub(crate) device_bytes: Option<u64>,
    /// Bytes that wait for watchers, on all members, at the end.
    pub(crate) watch_queued_bytes: Option<u64>,
    /// Writing system calls of all servers.
    pub(crate) write_calls: u64,
    /// Fsyncs of all Raft logs.
    pub(crate) log_fsyncs: Option<u64>,
    /// Members that took a snapshot meanwhile.
    pub(crate) dumps: u64,
    /// Checkpoints of the key index that ended meanwhile, on all members.
    pub(crate) checkpoints: u64,
    /// Memory at the end, all servers.
    pub(crate) resident_bytes: u64,
    /// The most there ever was, the members' peaks added up.
    pub(crate) resident_peak_bytes: u64,
    /// How much more memory than at the beginning.
    pub(crate) resident_growth_bytes: i64,
}

/// Looks at a cluster now.
pub(crate) async fn look(cluster: &Cluster) -> Result<Usage, Error> {
    let mut usage = Usage { servers: sum(&cluster.pids())?, ..Usage::default() };
    if cluster.system != System::Ceiling {
        let mut fsyncs = 0;
        for endpoint in cluster.endpoints() {
            let page = Page::fetch(&endpoint).await?;
            fsyncs += page.counter("etcd_disk_wal_fsync_duration_seconds_count").unwrap_or(0);
            usage.snapshots.push(snapshots(cluster.system, &page));
            usage.checkpoints += page.counter("holdfast_checkpoints_total{result=\"ok\"}").unwrap_or(0);
            if let Some(bytes) = page.counter("holdfast_watch_queued_bytes") {
                *usage.watch_queued_bytes.get_or_insert(0) += bytes;
            }
        }
        usage.log_fsyncs = Some(fsyncs);
    }
    usage.device_bytes = Device::of(cluster.directory())?.written_bytes();
    usage.own_cpu = own_cpu()?;
    usage.machine_cpu = machine_busy();
    usage.at = Some(Instant::now());
    Ok(usage)
}

/// Has the kernel write out what it holds back of the servers' files, so that bytes to the disk fall to whom they belong.
pub(crate) async fn flush(cluster: &Cluster) -> Result<(), Error> {
    let directory = cluster.directory().to_owned();
    let flush = move || -> std::io::Result<()> { Ok(rustix::fs::syncfs(std::fs::File::open(directory)?)?) };
    let flushed = tokio::task::spawn_blocking(flush).await.map_err(|_| Error::Interrupted)?;
    flushed.map_err(Error::io("flush the file system"))
}

/// CPU of this process since its start.
pub(crate) fn own_cpu() -> Result<Duration, Error> {
    Ok(ProcessUsage::read(Pid(std::process::id()))?.cpu)
}

/// A number that changes with each snapshot of a member.
fn snapshots(system: System, page: &Page) -> u64 {
    let name = match system {
        System::Etcd => "etcd_debugging_snap_save_total_duration_seconds_count",
        System::Holdfast | System::HoldfastRedb | System::HoldfastCold | System::Ceiling => {
            "holdfast_snapshot_index"
        }
    };
    page.counter(name).unwrap_or(0)
}

impl Usage {
    /// What was used from `self` to `after`.
    pub(crate) fn until(&self, after: &Self) -> Used {
        let (from, to) = (&self.servers, &after.servers);
        Used {
            server_cpu: to.cpu.saturating_sub(from.cpu),
            own_cpu: after.own_cpu.saturating_sub(self.own_cpu),
            dirtied_bytes: to.dirtied_bytes.saturating_sub(from.dirtied_bytes),
            write_calls: to.write_calls.saturating_sub(from.write_calls),
            window: after.at.zip(self.at).map(|(to, from)| to - from).unwrap_or_default(),
            foreign_cpu: after.machine_cpu.zip(self.machine_cpu).map(|(to, from)| {
                let ours = our_cpu(after).saturating_sub(our_cpu(self));
                to.saturating_sub(from).saturating_sub(ours)
            }),
            device_bytes: after.device_bytes.zip(self.device_bytes).map(|(to, from)| to.saturating_sub(from)),
            watch_queued_bytes: after.watch_queued_bytes,
            log_fsyncs: after.log_fsyncs.zip(self.log_fsyncs).map(|(to, from)| to.saturating_sub(from)),
            dumps: self.snapshots.iter().zip(&after.snapshots).filter(|(from, to)| from != to).count() as u64,
            checkpoints: after.checkpoints.saturating_sub(self.checkpoints),
            resident_bytes: to.resident_bytes,
            resident_peak_bytes: to.resident_peak_bytes,
            resident_growth_bytes: to.resident_bytes.cast_signed() - from.resident_bytes.cast_signed(),
        }
    }
}

/// What is ours of a machine's CPU: the measured servers and the load generator.
fn our_cpu(usage: &Usage) -> Duration {
    usage.servers.cpu + usage.own_cpu
}

fn sum(pids: &[Pid]) -> Result<ProcessUsage, Error> {
    let mut total = ProcessUsage::default();
    for pid in pids {
        let one = ProcessUsage::read(*pid)?;
        total.cpu += one.cpu;
        total.resident_bytes += one.resident_bytes;
        total.resident_peak_bytes += one.resident_peak_bytes;
        total.dirtied_bytes += one.dirtied_bytes;
        total.write_calls += one.write_calls;
    }
    Ok(total)
}

/// Waits until a cluster has nothing to do any more.
pub(crate) async fn rest(cluster: &mut Cluster) -> Result<(), Error> {
    let deadline = Instant::now() + REST_MAX;
    let mut quiet = 0;
    while quiet < LOOKS {
        cluster.fail_if_ended()?;
        if Instant::now() > deadline {
            return Err(Error::Late {
                what: format!("{} at rest", cluster.system.name()),
                patience: REST_MAX,
            });
        }
        let pids = cluster.pids();
        let (before, began) = (sum(&pids)?.cpu, Instant::now());
        tokio::time::sleep(INTERVAL).await;
        let used = sum(&pids)?.cpu.saturating_sub(before);
        let is_quiet = used * 100 <= began.elapsed() * QUIET_PERCENT;
        quiet = if is_quiet && has_caught_up(cluster).await? { quiet + 1 } else { 0 };
    }
    Ok(())
}

/// Whether the stable stores hold all that is visible and no dump runs. Others than ours do not say: they are at rest
/// when they are quiet.
async fn has_caught_up(cluster: &Cluster) -> Result<bool, Error> {
    if !cluster.system.is_ours() {
        return Ok(true);
    }
    let mut pages = Vec::new();
    for endpoint in cluster.endpoints() {
        pages.push(Page::fetch(&endpoint).await?);
    }
    let applied = |page: &Page| page.counter("etcd_server_proposals_applied_total");
    let newest = pages.iter().filter_map(applied).max();
    Ok(pages.iter().all(|page| {
        page.counter("holdfast_stable_lag_entries") == Some(0)
            && page.counter("holdfast_dispatcher_state{state=\"normal\"}") == Some(1)
            && applied(page) == newest
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_the_difference_and_memory_is_the_end() {
        let process = |seconds, bytes| ProcessUsage {
            cpu: Duration::from_secs(seconds),
            resident_bytes: bytes,
            resident_peak_bytes: 2 * bytes,
            dirtied_bytes: bytes,
            write_calls: 10 * bytes,
        };
        let usage = |seconds, bytes, fsyncs, snapshots: &[u64]| Usage {
            servers: process(seconds, bytes),
            log_fsyncs: fsyncs,
            snapshots: snapshots.to_vec(),
            checkpoints: seconds,
            own_cpu: Duration::from_secs(1),
            device_bytes: fsyncs.map(|fsyncs| 1000 * fsyncs),
            watch_queued_bytes: fsyncs,
            at: None,
            machine_cpu: fsyncs.map(|_| Duration::from_secs(2 * seconds)),
        };
        let before = usage(3, 100, Some(5), &[1, 1, 1]);
        let used = before.until(&usage(7, 150, Some(9), &[1, 9, 8]));
        assert_eq!(used.server_cpu, Duration::from_secs(4));
        assert_eq!(
            (used.dirtied_bytes, used.write_calls, used.log_fsyncs, used.dumps),
            (50, 500, Some(4), 2)
        );
        assert_eq!((used.resident_bytes, used.resident_peak_bytes), (150, 300));
        assert_eq!((used.resident_growth_bytes, used.checkpoints), (50, 4));
        assert_eq!((used.device_bytes, used.watch_queued_bytes), (Some(4000), Some(9)));
        assert_eq!(used.foreign_cpu, Some(Duration::from_secs(4)), "8 s of all, 4 s of them the servers'");
        assert_eq!(used.own_cpu, Duration::ZERO);
        assert_eq!(before.until(&usage(7, 150, None, &[])).log_fsyncs, None);
    }
}
