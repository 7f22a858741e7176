//! Storage: ordered keys with versioned objects, in memory or on a cluster, as bytes or as objects of a type.
//!
//! ```text
//!   TypedStore<T, C, X, S>    objects of a type      guaranteed_update, wait_and_list, rewrite_stale
//!        │ Codec C            bytes as they are      Json, Prost, Raw
//!        │ Transformer X      bytes at rest          Identity, AesGcm, DerivedAesGcm, Envelope, PrefixChain
//!        ▼
//!   trait Storage             bytes under keys       MemoryStorage, ClusterStorage
//! ```
//!
//! # What it is not
//! There are no indexes: selectors are evaluated for each object, where the answer says `server_side: false` after all
//! objects came over the wire.
//!
//! # Invariants
//! - A version is a revision of the whole store. A key that is deleted and made again gets a greater one, so a version
//!   tells objects apart as an id would.
//! - A conditional write and the object that stands in its way are one step, on a cluster one round trip.
//! - Nothing is written twice on the suspicion that it was not written: what may have happened is [`StoreError::Unknown`].
//!
//! # Module map
//! `storage` the trait, `item` what stores give, `selector` which objects are wanted, `memory` over `cow` (versions that
//! share what did not change), `ring` (the latest changes) and `evict` (what goes first), `cluster`, `cluster_watch` and
//! `leases` over the client, `codec`, `transform`, `aes`, `envelope` between objects and bytes at rest, `typed` and
//! `update` objects of a type.

mod aes;
mod cluster;
mod cluster_watch;
mod codec;
pub(crate) mod cow;
mod envelope;
mod error;
mod evict;
mod item;
mod leases;
mod limits;
mod memory;
mod ring;
mod selector;
mod storage;
mod transform;
mod typed;
mod update;

pub use aes::{AesGcm, DerivedAesGcm, KEY_BYTES};
pub use cluster::ClusterStorage;
pub use cluster_watch::ClusterWatch;
pub(crate) use codec::JsonError;
pub use codec::{Codec, CodecError, Json, Prost, Raw};
pub use envelope::{Envelope, KEY_ID_BYTES_MAX, Kms, KmsError, SEALED_SEED_BYTES_MAX, SealedSeed};
pub use error::StoreError;
pub(crate) use error::text;
pub use item::{Change, ChangeKind, Item, Items, Page, Removed};
pub use limits::{Limit, Limits, OBJECT_BYTES_MAX, TooLarge, WhenFull};
pub use memory::{MemoryStorage, MemoryWatch};
pub use selector::{FieldOf, Operator, SELECTORS_MAX, Selection, Selector, VALUES_MAX};
pub use storage::{Conditions, Expect, Lifetime, Storage, StorageWatch};
pub use transform::{Identity, Opened, PrefixChain, TransformError, Transformer};
pub use typed::{ATTEMPTS_MAX, TypedError, TypedItem, TypedStore, TypedWatch, UpdateError};
pub use update::Rewritten;
