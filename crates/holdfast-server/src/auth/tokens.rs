//! The tokens that are good on this member.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{LogIndex, Monotonic, Rng};
use holdfast_mvcc::auth::{Auth, AuthRevision, Checked, Session, TokenDigest};
use holdfast_storage::IssuedToken;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::signed::Signed;
use crate::limits::TOKENS_MAX;

/// etcd's alphabet.
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LETTERS_COUNT: usize = 16;

/// A token as a client names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Of the letters.
    pub digest: TokenDigest,
    /// The log entry that brought it.
    pub index: LogIndex,
}

impl Token {
    /// Stands for what cannot be a token: nothing has this digest.
    pub const UNKNOWN: Self = Self { digest: TokenDigest([0; 32]), index: LogIndex::new(0) };

    /// A token that is signed, whatever it says: its digest stands for it.
    pub fn signed(text: &str) -> Self {
        Self { digest: digest(text), index: LogIndex::new(0) }
    }

    /// `<letters>.<index>`; none for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (letters, index) = text.split_once('.')?;
        // Digits alone: not the sign that a number may have elsewhere.
        let is_number = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
        let index = index.parse().ok().filter(|_| is_number)?;
        Some(Self { digest: digest(letters), index: LogIndex::new(index) })
    }
}

/// The secret part of a new token.
pub fn letters(rng: &dyn Rng) -> String {
    let letter = |_| {
        loop {
            // Numbers that name no letter are thrown away, so that all letters are as likely.
            let number = rng.next_u64() % 64;
            let at = usize::try_from(number).unwrap_or(usize::MAX);
            if let Some(letter) = LETTERS.get(at) {
                return char::from(*letter);
            }
        }
    };
    (0..LETTERS_COUNT).map(letter).collect()
}

/// What the log knows of a token.
pub fn digest(letters: &str) -> TokenDigest {
    TokenDigest(Sha256::digest(letters.as_bytes()).into())
}

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stands {
    /// What was noted at the login.
    Session(Session),
    /// What the token says of itself, under a signature.
    Signed {
        /// Whose it is.
        user: Arc<str>,
        /// As of when it was given out.
        given_out: AuthRevision,
    },
}

impl Stands {
    /// The user, as of these users; `None` when the token does not hold any more.
    pub fn check(&self, auth: &Auth) -> Option<Checked> {
        match self {
            Self::Session(session) => auth.check(session),
            Self::Signed { user, given_out } => auth.check_signed(user, *given_out),
        }
    }
}

/// What is known of a token.
#[derive(Debug, Clone)]
struct Kept {
    index: LogIndex,
    stands: Stands,
    ends: Monotonic,
    /// One more for each call that holds it.
    holders: Arc<()>,
}

impl Kept {
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.holders) > 1
    }

    /// It was used. What is signed says itself when it ends.
    fn renew(&mut self, now: Monotonic, ttl: Duration) {
        if let Stands::Session(_) = self.stands {
            self.ends = now.after(ttl);
        }
    }
}

/// A token does not end by its time as long as this is there.
#[derive(Debug)]
pub struct Held {
    _holders: Arc<()>,
}

/// The tokens of this member.
#[derive(Debug)]
pub struct Tokens {
    ttl: Duration,
    kept: Mutex<HashMap<TokenDigest, Kept>>,
}

impl Tokens {
    /// None yet; each ends when it was not used for so long.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, kept: Mutex::default() }
    }

    /// Takes tokens in that came by, under the lock: nobody else finds a token missing that is just
    /// being taken in. Those that have ended go; when there are too many all the same, those go that were
    /// not used for the longest time.
    pub fn take_in<I: IntoIterator<Item = IssuedToken>>(&self, take: impl FnOnce() -> I, now: Monotonic) {
        let mut kept = self.kept.lock();
        let before = kept.len();
        for token in take() {
            let IssuedToken { digest, index, session, at } = token;
            let (stands, ends) = (Stands::Session(session), at.after(self.ttl));
            kept.insert(digest, Kept { index, stands, ends, holders: Arc::default() });
        }
        if kept.len() > before {
            Self::make_room(&mut kept, now);
        }
    }

    /// Takes in a token that was checked, so that the next call that names it costs a lookup alone.
    pub fn take_in_signed(&self, token: Token, signed: Signed, now: Monotonic) {
        let stands = Stands::Signed { user: signed.user.into(), given_out: signed.given_out };
        let ends = now.after(signed.left);
        let mut kept = self.kept.lock();
        kept.insert(token.digest, Kept { index: token.index, stands, ends, holders: Arc::default() });
        Self::make_room(&mut kept, now);
    }

    /// Those that have ended go, and when there are too many all the same, those that end first.
    fn make_room(kept: &mut HashMap<TokenDigest, Kept>, now: Monotonic) {
        kept.retain(|_, token| token.ends > now || token.is_held());
        if kept.len() > TOKENS_MAX {
            let mut ends: Vec<Monotonic> = kept.values().map(|token| token.ends).collect();
            let surplus = ends.len() - TOKENS_MAX;
            let (_, last_to_go, _) = ends.select_nth_unstable(surplus - 1);
            let last_to_go = *last_to_go;
            kept.retain(|_, token| token.ends > last_to_go);
        }
    }

    /// What a token stands for, and gives it all of its time again, unless that is signed; none when it is not known or has
    /// ended.
    pub fn renew(&self, token: Token, now: Monotonic) -> Option<Stands> {
        let mut kept = self.kept.lock();
        let found = kept.get_mut(&token.digest).filter(|found| found.index == token.index)?;
        if found.ends <= now && !found.is_held() {
            kept.remove(&token.digest);
            return None;
        }
        found.renew(now, self.ttl);
        Some(found.stands.clone())
    }

    /// What a token stands for that a call was admitted with, if it has not ended since; it has all of its time again. So
    /// streams keep the token alive that they were opened with.
    pub fn session(&self, digest: TokenDigest, now: Monotonic) -> Option<Stands> {
        let mut kept = self.kept.lock();
        let found = kept.get_mut(&digest).filter(|found| found.ends > now || found.is_held())?;
        found.renew(now, self.ttl);
        Some(found.stands.clone())
    }

    /// Keeps a token from ending by its time as long as what is returned lives: for calls that wait for longer.
    pub fn hold(&self, digest: TokenDigest) -> Option<Held> {
        self.kept.lock().get(&digest).map(|found| Held { _holders: Arc::clone(&found.holders) })
    }
}

#[cfg(test)]
mod tests {
    use holdfast_env::OsRng;
    use holdfast_mvcc::auth::{Auth, AuthRevision, AuthSwitch, User};

    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn session() -> Session {
        let root = User {
            password_hash: Some(String::new()),
            roles: vec!["root".to_owned()],
            since: AuthRevision::FRESH,
        };
        let on = AuthSwitch::On(AuthRevision::FRESH);
        let auth = Auth::restore(on, AuthRevision::FRESH, [("root".to_owned(), root)], []).unwrap();
        Arc::new(auth).session("root").unwrap()
    }

    fn at(seconds: u64) -> Monotonic {
        Monotonic::default().after(Duration::from_secs(seconds))
    }

    fn issued(letters: &str, seconds: u64) -> IssuedToken {
        IssuedToken { digest: digest(letters), index: LogIndex::new(7), session: session(), at: at(seconds) }
    }

    #[test]
    fn a_token_is_letters_and_an_index() {
        let letters = letters(&OsRng);
        assert!(letters.len() == 16 && letters.bytes().all(|letter| LETTERS.contains(&letter)), "{letters}");
        let token = Token::parse(&format!("{letters}.7")).unwrap();
        assert_eq!(token, Token { digest: digest(&letters), index: LogIndex::new(7) });
        for bad in
            ["", ".", "abc", "abc.", "abc.x", "abc.-1", "abc.+1", "abc.1.2", "abc.99999999999999999999"]
        {
            assert_eq!(Token::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_lives_as_long_as_it_is_used() {
        let tokens = Tokens::new(TTL);
        tokens.take_in(|| [issued("a", 0)], at(0));
        let token = Token::parse("a.7").unwrap();
        assert!(tokens.renew(Token::parse("a.8").unwrap(), at(1)).is_none(), "another index");
        assert!(tokens.renew(token, at(9)).is_some());
        assert!(tokens.renew(token, at(18)).is_some());
        assert!(tokens.session(token.digest, at(27)).is_some(), "and a stream uses it");
        assert!(tokens.session(token.digest, at(37)).is_none());
        assert!(tokens.renew(token, at(37)).is_none());
        assert!(tokens.kept.lock().is_empty());
    }

    #[test]
    fn a_token_that_is_held_does_not_end_by_its_time() {
        let tokens = Tokens::new(TTL);
        tokens.take_in(|| [issued("a", 0)], at(0));
        let token = Token::parse("a.7").unwrap();
        let held = tokens.hold(token.digest).unwrap();
        tokens.take_in(|| [issued("b", 50)], at(50));
        assert!(tokens.session(token.digest, at(100)).is_some());
        drop(held);
        assert!(tokens.session(token.digest, at(110)).is_none());
        assert!(tokens.hold(digest("c")).is_none());
    }

    #[test]
    fn those_that_have_ended_go_when_others_come() {
        let tokens = Tokens::new(TTL);
        tokens.take_in(|| [issued("a", 0), issued("b", 5)], at(5));
        tokens.take_in(|| [issued("c", 12)], at(12));
        assert_eq!(tokens.kept.lock().len(), 2);
        let many = (0..TOKENS_MAX as u64).map(|number| issued(&number.to_string(), 20 + number));
        tokens.take_in(|| many, at(12));
        assert_eq!(tokens.kept.lock().len(), TOKENS_MAX);
        assert!(tokens.session(digest("c"), at(12)).is_none(), "those that were used last stay");
    }
}
