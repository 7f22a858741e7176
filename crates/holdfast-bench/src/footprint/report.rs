//! The footprint as a table: one row per figure, one column per system.

use std::fmt::Write;
use std::time::Duration;

use super::Side;
use super::watch::Seen;

/// Figures of one while, in words.
pub(super) fn line(seen: &Seen) -> String {
    let sizes = seen.sizes;
    format!(
        "resident {} MiB (peak {}), on disk {} MiB (log {}, store {}, snapshots {}; at most {})",
        mib(seen.resident),
        mib(seen.resident_peak),
        mib(sizes.total()),
        mib(sizes.log),
        mib(sizes.store),
        mib(sizes.snapshots),
        mib(seen.bytes_max)
    )
}

/// The table. Sizes in MiB, of the member that has most.
pub(crate) fn render(sides: &[Side]) -> String {
    let mut text = String::from("| a member |");
    for side in sides {
        write!(text, " {} |", side.name).expect("writing to a string");
    }
    text.push_str("\n| --- |");
    sides.iter().for_each(|_| text.push_str(" ---: |"));
    text.push('\n');
    let mut row = |name: &str, cell: &dyn Fn(&Side) -> String| {
        write!(text, "| {name} |").expect("writing to a string");
        for side in sides {
            write!(text, " {} |", cell(side)).expect("writing to a string");
        }
        text.push('\n');
    };
    row("revisions", &|side| side.revisions.to_string());
    row("puts a second", &|side| format!("{:.0}", per(side.revisions, side.load)));
    row("server CPU us a put, all members", &|side| {
        (side.load_cpu.as_micros() / u128::from(side.revisions.max(1))).to_string()
    });
    row("device bytes a put, all members", &|side| (side.device_bytes / side.revisions.max(1)).to_string());
    row("dumps while loading, all members", &|side| side.dumps.to_string());
    row("resident, peak while loading", &|side| mib(side.loaded.resident_peak).to_string());
    row("resident, loaded", &|side| mib(side.loaded.resident).to_string());
    row("resident, peak while listing", &|side| mib(side.listed.resident_peak).to_string());
    row("on disk, at most while loading", &|side| mib(side.loaded.bytes_max).to_string());
    row("on disk, loaded (log, store, snapshots)", &|side| sizes(&side.loaded));
    row("seconds from SIGKILL to a linearizable read", &|side| {
        let mut back = side.back.clone();
        back.sort_unstable();
        let times: Vec<String> = back.iter().map(|time| format!("{:.2}", time.as_secs_f64())).collect();
        times.join(" ")
    });
    row("resident, peak of the restart", &|side| mib(side.restarted.resident_peak).to_string());
    row("resident, restarted", &|side| mib(side.restarted.resident).to_string());
    row("on disk, restarted (log, store, snapshots)", &|side| sizes(&side.restarted));
    row("on disk, compacted (log, store, snapshots)", &|side| sizes(&side.compacted));
    row("resident, compacted", &|side| mib(side.compacted.resident).to_string());
    text
}

fn sizes(seen: &Seen) -> String {
    let sizes = seen.sizes;
    format!("{} ({}, {}, {})", mib(sizes.total()), mib(sizes.log), mib(sizes.store), mib(sizes.snapshots))
}

fn mib(bytes: u64) -> u64 {
    (bytes + (1 << 19)) >> 20
}

#[allow(clippy::cast_precision_loss, reason = "fewer than 2^52 of anything")]
pub(super) fn per(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_has_a_column() {
        let side = |name| Side { name, revisions: 10, device_bytes: 50, ..Side::default() };
        let table = render(&[side("holdfast"), side("etcd")]);
        assert!(table.starts_with("| a member | holdfast | etcd |\n| --- | ---: | ---: |\n"), "{table}");
        assert!(table.contains("| device bytes a put, all members | 5 | 5 |\n"), "{table}");
    }
}
