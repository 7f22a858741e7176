//! What must hold of a recorded run. Pure: a record in, findings out.

pub mod apiserver;
pub mod collector;
pub mod dump_policy;
pub mod durability;
pub mod fencing;
pub mod latency;
pub mod lease;
pub mod linearizable;
pub mod members;
pub mod positions;
pub mod reads;
pub mod replace;
pub mod sdk;
pub mod sets;
pub mod stall;
pub mod transfers;
pub mod watch;
