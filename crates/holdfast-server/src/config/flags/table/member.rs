//! Flags that do something, and what etcd has beside them.

use super::{Here, Refusal, Section, There, flag};
use crate::config::flags::value::Kind::{Bytes, Choice, Count, Duration, Millis, Number, Switch, Text};

pub(super) const MEMBER: Section = Section {
    title: "Member",
    flags: &[
        flag("name", Text, "default").serves("Name of this member, as in --initial-cluster"),
        flag("data-dir", Text, "").serves("Directory for all data [default: NAME.holdfast]"),
        flag("config-file", Text, "").serves(
            "YAML or JSON file with etcd's keys. Flags and environment win over it; in etcd it makes them ignored",
        ),
        flag("listen-client-urls", Text, "http://localhost:2379")
            .serves("Where to serve clients, gRPC and HTTP; comma-separated"),
        flag("listen-peer-urls", Text, "http://localhost:2380")
            .serves("Where to serve the other members; comma-separated"),
        flag("advertise-client-urls", Text, "")
            .serves("Where clients reach this member [default: --listen-client-urls]"),
        flag("listen-client-http-urls", Text, "").refused(Refusal {
            why: "HTTP and gRPC are always served together, on --listen-client-urls",
            next: "leave it out; for metrics and health on a port of their own use --listen-metrics-urls",
        }),
        flag("wal-dir", Text, "").refused(Refusal {
            why: "log, stable store and snapshots are all kept in --data-dir",
            next: "leave it out and put --data-dir on the faster disk",
        }),
        flag("socket-reuse-address", Switch, "false")
            .without_effect(
                There("lets an address in TIME_WAIT be taken at once"),
                Here("that is always so"),
            )
            .silent(&["true"]),
        flag("socket-reuse-port", Switch, "false").refused(Refusal {
            why: "two members on one port would each see half of the connections",
            next: "leave it out and give each member a port of its own",
        }),
        flag("exit-with-stdin", Switch, "false")
            .internal()
            .serves("End when standard input is closed: for a parent that must not leave members behind"),
        flag("failpoint", Text, "")
            .internal()
            .serves("Kill the process at POINT[:N], its N-th time there: for builds with failpoints"),
        flag("plant", Text, "")
            .internal()
            .serves("Make the mistake with this name, for a test that has to find it: for builds with failpoints"),
    ],
};

pub(super) const CLUSTER: Section = Section {
    title: "Cluster",
    flags: &[
        flag("initial-advertise-peer-urls", Text, "").serves(
            "Where the other members reach this one [default: as in --initial-cluster, or --listen-peer-urls]",
        ),
        flag("initial-cluster", Text, "")
            .serves("All first members, name=url, comma-separated [default: this member alone]"),
        flag("initial-cluster-state", Choice(&["new", "existing"]), "new")
            .serves("new forms the cluster; existing joins one that runs and has this member added already"),
        flag("initial-cluster-token", Text, "etcd-cluster").serves("Tells clusters with equal URLs apart"),
        flag("heartbeat-interval", Millis, "100").serves("Time between heartbeats, in milliseconds"),
        flag("election-timeout", Millis, "1000")
            .serves("Silence of the leader before a campaign, in milliseconds"),
        flag("max-learners", Number, "1").serves("Most learners that may be in the cluster"),
        flag("strict-reconfig-check", Switch, "true").serves(
            "Refuse changes of the membership that would leave no quorum of started and connected members",
        ),
    ],
};

pub(super) const LIMITS: Section = Section {
    title: "Limits",
    flags: &[
        flag("max-request-bytes", Bytes, "1572864").serves("Largest request in bytes"),
        flag("max-txn-ops", Count, "128").serves("Most operations in a transaction"),
        flag("max-waiting-calls", Count, "10000").ours().serves(
            "Most calls that may wait for locks and elections on this member; the next is refused",
        ),
        flag("max-snapshot-streams", Count, "2").ours().serves(
            "Most snapshots that may be on their way to clients of this member; the next is refused",
        ),
        flag("max-concurrent-streams", Count, "4294967295").serves("Most streams per client connection"),
        flag("max-receiving-bytes", Bytes, "256MiB").ours().serves(
            "Most bytes of requests that are being received, over all connections; one that comes in one piece does not count",
        ),
        flag("quota-backend-bytes", Number, "0")
            .serves("Quota on the data, its history included, in bytes; 0 for the default, 2 GiB, -1 for none"),
        flag("grpc-keepalive-interval", Duration, "2h").serves("Ping an idle client so often; 0s for never"),
        flag("grpc-keepalive-timeout", Duration, "20s")
            .serves("Drop a client that does not answer a ping for so long"),
        flag("grpc-keepalive-min-time", Duration, "5s").serves(
            "End connections whose client pings more often than this, with \"too_many_pings\"; 0s for no bound",
        ),
    ],
};

pub(super) const ENGINE: Section = Section {
    title: "Engine",
    flags: &[
        flag("engine", Choice(&["sled", "redb", "memory"]), "sled").ours().serves(
            "Engine of the stable store: sled, redb, or memory (rebuilt from snapshot and log at each start)",
        ),
        flag("memory-bytes", Bytes, "512MiB").ours().serves("Memory for values, in bytes or as 512MiB"),
        flag("serving-threads", Count, "")
            .ours()
            .serves("Threads that serve clients and the other members [default: half the CPUs, at least one]"),
        flag("write-workers", Count, "")
            .ours()
            .serves("Threads that write the stable store [default: one per core, at most 8]"),
        flag("dump-log-bytes", Bytes, "128MiB").ours().serves(
            "Log bytes since the last snapshot that start a dump (or the snapshot's size, if that is more)",
        ),
        flag("checkpoint-revisions", Count, "65536").ours().serves(
            "Revisions since the last checkpoint of the key index that start one (or one for 24 bytes of it, if that is more)",
        ),
        flag("segment-bytes", Bytes, "8MiB").ours().serves("Size of a log segment"),
    ],
};

pub(super) const WATCHES: Section = Section {
    title: "Watches",
    flags: &[
        flag("watch-progress-notify-interval", Duration, "10m")
            .also(&["experimental-watch-progress-notify-interval"])
            .serves("Tell an idle watcher that asked for it how far it has seen, so often"),
        flag("watch-stream-bytes", Bytes, "4MiB").ours().serves(
            "Events that may wait in memory for one watch stream; what is beyond is read from history later",
        ),
    ],
};

pub(super) const LOGGING: Section = Section {
    title: "Logging",
    flags: &[
        flag("log-level", Text, "info")
            .serves("debug, info, warn, error, or filters such as info,holdfast_raft=debug"),
        flag("log-format", Choice(&["json", "console", "text"]), "")
            .serves("Form of log lines: json or console [default: console on a terminal, else json]"),
        flag("log-outputs", Text, "default").also(&["log-output"]).serves(
            "Where log lines go: stderr (also: default), stdout, or files to append to; comma-separated",
        ),
        flag("logger", Choice(&["zap", "capnslog"]), "zap")
            .without_effect(There("chooses the library that logs"), Here("there is one; see --log-format"))
            .silent(&["zap"]),
        flag("log-package-levels", Text, "").without_effect(
            There("sets levels by package"),
            Here("--log-level takes filters such as info,holdfast_raft=debug"),
        ),
        flag("debug", Switch, "false")
            .refused(Refusal { why: "it was replaced in etcd, too", next: "use --log-level=debug" }),
        flag("enable-log-rotation", Switch, "false").refused(Refusal {
            why: "log files are only appended to",
            next: "leave it out and rotate with logrotate and its copytruncate",
        }),
        flag(
            "log-rotation-config-json",
            Text,
            r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        )
        .without_effect(
            There("says how log files are rotated, with --enable-log-rotation"),
            Here("log files are only appended to"),
        ),
    ],
};

pub(super) const MONITORING: Section = Section {
    title: "Monitoring",
    flags: &[
        flag("listen-metrics-urls", Text, "").serves(
            "Where to serve /metrics, /health, /livez, /readyz and /version beside --listen-client-urls; comma-separated",
        ),
        flag("metrics", Choice(&["basic", "extensive"]), "basic")
            .without_effect(There("adds histograms of RPCs"), Here("what is measured is always served"))
            .silent(&["basic"]),
        flag("enable-pprof", Switch, "false").refused(Refusal {
            why: "Go's profiles do not exist here",
            next: "leave it out and use perf: the binary has line tables",
        }),
        flag("warning-apply-duration", Duration, "100ms")
            .also(&["experimental-warning-apply-duration"])
            .without_effect(
                There("logs commands whose evaluation takes longer"),
                Here("see etcd_server_request_duration_seconds on /metrics"),
            ),
        flag("warning-unary-request-duration", Duration, "300ms")
            .also(&["experimental-warning-unary-request-duration"])
            .without_effect(
                There("logs requests that take longer"),
                Here("see etcd_server_request_duration_seconds on /metrics"),
            ),
        flag("enable-grpc-gateway", Switch, "true")
            .serves("Serve the API as JSON below /v3/ of the client port, too"),
    ],
};
