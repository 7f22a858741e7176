//! The dispatcher and its dumps: how often it went from which state to which, how dumps ended, how long writes stood
//! still, and what waits. The storage counts; here it gets its form.

use std::fmt::Write;

use holdfast_storage::{DispatchFigures, PressureLevel, StorageStatus, Times};
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{Maker, state_label};
use crate::codec::response::signed;

const STALL: &str = "holdfast_dump_switch_stall_seconds";
const MERGE: &str = "holdfast_merge_seconds";
const COMMIT: &str = "holdfast_commit_seconds";

/// What is copied from the storage's status.
pub(super) struct DispatchGauges {
    transitions: IntCounterVec,
    dumps: IntCounterVec,
    dump_seconds: GaugeVec,
    dump_bytes: IntGauge,
    dump_rate: Gauge,
    memtable_bytes: IntGauge,
    overlay_bytes: IntGaugeVec,
    overlay_keys: IntGaugeVec,
    queue_depth: IntGauge,
    queue_bytes: IntGauge,
    worker_queue_depth: IntGaugeVec,
    overlay_reads: IntCounterVec,
    commit_records: IntCounter,
    commit_bytes: IntCounter,
    guard_skips: IntCounterVec,
    backpressure: IntCounterVec,
}

impl DispatchGauges {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            transitions: maker.counters(
                "holdfast_dispatch_transitions_total",
                "How often the dispatcher went from one state to another, by the reason.",
                &["from", "to", "reason"],
            ),
            dumps: maker.counters("holdfast_dumps_total", "Dumps that ended, by how they did.", &["result"]),
            dump_seconds: maker.real_gauges(
                "holdfast_dump_seconds",
                "How long the last dump with this result took, from the seal to its end.",
                &["result"],
            ),
            dump_bytes: maker
                .gauge("holdfast_dump_bytes", "The length of the last dump's snapshot; 0 when it had none."),
            dump_rate: maker.real_gauge(
                "holdfast_dump_mib_per_second",
                "MiB of snapshot per second of the last dump; 0 when it had none.",
            ),
            memtable_bytes: maker.gauge(
                "holdfast_memtable_bytes",
                "Bytes that wait for the stable store, with what an entry costs: at half of the memory budget \
                 entries are held back.",
            ),
            overlay_bytes: maker.gauges(
                "holdfast_overlay_bytes",
                "Bytes of records that are not yet in the stable store: active takes new ones, frozen is on its way.",
                &["kind"],
            ),
            overlay_keys: maker.gauges(
                "holdfast_overlay_keys",
                "Records that are not yet in the stable store, by the memtable they are in.",
                &["kind"],
            ),
            queue_depth: maker
                .gauge("holdfast_dispatch_queue_depth", "Messages that wait for the dispatcher."),
            queue_bytes: maker.gauge(
                "holdfast_dispatch_queue_bytes",
                "Bytes of entries that wait for the dispatcher or are held back by it.",
            ),
            worker_queue_depth: maker.gauges(
                "holdfast_worker_queue_depth",
                "Slices of entries that wait for a worker.",
                &["shard"],
            ),
            overlay_reads: maker.counters(
                "holdfast_overlay_reads_total",
                "Values looked for in memory in a dump or a merge: hit in the overlay or what is on its way, else miss.",
                &["result"],
            ),
            commit_records: maker
                .counter("holdfast_commit_records_total", "Records that went into the stable store."),
            commit_bytes: maker.counter(
                "holdfast_commit_bytes_total",
                "Bytes that went into the stable store, with what an entry costs.",
            ),
            guard_skips: maker.counters(
                "holdfast_guard_skips_total",
                "What was skipped because the state contained it: entries that were read again, snapshots.",
                &["reason"],
            ),
            backpressure: maker.counters(
                "holdfast_backpressure_total",
                "Dumps during which the overlay reached an eighth (hurry), a quarter (drain), a half (hold) of the \
                 memory budget.",
                &["level"],
            ),
        }
    }

    pub(super) fn refresh(&self, storage: &StorageStatus) {
        let figures = &storage.dispatch;
        for one in &figures.transitions {
            let labels = [state_label(one.from), state_label(one.to), one.reason];
            raise(&self.transitions, &labels, one.count);
        }
        for (result, count, took) in &figures.dumps {
            raise(&self.dumps, &[result.label()], *count);
            self.dump_seconds.with_label_values(&[result.label()]).set(took.as_secs_f64());
        }
        self.dump_bytes.set(signed(figures.last_dump.map_or(0, |dump| dump.bytes)));
        self.dump_rate.set(figures.last_dump.map_or(0.0, |dump| dump.mib_per_second()));
        self.memtable_bytes.set(signed(storage.memtable_bytes as u64));
        for (kind, memtable) in [("active", storage.active), ("frozen", storage.frozen)] {
            self.overlay_bytes.with_label_values(&[kind]).set(signed(memtable.bytes as u64));
            self.overlay_keys.with_label_values(&[kind]).set(signed(memtable.records as u64));
        }
        self.queue_depth.set(signed(storage.queue_messages as u64));
        self.queue_bytes.set(signed(storage.queue_bytes as u64));
        for (shard, depth) in storage.worker_queues.iter().enumerate() {
            self.worker_queue_depth.with_label_values(&[&shard.to_string()]).set(signed(*depth as u64));
        }
        raise(&self.overlay_reads, &["hit"], figures.overlay_reads.hits);
        raise(&self.overlay_reads, &["miss"], figures.overlay_reads.misses);
        super::raise(&self.commit_records, figures.commits.records);
        super::raise(&self.commit_bytes, figures.commits.bytes);
        raise(&self.guard_skips, &["entry"], figures.skipped_entries);
        raise(&self.guard_skips, &["snapshot"], figures.skipped_snapshots);
        for (level, count) in PressureLevel::ALL.iter().zip(figures.pressure) {
            raise(&self.backpressure, &[level.label()], count);
        }
    }
}

/// Brings a counter up to `total`; the storage counts, and only upwards.
fn raise(counters: &IntCounterVec, labels: &[&str], total: u64) {
    super::raise(&counters.with_label_values(labels), total);
}

/// The histograms, of which the storage keeps the buckets itself.
pub(super) fn render(figures: &DispatchFigures) -> String {
    let stalls = [("at=\"start\"", &figures.start_stall), ("at=\"finish\"", &figures.finish_stall)];
    let merges = [("", &figures.merges)];
    let commits = [("", &figures.commits.times)];
    let mut page = String::new();
    for (name, help, series) in [
        (STALL, "How long the dispatcher stood still at the start and at the end of a dump.", &stalls[..]),
        (MERGE, "From the end of a dump until what was written meanwhile is in the stable store.", &merges),
        (COMMIT, "How long a batch took into the stable store, with its share of flushes.", &commits),
    ] {
        histogram(&mut page, (name, help), series).expect("writing to a string succeeds");
    }
    page
}

fn histogram(page: &mut String, (name, help): (&str, &str), series: &[(&str, &Times)]) -> std::fmt::Result {
    writeln!(page, "# HELP {name} {help}\n# TYPE {name} histogram")?;
    for (label, times) in series {
        let (comma, labels) =
            if label.is_empty() { ("", String::new()) } else { (",", format!("{{{label}}}")) };
        let mut below = 0;
        for (bucket, count) in times.buckets.iter().enumerate() {
            below += count;
            let bound = Times::bucket_bound(bucket)
                .map_or_else(|| "+Inf".to_owned(), |b| b.as_secs_f64().to_string());
            writeln!(page, "{name}_bucket{{{label}{comma}le=\"{bound}\"}} {below}")?;
        }
        writeln!(page, "{name}_sum{labels} {}", times.total.as_secs_f64())?;
        writeln!(page, "{name}_count{labels} {below}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn histograms_have_the_form_that_scrapers_read() {
        let mut figures = DispatchFigures::default();
        figures.start_stall.buckets[1] = 2;
        figures.start_stall.total = Duration::from_micros(30);
        figures.finish_stall.buckets[16] = 1;
        figures.merges.buckets[0] = 3;
        let page = render(&figures);
        for line in [
            "# TYPE holdfast_dump_switch_stall_seconds histogram",
            "holdfast_dump_switch_stall_seconds_bucket{at=\"start\",le=\"0.000015625\"} 0",
            "holdfast_dump_switch_stall_seconds_bucket{at=\"start\",le=\"0.00003125\"} 2",
            "holdfast_dump_switch_stall_seconds_bucket{at=\"start\",le=\"+Inf\"} 2",
            "holdfast_dump_switch_stall_seconds_sum{at=\"start\"} 0.00003",
            "holdfast_dump_switch_stall_seconds_bucket{at=\"finish\",le=\"0.512\"} 0",
            "holdfast_dump_switch_stall_seconds_count{at=\"finish\"} 1",
            "holdfast_merge_seconds_bucket{le=\"0.000015625\"} 3",
            "holdfast_merge_seconds_count 3",
            "holdfast_commit_seconds_sum 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }
}
