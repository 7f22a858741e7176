//! The SDK of holdfast: typed repositories, watches that resume, an informer with a local cache, sessions, locks and
//! elections.
//!
//! Nothing of it is here yet: later work fills this crate. Until then any etcd v3 client works against a holdfast
//! server, and tests inside this workspace use the generated clients of `holdfast-proto`.
