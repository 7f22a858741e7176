//! `make-mirror`: copies pairs to another cluster, and then what changes, in order, until it is stopped.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::mvccpb::{Event, event::EventType};
use pb::request_op::Request;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{Client, service, with_leader};
use crate::error::{CtlError, Done};
use crate::global::{Global, TlsFlags, truth};
use crate::output;
use crate::range::{Keys, bytes};

/// Pairs in one read of the copy.
const PAGE_KEYS: i64 = 1000;

/// Between two lines about how many pairs were mirrored.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// Operations in one transaction of the destination, which takes no more unless it was told to.
const TXN_OPS_MAX: usize = 128;

/// Flags of `make-mirror`.
#[derive(Debug, Args)]
pub(crate) struct MakeMirror {
    /// An endpoint of the other cluster
    #[arg(value_name = "DESTINATION")]
    words: Vec<String>,
    /// Keys that begin so
    #[arg(long, default_value = "")]
    prefix: OsString,
    /// What takes the place of the prefix over there
    #[arg(long, default_value = "")]
    dest_prefix: OsString,
    /// Leave the prefix out over there
    #[arg(long)]
    no_dest_prefix: bool,
    /// Believe certificates over there of the CAs in this file, PEM
    #[arg(long)]
    dest_cacert: Option<PathBuf>,
    /// Show this certificate over there, PEM
    #[arg(long)]
    dest_cert: Option<PathBuf>,
    /// The private key of --dest-cert, PEM
    #[arg(long)]
    dest_key: Option<PathBuf>,
    /// Use plain text over there when no file is given; false uses TLS
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", default_value = "true", value_parser = truth)]
    dest_insecure_transport: bool,
    /// Who asks over there: name:password, or the name alone with --dest-password
    #[arg(long)]
    dest_user: Option<String>,
    /// The password of --dest-user
    #[arg(long, requires = "dest_user")]
    dest_password: Option<String>,
}

/// The copy that is being made.
struct Mirror<'a> {
    source: &'a Client,
    destination: Client,
    prefix: Bytes,
    becomes: Bytes,
    total: u64,
}

/// `make-mirror`.
pub(crate) async fn make_mirror(client: &Client, global: &Global, flags: &MakeMirror) -> Done {
    let [destination] = &flags.words[..] else {
        return Err(CtlError::Arguments("make-mirror takes one endpoint of the other cluster".to_owned()));
    };
    if flags.no_dest_prefix && !flags.dest_prefix.is_empty() {
        return Err(CtlError::Arguments("--dest-prefix and --no-dest-prefix: give one of them".to_owned()));
    }
    let global = Global {
        endpoints: vec![destination.clone()],
        user: flags.dest_user.clone(),
        password: flags.dest_password.clone(),
        tls: TlsFlags {
            cacert: flags.dest_cacert.clone(),
            cert: flags.dest_cert.clone(),
            key: flags.dest_key.clone(),
            insecure_transport: flags.dest_insecure_transport,
            insecure_skip_tls_verify: false,
        },
        ..global.clone()
    };
    let prefix = bytes(&flags.prefix);
    let becomes = match (flags.no_dest_prefix, bytes(&flags.dest_prefix)) {
        (true, _) => Bytes::new(),
        (false, given) if given.is_empty() => prefix.clone(),
        (false, given) => given,
    };
    let mut mirror = Mirror { source: client, destination: Client::new(&global)?, prefix, becomes, total: 0 };
    let revision = mirror.copy().await?;
    mirror.follow(revision + 1).await
}

impl Mirror<'_> {
    fn keys(&self) -> Keys {
        Keys::with_prefix(self.prefix.clone())
    }

    fn renamed(&self, key: &[u8]) -> Bytes {
        let rest = key.strip_prefix(&self.prefix[..]).unwrap_or(key);
        [&self.becomes[..], rest].concat().into()
    }

    /// Copies what is there; as of which revision.
    async fn copy(&mut self) -> Result<i64, CtlError> {
        let Keys { key, end } = self.keys();
        let mut request = pb::RangeRequest { key, range_end: end, limit: PAGE_KEYS, ..Default::default() };
        loop {
            let ask = async |conn| service::kv(conn).range(request.clone()).await;
            let page = self.source.read(ask).await?;
            if request.revision == 0 {
                request.revision = page.header.map_or(0, |header| header.revision);
            }
            let last = page.kvs.last().map(|kv| kv.key.clone());
            for kv in page.kvs {
                let put =
                    pb::PutRequest { key: self.renamed(&kv.key), value: kv.value, ..Default::default() };
                self.destination.read(async |conn| service::kv(conn).put(put.clone()).await).await?;
                self.total += 1;
            }
            match last.filter(|_| page.more) {
                Some(last) => request.key = [&last[..], b"\0"].concat().into(),
                None => return Ok(request.revision),
            }
        }
    }

    /// Does over there what happens here. A connection that breaks ends it; it begins anew with a copy then.
    async fn follow(&mut self, start_revision: i64) -> Done {
        let Keys { key, end } = self.keys();
        let create = pb::WatchCreateRequest { key, range_end: end, start_revision, ..Default::default() };
        let (conn, endpoint) = self.source.connection().await?;
        let (send, requests) = mpsc::channel(1);
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        send.send(request).await.expect("the stream holds its end of the queue");
        let opened = service::watch(conn).watch(with_leader(ReceiverStream::new(requests))).await;
        let mut changes =
            opened.map_err(|status| CtlError::Refused { what: "watching: ", status })?.into_inner();
        let mut tell = tokio::time::interval(TOLD_EVERY);
        tell.tick().await;
        loop {
            // Both are cancel-safe: what has come stays in the stream, and in the clock.
            let response = tokio::select! {
                response = changes.message() => response,
                _ = tell.tick() => {
                    output::line(&self.total.to_string())?;
                    continue;
                }
            };
            match response {
                Ok(Some(response)) if response.canceled => return Err(CtlError::WatchEnded),
                Ok(Some(response)) => self.apply(&response.events).await?,
                Ok(None) => return Err(CtlError::WatchEnded),
                Err(status) => {
                    let cause = self.source.stream_end(&endpoint, &status).await;
                    return Err(CtlError::Broken { endpoint, cause });
                }
            }
        }
    }

    /// One transaction for each revision, as here; more where one would be too large.
    async fn apply(&mut self, events: &[Event]) -> Done {
        let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        for same in events.chunk_by(|one, next| revision(one) == revision(next)) {
            for some in same.chunks(TXN_OPS_MAX) {
                let success = some.iter().filter_map(|event| self.op(event)).collect();
                let txn = pb::TxnRequest { success, ..Default::default() };
                // Done twice it is the same as once.
                self.destination.read(async |conn| service::kv(conn).txn(txn.clone()).await).await?;
                self.total += some.len() as u64;
            }
        }
        Ok(())
    }

    fn op(&self, event: &Event) -> Option<pb::RequestOp> {
        let kv = event.kv.as_ref()?;
        let key = self.renamed(&kv.key);
        let request = match event.r#type() {
            EventType::Put => {
                Request::RequestPut(pb::PutRequest { key, value: kv.value.clone(), ..Default::default() })
            }
            EventType::Delete => {
                Request::RequestDeleteRange(pb::DeleteRangeRequest { key, ..Default::default() })
            }
        };
        Some(pb::RequestOp { request: Some(request) })
    }
}
