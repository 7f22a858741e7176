//! Who calls, and whether they may: what the frontend does about users, roles and permissions. The rules are in
//! [`crate::auth`].

use std::sync::Arc;

use holdfast_mvcc::auth::{Auth, AuthChange, AuthRefusal, Caller, Granted};
use holdfast_mvcc::command::{Command, Refusal, Txn, TxnResponse};
use holdfast_mvcc::types::Revision;
use holdfast_storage::{Answer, Visible};
use tokio::sync::Semaphore;
use tonic::metadata::MetadataMap;

use super::{Call, Frontend, Service};
use crate::auth::rules::{Rpc, Rule};
use crate::auth::tokens::{Held, Token};
use crate::auth::{self, Pass, Who, password};
use crate::limits;
use crate::status::{AuthFailure, Failure, within};

/// What takes a processor for a while, with few of its kind at a time and some that wait.
pub(super) struct Slow {
    at_work: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Default for Slow {
    fn default() -> Self {
        let waiting = Semaphore::new(limits::HASHING_WAITING_MAX);
        Self { at_work: Arc::new(Semaphore::new(limits::HASHING_MAX)), waiting }
    }
}

impl Frontend {
    /// Admits a call under its rule, or says why not.
    pub async fn admit(&self, metadata: &MetadataMap, rpc: Rpc, service: Service) -> Result<Call, Failure> {
        let call = self.admit_anybody(metadata, service)?;
        self.until_it_can_judge(rpc.rule, call).await?;
        let is_enabled = self.storage.is_auth_enabled();
        let who = match rpc.rule {
            Rule::Open => Who::Nobody,
            // Whoever it is: auth may be switched on while the stream lives.
            Rule::EachJudged => match auth::named(metadata) {
                Some(token) if is_enabled => {
                    self.is_known(token, call).await;
                    Who::Token(token.digest)
                }
                Some(token) => Who::Token(token.digest),
                None => Who::Nobody,
            },
            Rule::Root | Rule::RootHere | Rule::Judged if !is_enabled => Who::Nobody,
            Rule::Root | Rule::RootHere | Rule::Judged => match auth::named(metadata) {
                Some(token) if self.is_known(token, call).await => Who::Token(token.digest),
                Some(_) => return Err(Failure::Auth(AuthFailure::InvalidToken)),
                None => Who::Nobody,
            },
        };
        let call = Call { who, ..call };
        if is_enabled && matches!(rpc.rule, Rule::Root | Rule::RootHere) {
            let auth = self.storage.auth();
            auth.may_manage(&self.caller(&auth, call)?).map_err(Refusal::Auth)?;
        }
        Ok(call)
    }

    /// Waits until this member knows enough to judge: one that was started a moment ago, or added, may not know yet that auth
    /// is on.
    async fn until_it_can_judge(&self, rule: Rule, call: Call) -> Result<(), Failure> {
        match rule {
            // What is judged later is judged behind a confirmation, or when it is evaluated.
            Rule::Open | Rule::Judged => Ok(()),
            Rule::Root => self.linearize(call).await.map(drop),
            // Nobody could tell it more.
            Rule::RootHere if self.node.health().leader.is_none() => Ok(()),
            Rule::RootHere | Rule::EachJudged => self.until_caught_up(call).await,
        }
    }

    /// Admits a call that reads or changes data: not on a member whose data is known to differ from the others'.
    pub async fn admit_data(
        &self,
        metadata: &MetadataMap,
        rpc: Rpc,
        service: Service,
    ) -> Result<Call, Failure> {
        let call = self.admit(metadata, rpc, service).await?;
        if self.is_corrupt() { Err(Failure::Refused(Refusal::Corrupt)) } else { Ok(call) }
    }

    /// True when a token is good here; it has all of its time again then. Waits until this member has the entry that
    /// brought it, at most the call's time.
    async fn is_known(&self, token: Token, call: Call) -> bool {
        if self.tokens.renew(token, self.clock.now()).is_some() {
            return true;
        }
        let mut visible = self.storage.visible();
        let has_it = |visible: &Visible| visible.log_id.is_some_and(|id| id.index() >= token.index);
        tokio::select! {
            // Both only wait. An error means that the member stops.
            _ = visible.wait_for(has_it) => {}
            () = self.clock.sleep(self.remaining(call)) => {}
        }
        let now = self.clock.now();
        self.tokens.take_in(|| self.storage.take_tokens(), now);
        self.tokens.renew(token, now).is_some()
    }

    /// Keeps the token of a call from ending by its time, for one that may wait for longer than that.
    pub fn hold_token(&self, call: Call) -> Option<Held> {
        match call.who {
            Who::Token(digest) => self.tokens.hold(digest),
            Who::Server | Who::Nobody => None,
        }
    }

    /// Who calls, as of these users.
    ///
    /// Errors: the token of the call is not good any more.
    pub fn caller(&self, auth: &Auth, call: Call) -> Result<Caller, Failure> {
        match call.who {
            Who::Server => Ok(Caller::Server),
            Who::Nobody => Ok(Caller::Nobody),
            Who::Token(_) if !auth.is_enabled() => Ok(Caller::Nobody),
            Who::Token(digest) => {
                let session = self.tokens.session(digest, self.clock.now());
                let checked = session.and_then(|session| auth.check(&session));
                checked.map(Caller::User).ok_or(Failure::Auth(AuthFailure::InvalidToken))
            }
        }
    }

    /// Whether a call may read what `needs` says, as of what is visible here. Read, and ask [`Frontend::pass_again`]
    /// then.
    ///
    /// Errors: why not.
    pub fn pass(
        &self,
        call: Call,
        needs: impl FnOnce(&Granted<'_>) -> Result<(), AuthRefusal>,
    ) -> Result<Pass, Failure> {
        if !self.storage.is_auth_enabled() {
            return Ok(Pass(None));
        }
        let auth = self.storage.auth();
        let caller = self.caller(&auth, call)?;
        let permitted = auth.granted(&caller).and_then(|granted| needs(&granted));
        permitted.map_err(Refusal::Auth)?;
        Ok(Pass(Some(auth)))
    }

    /// Whether what was read since a pass may be told: when users, roles or permissions have changed meanwhile, the call
    /// has to be permitted it still.
    ///
    /// Errors: why not.
    pub fn pass_again(
        &self,
        pass: &Pass,
        call: Call,
        needs: impl FnOnce(&Granted<'_>) -> Result<(), AuthRefusal>,
    ) -> Result<(), Failure> {
        let is_same = match &pass.0 {
            None => !self.storage.is_auth_enabled(),
            Some(then) => Arc::ptr_eq(then, &self.storage.auth()),
        };
        if is_same { Ok(()) } else { self.pass(call, needs).map(drop) }
    }

    /// Whether a call may have a command carried out, as far as this member can say. It refuses only what is refused as
    /// of a confirmation by the leader.
    pub async fn check_command(&self, command: &Command, call: Call) -> Result<(), Failure> {
        if !self.storage.is_auth_enabled() || self.judge(command, call).is_ok() {
            return Ok(());
        }
        self.linearize(call).await?;
        self.judge(command, call)
    }

    fn judge(&self, command: &Command, call: Call) -> Result<(), Failure> {
        let auth = self.storage.auth();
        let caller = self.caller(&auth, call)?;
        Ok(auth.may_propose(&caller, command).map_err(Refusal::Auth)?)
    }

    /// What a password is stored as.
    pub async fn hash_password(&self, password: String, call: Call) -> Result<String, Failure> {
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&self.rng.next_u64().to_le_bytes());
        salt[8..].copy_from_slice(&self.rng.next_u64().to_le_bytes());
        let cost = self.bcrypt_cost;
        self.slowly(&self.hashing, call, move || password::hash(&password, cost, salt)).await
    }

    /// True when a password is the one that was stored.
    pub async fn password_fits(&self, password: String, stored: String, call: Call) -> Result<bool, Failure> {
        self.slowly(&self.comparing, call, move || password::fits(&password, &stored)).await
    }

    /// Runs what takes a processor for a while, with few others of its kind.
    async fn slowly<T: Send + 'static>(
        &self,
        slow: &Slow,
        call: Call,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let too_many =
            || within(holdfast_raft::NodeError::TooManyRequests, call.client_deadline, self.budget);
        // Those that wait hold a password each.
        let _waiting = slow.waiting.try_acquire().map_err(|_| too_many())?;
        let permit = Arc::clone(&slow.at_work).acquire_owned();
        let permit = tokio::select! {
            // Both arms are cancel-safe: a permit is taken only on completion, a timer holds nothing.
            permit = permit => permit.map_err(|_| Failure::Stopped)?,
            () = self.clock.sleep(self.remaining(call)) => {
                return Err(too_many());
            }
        };
        let work = tokio::task::spawn_blocking(move || {
            // Held until it is over, also when nobody waits for it any more.
            let _permit = permit;
            work()
        });
        work.await.map_err(|_| Failure::Stopped)
    }

    /// Proposes a command for who calls, and waits until its effects are visible here.
    pub async fn propose(&self, command: Command, call: Call) -> Result<Answer, Failure> {
        if !self.storage.is_auth_enabled() {
            let caller = if call.who == Who::Server { Caller::Server } else { Caller::Nobody };
            return self.propose_for(caller, command, call).await;
        }
        let is_login = matches!(&command, Command::Auth(AuthChange::Authenticate(_)));
        let mut tries = if is_login { 1 } else { limits::AUTH_TRIES };
        loop {
            self.check_command(&command, call).await?;
            let caller = self.caller(&self.storage.auth(), call)?;
            let answer = self.propose_for(caller, command.clone(), call).await?;
            tries -= 1;
            // Nothing has happened then: users or roles changed on the way, and it is judged anew.
            let is_late = answer.outcome.response == Err(Refusal::Auth(AuthRefusal::OldRevision));
            if !is_late || tries == 0 {
                return Ok(answer);
            }
        }
    }

    /// Answers a transaction that only reads, from local state.
    pub async fn read_txn(&self, txn: Txn, call: Call) -> Result<(TxnResponse, Revision), Failure> {
        let txn = Arc::new(txn);
        let pass = self.pass(call, |granted| granted.txn(&txn))?;
        let reading = Arc::clone(&txn);
        let answer = self.read_blocking(call, move |storage| storage.read_txn(&reading)).await?;
        self.pass_again(&pass, call, |granted| granted.txn(&txn))?;
        Ok(answer)
    }
}
