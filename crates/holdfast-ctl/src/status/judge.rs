//! What the answers of a cluster's members mean. Pure: from facts to findings.

use std::collections::BTreeSet;

use holdfast_proto::etcdserverpb as pb;
use pb::AlarmType;

/// A member that has applied less than the leader's log by so many entries is not merely a moment behind.
const LAG_MAX: u64 = 1000;

/// An endpoint, and what it says of itself or why it says nothing.
pub(super) struct Seen {
    /// As it was given, or as its member tells clients to reach it.
    pub(super) endpoint: String,
    /// What it says.
    pub(super) answer: Result<pb::StatusResponse, String>,
}

impl Seen {
    /// The member's id, where it answers.
    pub(super) fn id(&self) -> Option<u64> {
        Some(self.answer.as_ref().ok()?.header?.member_id)
    }

    /// Whether it says that it leads.
    pub(super) fn leads(&self) -> bool {
        self.answer.as_ref().is_ok_and(|status| status.leader != 0 && Some(status.leader) == self.id())
    }

    fn cluster(&self) -> Option<u64> {
        Some(self.answer.as_ref().ok()?.header?.cluster_id)
    }
}

/// All that is known.
pub(super) struct Facts {
    /// As one of them lists them.
    pub(super) members: Vec<pb::Member>,
    /// Each endpoint once.
    pub(super) seen: Vec<Seen>,
    /// Whether a read was served that a quorum agrees to, or why not.
    pub(super) read: Result<(), String>,
    /// The alarms, or why they are not known.
    pub(super) alarms: Result<Vec<pb::AlarmMember>, String>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// What.
    pub(super) what: String,
    /// What to do about it.
    pub(super) next: String,
}

impl Facts {
    /// The cluster in one line.
    pub(super) fn summary(&self) -> String {
        let voters = self.voters();
        let learners = self.members.len() - voters;
        let header = self.seen.iter().find_map(|seen| seen.answer.as_ref().ok()?.header);
        let (cluster, revision) = header.map_or((0, 0), |header| (header.cluster_id, header.revision));
        let leader = match self.seen.iter().find(|seen| seen.leads()) {
            Some(leader) => format!("leader {}", self.called(leader)),
            None => "no leader seen".to_owned(),
        };
        let learners =
            if learners == 0 { String::new() } else { format!(" and {}", counted(learners, "learner")) };
        let voters = counted(voters, "voter");
        format!("Cluster {cluster:x}: {voters}{learners}, {leader}, revision {revision}")
    }

    fn voters(&self) -> usize {
        self.members.iter().filter(|member| !member.is_learner).count()
    }

    fn member_of(&self, seen: &Seen) -> Option<&pb::Member> {
        let bare =
            |url: &str| url.split_once("://").map_or(url, |(_, bare)| bare).trim_end_matches('/').to_owned();
        let has_url =
            |member: &&pb::Member| member.client_ur_ls.iter().any(|url| bare(url) == bare(&seen.endpoint));
        let by_id = self.members.iter().find(|member| Some(member.id) == seen.id());
        by_id.or_else(|| self.members.iter().find(has_url).filter(|_| seen.id().is_none()))
    }

    /// A member's name and id with its endpoint, as far as they are known.
    pub(super) fn called(&self, seen: &Seen) -> String {
        match self.member_of(seen) {
            Some(member) => format!("{} ({:x}) at {}", name(member), member.id, seen.endpoint),
            None => seen.endpoint.clone(),
        }
    }

    fn by_id(&self, id: u64) -> String {
        self.members.iter().find(|member| member.id == id).map_or_else(|| format!("{id:x}"), name)
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn name(member: &pb::Member) -> String {
    if member.name.is_empty() { "a member without a name".to_owned() } else { member.name.clone() }
}

fn finding(what: String, next: impl Into<String>) -> Finding {
    Finding { what, next: next.into() }
}

/// What is wrong, the worst first.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    clusters(facts, &mut findings);
    quorum(facts, &mut findings);
    unreached(facts, &mut findings);
    alarms(facts, &mut findings);
    each(facts, &mut findings);
    versions(facts, &mut findings);
    findings
}

fn clusters(facts: &Facts, findings: &mut Vec<Finding>) {
    let ids: BTreeSet<u64> = facts.seen.iter().filter_map(Seen::cluster).collect();
    if ids.len() > 1 {
        let ids: Vec<String> = ids.iter().map(|id| format!("{id:x}")).collect();
        findings.push(finding(
            format!("The endpoints belong to different clusters: {}", ids.join(", ")),
            "give the endpoints of one cluster; if they should be one, members were started with different --initial-cluster \
             or --initial-cluster-token",
        ));
    }
}

fn quorum(facts: &Facts, findings: &mut Vec<Finding>) {
    let voters = facts.voters();
    let needed = voters / 2 + 1;
    let is_voter = |seen: &&Seen| facts.member_of(seen).is_some_and(|member| !member.is_learner);
    let up = facts.seen.iter().filter(|seen| seen.answer.is_ok()).filter(is_voter).count();
    if voters > 0 && up < needed {
        findings.push(finding(
            format!("{up} of {voters} voters answer, and {needed} are needed: nothing can be written, or read up to date"),
            "bring members back: those below that do not answer. If their disks are lost, restore a snapshot into a new \
             cluster with holdfastctl snapshot restore",
        ));
    } else if let Err(why) = &facts.read {
        findings.push(finding(
            format!("Reads are not confirmed by a quorum: {why}"),
            "look whether the members reach each other on their peer URLs, and at their logs",
        ));
    }
    let leaders: BTreeSet<u64> =
        facts.seen.iter().filter_map(|seen| seen.answer.as_ref().ok()).map(|status| status.leader).collect();
    if leaders.contains(&0) {
        let without =
            facts.seen.iter().filter(|seen| seen.answer.as_ref().is_ok_and(|status| status.leader == 0));
        let names: Vec<String> = without.map(|seen| facts.called(seen)).collect();
        findings.push(finding(
            format!("No leader is known to {}", names.join(", ")),
            "wait for an election, a few seconds; if it stays so, look whether the peer URLs reach each other",
        ));
    }
    if leaders.iter().filter(|leader| **leader != 0).count() > 1 {
        findings.push(finding(
            "The members name different leaders".to_owned(),
            "ask again: an election may be under way. If it stays so, some members are cut off from the others",
        ));
    }
}

fn unreached(facts: &Facts, findings: &mut Vec<Finding>) {
    for seen in &facts.seen {
        let Err(cause) = &seen.answer else { continue };
        let next = match facts.member_of(seen) {
            Some(member) => format!(
                "start it, or clear the way to it. If it is gone for good: holdfastctl member remove {:x}, and add another",
                member.id
            ),
            None => "correct --endpoints, or start what should be there".to_owned(),
        };
        findings.push(finding(format!("{} cannot be asked: {cause}", facts.called(seen)), next));
    }
    for member in facts.members.iter().filter(|member| member.name.is_empty()) {
        findings.push(finding(
            format!("{:x} was added with the peer URL {}, and has not started", member.id, member.peer_ur_ls.join(",")),
            format!(
                "start it with --initial-cluster-state existing, or take it back: holdfastctl member remove {:x}",
                member.id
            ),
        ));
    }
}

fn alarms(facts: &Facts, findings: &mut Vec<Finding>) {
    let raised = match &facts.alarms {
        Ok(raised) => raised,
        Err(why) => {
            let next = "ask again; this is asked of one member, and needs no quorum";
            return findings.push(finding(format!("The alarms are not known: {why}"), next));
        }
    };
    for alarm in raised {
        let who = facts.by_id(alarm.member_id);
        findings.push(match alarm.alarm() {
            AlarmType::Nospace => finding(
                format!("Alarm NOSPACE of {who}: its data has reached the quota, and puts are refused"),
                "delete what is not needed, holdfastctl compaction REVISION, holdfastctl defrag --cluster, then holdfastctl alarm \
                 disarm; or restart the members with a larger --quota-backend-bytes",
            ),
            AlarmType::Corrupt => finding(
                format!("Alarm CORRUPT of {who}: its data differs from the others'"),
                "compare holdfastctl endpoint hashkv --cluster; remove the member that differs, empty its data directory, and add \
                 it again; then holdfastctl alarm disarm",
            ),
            AlarmType::None => {
                finding(format!("An alarm of {who} that is not known here"), "holdfastctl alarm list")
            }
        });
    }
}

fn each(facts: &Facts, findings: &mut Vec<Finding>) {
    let answers = || facts.seen.iter().filter_map(|seen| Some((seen, seen.answer.as_ref().ok()?)));
    let newest = answers().map(|(_, status)| status.raft_index).max().unwrap_or(0);
    for (seen, status) in answers() {
        let who = facts.called(seen);
        let lag = newest.saturating_sub(status.raft_applied_index);
        if lag > LAG_MAX {
            findings.push(finding(
                format!("{who} is {lag} log entries behind"),
                "ask again: if that grows, its disk or its network is too slow, or it is overloaded with reads",
            ));
        }
        for error in &status.errors {
            // Told above in other words.
            if !error.contains("no leader") && !error.contains("alarm:") {
                findings.push(finding(format!("{who} says: {error}"), "look at its log"));
            }
        }
    }
}

fn versions(facts: &Facts, findings: &mut Vec<Finding>) {
    let answers = facts.seen.iter().filter_map(|seen| seen.answer.as_ref().ok());
    let versions: BTreeSet<&str> = answers.map(|status| status.version.as_str()).collect();
    if versions.len() > 1 {
        let versions: Vec<&str> = versions.into_iter().collect();
        findings.push(finding(
            format!("The members have different versions: {}", versions.join(", ")),
            "finish the upgrade: the cluster behaves like its oldest member until then",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> pb::Member {
        pb::Member {
            id,
            name: format!("n{id}"),
            client_ur_ls: vec![format!("http://h{id}:1")],
            ..Default::default()
        }
    }

    fn seen(id: u64, leader: u64) -> Seen {
        let header = Some(pb::ResponseHeader { cluster_id: 9, member_id: id, ..Default::default() });
        let status = pb::StatusResponse {
            header,
            leader,
            version: "3.5.0".into(),
            raft_index: 10,
            raft_applied_index: 10,
            ..Default::default()
        };
        Seen { endpoint: format!("http://h{id}:1"), answer: Ok(status) }
    }

    fn silent(id: u64) -> Seen {
        Seen { endpoint: format!("h{id}:1"), answer: Err("connection refused".into()) }
    }

    fn facts(seen: Vec<Seen>) -> Facts {
        Facts { members: (1..=3).map(member).collect(), seen, read: Ok(()), alarms: Ok(Vec::new()) }
    }

    fn all(facts: &Facts) -> String {
        judge(facts).into_iter().map(|finding| format!("{}\n", finding.what)).collect()
    }

    #[test]
    fn a_whole_cluster_is_well() {
        let whole = facts(vec![seen(1, 2), seen(2, 2), seen(3, 2)]);
        assert_eq!(judge(&whole), []);
        assert_eq!(whole.summary(), "Cluster 9: 3 voters, leader n2 (2) at http://h2:1, revision 0");
    }

    #[test]
    fn a_member_that_is_down_is_named_with_the_cause() {
        let one_down = facts(vec![seen(1, 1), seen(2, 1), silent(3)]);
        assert_eq!(all(&one_down), "n3 (3) at h3:1 cannot be asked: connection refused\n");
        assert!(judge(&one_down)[0].next.contains("member remove 3"));
        let two_down = facts(vec![seen(1, 0), silent(2), silent(3)]);
        let told = all(&two_down);
        assert!(told.starts_with("1 of 3 voters answer, and 2 are needed"), "{told}");
        assert!(told.contains("No leader is known to n1"), "{told}");
    }

    #[test]
    fn alarms_lag_versions_and_strangers_are_found() {
        let mut ill = facts(vec![seen(1, 1), seen(2, 1), seen(3, 1)]);
        ill.alarms = Ok(vec![pb::AlarmMember { member_id: 2, alarm: AlarmType::Nospace.into() }]);
        if let Ok(status) = &mut ill.seen[2].answer {
            status.raft_index = 5000;
            status.version = "3.6.0".into();
        }
        if let Ok(status) = &mut ill.seen[1].answer {
            status.raft_applied_index = 5000;
            status.header = Some(pb::ResponseHeader { cluster_id: 8, member_id: 2, ..Default::default() });
        }
        let told = all(&ill);
        for part in
            ["NOSPACE of n2", "4990 log entries behind", "versions: 3.5.0, 3.6.0", "different clusters: 8, 9"]
        {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
