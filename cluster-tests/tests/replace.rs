//! A member without its disk comes back over broken connections, then all three are replaced: the long run, in small.

use std::time::Duration;

use cluster_tests::harness::cluster::System;
use cluster_tests::judge::replace::Finding;
use cluster_tests::workload::replace::{Plan, run};
use cluster_tests::workload::writers::Load;

#[tokio::test(flavor = "multi_thread")]
async fn members_without_their_disk_are_replaced_and_nothing_is_lost() {
    let load = Load { writers: 4, value_bytes: 128, timeout: Duration::from_secs(3), seed: 1 };
    let plan =
        Plan { store_bytes: 48 << 20, value_bytes: 32 << 10, cuts: 3, window: Duration::from_secs(1), load };
    let report = Box::pin(run(System::holdfast(&[]).unwrap(), plan)).await.unwrap();
    assert!(report.verdict.is_clean(), "{report}");
    // Times are for the long run: here there are few, beside other tests.
    let timeless =
        |finding: &&Finding| !matches!(finding, Finding::Delayed { .. } | Finding::NotCompared { .. });
    let findings: Vec<&Finding> = report.findings.iter().filter(timeless).collect();
    assert!(findings.is_empty(), "{report}");
}
