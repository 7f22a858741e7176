//! The versions we report.

/// The etcd version whose client API this server serves. Clients parse it strictly as semver and choose features by
/// it: kube-apiserver wants at least 3.4.31 and none of 3.5.0 to 3.5.12, and 3.7 is the first with RangeStream. So
/// it is a plain `major.minor.patch`, and our own version is told beside it, never inside.
pub const ETCD_API: &str = "3.7.0";

/// Our own version.
pub const HOLDFAST: &str = env!("CARGO_PKG_VERSION");

/// For `--version`.
pub const LONG: &str = concat!(env!("CARGO_PKG_VERSION"), " (etcd API 3.7.0)");
