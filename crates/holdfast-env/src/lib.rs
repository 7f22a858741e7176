//! The world, behind traits: disk, clock, network, randomness, and the threads that loops run on.
//!
//! Every crate that touches the world takes an [`Env`] and uses nothing else, so that the same code runs on real
//! hardware and, in `holdfast-sim`, on a simulated disk, clock and network in one thread, repeatably.
//!
//! What it is not: no domain knowledge lives here, except the log positions ([`LogId`]) that the log and the
//! storage crate share and neither may own.
//!
//! Module map: [`disk`], [`clock`], [`net`], [`rng`], [`spawn`] hold one trait each with its real implementation;
//! [`shared_loop`] is a loop that others may drive, [`panics`] says what a panic ends, [`position`] holds the log positions, [`sabotage`] what tests do to a member from inside.

pub mod clock;
pub mod disk;
pub mod net;
pub mod panics;
pub mod position;
pub mod rng;
pub mod sabotage;
pub mod shared_loop;
pub mod spawn;

use std::sync::Arc;

pub use clock::{Clock, Monotonic, RealClock, UnixMillis};
pub use disk::{Disk, DiskFile, DiskLock, OpenMode, RealDisk, create_dir_synced};
pub use net::{Duplex, Incoming, Lane, Net, NetError, NoNet};
pub use position::{LogId, LogIndex, Term};
pub use rng::{OsRng, Rng};
pub use sabotage::{Failpoint, Fault, Faults, Sabotage};
pub use shared_loop::Helper;
pub use spawn::{RealSpawn, Spawn, TaskHandle, give_way};

/// A boxed future that can be moved between threads.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One member's view of the world. Cheap to clone; all clones share the same world.
#[derive(Clone)]
pub struct Env {
    /// Files and directories.
    pub disk: Arc<dyn Disk>,
    /// Monotonic and wall time, and timers.
    pub clock: Arc<dyn Clock>,
    /// Connections between members.
    pub net: Arc<dyn Net>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Tasks and dedicated threads.
    pub spawn: Arc<dyn Spawn>,
    /// What a test does to the member from inside; nothing in a release build.
    pub faults: Faults,
}

impl Env {
    /// The real world on the given tokio runtime; `net` is supplied by the crate that owns the peer protocol.
    pub fn real(runtime: tokio::runtime::Handle, net: Arc<dyn Net>) -> Self {
        Self {
            disk: Arc::new(RealDisk),
            clock: Arc::new(RealClock::new(runtime.clone())),
            net,
            rng: Arc::new(OsRng),
            spawn: Arc::new(RealSpawn::new(runtime)),
            faults: Faults::default(),
        }
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}
