//! Consensus: the only crate that names openraft.
//!
//! A [`Node`] is one member. It proposes commands on any member, confirms linearizable reads, replicates the log to
//! its peers, applies it to the storage, and starts dumps so that the log can shrink.
//!
//! # What it is not
//! It does not write log bytes (`holdfast-log`), hold state (`holdfast-storage`), or know what a client is.
//!
//! # Invariants
//! - A proposal is put into a log again only when it is certain that nothing was appended; anything else that gets no
//!   answer in time ends as unknown.
//! - A linearizable read joins only a confirmation round that started after it arrived, and waits for what readers
//!   see here, not for what was handed to the dispatcher.
//! - A lease is kept alive, and its end judged, by the leader of one term, confirmed behind the keep-alive; an end that is
//!   applied in another term is refused.
//! - The log is purged only behind a verified, durable snapshot.
//! - Nothing in openraft's core waits for a disk except the vote; nothing on a peer's connection waits for a snapshot.
//! - No randomness, clock or task but those of [`holdfast_env::Env`] and the seedable generator of [`seed_thread`].
//!
//! # Module map
//! `node` the running member; `config`, `error`, `health` what it is told and tells; `proposals` and
//! `proposer` writes, `reads` linearizable reads; `lease` deadlines and keep-alives; `log_store` and `state_machine` openraft's storage on ours; `dump` and
//! `log_size` when to dump and purge, `pace` how fast writes may come meanwhile; `leadership` who leads, `lost_leader` what is done when it is gone; `membership` who takes part; `founding` where a restored state stands; `digest` whether they agree; `peer` connections, `wire` the real network; `codec`
//! bytes; `types`, `runtime` and `ordered_watch` openraft's parameters; `owner` whose tasks run; `limits` bounds.

mod codec;
mod config;
mod digest;
mod dump;
mod error;
mod founding;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod health;
mod leadership;
mod lease;
mod limits;
mod log_size;
mod log_store;
mod lost_leader;
mod membership;
mod node;
mod ordered_watch;
mod owner;
mod pace;
mod peer;
mod proposals;
mod proposer;
mod reads;
mod runtime;
mod shared;
mod state_machine;
#[cfg(test)]
mod storage_suite;
mod types;
mod wire;

pub use config::{Member, NodeConfig};
pub use digest::Comparison;
pub use error::{NodeError, StartError, TimeoutCause};
pub use founding::founding_position;
pub use health::Health;
pub use holdfast_log::{Log, LogConfig, LogError, LogStats};
pub use lease::LeaseLeft;
pub use membership::{ChangeError, ChangeRules, MemberChange, TransferError};
pub use node::Node;
pub use owner::TaskOwner;
pub use peer::discover::{FoundCluster, FoundMember, discover};
pub use peer::roster::Departure;
pub use runtime::seed_thread;
pub use wire::{PeerNet, PeerNetConfig, PeerTls, bind_all};
