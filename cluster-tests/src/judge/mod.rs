//! What must hold of a recorded run. Pure: a record in, findings out.

pub mod apiserver;
pub mod dump_policy;
pub mod durability;
pub mod latency;
pub mod members;
pub mod positions;
pub mod replace;
pub mod stall;
pub mod watch;
