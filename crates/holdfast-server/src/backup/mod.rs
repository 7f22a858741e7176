//! Backups: a member's state as the database file that etcd's tools read, and members that begin with such a file.
//!
//! [`schema`] is what etcd 3.5 keeps in its file and how; [`build`] writes one from a running member, [`room`] says how
//! many at a time and where; [`file`](mod@file) reads one from a disk, [`look`] tells what is in it, [`history`] goes
//! through its keys and judges them, [`rights`] are users and roles, both ways, [`restore`] makes a data directory of it.
//!
//! # What is in a file
//! Everything that is kept since the compact revision, of all keys, with the revisions, and beside that the leases, the
//! members, the alarms, users and roles.

pub mod build;
pub mod file;
pub mod history;
pub mod look;
pub mod restore;
pub mod rights;
pub mod room;
pub mod schema;
#[cfg(test)]
mod tests;
