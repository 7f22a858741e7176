//! The SDK of holdfast: a client that says what happened, watches that resume, locks that are seen to be lost.
//!
//! It speaks etcd's v3 API and nothing else, so it works against any etcd v3 server.
//!
//! ```no_run
//! # async fn example() -> Result<(), holdfast_client::Error> {
//! use holdfast_client::{Client, FolderEvent};
//!
//! let client = Client::new(["http://127.0.0.1:2379"])?;
//! client.set_if_not_exists("services/web/1", "10.0.0.7").await?;
//! let mut folder = client.watch_folder("services/web/");
//! loop {
//!     match folder.next().await? {
//!         FolderEvent::Fresh(kv) | FolderEvent::Created(kv) => println!("there is {:?}", kv.key),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # }
//! ```
//!
//! # What it is not
//! It does not administer clusters: members, users, compactions and backups are for `holdfastctl`.
//!
//! # Invariants
//! - A request is sent again only when it reads, when sending it twice is the same as once, or when it is certain that
//!   nothing happened. When it is not, the error is [`Error::Unknown`].
//! - A watch gives each change once, in order. When it cannot, because the changes were compacted before they were seen,
//!   it says so before it goes on.
//! - A lease that this crate grants is revoked when it is not needed any more, or ends by itself within its time: nothing
//!   keeps it alive but a [`Held`] that still holds, or a [`Session`].
//! - [`Held`], [`Session`] and what is held in it never show that they hold for longer than the lease can have lived, by
//!   this machine's monotonic clock.
//!
//! # Module map
//! - `client` endpoints and what is sent again, `auth` whose calls they are, `namespace` what all keys begin with,
//!   `health` how the members are, `codec` between the wire and [`KeyValue`].
//! - `range` which keys, `read` and `pages` how fresh and how many at a time, `wait` for a revision, `write` and `txn` what
//!   is changed, `update` and `stm` what is changed again when others were first.
//! - `watch` changes that resume, and `watch_stream` what carries them, `folder` state and changes of a folder.
//! - `lease`, `held` a key and `session` a lease that is kept alive, `pulse` what is known of that; `place` in a queue, and
//!   on it `lock` and `election`; `barrier`, `queue`.
//! - [`store`] has versioned objects under keys and [`repo`] objects under their names, each in memory and on a cluster.
//! - [`informer`] keeps a range here, decoded, with indexes, and serves reads from it; [`collect`] gathers objects of many
//!   systems, each with versions of its own.

mod auth;
mod barrier;
mod client;
mod codec;
pub mod collect;
mod election;
mod error;
mod folder;
mod health;
mod held;
pub mod informer;
mod lease;
mod lock;
mod namespace;
mod pages;
mod place;
mod pulse;
mod queue;
mod range;
mod read;
pub mod repo;
mod session;
mod stm;
pub mod store;
mod txn;
mod update;
mod wait;
mod watch;
mod watch_stream;
mod write;

pub use auth::Credentials;
pub use barrier::Barrier;
pub use client::{Client, Config};
pub use codec::watch::Event;
pub use codec::{KeyValue, LeaseId};
pub use election::{Leadership, Observe};
pub use error::{Attempt, Class, Error};
pub use folder::{Folder, FolderEvent};
pub use health::{EndpointHealth, MemberStatus};
pub use held::{Acquired, Held, HoldState};
pub use holdfast_tls::{ClientFiles, PairFiles, Roots, TlsError, Verify};
pub use lock::Lock;
pub use pages::Pages;
pub use queue::Queue;
pub use range::KeyRange;
pub use read::{ListOptions, Order, Page, Read, ReadLevel, SortBy};
pub use session::{Session, SessionState};
pub use stm::{Transacted, Transaction};
pub use txn::{Compare, CompareNumber, CompareValue, Op, OpAnswer, Subject, Txn, TxnAnswer};
pub use update::{Known, UpdateError, Updated};
pub use watch::{Watch, WatchEvent, WatchOptions};
pub use write::{Delete, DeleteAnswer, Deleted, Put, PutAnswer, SetIfNotExists};
