//! `snapshot`: [`save`] from a member, [`status`] and [`inspect`] of a file, [`restore`] into a data directory.

mod inspect;
mod restore;
mod save;
mod status;

use crate::cli::SnapshotCommand;
use crate::error::Done;
use crate::global::Global;
use crate::output::{self, Out};

/// `snapshot`.
pub(crate) async fn snapshot(global: &Global, command: &SnapshotCommand) -> Done {
    let out = Out::new(global)?;
    match command {
        SnapshotCommand::Save { file } => output::write(save::save(global, file).await?.as_bytes()),
        SnapshotCommand::Status { file } => status::status(file, out),
        SnapshotCommand::Inspect { file } => inspect::inspect(file, out),
        SnapshotCommand::Restore(flags) => output::write(restore::restore(flags)?.as_bytes()),
    }
}
