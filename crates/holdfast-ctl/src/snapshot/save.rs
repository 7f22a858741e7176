//! `snapshot save`: the state of one member as a file.
//!
//! The file is written aside, its content checked against the checksum that comes last, made durable, and then given its
//! name: whoever finds it has all of it.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use holdfast_env::{Disk, DiskFile, OpenMode, RealDisk};
use holdfast_proto::etcdserverpb as pb;
use sha2::{Digest, Sha256};
use tonic::Status;

use crate::client::{Client, broke, service};
use crate::error::CtlError;
use crate::global::Global;

/// Of the checksum that comes last.
const CHECKSUM_BYTES: usize = 32;

/// Saves; what is to be said then.
pub(crate) async fn save(global: &Global, file: &Path) -> Result<String, CtlError> {
    let client = Client::new(global)?;
    let [endpoint] = client.endpoints() else {
        let all = client.endpoints().join(",");
        return Err(anyhow!("a snapshot is of one member: give one of --endpoints={all}").into());
    };
    let (conn, _) = client.connection().await?;
    // The member reads its whole state before it has something to send: only the user knows how long that may take.
    let answer = service::maintenance(conn).snapshot(pb::SnapshotRequest {}).await;
    let mut stream = match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Err(refused(&client, endpoint, status).await),
    };
    let mut part = Part::create(file).with_context(|| format!("cannot write {}", file.display()))?;
    let mut version = String::new();
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                version = message.version;
                let path = part.path.clone();
                part.add(&message.blob).with_context(|| format!("cannot write {}", path.display()))?;
            }
            Ok(None) => break,
            Err(status) => return Err(refused(&client, endpoint, status).await),
        }
    }
    if !part.is_whole() {
        let error = anyhow!(
            "what {endpoint} has sent does not match its checksum, or ends too early: nothing was saved"
        );
        return Err(error.into());
    }
    part.publish(file).with_context(|| format!("cannot write {}", file.display()))?;
    let server = if version.is_empty() { String::new() } else { format!("Server version {version}\n") };
    Ok(format!("Snapshot saved at {}\n{server}", file.display()))
}

/// With TLS, a server's verdict on our certificate comes so late that the connection breaks of it.
async fn refused(client: &Client, endpoint: &str, status: Status) -> CtlError {
    if broke(&status) {
        let cause = client.stream_end(endpoint, &status).await;
        return CtlError::Broken { endpoint: endpoint.to_owned(), cause };
    }
    CtlError::Refused { what: "the member refused: ", status }
}

/// A file on its way; removed when it does not become one.
struct Part {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    bytes: u64,
    /// Of all but the last [`CHECKSUM_BYTES`].
    sha: Sha256,
    /// The last bytes so far, at most [`CHECKSUM_BYTES`].
    last: Vec<u8>,
    is_published: bool,
}

impl Part {
    fn create(file: &Path) -> io::Result<Self> {
        let mut name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(".part");
        let path = file.with_file_name(name);
        // Left behind by one that was stopped.
        if RealDisk.exists(&path)? {
            RealDisk.remove_file(&path)?;
        }
        let file = RealDisk.open(&path, OpenMode::CreateNew)?;
        Ok(Self { path, file, bytes: 0, sha: Sha256::new(), last: Vec::new(), is_published: false })
    }

    fn add(&mut self, blob: &[u8]) -> io::Result<()> {
        self.file.write_all_at(blob, self.bytes)?;
        self.bytes += blob.len() as u64;
        self.last.extend_from_slice(blob);
        let content = self.last.len().saturating_sub(CHECKSUM_BYTES);
        self.sha.update(&self.last[..content]);
        self.last.drain(..content);
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.sha.clone().finalize()[..] == self.last[..]
    }

    fn publish(mut self, file: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        RealDisk.rename(&self.path, file)?;
        self.is_published = true;
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        RealDisk.sync_dir(dir)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_published {
            // What stays is named .part, and replaced by the next save.
            drop(RealDisk.remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_once_it_is_whole() {
        let dir = std::env::temp_dir().join(format!("holdfastctl-save-{}", std::process::id()));
        RealDisk.create_dir_all(&dir).unwrap();
        let file = dir.join("backup.db");
        let sum = Sha256::digest(b"some content");
        let mut part = Part::create(&file).unwrap();
        for piece in [&b"some "[..], b"content", &sum[..20], &sum[20..]] {
            assert!(!part.is_whole());
            part.add(piece).unwrap();
        }
        assert!(part.is_whole());
        part.publish(&file).unwrap();
        let all = [&b"some content"[..], &sum].concat();
        assert_eq!(std::fs::read(&file).unwrap(), all);
        let mut cut = Part::create(&dir.join("cut.db")).unwrap();
        cut.add(&all[1..]).unwrap();
        assert!(!cut.is_whole());
        drop(cut);
        assert_eq!(RealDisk.read_dir(&dir).unwrap(), [file]);
        RealDisk.remove_dir_all(&dir).unwrap();
    }
}
