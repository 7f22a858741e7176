//! Waiting until every watcher has received what is due to it, and checking that it did, and nothing else.

use bytes::Bytes;

use super::{Fault, Line, Player};
use crate::conformance::members::Touch;
use crate::conformance::watcher::{Occurrence, Watcher};

/// How far watchers must have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settle {
    /// Each has received what was due.
    Owed,
    /// Moreover none is still busy with history that has nothing for it: a compaction would cancel it.
    AtHead,
}

impl Player<'_> {
    /// Waits until everybody has received all that is due, and checks it.
    pub(super) async fn settle(&mut self, settle: Settle) {
        if self.recorders == 0 || self.is_over() {
            return;
        }
        self.gather_history().await;
        for watcher in self.untouched(settle) {
            self.touch(watcher).await;
        }
        if self.is_over() {
            return;
        }
        self.wait_until(|player| player.watchers().all(Watcher::is_served)).await;
        let head = self.revisions.head;
        let mut faults = Vec::new();
        for watcher in self.watchers() {
            let header = (watcher.header_max > head)
                .then(|| format!("header.revision {} beyond the head {head}", watcher.header_max));
            let promised = watcher.promises.iter().map(|(revision, _)| *revision).max().unwrap_or(0);
            let promise =
                (promised > head).then(|| format!("progress named {promised} beyond the head {head}"));
            let found = [watcher.first_mistake(), watcher.broken_promise(), header, promise];
            let of_watcher = |text| Fault { watcher: Some(watcher.call), text };
            faults.extend(found.into_iter().flatten().map(of_watcher));
        }
        self.transcript.faults.extend(faults);
    }

    /// Live watchers of the script of which it is known what they are owed.
    fn watchers(&self) -> impl Iterator<Item = &Watcher> {
        let lines = self.lines[self.recorders..].iter();
        lines.flat_map(|line| line.inbox.live.values()).filter(|watcher| watcher.is_ruled())
    }

    fn watchers_mut(&mut self) -> impl Iterator<Item = &mut Watcher> {
        let lines = self.lines[self.recorders..].iter_mut();
        lines.flat_map(|line| line.inbox.live.values_mut()).filter(|watcher| watcher.is_ruled())
    }

    /// Waits until every recorder has the newest revision, and adds to each watcher what is due since.
    async fn gather_history(&mut self) {
        let (head, recorders) = (self.revisions.head, self.recorders);
        let has_head = |line: &Line| {
            line.inbox.live.values().all(|recorder| {
                head == 1 || recorder.received.last().is_some_and(|event| event.revision >= head)
            })
        };
        if !self.wait_until(|player| player.lines[..recorders].iter().all(has_head)).await {
            self.fault(format!("a watcher of everything did not receive revision {head} in time"));
            return;
        }
        let recorded: Vec<&Vec<Occurrence>> = self.lines[..recorders]
            .iter()
            .flat_map(|line| line.inbox.live.values().map(|w| &w.received))
            .collect();
        let Some(first) = recorded.first() else {
            return self.fault("the watcher of everything is gone".to_owned());
        };
        let fresh = first[self.settled.min(first.len())..].to_vec();
        let differs = recorded.iter().position(|other| other.get(self.settled..) != Some(&fresh[..]));
        if let Some(member) = differs {
            let text = format!(
                "members 0 and {member} sent other events since {}",
                first[self.settled.max(1) - 1].text
            );
            return self.fault(text);
        }
        self.settled += fresh.len();
        self.transcript.history.extend(fresh);
        let history = std::mem::take(&mut self.transcript.history);
        self.watchers_mut().for_each(|watcher| watcher.read_history(&history));
        self.transcript.history = history;
    }

    /// Keys to change so that watchers show where they are: those that go through history and have received nothing
    /// that would show it.
    fn untouched(&mut self, settle: Settle) -> Vec<(Bytes, Touch)> {
        let mut touches = Vec::new();
        for watcher in self.watchers_mut() {
            let is_doubtful = watcher.starts_in_the_past() && watcher.last_due().is_none();
            let matters = settle == Settle::AtHead || !watcher.due.is_empty();
            let can_show = watcher.spec.puts || watcher.spec.deletes;
            if is_doubtful && matters && can_show && !watcher.is_touched {
                watcher.is_touched = true;
                let touch = if watcher.spec.puts { Touch::Put } else { Touch::PutAndDelete };
                touches.push((watcher.spec.key.clone(), touch));
            }
        }
        touches
    }

    /// Puts the key, and deletes it again for a watcher that is not told of puts.
    async fn touch(&mut self, (key, touch): (Bytes, Touch)) {
        let token = match self.root_token().await {
            Ok(token) => token,
            Err(status) => {
                self.transcript.outage = Some(format!("the login as root: {status}"));
                return;
            }
        };
        match self.members.touch(key, touch, token.as_deref()).await {
            Ok(revision) => self.revisions.head = self.revisions.head.max(revision),
            Err(status) => self.transcript.outage = Some(format!("a change for a watcher: {status}")),
        }
        self.gather_history().await;
    }
}
