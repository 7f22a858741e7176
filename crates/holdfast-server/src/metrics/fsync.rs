//! The log's fsync times as a Prometheus histogram. The log counts them; here they only get their form.

use std::fmt::Write;

use holdfast_raft::LogStats;

const NAME: &str = "etcd_disk_wal_fsync_duration_seconds";

/// The histogram's lines.
pub(super) fn render(stats: &LogStats) -> String {
    let mut page = format!(
        "# HELP {NAME} The latency distributions of fsync called by the log.\n# TYPE {NAME} histogram\n"
    );
    let mut below = 0;
    for (bucket, count) in stats.fsync_buckets.iter().enumerate() {
        below += count;
        let bound =
            LogStats::bucket_bound(bucket).map_or_else(|| "+Inf".to_owned(), |b| b.as_secs_f64().to_string());
        writeln!(page, "{NAME}_bucket{{le=\"{bound}\"}} {below}").expect("writing to a string succeeds");
    }
    let total = stats.fsync_total.as_secs_f64();
    writeln!(page, "{NAME}_sum {total}\n{NAME}_count {below}").expect("writing to a string succeeds");
    page
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_buckets_are_cumulative_and_end_at_infinity() {
        let mut stats =
            LogStats { fsyncs: 3, fsync_total: Duration::from_millis(1500), ..LogStats::default() };
        stats.fsync_buckets[0] = 1;
        stats.fsync_buckets[1] = 1;
        stats.fsync_buckets[11] = 1;
        let page = render(&stats);
        for line in [
            "# TYPE etcd_disk_wal_fsync_duration_seconds histogram",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 1",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.002\"} 2",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"1.024\"} 2",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"2.048\"} 3",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 3",
            "etcd_disk_wal_fsync_duration_seconds_sum 1.5",
            "etcd_disk_wal_fsync_duration_seconds_count 3",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }
}
