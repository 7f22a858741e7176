//! Plays one script against one cluster and writes down everything a client can see.
//!
//! Nothing here depends on how fast anyone is. After a request on a watch stream comes one whose refusal is certain;
//! when that is there, whatever the first was answered is there too, and silence is known for silence. Before anything
//! that changes what a watcher is owed (a cancel, progress, a compaction, the end), all that is due has to arrive:
//! on each member a recorder watches everything, so what is due is known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use holdfast_proto::etcdserverpb::watch_request::RequestUnion;
use holdfast_proto::etcdserverpb::{CompactionRequest, WatchCreateRequest, WatchRequest};
use prost::Message;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use self::settle::Settle;
use self::waiting::Waiting;

use self::identity::Identity;
use super::call::{Answer, descriptors, send};
use super::coverage::Seen;
use super::inbox::Inbox;
use super::members::Members;
use super::normalise::render;
use super::placeholder::Revisions;
use super::script::{Ask, Call, Script};
use super::stream::{Incoming, RESPONSES_MAX, Stream};
use super::watcher::{Occurrence, Watcher};

mod identity;
mod settle;
mod waiting;

/// How long something that is due may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// Between two requests for progress.
const POLL: Duration = Duration::from_millis(10);

/// What a script came to on one cluster.
#[derive(Debug)]
pub struct Transcript {
    /// The cluster, such as `holdfast-3`.
    pub name: String,
    /// One for each call, up to the one where the play stopped.
    pub answers: Vec<Answer>,
    /// Every watcher that was created, in the order of their calls.
    pub watchers: Vec<Watcher>,
    /// All changes, as the first member's recorder saw them.
    pub history: Vec<Occurrence>,
    /// What is wrong whatever others answer. The play stops at the first.
    pub faults: Vec<Fault>,
    /// The play stopped because no member could answer for the cluster.
    pub outage: Option<String>,
    /// Requests for progress while a watcher of the stream was to start at a revision that was still to come.
    pub before_start: BTreeSet<usize>,
    /// The fields that had a value in any answer or event.
    pub seen: Seen,
}

/// Something that no server may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The call that created the watcher it happened to, if it was one watcher.
    pub watcher: Option<usize>,
    /// What happened.
    pub text: String,
}

/// Plays the script. An error says that the cluster cannot be talked to at all.
pub async fn play(script: &Script, members: &Members) -> anyhow::Result<Transcript> {
    let mut player = Player::new(members);
    if script.watches() {
        player.record().await;
    }
    for (number, call) in script.calls.iter().enumerate() {
        if player.is_over() {
            break;
        }
        let answer =
            player.call(number, call).await.with_context(|| format!("{} on {}", call.name, members.name))?;
        player.take_answer(call, answer)?;
    }
    Ok(player.finish().await)
}

/// An open stream with its inbox.
#[derive(Debug)]
struct Line {
    /// None when the client has left.
    stream: Option<Stream>,
    inbox: Inbox,
    member: usize,
    /// It was opened in somebody's name.
    has_token: bool,
    /// Requests for progress that may still be answered.
    progress_asked: usize,
}

impl Line {
    /// The client is gone; what its watchers received stays.
    fn leave(&mut self) {
        self.stream = None;
        self.inbox.lose_watchers();
    }

    /// Sends one request, if the stream takes any.
    async fn send(&self, request: Bytes) {
        // A stream that ended has said so in its inbox, which is what the caller waits for.
        if let Some(stream) = &self.stream {
            stream.send(request).await;
        }
    }
}

struct Player<'a> {
    members: &'a Members,
    method: MethodDescriptor,
    lines: Vec<Line>,
    names: BTreeMap<String, usize>,
    /// The first lines are the recorders', one for each member.
    recorders: usize,
    sender: mpsc::Sender<Incoming>,
    queue: mpsc::Receiver<Incoming>,
    revisions: Revisions,
    settled: usize,
    /// Calls that were made and left waiting, by their names.
    waiting: BTreeMap<String, Waiting>,
    identity: Identity,
    transcript: Transcript,
}

impl<'a> Player<'a> {
    fn new(members: &'a Members) -> Self {
        let (sender, queue) = mpsc::channel(RESPONSES_MAX);
        let pool = descriptors();
        let service = pool.get_service_by_name("etcdserverpb.Watch").expect("Watch is in the contract");
        let method = service.methods().next().expect("Watch has a method");
        let transcript = Transcript {
            name: members.name.clone(),
            answers: Vec::new(),
            watchers: Vec::new(),
            history: Vec::new(),
            faults: Vec::new(),
            outage: None,
            before_start: BTreeSet::new(),
            seen: Seen::default(),
        };
        Self {
            members,
            method,
            lines: Vec::new(),
            names: BTreeMap::new(),
            recorders: 0,
            sender,
            queue,
            revisions: Revisions::default(),
            settled: 0,
            waiting: BTreeMap::new(),
            identity: Identity::default(),
            transcript,
        }
    }

    fn is_over(&self) -> bool {
        self.transcript.outage.is_some() || !self.transcript.faults.is_empty()
    }

    fn fault(&mut self, text: String) {
        self.transcript.faults.push(Fault { watcher: None, text });
    }

    /// Opens a watcher of everything on each member, before anything is written.
    async fn record(&mut self) {
        let everything = WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        for member in 0..self.members.count() {
            let line = self.open(member, None);
            self.lines[line].inbox.expect(usize::MAX, &everything, self.revisions);
            self.lines[line].send(create(everything.clone())).await;
        }
        self.recorders = self.members.count();
        let recorders = self.recorders;
        let is_made = |line: &Line| !line.inbox.live.is_empty() || line.inbox.end.is_some();
        if !self.wait_until(|player| player.lines[..recorders].iter().all(is_made)).await {
            self.fault("a watcher of everything was not created in time".to_owned());
        }
        for line in 0..recorders {
            if let Some(end) = &self.lines[line].inbox.end {
                let text = format!("the stream of the recorder of member {line} ended: {end:?}");
                self.fault(text);
            }
            self.lines[line].inbox.take_answers();
        }
    }

    async fn call(&mut self, number: usize, call: &Call) -> anyhow::Result<Answer> {
        match &call.ask {
            Ask::Unary | Ask::Login(_) => self.ask(number, call).await,
            Ask::Stream(name) => {
                let line = self.line(name, call);
                self.ask_stream(number, call, line).await
            }
            Ask::Leave(name) => {
                self.settle(Settle::Owed).await;
                if let Some(line) = self.names.remove(name) {
                    self.lines[line].leave();
                }
                Ok(Answer::Stream(Vec::new(), None))
            }
            Ask::Begin(name) => self.begin(number, call, name).await,
            Ask::Await(name) => self.await_answer(name).await,
            Ask::Quit(name) => self.quit(number, name).await,
        }
    }

    /// A call that a member answers from its own state is preceded by a linearizable read there: otherwise a member
    /// that lags, rightly, would look like one that errs.
    async fn ask(&mut self, number: usize, call: &Call) -> anyhow::Result<Answer> {
        // Who asks is looked up in the member's own state, too.
        let is_local = call.reads_locally() || self.identity.is_asked();
        if self.members.count() > 1 && is_local {
            self.members.catch_up(number).await.context("reading before it")?;
        }
        match call.method.name() {
            "Compact" => self.settle(Settle::AtHead).await,
            // Streams are left behind it.
            "AuthDisable" => self.settle(Settle::Owed).await,
            _ => {}
        }
        let request = call.request(self.revisions)?;
        let token = self.identity.token_for(call);
        Ok(send(self.members.channel(number), call, request, token).await)
    }

    async fn ask_stream(&mut self, number: usize, call: &Call, line: usize) -> anyhow::Result<Answer> {
        if self.members.count() > 1 {
            self.members.catch_up(self.lines[line].member).await.context("reading before it")?;
        }
        let request = call.request(self.revisions)?;
        let union = WatchRequest::decode(request.clone()).ok().and_then(|request| request.request_union);
        if !matches!(union, Some(RequestUnion::CreateRequest(_))) {
            self.settle(Settle::Owed).await;
        }
        self.settle_answers(line);
        if let Some(RequestUnion::CreateRequest(create)) = &union {
            self.lines[line].inbox.expect(number, create, self.revisions);
            self.send_fenced(line, request, Creates::One).await;
            self.await_compaction_cancel(line, number).await;
        } else if matches!(union, Some(RequestUnion::ProgressRequest(_))) {
            self.ask_progress(number, line, request).await;
        } else {
            self.send_fenced(line, request, Creates::None).await;
        }
        Ok(self.answer_of(line))
    }

    /// Sends the request and one whose refusal is certain, and waits for the latter.
    async fn send_fenced(&mut self, line: usize, request: Bytes, creates: Creates) {
        let goal = self.lines[line].inbox.created + 1 + usize::from(creates == Creates::One);
        self.lines[line].send(request).await;
        self.lines[line].send(fence()).await;
        let answered = |player: &Self| {
            let inbox = &player.lines[line].inbox;
            inbox.created >= goal || inbox.end.is_some()
        };
        if !self.wait_until(answered).await {
            self.fault("a request on a watch stream was not answered in time".to_owned());
        }
        let inbox = &mut self.lines[line].inbox;
        if inbox.created >= goal
            && let Some(fence) = inbox.answers.iter().rposition(is_created)
        {
            inbox.answers.remove(fence);
        }
    }

    /// A watcher that starts below the compacted revision is created, and cancelled right after.
    async fn await_compaction_cancel(&mut self, line: usize, number: usize) {
        let compacted = self.revisions.compacted;
        let doomed = move |player: &Self| {
            let mut live = player.lines[line].inbox.live.values();
            live.any(|w| w.call == number && w.is_ruled() && w.spec.start != 0 && w.spec.start < compacted)
        };
        if doomed(self) && !self.wait_until(|player| !doomed(player)).await {
            self.fault("a watcher of compacted history was not cancelled in time".to_owned());
        }
    }

    /// Clients repeat a request for progress until it is answered; it may be ignored while a watcher is behind, and as
    /// long as one starts in the future.
    async fn ask_progress(&mut self, number: usize, line: usize, request: Bytes) {
        let head = self.revisions.head;
        let live = &self.lines[line].inbox.live;
        let is_early = live.values().any(|watcher| watcher.starts_after(head));
        if is_early {
            self.transcript.before_start.insert(number);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.lines[line].progress_asked += 1;
            self.send_fenced(line, request.clone(), Creates::None).await;
            let inbox = &mut self.lines[line].inbox;
            // An older request may be answered only now, with the revision of then or of now: either is as good.
            let current = inbox.progress.iter().position(|answer| header_revision(answer) == head);
            let is_over = inbox.end.is_some() || is_early || Instant::now() >= deadline;
            if let Some(current) = current {
                return inbox.answers.push(inbox.progress[current].clone());
            }
            if is_over {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A request that was repeated may be answered once for each time, and later than a request that came after it.
    /// More answers than requests there may not be, nor answers to other requests out of turn.
    fn settle_answers(&mut self, line: usize) {
        let Line { inbox, progress_asked, .. } = &mut self.lines[line];
        let mut unasked = inbox.take_answers();
        let answered = inbox.progress.len().min(*progress_asked);
        unasked.extend(inbox.progress.drain(..).skip(answered));
        *progress_asked -= answered;
        for answer in unasked {
            self.fault(format!("nobody asked for {}", render(&answer)));
        }
    }

    fn answer_of(&mut self, line: usize) -> Answer {
        let inbox = &mut self.lines[line].inbox;
        Answer::Stream(inbox.take_answers(), inbox.end.clone())
    }

    fn take_answer(&mut self, call: &Call, answer: Answer) -> anyhow::Result<()> {
        if answer.is_outage() {
            self.transcript.outage = Some(format!("{}: {answer:?}", call.name));
        }
        if let Answer::Ok(message) = &answer {
            self.identify(call, message);
            self.transcript.seen.add(&call.method, message);
            self.revisions.head = self.revisions.head.max(header_revision(message));
            if call.method.name() == "Compact" {
                let request = CompactionRequest::decode(call.request(self.revisions)?)?;
                self.revisions.compacted = request.revision;
            }
        }
        if let Answer::Err(code, text) = &answer {
            self.transcript.seen.errors.insert((format!("{code:?}"), text.clone()));
        }
        self.transcript.answers.push(answer);
        self.look();
        Ok(())
    }

    fn line(&mut self, name: &str, call: &Call) -> usize {
        if let Some(line) = self.names.get(name) {
            return *line;
        }
        let token = self.identity.token_for(call).map(str::to_owned);
        let line = self.open(self.lines.len() - self.recorders, token.as_deref());
        self.names.insert(name.to_owned(), line);
        line
    }

    fn open(&mut self, member: usize, token: Option<&str>) -> usize {
        let number = self.lines.len();
        let channel = self.members.channel(member);
        let stream = Stream::open(channel, &self.method, token, number, self.sender.clone());
        self.lines.push(Line {
            stream: Some(stream),
            inbox: Inbox::new(self.method.output()),
            member,
            has_token: token.is_some(),
            progress_asked: 0,
        });
        number
    }

    /// Takes what has come, without waiting.
    fn look(&mut self) {
        while let Ok(incoming) = self.queue.try_recv() {
            self.accept(&incoming);
        }
    }

    fn accept(&mut self, incoming: &Incoming) {
        let inbox = &mut self.lines[incoming.stream].inbox;
        let full = inbox.accept(incoming.what.as_deref());
        let faults = inbox.faults.drain(..).map(|text| Fault { watcher: None, text });
        self.transcript.faults.extend(faults);
        if let Some(full) = full {
            self.transcript.seen.add(&self.method, &full);
        }
    }

    /// Takes what comes until the condition holds. False when it did not in time, or something was wrong.
    async fn wait_until(&mut self, holds: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        self.look();
        while !holds(self) {
            if self.is_over() {
                return false;
            }
            match timeout_at(deadline, self.queue.recv()).await {
                Ok(Some(incoming)) => self.accept(&incoming),
                _ => return false,
            }
        }
        true
    }

    async fn finish(mut self) -> Transcript {
        self.settle(Settle::Owed).await;
        for line in self.recorders..self.lines.len() {
            let line_is_open = self.lines[line].stream.is_some() && self.lines[line].inbox.end.is_none();
            if !self.is_over() && line_is_open {
                self.send_fenced(line, fence(), Creates::One).await;
                self.lines[line].inbox.answers.pop();
                self.settle_answers(line);
            }
        }
        self.settle(Settle::Owed).await;
        let mut transcript = self.transcript;
        for line in self.lines.split_off(self.recorders) {
            transcript.watchers.extend(line.inbox.gone);
            transcript.watchers.extend(line.inbox.live.into_values());
        }
        transcript.watchers.sort_by_key(|watcher| watcher.call);
        transcript
    }
}

/// How many created messages a request leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Creates {
    None,
    One,
}

fn header_revision(message: &DynamicMessage) -> i64 {
    let header = message.get_field_by_name("header");
    let revision = header.as_deref().and_then(|value| value.as_message()?.get_field_by_name("revision"));
    revision.and_then(|value| value.as_i64()).unwrap_or(0)
}

fn is_created(answer: &DynamicMessage) -> bool {
    is_set(answer, "created")
}

fn is_set(answer: &DynamicMessage, field: &str) -> bool {
    answer.get_field_by_name(field).and_then(|value| value.as_bool()).unwrap_or(false)
}

fn create(request: WatchCreateRequest) -> Bytes {
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) }.encode_to_vec().into()
}

/// A request that every server refuses, in its turn: a range without a key.
fn fence() -> Bytes {
    let (key, range_end) = (Bytes::from_static(b"z"), Bytes::from_static(b"a"));
    create(WatchCreateRequest { key, range_end, ..WatchCreateRequest::default() })
}
