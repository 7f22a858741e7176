//! Who calls, and whether they may: what the frontend does about users, roles and permissions. The rules are in
//! [`crate::auth`].

use std::sync::Arc;

use holdfast_mvcc::auth::{Auth, AuthChange, AuthRefusal, Caller, Checked, Granted};
use holdfast_mvcc::command::{Command, Refusal, Txn, TxnResponse};
use holdfast_mvcc::types::Revision;
use holdfast_storage::{Answer, Visible};
use tokio::sync::Semaphore;

use super::{Blocking, Call, Frontend, Service};
use crate::auth::rules::{Rpc, Rule};
use crate::auth::tokens::{Held, Stands, Token};
use crate::auth::{self, Asking, Who, password};
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
    pub async fn admit(&self, asking: Asking<'_>, rpc: Rpc, service: Service) -> Result<Call, Failure> {
        let call = self.admit_anybody(asking.metadata, service)?;
        if !matches!(rpc.rule, Rule::Open | Rule::Judged) {
            // Boxed, as all that few calls do: the futures of the others stay small.
            Box::pin(self.until_it_can_judge(rpc.rule, call)).await?;
        }
        let is_enabled = self.storage.is_auth_enabled();
        let named = if rpc.rule == Rule::Open { None } else { auth::named(asking.metadata) };
        let named = named.map(|text| self.token(text));
        let who = match named {
            None if rpc.rule == Rule::Open => Who::Nobody,
            None => asking.certificate.map_or(Who::Nobody, Who::Certificate),
            // Auth is off as far as this member knows, which may be behind: the token is looked at when the call is judged.
            Some(token) if !is_enabled => Who::Token(token.digest),
            // A stream is open to anybody, and its messages are judged.
            Some(token) if Box::pin(self.is_known(token, call)).await || rpc.rule == Rule::EachJudged => {
                Who::Token(token.digest)
            }
            Some(_) => return Err(Failure::Auth(AuthFailure::InvalidToken)),
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
    pub async fn admit_data(&self, asking: Asking<'_>, rpc: Rpc, service: Service) -> Result<Call, Failure> {
        let call = self.admit(asking, rpc, service).await?;
        if self.is_corrupt() { Err(Failure::Refused(Refusal::Corrupt)) } else { Ok(call) }
    }

    /// The token that a client names. One that is signed is checked here, the first time that it comes by.
    fn token(&self, text: &str) -> Token {
        let Some(signer) = &self.signer else { return Token::parse(text).unwrap_or(Token::UNKNOWN) };
        let (token, now) = (Token::signed(text), self.clock.now());
        if self.tokens.session(token.digest, now).is_some() {
            return token;
        }
        let Some(signed) = signer.check(text, self.clock.wall()) else { return Token::UNKNOWN };
        self.tokens.take_in_signed(token, signed, now);
        token
    }

    /// True when a token is good here; it has all of its time again then, unless it is signed. Waits until this member has
    /// the entry that brought it, or the users as of which it was given out, at most the call's time.
    async fn is_known(&self, token: Token, call: Call) -> bool {
        match self.tokens.renew(token, self.clock.now()) {
            Some(Stands::Session(_)) => return true,
            Some(Stands::Signed { given_out, .. }) => {
                let has_users = || self.storage.auth().revision() >= given_out;
                if !has_users() {
                    // Who is not known when the time is over is told so when the call is judged.
                    self.until_visible(call, |_| has_users()).await;
                }
                return true;
            }
            None if self.signer.is_some() => return false,
            None => {}
        }
        self.until_visible(call, |visible| visible.log_id.is_some_and(|id| id.index() >= token.index)).await;
        let now = self.clock.now();
        self.tokens.take_in(|| self.storage.take_tokens(), now);
        self.tokens.renew(token, now).is_some()
    }

    /// Waits until what is visible here is so, at most the call's time.
    async fn until_visible(&self, call: Call, is_so: impl FnMut(&Visible) -> bool) {
        let mut visible = self.storage.visible();
        tokio::select! {
            // Both only wait. An error means that the member stops.
            _ = visible.wait_for(is_so) => {}
            () = self.clock.sleep(self.remaining(call)) => {}
        }
    }

    /// Keeps the token of a call from ending by its time, for one that may wait for longer than that.
    pub fn hold_token(&self, call: Call) -> Option<Held> {
        match call.who {
            Who::Token(digest) => self.tokens.hold(digest),
            Who::Server | Who::Nobody | Who::Certificate(_) => None,
        }
    }

    /// Who calls, as of these users.
    ///
    /// Errors: the token of the call is not good any more.
    pub fn caller(&self, auth: &Auth, call: Call) -> Result<Caller, Failure> {
        match call.who {
            Who::Server => Ok(Caller::Server),
            Who::Nobody => Ok(Caller::Nobody),
            Who::Token(_) | Who::Certificate(_) if !auth.is_enabled() => Ok(Caller::Nobody),
            Who::Certificate(id) => {
                // The connection is closed: nobody waits for the answer.
                let name = self.certificates.name(id);
                Ok(name.map_or(Caller::Nobody, |user| Caller::User(Checked { user, at: auth.revision() })))
            }
            Who::Token(digest) => {
                let now = self.clock.now();
                let stands = self.tokens.session(digest, now).or_else(|| {
                    // It was not looked for yet when the call was admitted.
                    self.tokens.take_in(|| self.storage.take_tokens(), now);
                    self.tokens.session(digest, now)
                });
                let checked = stands.and_then(|stands| stands.check(auth));
                checked.map(Caller::User).ok_or(Failure::Auth(AuthFailure::InvalidToken))
            }
        }
    }

    /// Whether a call may read what `needs` says, as of what is visible here.
    ///
    /// Errors: why not.
    pub fn pass(
        &self,
        call: Call,
        needs: impl FnOnce(&Granted<'_>) -> Result<(), AuthRefusal>,
    ) -> Result<(), Failure> {
        self.pass_as_of(call, needs).map(drop)
    }

    /// As [`Frontend::pass`]; gives what it was judged by, nothing when auth is off.
    fn pass_as_of(
        &self,
        call: Call,
        needs: impl FnOnce(&Granted<'_>) -> Result<(), AuthRefusal>,
    ) -> Result<Option<Arc<Auth>>, Failure> {
        if !self.storage.is_auth_enabled() {
            return Ok(None);
        }
        let auth = self.storage.auth();
        let caller = self.caller(&auth, call)?;
        let permitted = auth.granted(&caller).and_then(|granted| needs(&granted));
        permitted.map_err(Refusal::Auth)?;
        Ok(Some(auth))
    }

    /// Reads for a call that is permitted it before, and still when it has been read.
    ///
    /// Errors: why it is not, or those of the read.
    pub async fn read_permitted<T>(
        &self,
        call: Call,
        needs: impl Fn(&Granted<'_>) -> Result<(), AuthRefusal>,
        read: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let before = self.pass_as_of(call, &needs)?;
        let found = read.await?;
        let is_same = match &before {
            None => !self.storage.is_auth_enabled(),
            Some(before) => Arc::ptr_eq(before, &self.storage.auth()),
        };
        if !is_same {
            self.pass(call, &needs)?;
        }
        Ok(found)
    }

    /// For whom a command is proposed, if that may have it carried out as far as this member can say. It refuses only what
    /// is refused as of a confirmation by the leader.
    async fn proposer(&self, command: &Command, call: Call) -> Result<Caller, Failure> {
        if let Ok(caller) = self.judge(command, call) {
            return Ok(caller);
        }
        self.linearize(call).await?;
        self.judge(command, call)
    }

    fn judge(&self, command: &Command, call: Call) -> Result<Caller, Failure> {
        let auth = self.storage.auth();
        let caller = self.caller(&auth, call)?;
        auth.may_propose(&caller, command).map_err(Refusal::Auth)?;
        Ok(caller)
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
            // Kept by who says who it is alone: it may be this member that does not know yet that auth is on.
            let again = matches!(call.who, Who::Token(_) | Who::Certificate(_)).then(|| command.clone());
            let answer = self.propose_for(caller, command, call).await?;
            let is_on = answer.outcome.response == Err(Refusal::Auth(AuthRefusal::UserNameEmpty));
            return match again.filter(|_| is_on) {
                // Nothing has happened then, and this member knows now.
                Some(command) => Box::pin(self.propose_judged(command, call)).await,
                None => Ok(answer),
            };
        }
        Box::pin(self.propose_judged(command, call)).await
    }

    async fn propose_judged(&self, mut command: Command, call: Call) -> Result<Answer, Failure> {
        let is_login = matches!(&command, Command::Auth(AuthChange::Authenticate(_)));
        let has_certificate = matches!(call.who, Who::Certificate(_));
        loop {
            let again = has_certificate.then(|| command.clone());
            let caller = self.proposer(&command, call).await?;
            let answer = self.propose_for(caller, command, call).await?;
            // The user or its password changed on the way, or auth was off: nothing has happened.
            let is_late = answer.outcome.response == Err(Refusal::Auth(AuthRefusal::OldRevision));
            command = match again {
                // A certificate names the user that there is now. The change is visible here, so that it ends.
                Some(again) if is_late => again,
                // A token does not hold any more.
                None if is_late && !is_login => return Err(Failure::Auth(AuthFailure::InvalidToken)),
                _ => return Ok(answer),
            };
        }
    }

    /// Answers a transaction that only reads, from local state.
    pub async fn read_txn(&self, txn: Txn, call: Call) -> Result<(TxnResponse, Revision), Failure> {
        let txn = Arc::new(txn);
        let reading = Arc::clone(&txn);
        let kind = if self.storage.is_long_txn(&txn) { Blocking::Long } else { Blocking::Short };
        let read = self.read_blocking(call, kind, move |storage| storage.read_txn(&reading));
        self.read_permitted(call, |granted| granted.txn(&txn), read).await
    }
}
