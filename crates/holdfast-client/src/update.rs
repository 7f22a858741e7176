//! Changes that depend on what there is, made again when others were first.

use bytes::Bytes;

use crate::client::Client;
use crate::codec::{KeyValue, malformed};
use crate::error::Error;
use crate::read::ReadLevel;
use crate::txn::{Compare, Op, Txn};
use crate::write::Put;

/// How often a change is tried before it is given up.
const ATTEMPTS: u32 = 100;

/// What is known of a key before it is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it is read first.
    Nothing,
    /// This, from a cache: it may be out of date. `None` is a key that does not exist. When it is up to date, a change is
    /// a single round trip.
    Cached(Option<KeyValue>),
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updated {
    /// The value of the key now.
    pub value: Bytes,
    /// The revision of its latest change: this one, or an earlier one when the value was so already.
    pub mod_revision: u64,
    /// Whether it was written.
    pub is_written: bool,
    /// How many transactions were tried.
    pub attempts: u32,
}

/// Why a key was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError<E> {
    /// The caller's function would not have it, of the key as it is.
    #[error("not changed")]
    Refused(#[source] E),
    /// The store gave no answer, as [`Error`] says. After [`Error::Unknown`] it may be changed.
    #[error(transparent)]
    Client(Error),
}

impl<E> From<Error> for UpdateError<E> {
    /// The only one there is: calls of the client fail here.
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

/// What a write on a condition came to.
pub(crate) enum Tried {
    /// It is done.
    Written { revision: u64 },
    /// It is not: this is there, `None` when nothing is.
    Changed(Option<KeyValue>),
}

impl Client {
    /// Changes a key depending on what it is, as often as others change it first: the caller's function gets the key as
    /// it is, or `None`, and gives the new value. Each try is one round trip, because one that fails brings the key as it
    /// is with it. Nothing is written when the value is so already, and the key keeps its lease.
    ///
    /// With [`Known::Cached`] the first try is made with what is known. What comes of a key that was out of date is not
    /// believed: when the function refuses it, or makes nothing new of it, the key is read once, and asked again if it is
    /// another.
    ///
    /// ```no_run
    /// # async fn example(client: holdfast_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::convert::Infallible;
    /// use holdfast_client::Known;
    ///
    /// let updated = client
    ///     .guaranteed_update("visits", Known::Nothing, |now| {
    ///         let before = now.and_then(|kv| std::str::from_utf8(&kv.value).ok()?.parse().ok()).unwrap_or(0_u64);
    ///         Ok::<_, Infallible>((before + 1).to_string().into())
    ///     })
    ///     .await?;
    /// println!("{:?} since revision {}", updated.value, updated.mod_revision);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Errors: the function's, and [`Error`]; [`Error::Contended`] when others were first too often.
    pub async fn guaranteed_update<E>(
        &self,
        key: impl Into<Bytes>,
        known: Known,
        mut change: impl FnMut(Option<&KeyValue>) -> Result<Bytes, E>,
    ) -> Result<Updated, UpdateError<E>> {
        let key = key.into();
        let (mut current, mut is_fresh) = match known {
            Known::Nothing => (self.now(&key).await?, true),
            Known::Cached(cached) => (cached, false),
        };
        let mut attempts = 0;
        while attempts < ATTEMPTS {
            let changed = change(current.as_ref());
            let is_same = matches!((&changed, &current), (Ok(value), Some(kv)) if *value == kv.value);
            if !is_fresh && (is_same || changed.is_err()) {
                let now = self.now(&key).await?;
                is_fresh = true;
                if now.as_ref().map(|kv| kv.mod_revision) != current.as_ref().map(|kv| kv.mod_revision) {
                    current = now;
                    continue;
                }
            }
            let value = changed.map_err(UpdateError::Refused)?;
            if let Some(kv) = current.as_ref().filter(|_| is_same) {
                return Ok(Updated { value, mod_revision: kv.mod_revision, is_written: false, attempts });
            }
            attempts += 1;
            let put = Put::new(key.clone(), value.clone());
            let (mod_revision, put) = match &current {
                Some(kv) => (kv.mod_revision, put.keep_lease()),
                None => (0, put),
            };
            match self.write_if(&key, mod_revision, put.into()).await? {
                Tried::Written { revision } => {
                    return Ok(Updated { value, mod_revision: revision, is_written: true, attempts });
                }
                Tried::Changed(now) => (current, is_fresh) = (now, true),
            }
        }
        Err(Error::Contended { attempts }.into())
    }

    async fn now(&self, key: &Bytes) -> Result<Option<KeyValue>, Error> {
        Ok(self.get(key.clone(), ReadLevel::Linearizable).await?.value)
    }

    /// Does `op` if this revision has changed the key last, 0 if it is not there; otherwise reads it, in the same step.
    pub(crate) async fn write_if(&self, key: &Bytes, mod_revision: u64, op: Op) -> Result<Tried, Error> {
        let txn = Txn::new()
            .when(Compare::mod_revision(key.clone()).equals(mod_revision))
            .then(op)
            .or_else(Op::get(key.clone()));
        self.txn_as(txn, |answer| {
            if answer.succeeded {
                return Ok(Tried::Written { revision: answer.revision });
            }
            let read = answer.answers.into_iter().next().ok_or_else(|| malformed("nothing that was read"))?;
            Ok(Tried::Changed(read.into_kv()))
        })
        .await
    }
}
