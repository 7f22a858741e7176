//! `snapshot`: [`save`] from a member, [`status`] and [`inspect`] of a file, [`restore`] into a data directory.

mod inspect;
mod restore;
mod save;
mod status;

use crate::cli::SnapshotCommand;
use crate::error::Done;
use crate::global::Global;
use crate::output::{self, Format};

/// `snapshot`.
pub(crate) async fn snapshot(global: &Global, command: &SnapshotCommand) -> Done {
    let format = Format::named(&global.write_out)?;
    let text = match command {
        SnapshotCommand::Save { file } => save::save(global, file).await?,
        SnapshotCommand::Status { file } => status::status(file, format)?,
        SnapshotCommand::Inspect { file } => inspect::inspect(file, format)?,
        SnapshotCommand::Restore(flags) => restore::restore(flags)?,
    };
    output::write(text.as_bytes())
}
