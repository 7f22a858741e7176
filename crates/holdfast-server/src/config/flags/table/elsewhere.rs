//! Flags that belong to how etcd is built: its backend, its way of taking snapshots, its older APIs.

use super::{Here, Refusal, Section, There, flag};
use crate::config::flags::value::Kind::{Choice, Duration, Millis, Number, Switch, Text};

pub(super) const COMPACTION: Section = Section {
    title: "Compaction",
    flags: &[
        flag("auto-compaction-retention", Text, "0").serves(
            "History that is kept, the leader compacts what is older: hours or a duration, or a number of revisions; 0 for all",
        ),
        flag("auto-compaction-mode", Choice(&["periodic", "revision"]), "periodic")
            .serves("What --auto-compaction-retention counts: time, or revisions"),
        flag("compaction-batch-limit", Number, "1000")
            .also(&["experimental-compaction-batch-limit"])
            .without_effect(
                There("bounds the revisions that one batch of a compaction deletes"),
                Here("history is rewritten in slices whose size follows from their bytes"),
            ),
        flag("compaction-sleep-interval", Duration, "10ms")
            .also(&["experimental-compaction-sleep-interval"])
            .without_effect(
                There("pauses between two batches of a compaction"),
                Here("slices of history are rewritten between other work"),
            ),
        flag("bootstrap-defrag-threshold-megabytes", Number, "0")
            .also(&["experimental-bootstrap-defrag-threshold-megabytes"])
            .without_effect(
                There("defragments at the start when that frees so much"),
                Here("there is nothing to defragment by hand"),
            )
            .silent(&["0"]),
    ],
};

const SNAPSHOT_BY_BYTES: Here = Here("a dump is started by bytes, see --dump-log-bytes");

pub(super) const CONSENSUS: Section = Section {
    title: "Consensus",
    flags: &[
        flag("snapshot-count", Number, "100000")
            .without_effect(There("takes a snapshot after so many commands"), SNAPSHOT_BY_BYTES),
        flag("snapshot-catchup-entries", Number, "5000")
            .also(&["experimental-snapshot-catchup-entries"])
            .without_effect(
                There("keeps so many entries behind a snapshot for slow followers"),
                Here("the log is kept by bytes"),
            ),
        flag("max-snapshots", Number, "5").without_effect(
            There("keeps so many snapshot files"),
            Here("one verified snapshot is kept, and those in use"),
        ),
        flag("max-wals", Number, "5")
            .without_effect(There("keeps so many log files"), Here("log segments are purged and recycled")),
        flag("initial-election-tick-advance", Switch, "true").without_effect(
            There("shortens the first wait for a leader"),
            Here("the first campaign does not wait for long anyway"),
        ),
        flag("pre-vote", Switch, "true")
            .without_effect(There("asks before a campaign whether it can be won"), Here("that is always on"))
            .silent(&["true"]),
        flag("raft-read-timeout", Duration, "5s").without_effect(
            There("drops a peer that is silent for so long"),
            Here("the time follows from --election-timeout"),
        ),
        flag("raft-write-timeout", Duration, "5s").without_effect(
            There("drops a peer that takes nothing for so long"),
            Here("the time follows from --election-timeout"),
        ),
        flag("downgrade-check-time", Duration, "5s")
            .also(&["experimental-downgrade-check-time"])
            .without_effect(
                There("looks so often whether a downgrade is done"),
                Here("there are no downgrades"),
            ),
        flag("next-cluster-version-compatible", Switch, "false")
            .without_effect(There("lets 3.4 run on the data of 3.5"), Here("there are no downgrades"))
            .silent(&["false"]),
        flag("experimental-enable-lease-checkpoint", Switch, "false")
            .without_effect(
                There("replicates what is left of leases"),
                Here("a new leader gives leases all of their time again"),
            )
            .silent(&["false"]),
        flag("experimental-enable-lease-checkpoint-persist", Switch, "false")
            .without_effect(
                There("keeps what is left of leases"),
                Here("a new leader gives leases all of their time again"),
            )
            .silent(&["false"]),
    ],
};

const NO_BBOLT: Here = Here("there is no bbolt, see --engine");

pub(super) const BACKEND: Section = Section {
    title: "Backend",
    flags: &[
        flag("backend-bbolt-freelist-type", Choice(&["map", "array"]), "map")
            .also(&["experimental-backend-bbolt-freelist-type"])
            .without_effect(There("chooses a structure of bbolt"), NO_BBOLT),
        flag("backend-batch-interval", Duration, "")
            .without_effect(There("bounds the time between two commits of bbolt"), NO_BBOLT),
        flag("backend-batch-limit", Number, "0")
            .without_effect(There("bounds the operations of a commit of bbolt"), NO_BBOLT),
        flag("experimental-txn-mode-write-with-shared-buffer", Switch, "true")
            .without_effect(There("lets transactions read from bbolt's buffer"), NO_BBOLT),
        flag("memory-mlock", Switch, "false")
            .also(&["experimental-memory-mlock"])
            .without_effect(
                There("keeps bbolt's pages in memory"),
                Here("the store is read through a bounded cache, see --memory-bytes"),
            )
            .silent(&["false"]),
        flag("experimental-stop-grpc-service-on-defrag", Switch, "false")
            .without_effect(
                There("refuses clients during a defragmentation"),
                Here("nothing stops the service for maintenance"),
            )
            .silent(&["false"]),
        flag("feature-gates", Text, "").without_effect(
            There("switches experiments of etcd on and off"),
            Here("they do not exist; --help lists what can be set"),
        ),
    ],
};

const COMPARED_BY_HAND: Here =
    Here("what is read from disk is checked by checksums; compare members with `etcdctl endpoint hashkv`");

pub(super) const CHECKS: Section = Section {
    title: "Checks for corruption",
    flags: &[
        flag("experimental-initial-corrupt-check", Switch, "false")
            .without_effect(There("compares members before it serves"), COMPARED_BY_HAND)
            .silent(&["false"]),
        flag("corrupt-check-time", Duration, "5m").also(&["experimental-corrupt-check-time"]).serves(
            "Compare the members' data so often, and raise an alarm for one that differs; 0s for never (etcd's default)",
        ),
        flag("experimental-compact-hash-check-enabled", Switch, "false")
            .without_effect(There("compares members at compactions"), COMPARED_BY_HAND)
            .silent(&["false"]),
        flag("compact-hash-check-time", Duration, "1m")
            .also(&["experimental-compact-hash-check-time"])
            .without_effect(There("compares members so often"), COMPARED_BY_HAND),
    ],
};

const NO_DISCOVERY: Refusal = Refusal {
    why: "members are not looked up, neither by a discovery service nor by DNS records",
    next: "list them with --initial-cluster",
};

pub(super) const DISCOVERY: Section = Section {
    title: "Discovery",
    flags: &[
        flag("discovery", Text, "").refused(NO_DISCOVERY),
        flag("discovery-srv", Text, "").refused(NO_DISCOVERY),
        flag("discovery-srv-name", Text, "").refused(NO_DISCOVERY),
        flag("discovery-proxy", Text, "").refused(NO_DISCOVERY),
        flag("discovery-endpoints", Text, "").refused(NO_DISCOVERY),
        flag("discovery-token", Text, "").refused(NO_DISCOVERY),
        flag("discovery-dial-timeout", Duration, "2s").refused(NO_DISCOVERY),
        flag("discovery-request-timeout", Duration, "5s").refused(NO_DISCOVERY),
        flag("discovery-keepalive-time", Duration, "2s").refused(NO_DISCOVERY),
        flag("discovery-keepalive-timeout", Duration, "6s").refused(NO_DISCOVERY),
        flag("discovery-insecure-transport", Switch, "true").refused(NO_DISCOVERY),
        flag("discovery-insecure-skip-tls-verify", Switch, "false").refused(NO_DISCOVERY),
        flag("discovery-cert", Text, "").refused(NO_DISCOVERY),
        flag("discovery-key", Text, "").refused(NO_DISCOVERY),
        flag("discovery-cacert", Text, "").refused(NO_DISCOVERY),
        flag("discovery-user", Text, "").refused(NO_DISCOVERY),
        flag("discovery-password", Text, "").refused(NO_DISCOVERY),
        flag("discovery-fallback", Choice(&["proxy", "exit"]), "proxy").without_effect(
            There("says what happens when discovery fails"),
            Here("there is no discovery; see --initial-cluster"),
        ),
    ],
};

const NO_TRACING: Refusal = Refusal {
    why: "traces are not exported",
    next: "leave it out; --log-level=debug logs the stages of a request",
};
const ONLY_WITH_TRACING: Here = Here("traces are not exported");

pub(super) const TRACING: Section = Section {
    title: "Tracing",
    flags: &[
        flag("enable-distributed-tracing", Switch, "false")
            .also(&["experimental-enable-distributed-tracing"])
            .refused(NO_TRACING),
        flag("distributed-tracing-address", Text, "localhost:4317")
            .also(&["experimental-distributed-tracing-address"])
            .without_effect(There("says where traces are sent"), ONLY_WITH_TRACING),
        flag("distributed-tracing-service-name", Text, "etcd")
            .also(&["experimental-distributed-tracing-service-name"])
            .without_effect(There("names the cluster in traces"), ONLY_WITH_TRACING),
        flag("distributed-tracing-instance-id", Text, "")
            .also(&["experimental-distributed-tracing-instance-id"])
            .without_effect(There("names the member in traces"), ONLY_WITH_TRACING),
        flag("distributed-tracing-sampling-rate", Number, "0")
            .also(&["experimental-distributed-tracing-sampling-rate"])
            .without_effect(There("traces so many requests of a million"), ONLY_WITH_TRACING),
    ],
};

const NO_V2: Refusal = Refusal {
    why: "the v2 API is not served",
    next: "move its users to v3; etcd 3.6 does not serve it either",
};
const NO_PROXY: Here = Here("there is no v2 proxy");

pub(super) const API_V2: Section = Section {
    title: "The v2 API",
    flags: &[
        flag("enable-v2", Switch, "false").refused(NO_V2),
        flag("experimental-enable-v2v3", Text, "").refused(NO_V2),
        flag("v2-deprecation", Choice(&["not-yet", "write-only", "write-only-drop-data", "gone"]), "not-yet")
            .without_effect(There("says how far the v2 store is taken apart"), Here("there is none"))
            .silent(&["gone"]),
        flag("proxy", Choice(&["off", "readonly", "on"]), "off").refused(NO_V2),
        flag("proxy-failure-wait", Millis, "5000")
            .without_effect(There("rests an endpoint of the v2 proxy that failed"), NO_PROXY),
        flag("proxy-refresh-interval", Millis, "30000")
            .without_effect(There("refreshes the v2 proxy's endpoints"), NO_PROXY),
        flag("proxy-dial-timeout", Millis, "1000")
            .without_effect(There("bounds connecting of the v2 proxy"), NO_PROXY),
        flag("proxy-write-timeout", Millis, "5000")
            .without_effect(There("bounds writes of the v2 proxy"), NO_PROXY),
        flag("proxy-read-timeout", Millis, "0")
            .without_effect(There("bounds reads of the v2 proxy"), NO_PROXY),
    ],
};

pub(super) const UNSAFE: Section = Section {
    title: "Unsafe",
    flags: &[
        flag("force-new-cluster", Switch, "false").refused(Refusal {
            why: "a cluster of one made from a part of another may have lost acknowledged writes",
            next: "start the members that are left; a majority of them serves",
        }),
        flag("unsafe-no-fsync", Switch, "false").refused(Refusal {
            why: "an acknowledged write is on disk, always",
            next: "leave it out; for tests put --data-dir on a tmpfs",
        }),
    ],
};
