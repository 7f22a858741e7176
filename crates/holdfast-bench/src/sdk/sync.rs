//! Everything, in this process: an informer, and a list in pages.

use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_client::KeyRange;
use holdfast_client::informer::InformerOptions;
use holdfast_proto::etcdserverpb::RangeRequest;
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use serde::Serialize;

use super::{SdkFlags, Server, status_error};
use crate::error::Error;
use crate::load::keys::{KeyNumber, KeySpace};
use crate::measure::procfs::{Pid, ProcessUsage};
use crate::measure::window::own_cpu;

/// Longer than any informer takes.
const PATIENCE: Duration = Duration::from_secs(600);

/// One time that everything was taken in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Synced {
    /// By what, and from what.
    pub(crate) how: &'static str,
    /// Counted from 1.
    pub(crate) round: u32,
    /// How many objects there are.
    pub(crate) objects: u64,
    /// How long it took.
    pub(crate) took: Duration,
    /// CPU of this process meanwhile.
    pub(crate) cpu: Duration,
    /// What this process has resident more for each object, beside its key and its value; of the first round, since
    /// later ones reuse what that has left. `None` for who keeps nothing.
    pub(crate) bytes_each: Option<f64>,
}

/// An informer that keeps the values as they are.
pub(super) async fn informer(server: &Server, flags: &SdkFlags, round: u32) -> Result<Synced, Error> {
    let client = server.sdk()?;
    let (start, end) = KeySpace::everything();
    let resident = resident()?;
    let (before, began) = (own_cpu()?, Instant::now());
    let options = InformerOptions::decode_with(|kv| Ok(Bytes::copy_from_slice(&kv.value)));
    let informer = client.informer(KeyRange::between(start, end), options);
    let snapshot = informer.reader().wait_for(1, PATIENCE).await;
    let (took, cpu) = (began.elapsed(), own_cpu()?.saturating_sub(before));
    let snapshot = snapshot.map_err(|error| Error::Setting(error.to_string()))?;
    if snapshot.len() as u64 != flags.objects {
        return Err(Error::Answer("an informer that has not all objects"));
    }
    let grown = self::resident()?.saturating_sub(resident);
    let bytes_each = (round == 1).then(|| beside(grown, flags));
    drop(snapshot);
    informer.stop().await;
    Ok(Synced { how: "informer, holdfast", round, objects: flags.objects, took, cpu, bytes_each })
}

/// Pages at one revision, decoded and dropped.
pub(super) async fn pages(server: &Server, flags: &SdkFlags, round: u32) -> Result<Synced, Error> {
    let mut stub = KvClient::new(server.channel().await?).max_decoding_message_size(usize::MAX);
    let (mut key, range_end) = KeySpace::everything();
    let (before, began) = (own_cpu()?, Instant::now());
    let (mut objects, mut revision) = (0, 0);
    loop {
        let limit = i64::from(flags.page_keys.get());
        let request =
            RangeRequest { key, range_end: range_end.clone(), limit, revision, ..Default::default() };
        let page = stub.range(request).await.map_err(|status| status_error(&status))?.into_inner();
        objects += page.kvs.len() as u64;
        revision = page.header.map_or(revision, |header| header.revision);
        match page.kvs.last() {
            Some(last) if page.more => key = [last.key.as_ref(), b"\0"].concat().into(),
            _ => break,
        }
    }
    if objects != flags.objects {
        return Err(Error::Answer("pages without all objects"));
    }
    let (took, cpu) = (began.elapsed(), own_cpu()?.saturating_sub(before));
    Ok(Synced { how: "pages, etcd", round, objects, took, cpu, bytes_each: None })
}

fn resident() -> Result<u64, Error> {
    Ok(ProcessUsage::read(Pid(std::process::id()))?.resident_bytes)
}

#[allow(clippy::cast_precision_loss, reason = "fewer than 2^52 bytes")]
fn beside(grown: u64, flags: &SdkFlags) -> f64 {
    let own = KeySpace::key(KeyNumber(0)).len() as f64 + f64::from(flags.value_bytes);
    grown as f64 / flags.objects as f64 - own
}
