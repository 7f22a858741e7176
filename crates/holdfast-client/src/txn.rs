//! Transactions: what must hold, what happens then, and what else.

use bytes::Bytes;
use tonic::Status;

use crate::client::{Client, Repeat, kv};
use crate::codec::{self, KeyValue, LeaseId};
use crate::error::Error;
use crate::range::KeyRange;
use crate::read::{ListOptions, Page};
use crate::write::{Delete, Put};

/// A transaction: when all compares hold, the operations of the one branch are run in order, or else those of the other;
/// all in one revision, or none.
///
/// ```no_run
/// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
/// use holdfast_client::{Compare, Op, Txn};
///
/// // Changes the key if nobody has since revision 7, and reads what there is otherwise.
/// let txn = Txn::new()
///     .when(Compare::mod_revision("config").equals(7))
///     .then(Op::put("config", "new"))
///     .or_else(Op::get("config"));
/// let answer = client.txn(txn).await?;
/// if !answer.succeeded {
///     println!("it is {:?} by now", answer.answers[0]);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "a transaction does nothing before it is sent"]
pub struct Txn {
    pub(crate) compares: Vec<Compare>,
    pub(crate) then: Vec<Op>,
    pub(crate) or_else: Vec<Op>,
}

impl Txn {
    /// One without compares, which succeeds, and without operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// This must hold, too, as of the state before the transaction.
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// When all compares hold this is done, behind what is done already then.
    pub fn then(mut self, op: impl Into<Op>) -> Self {
        self.then.push(op.into());
        self
    }

    /// When some compare does not hold this is done, behind what is done already then.
    pub fn or_else(mut self, op: impl Into<Op>) -> Self {
        self.or_else.push(op.into());
        self
    }

    /// Whether it changes nothing, whatever holds.
    fn is_read(&self) -> bool {
        self.then.iter().chain(&self.or_else).all(|op| match op {
            Op::Read(..) => true,
            Op::Put(_) | Op::Delete(_) => false,
            Op::Txn(inner) => inner.is_read(),
        })
    }

    /// Servers answer one without operations from the state of the member that is asked, which may be old. It reads
    /// something then that it compares. Whether it does.
    fn made_linearizable(self) -> (Self, bool) {
        let Some(compare) = self.compares.first().filter(|_| self.then.is_empty() && self.or_else.is_empty())
        else {
            return (self, false);
        };
        let read = Op::list(compare.subject.0.clone(), ListOptions::new().limit(1).keys_only());
        (self.then(read.clone()).or_else(read), true)
    }
}

/// A claim about a key, or about each key of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    pub(crate) subject: Subject,
    pub(crate) relation: Relation,
    pub(crate) operand: Operand,
}

/// What a claim is about: a key, or each key of a range. A range without a key is like a key that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject(pub(crate) KeyRange);

impl From<KeyRange> for Subject {
    fn from(range: KeyRange) -> Self {
        Self(range)
    }
}

/// A key of each type that bytes are made from.
macro_rules! subject_from_key {
    ($($key:ty),*) => {$(
        impl From<$key> for Subject {
            fn from(key: $key) -> Self {
                Self(KeyRange::key(key))
            }
        }
    )*};
}
subject_from_key!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

/// How what is stored must stand to what is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Equals,
    Differs,
    Greater,
    Less,
}

/// What is compared, with what is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operand {
    Version(u64),
    CreateRevision(u64),
    ModRevision(u64),
    Value(Bytes),
    Lease(LeaseId),
}

impl Compare {
    /// The key does not exist; or no key of the range does.
    pub fn missing(key: impl Into<Subject>) -> Self {
        Self::create_revision(key).equals(0)
    }

    /// The key exists. Of a range, this holds when it has keys.
    pub fn exists(key: impl Into<Subject>) -> Self {
        Self::create_revision(key).greater_than(0)
    }

    /// The revision of the key's latest change; 0 when it does not exist.
    pub fn mod_revision(key: impl Into<Subject>) -> CompareNumber {
        CompareNumber { subject: key.into(), operand: Operand::ModRevision }
    }

    /// The revision at which the key came into being; 0 when it does not exist.
    pub fn create_revision(key: impl Into<Subject>) -> CompareNumber {
        CompareNumber { subject: key.into(), operand: Operand::CreateRevision }
    }

    /// How often the key was changed; 0 when it does not exist.
    pub fn version(key: impl Into<Subject>) -> CompareNumber {
        CompareNumber { subject: key.into(), operand: Operand::Version }
    }

    /// The key's value, by its bytes. Nothing holds of a key that does not exist.
    pub fn value(key: impl Into<Subject>) -> CompareValue {
        CompareValue { subject: key.into() }
    }

    /// The key lives with this lease; `None` is a key without one, or none.
    pub fn lease(key: impl Into<Subject>, lease: Option<LeaseId>) -> Self {
        let operand = Operand::Lease(lease.unwrap_or(LeaseId(0)));
        Self { subject: key.into(), relation: Relation::Equals, operand }
    }
}

/// A claim about a number, not finished yet.
#[derive(Debug, Clone)]
#[must_use = "a claim says how the number stands to another"]
pub struct CompareNumber {
    subject: Subject,
    operand: fn(u64) -> Operand,
}

impl CompareNumber {
    /// It is this number.
    pub fn equals(self, number: u64) -> Compare {
        self.relation(Relation::Equals, number)
    }

    /// It is not this number.
    pub fn differs_from(self, number: u64) -> Compare {
        self.relation(Relation::Differs, number)
    }

    /// It is above this number.
    pub fn greater_than(self, number: u64) -> Compare {
        self.relation(Relation::Greater, number)
    }

    /// It is below this number.
    pub fn less_than(self, number: u64) -> Compare {
        self.relation(Relation::Less, number)
    }

    fn relation(self, relation: Relation, number: u64) -> Compare {
        Compare { subject: self.subject, relation, operand: (self.operand)(number) }
    }
}

/// A claim about a value, not finished yet.
#[derive(Debug, Clone)]
#[must_use = "a claim says how the value stands to another"]
pub struct CompareValue {
    subject: Subject,
}

impl CompareValue {
    /// It is this value.
    pub fn equals(self, value: impl Into<Bytes>) -> Compare {
        self.relation(Relation::Equals, value.into())
    }

    /// The key exists, and its value is another.
    pub fn differs_from(self, value: impl Into<Bytes>) -> Compare {
        self.relation(Relation::Differs, value.into())
    }

    /// It is behind this value in the order of bytes.
    pub fn greater_than(self, value: impl Into<Bytes>) -> Compare {
        self.relation(Relation::Greater, value.into())
    }

    /// It is before this value in the order of bytes.
    pub fn less_than(self, value: impl Into<Bytes>) -> Compare {
        self.relation(Relation::Less, value.into())
    }

    fn relation(self, relation: Relation, value: Bytes) -> Compare {
        Compare { subject: self.subject, relation, operand: Operand::Value(value) }
    }
}

/// An operation of a transaction. It sees what those before it have done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a key; at most once each in a branch.
    Put(Put),
    /// Deletes keys, none of which is set in the same branch.
    Delete(Delete),
    /// Reads a range.
    Read(KeyRange, ListOptions),
    /// A transaction within: its compares are of the state before the whole of it, too.
    Txn(Txn),
}

impl Op {
    /// Sets a key. [`Put`] does more.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put(Put::new(key, value))
    }

    /// Deletes a key. [`Delete`] does more.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::Delete(Delete::key(key))
    }

    /// Reads a key.
    pub fn get(key: impl Into<Bytes>) -> Self {
        Self::Read(KeyRange::key(key), ListOptions::default())
    }

    /// Reads a range.
    pub fn list(range: KeyRange, options: ListOptions) -> Self {
        Self::Read(range, options)
    }
}

impl From<Put> for Op {
    fn from(put: Put) -> Self {
        Self::Put(put)
    }
}

impl From<Delete> for Op {
    fn from(delete: Delete) -> Self {
        Self::Delete(delete)
    }
}

impl From<Txn> for Op {
    fn from(txn: Txn) -> Self {
        Self::Txn(txn)
    }
}

/// What a transaction came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnAnswer {
    /// Whether all compares held.
    pub succeeded: bool,
    /// The store's revision after it; when it has changed nothing, the one it was at.
    pub revision: u64,
    /// What the operations of the branch came to, in order, one each.
    pub answers: Vec<OpAnswer>,
}

/// What an operation of a transaction came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpAnswer {
    /// Of a put.
    Put {
        /// The key as it was before, if that was asked for and it existed.
        previous: Option<KeyValue>,
    },
    /// Of a delete.
    Delete {
        /// How many keys were deleted.
        deleted: u64,
        /// Them, in the order of their keys, if that was asked for.
        previous: Vec<KeyValue>,
    },
    /// Of a read.
    Read(Page),
    /// Of a transaction within.
    Txn(TxnAnswer),
}

impl OpAnswer {
    /// The first key that it tells of: one that was read, or one as it was before.
    pub fn into_kv(self) -> Option<KeyValue> {
        match self {
            Self::Put { previous } => previous,
            Self::Delete { previous, .. } => previous.into_iter().next(),
            Self::Read(page) => page.items.into_iter().next(),
            Self::Txn(answer) => answer.answers.into_iter().find_map(Self::into_kv),
        }
    }
}

impl Client {
    /// Runs a transaction.
    ///
    /// One that reads only, in both branches, is linearizable, also when it only compares. One that does not even compare
    /// succeeds, and its revision may be old.
    ///
    /// Errors: as [`Error`] says. After [`Error::Unknown`] it may have been run, as a whole; one that reads only never has
    /// an unknown outcome, and is asked again of other members.
    pub async fn txn(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        self.txn_as(txn, Ok).await
    }

    /// As [`Client::txn`], where not every answer makes sense.
    pub(crate) async fn txn_as<T>(
        &self,
        txn: Txn,
        make: impl Fn(TxnAnswer) -> Result<T, Status>,
    ) -> Result<T, Error> {
        let namespace = self.namespace();
        let (txn, drops_answers) = txn.made_linearizable();
        let repeat = if txn.is_read() { Repeat::Harmless } else { Repeat::Harmful };
        let shape = codec::kv::TxnShape::of(&txn);
        let request = codec::kv::txn_request(txn, namespace);
        let txn = async |channel, request| kv(channel).txn(request).await;
        let decode = |answer| {
            let mut answer = codec::kv::txn_answer(answer, &shape, namespace)?;
            if drops_answers {
                answer.answers.clear();
            }
            make(answer)
        };
        self.call(repeat, request, txn, decode).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_that_only_compares_reads_what_it_compares() {
        let read = |range| vec![Op::list(range, ListOptions::new().limit(1).keys_only())];
        let compares = Txn::new().when(Compare::missing("a")).when(Compare::exists("b"));
        let (sent, drops_answers) = compares.clone().made_linearizable();
        assert!(drops_answers && sent.is_read());
        assert_eq!((&sent.then, &sent.or_else), (&read(KeyRange::key("a")), &read(KeyRange::key("a"))));
        assert_eq!(sent.compares, compares.compares);
        for other in [Txn::new(), compares.clone().then(Op::get("c")), compares.or_else(Op::put("c", "1"))] {
            assert_eq!(other.clone().made_linearizable(), (other, false));
        }
    }

    #[test]
    fn only_a_transaction_that_reads_in_both_branches_may_be_sent_twice() {
        let reads = Txn::new().then(Op::get("a")).or_else(Op::get("b"));
        assert!(Txn::new().is_read() && reads.is_read());
        assert!(Txn::new().then(reads.clone()).is_read());
        for write in [Op::put("a", "1"), Op::delete("a")] {
            assert!(!reads.clone().then(write.clone()).is_read());
            assert!(!reads.clone().or_else(write.clone()).is_read());
            assert!(!reads.clone().or_else(Txn::new().then(write)).is_read());
        }
    }
}
