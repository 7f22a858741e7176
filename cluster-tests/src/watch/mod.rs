//! etcdctl's commands that go on until they are stopped: `watch` and `make-mirror`, and the load of `check perf`.

pub mod check_perf;
pub mod console;
pub mod mirror;
pub mod printed;
pub mod script;
