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
//! There are no typed repositories, informers, elections with observers or authentication yet: later work grows them on
//! what is here.
//!
//! # Invariants
//! - A request is sent again only when it reads, when sending it twice is the same as once, or when it is certain that
//!   nothing happened. When it is not, the error is [`Error::Unknown`].
//! - A watch gives each change once, in order. When it cannot, because the changes were compacted before they were seen,
//!   it says so before it goes on.
//! - A lease that this crate grants is revoked when it is not needed any more, or ends by itself within its time: nothing
//!   keeps it alive but a [`Held`] that still holds.
//! - [`Held`] never shows "held" for longer than its lease can have lived, by this machine's monotonic clock.
//!
//! # Module map
//! `client` endpoints and what is sent again, `auth` whose calls they are, `namespace` what all keys begin with; `range`
//! which keys, `read` and `pages` how fresh and how many at a time, `write` and `txn` what is changed; `watch` changes
//! that resume, and `watch_stream` what carries them, `folder` state and changes of a folder, `lease` and `held` what is
//! held as long as it is kept alive; `codec` between the wire and [`KeyValue`].

mod auth;
mod client;
mod codec;
mod error;
mod folder;
mod held;
pub mod informer;
mod lease;
mod namespace;
mod pages;
mod range;
mod read;
pub mod repo;
pub mod store;
mod txn;
mod watch;
mod watch_stream;
mod write;

pub use auth::Credentials;
pub use client::{Client, Config};
pub use codec::watch::Event;
pub use codec::{KeyValue, LeaseId};
pub use error::{Attempt, Class, Error};
pub use folder::{Folder, FolderEvent};
pub use held::{Acquired, Held, HoldState};
pub use holdfast_tls::{ClientFiles, PairFiles, Roots, TlsError, Verify};
pub use pages::Pages;
pub use range::KeyRange;
pub use read::{ListOptions, Order, Page, Read, ReadLevel, SortBy};
pub use txn::{Compare, CompareNumber, CompareValue, Op, OpAnswer, Subject, Txn, TxnAnswer};
pub use watch::{Watch, WatchEvent, WatchOptions};
pub use write::{Delete, DeleteAnswer, Deleted, Put, PutAnswer, SetIfNotExists};
