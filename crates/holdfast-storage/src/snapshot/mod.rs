//! Snapshots: the state at one log position in one file, written by a dump, sent to members that lag, and installed
//! by them.
//!
//! `format` holds the layout, `store` the directory, `dump` writes one from the stable store, `install` builds a
//! stable store from one.

pub(crate) mod dump;
pub(crate) mod format;
pub(crate) mod founding;
pub(crate) mod install;
pub(crate) mod store;
