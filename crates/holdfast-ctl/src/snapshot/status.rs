//! `snapshot status`: etcdctl's four figures of a file.

use std::path::Path;
use std::sync::Arc;

use holdfast_env::{Disk, RealDisk};
use holdfast_server::backup::file::{Checksum, Database};
use holdfast_server::backup::look;

use crate::output::{self, Format};

/// Opens a file; a checksum at its end must be right.
pub(crate) fn open(file: &Path) -> anyhow::Result<Database> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    Ok(Database::open(&disk, file, Checksum::IfThere)?)
}

/// The figures, as text.
pub(crate) fn status(file: &Path, form: Format) -> anyhow::Result<String> {
    let status = look::status(&open(file)?)?;
    let fields = || {
        let look::Status { hash, revision, pairs, bytes } = status;
        vec![format!("{hash:x}"), revision.to_string(), pairs.to_string(), output::bytes(bytes)]
    };
    Ok(match form {
        Format::Simple => format!("{}\n", fields().join(", ")),
        Format::Table => output::table(&["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"], &[fields()]),
        Format::Fields => {
            let look::Status { hash, revision, pairs, bytes } = status;
            format!("\"Hash\" : {hash}\n\"Revision\" : {revision}\n\"Keys\" : {pairs}\n\"Size\" : {bytes}\n")
        }
        Format::Protobuf | Format::Raw => {
            anyhow::bail!("snapshot status writes simple, fields, table or json")
        }
        Format::Json => format!("{}\n", serde_json::to_string(&status)?),
    })
}
