//! After the last fault: what a cluster that is whole again must do, and by when.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use holdfast_mvcc::types::{Lease, LeaseId, MemberId};
use holdfast_raft::{Member, MemberChange};
use holdfast_storage::DispatcherState;
use tokio::time::Instant;

use super::changes::{Changed, ask};
use super::history::Violation;
use super::holder::TTL_SECONDS_MAX;
use super::life::Life;
use super::member::Machines;
use super::places::Place;
use super::workload::Client;

/// How long each step may take: ten election timeouts, and an install.
const STEP_MAX: Duration = Duration::from_secs(30);

/// How long the scrub of a whole store may take on one member: it rests after each piece, and the disks of some seeds are
/// slow (seed 32174: a minute for 4 MiB).
const SCRUB_MAX: Duration = Duration::from_secs(180);

/// How long all members together may take to dump: each rests three times as long as it works.
const DUMPS_MAX: Duration = Duration::from_secs(180);
/// By when there is a leader: some rounds of elections, and the patience of broken connections.
const LEADER_MAX: Duration = Duration::from_secs(10);
/// How often a waiting loop looks again.
const POLL: Duration = Duration::from_millis(50);

/// Heals all, starts all, and waits until the cluster does all that it is for.
pub(super) async fn recover(machines: &Machines, client: &mut Client) -> Result<(), Violation> {
    machines.history().trace("recover");
    machines.network().heal();
    machines.start_all().await?;
    wait(machines, LEADER_MAX, "nobody leads", || machines.leader().is_some()).await?;
    let mut members = settle(machines).await?;
    let known = loop {
        let all = members.len();
        wait(machines, LEADER_MAX, "there is no leader that all know", || {
            let leaders: Vec<_> = machines.lives().iter().map(|life| life.node.health().leader).collect();
            leaders.len() == all && leaders[0].is_some() && leaders.windows(2).all(|pair| pair[0] == pair[1])
        })
        .await?;
        let known = Instant::now();
        level(machines).await?;
        // Only now does every member know of a change that was under way.
        let again = settle(machines).await?;
        if again == members {
            break known;
        }
        members = again;
    };
    leases_end(machines, known).await?;
    for life in machines.lives() {
        let deadline = Instant::now() + STEP_MAX;
        while !client.put_until_done(&life).await {
            check_time(machines, deadline, "a write is not acknowledged")?;
            tokio::time::sleep(POLL).await;
        }
    }
    level(machines).await?;
    all_vote(machines, members).await?;
    dumps_end(machines).await?;
    compaction_ends(machines, client).await?;
    level(machines).await?;
    machines.lives().iter().for_each(|life| client.read_all(life));
    machines.check()
}

fn check_time(machines: &Machines, deadline: Instant, what: &str) -> Result<(), Violation> {
    machines.check()?;
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(Violation::new(format!("after all was healed, {what}: {}", machines.describe())))
}

/// Finishes what was begun with the membership, and waits until the members that the leader counts with are those that
/// live somewhere, and nothing that was asked for can still happen.
async fn settle(machines: &Machines) -> Result<Vec<Member>, Violation> {
    let deadline = Instant::now() + STEP_MAX;
    loop {
        machines.retire_departed()?;
        if let Some(members) = machines.confirmed_members().await
            && !machines.places().is_unsure()
            && is_settled(machines, &members).await?
        {
            return Ok(members);
        }
        check_time(machines, deadline, "the membership does not settle")?;
        tokio::time::sleep(POLL).await;
    }
}

async fn is_settled(machines: &Machines, members: &[Member]) -> Result<bool, Violation> {
    let ids: BTreeSet<u64> = members.iter().map(|member| member.id.0).collect();
    let lost = machines.places().lost();
    if let Some((machine, id)) = lost {
        if !ids.contains(&id) {
            machines.places().set(machine, Place::Vacant);
        } else if let Some((_, leader)) = machines.leader() {
            machines.places().leaves(id);
            ask(machines.clone(), leader, MemberChange::Remove(MemberId(id))).await;
        }
        return Ok(false);
    }
    let here = machines.places().taken();
    if let Some(id) = ids.iter().find(|id| !here.values().any(|here| here == *id)) {
        return Err(Violation::new(format!("the leader counts with member {id}, which is nowhere")));
    }
    // Those that were never added, or were removed and did not hear of it.
    here.iter().filter(|(_, id)| !ids.contains(id)).for_each(|(machine, _)| machines.vacate(*machine));
    // One that is being removed votes only before the change, which the leader still finishes.
    Ok(members.iter().filter(|member| !member.is_learner).all(|member| machines.votes(member.id)))
}

/// Promotes the learners, and waits until every member votes.
async fn all_vote(machines: &Machines, members: Vec<Member>) -> Result<(), Violation> {
    let deadline = Instant::now() + STEP_MAX;
    for learner in members.into_iter().filter(|member| member.is_learner) {
        loop {
            let Some((_, leader)) = machines.leader() else {
                return Err(Violation::new("the leader is gone although nothing is broken"));
            };
            if ask(machines.clone(), leader, MemberChange::Promote(learner.id)).await == Changed::Done {
                break;
            }
            check_time(machines, deadline, "a learner that has caught up is not promoted")?;
            tokio::time::sleep(POLL).await;
        }
    }
    let vote = || machines.lives().iter().all(|life| life.node.health().votes);
    wait(machines, STEP_MAX, "a member that is to vote does not", vote).await
}

/// Waits until something is so.
pub(super) async fn wait(
    machines: &Machines,
    within: Duration,
    otherwise: &str,
    mut is_so: impl FnMut() -> bool,
) -> Result<(), Violation> {
    let deadline = Instant::now() + within;
    while !is_so() {
        check_time(machines, deadline, otherwise)?;
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Waits until every member shows the same history that ends at one revision.
async fn level(machines: &Machines) -> Result<(), Violation> {
    let deadline = Instant::now() + STEP_MAX;
    while !is_level(machines).await? {
        check_time(machines, deadline, "the members are not level")?;
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn is_level(machines: &Machines) -> Result<bool, Violation> {
    let lives = machines.lives();
    for life in &lives {
        if life.node.linearize(Duration::from_secs(2)).await.is_err() {
            return Ok(false);
        }
    }
    let visible: Vec<_> = lives.iter().map(|life| *life.storage.visible().borrow()).collect();
    if visible.windows(2).any(|pair| pair[0] != pair[1])
        || visible[0].revision.get() < machines.history().known()
    {
        return Ok(false);
    }
    let mut hashes = Vec::new();
    for life in &lives {
        let hash = life.storage.history_hash(None).map_err(|error| Violation::new(error.to_string()))?;
        hashes.push((hash.hash, hash.revision, hash.compact_revision));
    }
    if hashes.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(Violation::new(format!("members differ at one revision: {hashes:?}")));
    }
    // Of what is evaluated, which may be ahead: they come level in the end.
    let leases: Vec<Leases> = lives.iter().map(leases_of).collect();
    Ok(leases.windows(2).all(|pair| pair[0] == pair[1]))
}

/// All leases with their keys.
type Leases = Vec<(LeaseId, Option<Lease>, Vec<Bytes>)>;

fn leases_of(life: &Life) -> Leases {
    let ids = life.storage.lease_ids().into_iter();
    ids.map(|id| (id, life.storage.lease(id), life.storage.lease_keys(id))).collect()
}

/// Every lease ends that nobody keeps alive any more: within its time to live and two election timeouts, from the moment on
/// at which all know the leader. A leader gives all of the time again when its reign begins, and one election timeout more.
async fn leases_end(machines: &Machines, mut known: Instant) -> Result<(), Violation> {
    let within = Duration::from_secs(TTL_SECONDS_MAX) + 2 * machines.election_timeout();
    let mut term = machines.leader().map(|(_, life)| life.node.health().term);
    while machines.lives().iter().any(|life| !life.storage.lease_ids().is_empty()) {
        let now = machines.leader().map(|(_, life)| life.node.health().term);
        if now != term {
            (term, known) = (now, Instant::now());
        }
        check_time(machines, known + within, "a lease lives that nobody keeps alive")?;
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Has every member dump, and waits until each has a snapshot of now, durable, and works as usual.
async fn dumps_end(machines: &Machines) -> Result<(), Violation> {
    let deadline = Instant::now() + DUMPS_MAX;
    for life in machines.lives() {
        while !is_dumped(&life) {
            // Begins at once, whatever came of the ones before; one that runs already is joined.
            life.node
                .trigger_dump()
                .await
                .map_err(|error| Violation::new(format!("no dump begins: {error}")))?;
            check_time(machines, deadline, "a dump does not end")?;
            tokio::time::sleep(5 * POLL).await;
        }
    }
    Ok(())
}

fn is_dumped(life: &Life) -> bool {
    let status = life.storage.status();
    status.state == DispatcherState::Normal
        && status.snapshot == status.visible.log_id
        && status.stable == status.visible.log_id
}

/// Compacts all but the newest revision, and waits until what that made unreadable is gone everywhere.
async fn compaction_ends(machines: &Machines, client: &Client) -> Result<(), Violation> {
    let deadline = Instant::now() + STEP_MAX;
    let revision = machines.history().known();
    let Some(life) = machines.lives().into_iter().next() else { return Ok(()) };
    while !client.compact_at(&life, revision).await {
        check_time(machines, deadline, "a compaction is not acknowledged")?;
    }
    for life in machines.lives() {
        let scrubbed = life.storage.scrubbed(holdfast_mvcc::types::Revision::new(revision));
        if tokio::time::timeout(SCRUB_MAX, scrubbed).await.is_err() {
            return Err(Violation::new(format!(
                "what was compacted at {revision} stays: {}",
                machines.describe()
            )));
        }
    }
    Ok(())
}
