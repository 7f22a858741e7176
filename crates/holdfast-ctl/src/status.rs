//! `snapshot status`: etcdctl's four figures of a file.

use std::path::Path;
use std::sync::Arc;

use holdfast_env::{Disk, RealDisk};
use holdfast_server::backup::file::{Checksum, Database};
use holdfast_server::backup::look;

use crate::cli::WriteOut;
use crate::output;

/// Opens a file; a checksum at its end must be right.
pub(crate) fn open(file: &Path) -> anyhow::Result<Database> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    Ok(Database::open(&disk, file, Checksum::IfThere)?)
}

/// The figures, as text.
pub(crate) fn status(file: &Path, form: WriteOut) -> anyhow::Result<String> {
    let status = look::status(&open(file)?)?;
    let fields = || {
        let look::Status { hash, revision, pairs, bytes } = status;
        vec![format!("{hash:x}"), revision.to_string(), pairs.to_string(), output::bytes(bytes)]
    };
    Ok(match form {
        WriteOut::Simple => format!("{}\n", fields().join(", ")),
        WriteOut::Table => output::table(&["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"], &[fields()]),
        WriteOut::Json => format!("{}\n", serde_json::to_string(&status)?),
    })
}
