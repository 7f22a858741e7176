//! Three members over real gRPC: writes and linearizable reads everywhere, failover, restarts, snapshots.

mod leases;
mod members;
mod support;

use std::time::Duration;

use holdfast_mvcc::command::{Command, Compact};
use holdfast_mvcc::validate::TXN_DEPTH_MAX;
use holdfast_raft::NodeError;
use holdfast_storage::{CancelReason, DispatcherState, StorageError};
use support::{Cluster, PATIENCE, eventually, get, nested, put};

/// More log than any test here writes.
const NO_DUMPS: u64 = 1 << 30;

/// WH23 and WH24.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_and_linearizable_reads_work_on_every_member() {
    let mut cluster = Cluster::start(3, NO_DUMPS).await;
    cluster.leader(&[]).await;
    for round in 0..5 {
        for writer in 0..3 {
            let value = format!("{round}-{writer}");
            let answer = put(&cluster.member(writer).node, "k", value.as_bytes(), PATIENCE).await.unwrap();
            assert!(answer.outcome.response.is_ok());
            for reader in 0..3 {
                let visible = cluster.member(reader).node.linearize(PATIENCE).await.unwrap();
                assert!(visible.log_id >= Some(answer.log_id));
                assert_eq!(get(&cluster.member(reader).storage, "k"), Some(value.clone()), "member {reader}");
            }
        }
    }
    let members = cluster.member(0).node.members();
    assert_eq!(members.iter().map(|member| member.id.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(members.iter().all(|member| !member.is_learner && member.peer_urls.len() == 1));
    let health = cluster.member(1).node.health();
    assert_eq!((health.proposals_pending, health.proposals_failed), (0, 0));
    // Counted a moment after they are visible; and a machine that is busy may not hear of the leader for one.
    eventually("all counted", || {
        let health = cluster.member(1).node.health();
        let is_counted = health.proposals_committed >= 15 && health.leader_changes >= 1;
        (is_counted && health.leader.is_some()).then_some(())
    })
    .await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_share_batches_and_all_get_their_own_answer() {
    let mut cluster = Cluster::start(3, NO_DUMPS).await;
    cluster.leader(&[]).await;
    let writers = (0..60).map(|writer| {
        let node = cluster.member(writer % 3).node.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                put(&node, &format!("k{writer}"), n.to_string().as_bytes(), PATIENCE).await.unwrap();
                node.linearize(PATIENCE).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    for member in 0..3 {
        cluster.member(member).node.linearize(PATIENCE).await.unwrap();
        for writer in 0..60 {
            assert_eq!(get(&cluster.member(member).storage, &format!("k{writer}")).as_deref(), Some("19"));
        }
        assert_eq!(cluster.member(member).node.health().proposals_committed, 1200);
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_replaced_and_comes_back_as_a_follower() {
    let mut cluster = Cluster::start_with(3, NO_DUMPS, Duration::from_secs(1)).await;
    let old = cluster.leader(&[]).await;
    put(&cluster.member(old).node, "k", b"before", PATIENCE).await.unwrap();
    let term = cluster.member(old).node.health().term;

    cluster.member(old).net.cut();
    let lost_at = tokio::time::Instant::now();
    let other = (old + 1) % 3;
    // As a client would: what went to the old leader just before it was lost ends as unknown, and is tried again.
    let answer = loop {
        match put(&cluster.member(other).node, "k", b"after", Duration::from_millis(200)).await {
            Ok(answer) => break answer,
            Err(error) => assert!(lost_at.elapsed() < PATIENCE, "{error}"),
        }
    };
    tracing::info!(failover = ?lost_at.elapsed(), "failover");
    assert!(cluster.member(other).node.health().term > term, "a new leader has a new term");

    // Cut off, the old leader can neither confirm nor commit anything.
    let budget = Duration::from_millis(300);
    assert!(cluster.member(old).node.linearize(budget).await.is_err());
    assert!(put(&cluster.member(old).node, "k", b"lost", budget).await.is_err());

    eventually("the lost leader to know that it is lost", || {
        let health = cluster.member(old).node.health();
        (health.leader.is_none() && !health.is_leader).then_some(())
    })
    .await;

    cluster.member(old).net.mend();
    let visible = cluster.member(old).node.linearize(PATIENCE).await.unwrap();
    assert!(visible.log_id >= Some(answer.log_id));
    assert_eq!(get(&cluster.member(old).storage, "k").as_deref(), Some("after"));
    assert!(!cluster.member(old).node.health().is_leader);
    cluster.stop_all().await;
}

/// After a leader went silent, nobody campaigns for 0.85 of the first: who leads within the second did not wait for that.
const NO_ELECTION: (Duration, Duration) = (Duration::from_secs(12), Duration::from_secs(8));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_process_ends_is_replaced_at_once() {
    let (election_timeout, budget) = NO_ELECTION;
    let mut cluster = Cluster::start_with(5, NO_DUMPS, election_timeout).await;
    // Twice, so that it is not always the turn of the same one.
    for down in 0..2 {
        let old = cluster.leader(&[]).await;
        put(&cluster.member(old).node, "k", b"before", PATIENCE).await.unwrap();
        let other = (0..5).rev().find(|&place| place != old && cluster.members[place].is_some()).unwrap();
        cluster.member(other).node.linearize(PATIENCE).await.unwrap();
        cluster.kill(old).await;
        let began = tokio::time::Instant::now();
        put(&cluster.member(other).node, "k", b"after", budget).await.unwrap();
        tracing::info!(failover = ?began.elapsed(), down, "failover");
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_all_start_at_once_do_not_wait_for_a_leader() {
    // Who hears of no leader from its start on would wait for 0.35 of that.
    let (election_timeout, budget) = (Duration::from_secs(24), Duration::from_secs(6));
    let mut cluster = Cluster::start_with(3, NO_DUMPS, election_timeout).await;
    let old = cluster.leader(&[]).await;
    put(&cluster.member(0).node, "k", b"before", PATIENCE).await.unwrap();
    for place in 0..3 {
        cluster.kill(place).await;
    }
    // The old leader first, so that nobody finds it gone.
    for step in 0..3 {
        cluster.restart((old + step) % 3).await;
    }
    put(&cluster.member(0).node, "k", b"after", budget).await.unwrap();
    cluster.stop_all().await;
}

/// It sees what it would see if the leader's process had ended; the others see the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_alone_has_lost_a_healthy_leader_does_not_disturb_it() {
    let mut cluster = Cluster::start(3, NO_DUMPS).await;
    let leader = cluster.leader(&[]).await;
    let (apart, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let term = cluster.member(leader).node.health().term;
    put(&cluster.member(apart).node, "k", b"v", PATIENCE).await.unwrap();
    cluster.member(leader).net.cut_to(cluster.url(apart));
    cluster.member(apart).net.cut_to(cluster.url(leader));
    // Until its campaigns, by pre-votes alone, are over.
    for n in 0..20 {
        put(&cluster.member(other).node, "k", &[n], PATIENCE).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(cluster.member(leader).node.health().is_leader);
    assert_eq!(cluster.member(other).node.health().term, term);
    cluster.member(leader).net.mend();
    cluster.member(apart).net.mend();
    cluster.member(apart).node.linearize(PATIENCE).await.unwrap();
    assert_eq!(cluster.member(apart).node.health().term, term);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_leader_hands_over() {
    let (election_timeout, budget) = NO_ELECTION;
    let mut cluster = Cluster::start_with(3, NO_DUMPS, election_timeout).await;
    let old = cluster.leader(&[]).await;
    put(&cluster.member(old).node, "k", b"before", PATIENCE).await.unwrap();
    let (node, term) = (cluster.member(old).node.clone(), cluster.member(old).node.health().term);
    cluster.stop(old).await;
    let other = (old + 1) % 3;
    put(&cluster.member(other).node, "k", b"after", budget).await.unwrap();
    assert!(cluster.member(other).node.health().term > term);
    assert_eq!(put(&node, "k", b"no", PATIENCE).await.unwrap_err(), NodeError::Stopped);
    assert_eq!(node.linearize(PATIENCE).await.unwrap_err(), NodeError::Stopped);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_accepts_no_peers_any_more_stops() {
    let cluster = Cluster::start(1, NO_DUMPS).await;
    let member = cluster.member(0);
    put(&member.node, "k", b"v", PATIENCE).await.unwrap();
    member.net.deafen();
    let reason = eventually("the member to stop itself", || member.halted.borrow().clone()).await;
    assert!(reason.contains("no longer accepted at http://127.0.0.1:"), "{reason}");
    member.node.abandon().await;
}

/// WH18: cold start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_all_members_restart() {
    let mut cluster = Cluster::start(3, NO_DUMPS).await;
    let leader = cluster.leader(&[]).await;
    for n in 0..50 {
        put(&cluster.member(n % 3).node, &format!("k{n}"), n.to_string().as_bytes(), PATIENCE).await.unwrap();
    }
    let term = cluster.member(leader).node.health().term;
    cluster.stop_all().await;
    for place in 0..3 {
        cluster.restart(place).await;
    }
    cluster.leader(&[]).await;
    for place in 0..3 {
        cluster.member(place).node.linearize(PATIENCE).await.unwrap();
        for n in 0..50 {
            let value = get(&cluster.member(place).storage, &format!("k{n}"));
            assert_eq!(value, Some(n.to_string()), "k{n} on member {place}");
        }
        assert_eq!(cluster.member(place).node.members().len(), 3);
    }
    assert!(cluster.member(0).node.health().term > term);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_the_log_cannot_help_gets_a_snapshot() {
    const DUMP_BYTES: u64 = 256 << 10;
    let mut cluster = Cluster::start(3, DUMP_BYTES).await;
    let leader = cluster.leader(&[]).await;
    put(&cluster.member(leader).node, "first", b"1", PATIENCE).await.unwrap();
    let lagging = (leader + 1) % 3;
    cluster.sees(lagging, "first", "1").await;
    let had = cluster.member(lagging).log.state().last.unwrap();
    cluster.stop(lagging).await;

    let filler = vec![7; 16 << 10];
    for n in 0..150 {
        put(&cluster.member(leader).node, &format!("k{}", n % 40), &filler, PATIENCE).await.unwrap();
    }
    eventually("the log to go behind a snapshot", || {
        let purged = cluster.member(leader).log.state().purged;
        purged.is_some_and(|purged| purged > had).then_some(())
    })
    .await;
    put(&cluster.member(leader).node, "last", b"2", PATIENCE).await.unwrap();

    cluster.restart(lagging).await;
    cluster.member(lagging).node.linearize(PATIENCE).await.unwrap();
    let lagging_member = cluster.member(lagging);
    assert_eq!(get(&lagging_member.storage, "first").as_deref(), Some("1"));
    assert_eq!(get(&lagging_member.storage, "last").as_deref(), Some("2"));
    assert!(lagging_member.storage.current_snapshot().is_some(), "it got a snapshot");
    eventually("its log to start behind the snapshot", || {
        lagging_member.log.state().purged.is_some_and(|purged| purged > had).then_some(())
    })
    .await;
    put(&lagging_member.node, "again", b"3", PATIENCE).await.unwrap();
    for place in 0..3 {
        cluster.sees(place, "again", "3").await;
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_member_is_its_own_cluster() {
    let mut cluster = Cluster::start(1, NO_DUMPS).await;
    put(&cluster.member(0).node, "k", b"v", PATIENCE).await.unwrap();
    cluster.member(0).node.linearize(PATIENCE).await.unwrap();
    cluster.member(0).node.trigger_dump().await.unwrap();
    eventually("the snapshot", || cluster.member(0).storage.current_snapshot()).await;
    cluster.stop(0).await;
    cluster.restart(0).await;
    cluster.member(0).node.linearize(PATIENCE).await.unwrap();
    assert_eq!(get(&cluster.member(0).storage, "k").as_deref(), Some("v"));
    cluster.stop_all().await;
}

/// What an entry takes in the file counts, not what it carries: with small values that is half of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_comes_when_the_log_is_so_long_on_disk() {
    const DUE: u64 = 64 << 10;
    let mut cluster = Cluster::start(1, DUE).await;
    let member = cluster.member(0);
    let mut written = 0;
    while written <= DUE {
        let log_id = put(&member.node, "k", b"v", PATIENCE).await.unwrap().log_id;
        let entries = member.log.read(log_id.index(), log_id.index().next(), 1).unwrap();
        written += holdfast_log::entry_bytes(entries[0].payload.len()) as u64;
    }
    eventually("the snapshot", || member.storage.current_snapshot()).await;
    cluster.stop_all().await;
}

/// The leader is sent back what it sent: it reads its snapshot through, and takes another one at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_rots_while_its_member_runs_is_replaced_and_sent() {
    let mut cluster = Cluster::start(3, 256 << 10).await;
    let leader = cluster.leader(&[]).await;
    let follower = (leader + 1) % 3;
    put(&cluster.member(leader).node, "before", b"1", PATIENCE).await.unwrap();
    cluster.stop(follower).await;
    let had = cluster.member(leader).log.state().last;
    for n in 0..100 {
        put(&cluster.member(leader).node, &format!("k{}", n % 10), &[n; 20_000], PATIENCE).await.unwrap();
    }
    put(&cluster.member(leader).node, "meanwhile", b"2", PATIENCE).await.unwrap();
    eventually("a log that begins behind what the follower has", || {
        (cluster.member(leader).log.state().purged > had).then_some(())
    })
    .await;
    // None that begins by itself may replace the one that rots.
    cluster.member(leader).node.trigger_dump().await.unwrap();
    eventually("a snapshot of all", || {
        let status = cluster.member(leader).storage.status();
        (status.state == DispatcherState::Normal && status.snapshot == status.visible.log_id).then_some(())
    })
    .await;
    cluster.rot_snapshot(leader);
    let damaged = cluster.member(leader).storage.damaged_snapshots();
    cluster.restart(follower).await;
    cluster.sees(follower, "meanwhile", "2").await;
    assert_eq!(*damaged.borrow(), 1);
    assert_eq!(*cluster.member(leader).halted.borrow(), None);
    put(&cluster.member(follower).node, "after", b"3", PATIENCE).await.unwrap();
    cluster.stop_all().await;
}

/// What a person asks for does not wait as the next dump by policy does, and a refusal says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_by_hand_begins_at_once_after_one_that_failed() {
    let mut cluster = Cluster::start(1, NO_DUMPS).await;
    let member = cluster.member(0);
    let is_postponed = async {
        loop {
            put(&member.node, "k", b"v", PATIENCE).await.unwrap();
            member.node.trigger_dump().await.unwrap();
            member.storage.cancel_dump(CancelReason::Admin);
            let refused = member.storage.start_dump_by_policy().await.err();
            if let Some(StorageError::DumpPostponed { wait }) = refused {
                return wait;
            }
        }
    };
    let wait = tokio::time::timeout(PATIENCE, is_postponed).await.expect("one is cancelled in time");
    assert!(wait > Duration::from_secs(20), "{wait:?}");
    let visible = put(&member.node, "k", b"w", PATIENCE).await.unwrap().log_id;
    member.node.trigger_dump().await.unwrap();
    let dumped = eventually("the snapshot", || {
        let snapshot = member.storage.current_snapshot()?;
        (snapshot.applied.log_id >= Some(visible)).then_some(())
    });
    tokio::time::timeout(wait / 2, dumped).await.expect("it does not wait");
    member.storage.shutdown().await;
    assert!(matches!(member.node.trigger_dump().await, Err(StorageError::Closed)));
    cluster.stop_all().await;
}

/// After a compaction the snapshot is written anew by itself when it holds much that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_shrinks_after_a_compaction() {
    let mut cluster = Cluster::start(1, 6 << 20).await;
    let node = &cluster.member(0).node;
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    for _ in 0..16 {
        let value: Vec<u8> = (0..500_000).map(|_| noise()).collect();
        put(node, "k", &value, PATIENCE).await.unwrap();
    }
    let storage = &cluster.member(0).storage;
    let bytes = || storage.current_snapshot().map_or(0, |snapshot| snapshot.bytes);
    // A dump that began by itself has only a part, and is over before another begins.
    let all_dumped = async {
        while bytes() < 7_900_000 {
            node.trigger_dump().await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_dumped).await.expect("a snapshot of all");
    let compaction = Command::Compact(Compact { revision: 17 });
    node.propose(compaction, PATIENCE).await.unwrap();
    eventually("a small snapshot", || (bytes() < 600_000).then_some(())).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_proposed_is_refused_at_once() {
    let mut cluster = Cluster::start(3, NO_DUMPS).await;
    let leader = cluster.leader(&[]).await;
    let error = put(&cluster.member(leader).node, "k", &vec![0; 1 << 20], PATIENCE).await.unwrap_err();
    assert!(matches!(error, NodeError::TooLarge { bytes_max: 1_048_576, .. }), "{error}");
    let error = cluster.member(leader).node.propose(nested(TXN_DEPTH_MAX + 1), PATIENCE).await.unwrap_err();
    assert_eq!(error, NodeError::TooDeep { depth_max: TXN_DEPTH_MAX });
    cluster.member(leader).node.propose(nested(TXN_DEPTH_MAX), PATIENCE).await.unwrap();
    for place in 0..3 {
        if place != leader {
            cluster.stop(place).await;
        }
    }
    // Alone, it cannot commit. Within its lease it still appends: unknown. Later it knows that it must not: nothing
    // happened.
    let mut errors = Vec::new();
    while errors.last() != Some(&NodeError::NoLeader) {
        errors.push(
            put(&cluster.member(leader).node, "k", b"v", Duration::from_millis(100)).await.unwrap_err(),
        );
        assert!(errors.len() < 100, "{errors:?}");
    }
    assert!(
        errors.iter().all(|error| matches!(error, NodeError::NoLeader | NodeError::TimedOut(_))),
        "{errors:?}"
    );
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_is_cut_three_times_goes_on_where_it_was() {
    const VALUES: usize = 40;
    let mut cluster = Cluster::start(3, 16 << 20).await;
    let leader = cluster.leader(&[]).await;
    let follower = (leader + 1) % 3;
    put(&cluster.member(leader).node, "before", b"1", PATIENCE).await.unwrap();
    cluster.stop(follower).await;
    let had = cluster.member(leader).log.state().last;
    // Noise, so that compression makes nothing smaller.
    let mut noise = 1u64;
    for n in 0..VALUES {
        let value: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u8::try_from(noise >> 56).unwrap()
        })
        .take(1_000_000)
        .collect();
        put(&cluster.member(leader).node, &format!("k{n}"), &value, PATIENCE).await.unwrap();
    }
    cluster.member(leader).node.trigger_dump().await.unwrap();
    let dumped = eventually("a snapshot of all, and a log that goes behind it", || {
        let purged = cluster.member(leader).log.state().purged;
        let status = cluster.member(leader).storage.status();
        let snapshot = cluster.member(leader).storage.current_snapshot();
        // The last one: another would take its place in the middle of the transfer.
        snapshot.filter(|snapshot| snapshot.applied.log_id == status.visible.log_id && purged > had)
    })
    .await;
    let transfers = cluster.member(leader).net.transfers.clone();
    transfers.cuts.lock().extend([8_000_000; 3]);
    cluster.restart(follower).await;
    cluster.sees(follower, "before", "1").await;
    eventually("the last value", || {
        let visible = cluster.member(follower).storage.status().visible;
        (visible.revision.get() == VALUES as u64 + 2).then_some(())
    })
    .await;
    let sent = transfers.sent.lock().clone();
    assert_eq!(sent.len(), 4, "three cut connections and a last one: {sent:?}");
    assert_eq!(sent[0].0, 0);
    assert!(sent.is_sorted_by(|before, after| before.0 < after.0), "each goes on further: {sent:?}");
    let total: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
    // What is lost with a connection was on its way.
    println!("{total} bytes sent for a snapshot of {}: {sent:?}", dumped.bytes);
    assert!(total < dumped.bytes + 20_000_000, "{total} bytes for {}: {sent:?}", dumped.bytes);
    cluster.stop_all().await;
}
