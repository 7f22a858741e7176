//! `status`: what is wrong with the cluster, and what to do next.
//!
//! Every endpoint that was given and every member that they know is asked by itself; [`mod@judge`] says what that means.

mod judge;

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_proto::etcdserverpb as pb;

use crate::client::{Client, LOGIN_IS_WRONG, service};
use crate::cluster::alarms;
use crate::endpoint::{in_short, status as ask_status};
use crate::error::{CtlError, Done};
use crate::output::json::{list, object, string};
use crate::output::{self, Format, Look, Out, View, push};
use judge::{Facts, Finding, Seen, judge};

/// The exit code when something is wrong.
const UNHEALTHY: u8 = 5;

/// `status`.
pub(crate) async fn status(client: &Arc<Client>, out: Out) -> Done {
    out.has::<Report>()?;
    let facts = gather(client).await?;
    let findings = judge(&facts);
    let is_healthy = findings.is_empty();
    out.show(&Report { facts, findings })?;
    if is_healthy { Ok(()) } else { Err(CtlError::Exit(UNHEALTHY)) }
}

/// Asks everybody. Who asks is told only where that is needed: a login takes a leader.
///
/// Errors: nobody could be asked, or the login was refused.
async fn gather(client: &Arc<Client>) -> Result<Facts, CtlError> {
    // Of the member's own knowledge: there may be no leader to ask for more.
    let request = pb::MemberListRequest { linearizable: false };
    let nobody = client.as_nobody();
    let members = nobody.read(async |conn| service::cluster(conn).member_list(request).await).await?.members;
    // By host and port, so that an endpoint that was given is not asked twice.
    let mut urls: BTreeMap<String, String> = BTreeMap::new();
    let known = members.iter().flat_map(|member| member.client_ur_ls.iter().cloned());
    for url in client.endpoints().iter().cloned().chain(known) {
        let bare =
            url.split_once("://").map_or(url.as_str(), |(_, bare)| bare).trim_end_matches('/').to_owned();
        urls.entry(bare).or_insert(url);
    }
    let asked: Vec<_> = urls
        .into_values()
        .map(|url| {
            let one = nobody.of(&url);
            tokio::task::spawn_local(async move {
                (url, ask_status(&one).await.map_err(|error| in_short(&error)))
            })
        })
        .collect();
    let mut seen: Vec<Seen> = Vec::new();
    for asked in asked {
        let (endpoint, answer) = asked.await.map_err(anyhow::Error::from)?;
        let id = answer.as_ref().ok().and_then(|answer| answer.header).map(|header| header.member_id);
        // Under two addresses it is one member.
        if id.is_none() || !seen.iter().any(|other| other.id() == id) {
            seen.push(Seen { endpoint, answer });
        }
    }
    let request = pb::RangeRequest { key: "health".into(), count_only: true, ..Default::default() };
    let read = client.read(async |conn| service::kv(conn).range(request.clone()).await).await;
    let read = match read {
        Ok(_) => Ok(()),
        // Who may not read was told so behind the confirmation by a quorum.
        Err(CtlError::Refused { status, .. }) if status.code() == tonic::Code::PermissionDenied => Ok(()),
        Err(error @ CtlError::Refused { .. }) if error.says(LOGIN_IS_WRONG) => return Err(error),
        Err(error) => Err(in_short(&error)),
    };
    let alarms = alarms(client).await.map(|answer| answer.alarms).map_err(|error| in_short(&error));
    Ok(Facts { members, seen, read, alarms })
}

/// What was seen, and what it means.
struct Report {
    facts: Facts,
    findings: Vec<Finding>,
}

impl View for Report {
    const FORMATS: &'static [Format] = &[Format::Simple, Format::Json];

    fn simple(&self, text: &mut Vec<u8>, _: Look) {
        push(text, &self.facts.summary());
        for seen in &self.facts.seen {
            push(text, &format!("  {}: {}", self.facts.called(seen), told(seen)));
        }
        if self.findings.is_empty() {
            return push(text, "Nothing is wrong.");
        }
        push(text, "What is wrong:");
        for Finding { what, next } in &self.findings {
            push(text, &format!("- {what}"));
            push(text, &format!("  Next: {next}"));
        }
    }

    fn json(&self, _: Look) -> String {
        let endpoint = |seen: &Seen| {
            let mut fields = vec![("endpoint", string(&seen.endpoint))];
            match &seen.answer {
                Ok(status) => fields.extend([
                    ("id", string(&format!("{:x}", seen.id().unwrap_or(0)))),
                    ("leader", string(&format!("{:x}", status.leader))),
                    ("learner", status.is_learner.to_string()),
                    ("version", string(&status.version)),
                    ("size", status.db_size.to_string()),
                    ("index", status.raft_index.to_string()),
                    ("applied", status.raft_applied_index.to_string()),
                ]),
                Err(cause) => fields.push(("cause", string(cause))),
            }
            object(&fields)
        };
        let finding =
            |Finding { what, next }: &Finding| object(&[("what", string(what)), ("next", string(next))]);
        object(&[
            ("healthy", self.findings.is_empty().to_string()),
            ("endpoints", list(&self.facts.seen.iter().map(endpoint).collect::<Vec<_>>())),
            ("findings", list(&self.findings.iter().map(finding).collect::<Vec<_>>())),
        ])
    }
}

/// What an endpoint says of itself.
fn told(seen: &Seen) -> String {
    match &seen.answer {
        Err(cause) => format!("no answer: {cause}"),
        Ok(status) => {
            let part = if seen.leads() {
                "leader"
            } else if status.is_learner {
                "learner"
            } else {
                "follower"
            };
            let (version, size) = (&status.version, output::bytes(status.db_size.unsigned_abs()));
            format!("{part}, version {version}, {size}, applied {}", status.raft_applied_index)
        }
    }
}
