//! What `--auto-compaction-mode` and `--auto-compaction-retention` mean together.

use std::time::Duration;

use super::flags::{CompactionModeFlag, ServerFlags, read_duration};
use super::{ConfigError, value};
use crate::limits;

const RETENTION: &str = "auto-compaction-retention";

/// How much history the leader keeps by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    /// That of so long.
    Periodic(Duration),
    /// So many revisions.
    Revisions(u64),
}

/// What the two flags say; `None` for never.
///
/// As in etcd, a plain number counts hours in the one mode and revisions in the other. A time in revision mode, which etcd
/// takes for its nanoseconds, is refused.
pub(super) fn auto_compaction(flags: &ServerFlags) -> Result<Option<AutoCompaction>, ConfigError> {
    let text = flags.auto_compaction_retention.as_str();
    let refuse = |rule: String| Err(value(RETENTION, text, rule));
    let number = text.parse::<u64>().ok();
    match (flags.auto_compaction_mode, number) {
        (_, Some(0)) => Ok(None),
        (CompactionModeFlag::Revision, Some(revisions)) => Ok(Some(AutoCompaction::Revisions(revisions))),
        (CompactionModeFlag::Revision, None) if read_duration(text) == Ok(Duration::ZERO) => Ok(None),
        (CompactionModeFlag::Revision, None) => {
            refuse("with --auto-compaction-mode=revision write a number of revisions, e.g. 10000".to_owned())
        }
        (CompactionModeFlag::Periodic, Some(hours)) => {
            periodic(Duration::from_secs(hours.saturating_mul(3600)), text)
        }
        (CompactionModeFlag::Periodic, None) => match read_duration(text) {
            Ok(Duration::ZERO) => Ok(None),
            Ok(kept) => periodic(kept, text),
            Err(_) => refuse("write hours, or a duration with a unit, e.g. 1, 30m or 8h".to_owned()),
        },
    }
}

fn periodic(kept: Duration, text: &str) -> Result<Option<AutoCompaction>, ConfigError> {
    let (min, max) = limits::AUTO_COMPACTION_PERIOD_BOUNDS;
    if (min..=max).contains(&kept) {
        return Ok(Some(AutoCompaction::Periodic(kept)));
    }
    let rule = format!("it must be from {min:?} to {} h", max.as_secs() / 3600);
    Err(value(RETENTION, text, rule))
}
