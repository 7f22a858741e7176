//! `get`, `put`, `del` and `compaction`.

use std::ffi::OsString;

use clap::Args;
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::etcdserverpb::range_request::{SortOrder, SortTarget};

use crate::client::{Client, service};
use crate::error::{CtlError, Done};
use crate::output::{self, Format, Out};
use crate::range::{Keys, Reach, bytes};
use crate::terminal;

/// Flags of `get`.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// A key, and the end of a range, exclusive
    #[arg(value_name = "KEY [END]")]
    pub(crate) words: Vec<OsString>,
    /// Linearizable (l) or serializable (s): the latter may be stale, and needs no leader
    #[arg(long, default_value = "l")]
    pub(crate) consistency: String,
    /// ASCEND or DESCEND
    #[arg(long, default_value = "")]
    pub(crate) order: String,
    /// KEY, VERSION, CREATE, MODIFY or VALUE
    #[arg(long, default_value = "")]
    pub(crate) sort_by: String,
    /// No more than so many pairs; 0 is all of them
    #[arg(long, default_value_t = 0)]
    pub(crate) limit: i64,
    /// All keys that begin so
    #[arg(long)]
    pub(crate) prefix: bool,
    /// All keys that are not less
    #[arg(long)]
    pub(crate) from_key: bool,
    /// As of this revision; 0 is the newest
    #[arg(long, default_value_t = 0)]
    pub(crate) rev: i64,
    /// Keys without values
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// The number of keys; with -w fields or json
    #[arg(long)]
    pub(crate) count_only: bool,
    /// Values without keys; with -w simple. -w raw leaves the ends of lines out too
    #[arg(long)]
    pub(crate) print_value_only: bool,
    /// End with exit code 1 when there is no such key
    #[arg(long)]
    pub(crate) exit_code: bool,
}

impl Get {
    /// The request.
    ///
    /// Errors: words and flags that do not go together.
    pub(crate) fn request(&self) -> Result<pb::RangeRequest, CtlError> {
        let reach = Reach::of_flags(self.prefix, self.from_key)?;
        if self.keys_only && self.count_only {
            return Err(CtlError::Arguments("--keys-only and --count-only: give one of them".to_owned()));
        }
        let serializable = match self.consistency.as_str() {
            "l" => false,
            "s" => true,
            other => return Err(CtlError::Feature(format!("--consistency is l or s, and not {other}"))),
        };
        let Keys { key, end } = Keys::of_words(&self.words, reach)?;
        let (sort_order, sort_target) = self.sorted()?;
        Ok(pb::RangeRequest {
            key,
            range_end: end,
            limit: self.limit,
            revision: self.rev.max(0),
            sort_order: sort_order.into(),
            sort_target: sort_target.into(),
            serializable,
            keys_only: self.keys_only,
            count_only: self.count_only,
            ..Default::default()
        })
    }

    fn sorted(&self) -> Result<(SortOrder, SortTarget), CtlError> {
        let order = match self.order.to_uppercase().as_str() {
            "" => SortOrder::None,
            "ASCEND" => SortOrder::Ascend,
            "DESCEND" => SortOrder::Descend,
            _ => {
                return Err(CtlError::Feature(format!(
                    "--order is ASCEND or DESCEND, and not {}",
                    self.order
                )));
            }
        };
        let target = match self.sort_by.to_uppercase().as_str() {
            "" | "KEY" => SortTarget::Key,
            "VERSION" => SortTarget::Version,
            "CREATE" => SortTarget::Create,
            "MODIFY" => SortTarget::Mod,
            "VALUE" => SortTarget::Value,
            _ => {
                let known = "KEY, VERSION, CREATE, MODIFY or VALUE";
                return Err(CtlError::Feature(format!("--sort-by is {known}, and not {}", self.sort_by)));
            }
        };
        // Answers are in this order in any case; asked for it, a server would sort before it cuts.
        let is_natural = order == SortOrder::Ascend && target == SortTarget::Key;
        Ok((if is_natural { SortOrder::None } else { order }, target))
    }
}

/// Flags of `put`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Put {
    /// A key, and its value; without a value, standard input is the value
    #[arg(value_name = "KEY [VALUE]")]
    pub(crate) words: Vec<OsString>,
    /// The lease that the key belongs to, in hexadecimal
    #[arg(long, default_value = "0")]
    pub(crate) lease: String,
    /// Write the pair that was there before
    #[arg(long)]
    pub(crate) prev_kv: bool,
    /// Keep the value: change the lease alone
    #[arg(long)]
    pub(crate) ignore_value: bool,
    /// Keep the lease
    #[arg(long)]
    pub(crate) ignore_lease: bool,
}

impl Put {
    /// The request. `rest` gives the value that is no word.
    ///
    /// Errors: words and flags that do not go together, or no value.
    pub(crate) fn request(
        &self,
        rest: impl FnOnce() -> std::io::Result<Vec<u8>>,
    ) -> Result<pb::PutRequest, CtlError> {
        let wrong = |text: &str| CtlError::Arguments(text.to_owned());
        let key = self.words.first().ok_or_else(|| wrong("a key is missing"))?;
        let value = match self.words.get(1) {
            Some(_) if self.ignore_value => {
                return Err(wrong("--ignore-value keeps the value: leave the second word out"));
            }
            _ if self.ignore_value => bytes::Bytes::new(),
            Some(value) => bytes(value),
            None => rest()?.into(),
        };
        if !self.ignore_value && self.words.len() < 2 && value.is_empty() {
            return Err(wrong("a value is missing: give it behind the key, or on standard input"));
        }
        Ok(pb::PutRequest {
            key: bytes(key),
            value,
            lease: lease_id(&self.lease)?,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        })
    }
}

/// The id of a lease, in hexadecimal.
pub(crate) fn lease_id(text: &str) -> Result<i64, CtlError> {
    i64::from_str_radix(text, 16).map_err(|error| {
        CtlError::Arguments(format!("a lease's id is a hexadecimal number, and not {text}: {error}"))
    })
}

/// Flags of `del`.
#[derive(Debug, Args)]
pub(crate) struct Del {
    /// A key, and the end of a range, exclusive
    #[arg(value_name = "KEY [END]")]
    pub(crate) words: Vec<OsString>,
    /// All keys that begin so
    #[arg(long)]
    pub(crate) prefix: bool,
    /// All keys that are not less
    #[arg(long)]
    pub(crate) from_key: bool,
    /// The end of the range, exclusive: the same as a second word, said aloud
    #[arg(long, value_name = "END")]
    pub(crate) range: Option<OsString>,
    /// Write the pairs that are deleted
    #[arg(long)]
    pub(crate) prev_kv: bool,
    /// Delete nothing: write what would be deleted
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl Del {
    /// The request.
    ///
    /// Errors: words and flags that do not go together.
    pub(crate) fn request(&self) -> Result<pb::DeleteRangeRequest, CtlError> {
        if self.words.len() > 2 {
            return Err(CtlError::Arguments(
                "del takes a key and the end of a range, and no more".to_owned(),
            ));
        }
        let words: Vec<OsString> = self.words.iter().chain(&self.range).cloned().collect();
        if words.len() > 2 {
            return Err(CtlError::Arguments("--range is the second word: give one of them".to_owned()));
        }
        let Keys { key, end } = Keys::of_words(&words, Reach::of_flags(self.prefix, self.from_key)?)?;
        Ok(pb::DeleteRangeRequest { key, range_end: end, prev_kv: self.prev_kv })
    }
}

/// Flags of `compaction`.
#[derive(Debug, Args)]
pub(crate) struct Compaction {
    /// Older revisions than this one are given up
    #[arg(value_name = "REVISION")]
    pub(crate) words: Vec<String>,
    /// Wait until their room is free
    #[arg(long)]
    pub(crate) physical: bool,
}

/// `get`.
pub(crate) async fn get(client: &Client, mut out: Out, flags: &Get) -> Done {
    let request = flags.request()?;
    out.has::<pb::RangeResponse>()?;
    if flags.count_only && !matches!(out.format, Format::Fields | Format::Json) {
        return Err(CtlError::Arguments("--count-only needs -w fields or json".to_owned()));
    }
    if flags.print_value_only && out.format != Format::Simple {
        return Err(CtlError::Arguments("--print-value-only needs -w simple".to_owned()));
    }
    let answer = client.read(async |conn| service::kv(conn).range(request.clone()).await).await?;
    out.look.values_only = flags.print_value_only;
    out.show(&answer)?;
    if flags.exit_code && answer.count == 0 { Err(CtlError::Exit(1)) } else { Ok(()) }
}

/// `put`.
pub(crate) async fn put(client: &Client, out: Out, flags: &Put) -> Done {
    let flags = flags.clone();
    let request = terminal::read(move || flags.request(terminal::all)).await?;
    out.has::<pb::PutResponse>()?;
    out.show(&client.write(async |conn| service::kv(conn).put(request.clone()).await).await?)
}

/// `del`.
pub(crate) async fn del(client: &Client, out: Out, flags: &Del) -> Done {
    let request = flags.request()?;
    out.has::<pb::DeleteRangeResponse>()?;
    if !flags.dry_run {
        return out
            .show(&client.write(async |conn| service::kv(conn).delete_range(request.clone()).await).await?);
    }
    let pb::DeleteRangeRequest { key, range_end, prev_kv } = request;
    let request = pb::RangeRequest { key, range_end, count_only: !prev_kv, ..Default::default() };
    let found = client.read(async |conn| service::kv(conn).range(request.clone()).await).await?;
    out.show(&pb::DeleteRangeResponse { header: found.header, deleted: found.count, prev_kvs: found.kvs })
}

/// `compaction`.
pub(crate) async fn compaction(client: &Client, flags: &Compaction) -> Done {
    let [revision] = &flags.words[..] else {
        return Err(CtlError::Arguments("compaction takes one revision".to_owned()));
    };
    let revision: i64 = revision
        .parse()
        .map_err(|error| CtlError::Word(format!("a revision is a number, and not {revision}: {error}")))?;
    let request = pb::CompactionRequest { revision, physical: flags.physical };
    client.write(async |conn| service::kv(conn).compact(request).await).await?;
    output::line(&format!("compacted revision {revision}"))
}
