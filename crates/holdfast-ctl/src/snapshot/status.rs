//! `snapshot status`: etcdctl's four figures of a file.

use std::path::Path;
use std::sync::Arc;

use holdfast_env::{Disk, RealDisk};
use holdfast_server::backup::file::{Checksum, Database};
use holdfast_server::backup::look;

use crate::error::Done;
use crate::output::{self, Format, Look, NO_PROTOBUF, Out, View, push, table};

/// Opens a file; a checksum at its end must be right.
pub(crate) fn open(file: &Path) -> anyhow::Result<Database> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    Ok(Database::open(&disk, file, Checksum::IfThere)?)
}

/// `snapshot status`.
pub(crate) fn status(file: &Path, out: Out) -> Done {
    out.has::<Figures>()?;
    out.show(&Figures(look::status(&open(file)?).map_err(anyhow::Error::from)?))
}

/// The figures.
struct Figures(look::Status);

impl Figures {
    fn row(&self) -> Vec<String> {
        let look::Status { hash, revision, pairs, bytes } = self.0;
        vec![format!("{hash:x}"), revision.to_string(), pairs.to_string(), output::bytes(bytes)]
    }
}

impl View for Figures {
    const FORMATS: &'static [Format] = NO_PROTOBUF;

    fn simple(&self, text: &mut Vec<u8>, _: Look) {
        push(text, &self.row().join(", "));
    }

    fn fields(&self, text: &mut Vec<u8>) {
        let look::Status { hash, revision, pairs, bytes } = self.0;
        let fields = [("Hash", u64::from(hash)), ("Revision", revision), ("Keys", pairs), ("Size", bytes)];
        fields.iter().for_each(|(name, value)| push(text, &format!("\"{name}\" : {value}")));
    }

    fn json(&self, _: Look) -> String {
        serde_json::to_string(&self.0).expect("numbers are JSON")
    }

    fn table(&self) -> String {
        table(&["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"], &[self.row()])
    }
}
