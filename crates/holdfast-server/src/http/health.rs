//! Health checks, for load balancers, orchestrators and people.

use holdfast_mvcc::command::{AlarmKind, Range};
use holdfast_mvcc::types::{KeyRange, RangeEnd};
use holdfast_raft::Health;

use crate::frontend::{Consistency, Frontend, STORE_FAILED};

/// Which question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Should the process be restarted?
    Live,
    /// Should it get requests?
    Ready,
}

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The stable store has not failed for good.
    DataCorruption,
    /// A local read works.
    SerializableRead,
    /// The member has caught up since its start, and a quorum confirms reads.
    LinearizableRead,
    /// The member votes.
    NonLearner,
}

impl Probe {
    /// The checks behind the question, in the order they are run.
    pub fn checks(self) -> &'static [Check] {
        match self {
            Self::Live => &[Check::SerializableRead],
            Self::Ready => {
                &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner]
            }
        }
    }
}

impl Check {
    /// Its name in paths and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    /// Runs it; the error says what is wrong.
    pub async fn run(self, frontend: &Frontend) -> Result<(), String> {
        match self {
            Self::DataCorruption if frontend.is_poisoned() => Err(STORE_FAILED.to_owned()),
            Self::DataCorruption if has_alarm(frontend, AlarmKind::Corrupt) => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Self::DataCorruption => Ok(()),
            Self::SerializableRead => read(frontend, Consistency::Serializable).await,
            Self::LinearizableRead if !frontend.is_ready() => {
                Err("the member has not caught up since its start".to_owned())
            }
            Self::LinearizableRead => read(frontend, Consistency::Linearizable).await,
            Self::NonLearner => match frontend.node.health() {
                Health { is_learner: true, .. } => Err("not supported for learner".to_owned()),
                Health { votes: true, .. } => Ok(()),
                Health { .. } => Err("the member does not vote yet: it still catches up".to_owned()),
            },
        }
    }
}

/// The read that checks make: it finds nothing, but it takes every step of a read that would.
async fn read(frontend: &Frontend, consistency: Consistency) -> Result<(), String> {
    let range = Range {
        limit: Some(1),
        keys_only: true,
        count_only: true,
        ..Range::of(KeyRange { start: bytes::Bytes::from_static(b"\0health"), end: RangeEnd::Single })
    };
    match frontend.read(range, consistency, frontend.internal_call()).await {
        Ok(_) => Ok(()),
        Err(failure) => Err(tonic::Status::from(failure).message().to_owned()),
    }
}

fn has_alarm(frontend: &Frontend, kind: AlarmKind) -> bool {
    frontend.storage.alarms().iter().any(|alarm| alarm.kind == kind)
}

/// What is wrong with the member as a whole, in etcd's words for `/health`; `None` when nothing is.
pub async fn overall(frontend: &Frontend, query: &Query) -> Option<String> {
    if has_alarm(frontend, AlarmKind::NoSpace) && !query.excludes("NOSPACE") {
        return Some("ALARM NOSPACE".to_owned());
    }
    let is_corrupt = frontend.is_poisoned() || has_alarm(frontend, AlarmKind::Corrupt);
    if is_corrupt && !query.excludes("CORRUPT") {
        return Some("ALARM CORRUPT".to_owned());
    }
    if frontend.node.health().leader.is_none() && !query.serializable {
        return Some("RAFT NO LEADER".to_owned());
    }
    let consistency = if query.serializable { Consistency::Serializable } else { Consistency::Linearizable };
    read(frontend, consistency).await.err().map(|reason| format!("RANGE ERROR:{reason}"))
}

/// What a health check may be asked with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Tell each check's result.
    pub verbose: bool,
    /// Ask this member's own state only.
    pub serializable: bool,
    exclude: Vec<String>,
}

impl Query {
    /// Reads a query string; what it does not know it ignores.
    pub fn parse(query: Option<&str>) -> Self {
        let mut parsed = Self::default();
        for pair in query.unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "verbose" => parsed.verbose = true,
                "serializable" => parsed.serializable = value == "true",
                "exclude" => parsed.exclude.push(value.to_owned()),
                _ => {}
            }
        }
        parsed
    }

    /// True when a check or an alarm is to be left out.
    pub fn excludes(&self, name: &str) -> bool {
        self.exclude.iter().any(|excluded| excluded == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_what_to_leave_out() {
        let query = Query::parse(Some("verbose&exclude=a&exclude=b&serializable=true&x=y"));
        assert!(query.verbose && query.serializable);
        assert!(query.excludes("a") && query.excludes("b") && !query.excludes("c"));
        assert_eq!(Query::parse(None), Query::default());
        assert!(!Query::parse(Some("serializable=false")).serializable);
    }
}
