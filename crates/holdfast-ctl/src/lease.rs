//! `lease`: grant, revoke, timetolive, list and keep-alive.

use clap::{Args, Subcommand};
use holdfast_proto::etcdserverpb as pb;
use prost::Message;

use crate::client::{Client, service};
use crate::error::{CtlError, Done};
use crate::kv::lease_id;
use crate::output::answer::{self, Said, header_json};
use crate::output::json::{base64, list, object, string};
use crate::output::quote::quoted;
use crate::output::{self, Format, Look, NO_TABLE, Out, View, push};
use crate::session;

/// The commands of `lease`.
#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// Makes a lease
    Grant {
        /// How many seconds it lives without being kept alive
        #[arg(value_name = "SECONDS")]
        words: Vec<String>,
    },
    /// Ends a lease, and deletes its keys
    Revoke {
        /// Its id, in hexadecimal
        #[arg(value_name = "LEASE")]
        words: Vec<String>,
    },
    /// How long a lease lives yet
    Timetolive(TimeToLive),
    /// All leases
    List {
        #[arg(hide = true)]
        words: Vec<String>,
    },
    /// Keeps a lease alive, until it is gone
    KeepAlive(KeepAlive),
}

/// Flags of `lease timetolive`.
#[derive(Debug, Args)]
pub(crate) struct TimeToLive {
    /// Its id, in hexadecimal
    #[arg(value_name = "LEASE")]
    words: Vec<String>,
    /// Its keys, too
    #[arg(long)]
    keys: bool,
}

/// Flags of `lease keep-alive`.
#[derive(Debug, Args)]
pub(crate) struct KeepAlive {
    /// Its id, in hexadecimal
    #[arg(value_name = "LEASE")]
    words: Vec<String>,
    /// Once, and no more
    #[arg(long)]
    once: bool,
}

/// `lease`.
pub(crate) async fn lease(client: &Client, out: Out, command: &LeaseCommand) -> Done {
    match command {
        LeaseCommand::Grant { words } => grant(client, out, words).await,
        LeaseCommand::Revoke { words } => revoke(client, out, words).await,
        LeaseCommand::Timetolive(flags) => time_to_live(client, out, flags).await,
        LeaseCommand::List { .. } => {
            let ask = async |conn| service::lease(conn).lease_leases(pb::LeaseLeasesRequest {}).await;
            out.has::<pb::LeaseLeasesResponse>()?;
            out.show(&client.read(ask).await?)
        }
        LeaseCommand::KeepAlive(flags) => keep_alive(client, out, flags).await,
    }
}

fn one(words: &[String]) -> Result<i64, CtlError> {
    match words {
        [id] => lease_id(id),
        _ => Err(CtlError::Arguments("this takes the id of one lease".to_owned())),
    }
}

async fn grant(client: &Client, out: Out, words: &[String]) -> Done {
    let [seconds] = words else {
        return Err(CtlError::Arguments("lease grant takes a time to live, in seconds".to_owned()));
    };
    let seconds = seconds.parse().map_err(|error| {
        CtlError::Arguments(format!("a time to live is a number of seconds, and not {seconds}: {error}"))
    })?;
    out.has::<pb::LeaseGrantResponse>()?;
    let granted =
        session::grant(client, seconds).await.map_err(|error| error.at("failed to grant lease: "))?;
    out.show(&granted)
}

async fn revoke(client: &Client, out: Out, words: &[String]) -> Done {
    let id = one(words)?;
    out.has::<Revoked>()?;
    let ask = async |conn| service::lease(conn).lease_revoke(pb::LeaseRevokeRequest { id }).await;
    let answer = client.write(ask).await.map_err(|error| error.at("failed to revoke lease: "))?;
    out.show(&Revoked(Said { text: format!("lease {id:016x} revoked\n"), answer }))
}

async fn time_to_live(client: &Client, out: Out, flags: &TimeToLive) -> Done {
    let request = pb::LeaseTimeToLiveRequest { id: one(&flags.words)?, keys: flags.keys };
    out.has::<Remaining>()?;
    let answer = client.read(async |conn| service::lease(conn).lease_time_to_live(request).await).await?;
    out.show(&Remaining { answer, with_keys: flags.keys })
}

async fn keep_alive(client: &Client, out: Out, flags: &KeepAlive) -> Done {
    let id = one(&flags.words)?;
    out.has::<pb::LeaseKeepAliveResponse>()?;
    if flags.once {
        return match session::once(client, id).await? {
            Some(answer) => out.show(&answer),
            None => Err(CtlError::Word("etcdserver: requested lease not found".to_owned())),
        };
    }
    session::keep(client, id, None, |answer| out.show(answer)).await?;
    match out.format {
        Format::Simple => output::line(&format!("lease {id:016x} expired or revoked.")),
        _ => Ok(()),
    }
}

/// etcdctl writes the header alone as protobuf, where its answer is not the API's message.
fn header_alone(header: Option<&pb::ResponseHeader>) -> Vec<u8> {
    header.map(Message::encode_to_vec).unwrap_or_default()
}

/// What both kinds of answer about a lease's life have.
fn life(text: &mut Vec<u8>, header: Option<&pb::ResponseHeader>, id: i64, ttl: i64) {
    answer::header(text, header);
    push(text, &format!("\"ID\" : {id}"));
    push(text, &format!("\"TTL\" : {ttl}"));
}

impl View for pb::LeaseGrantResponse {
    const FORMATS: &'static [Format] = NO_TABLE;

    fn simple(&self, text: &mut Vec<u8>, _: Look) {
        push(text, &format!("lease {:016x} granted with TTL({}s)", self.id, self.ttl));
    }

    fn fields(&self, text: &mut Vec<u8>) {
        life(text, self.header.as_ref(), self.id, self.ttl);
    }

    fn json(&self, _: Look) -> String {
        let mut fields = header_json(self.header.as_ref());
        fields.extend([
            ("ID", self.id.to_string()),
            ("TTL", self.ttl.to_string()),
            ("Error", string(&self.error)),
        ]);
        object(&fields)
    }

    fn protobuf(&self) -> Vec<u8> {
        header_alone(self.header.as_ref())
    }
}

impl View for pb::LeaseKeepAliveResponse {
    const FORMATS: &'static [Format] = NO_TABLE;

    fn simple(&self, text: &mut Vec<u8>, _: Look) {
        push(text, &format!("lease {:016x} keepalived with TTL({})", self.id, self.ttl));
    }

    fn fields(&self, text: &mut Vec<u8>) {
        life(text, self.header.as_ref(), self.id, self.ttl);
    }

    fn json(&self, _: Look) -> String {
        let mut fields = header_json(self.header.as_ref());
        fields.extend([("ID", self.id.to_string()), ("TTL", self.ttl.to_string())]);
        object(&fields)
    }

    fn protobuf(&self) -> Vec<u8> {
        header_alone(self.header.as_ref())
    }
}

impl View for pb::LeaseLeasesResponse {
    const FORMATS: &'static [Format] = NO_TABLE;

    fn simple(&self, text: &mut Vec<u8>, _: Look) {
        push(text, &format!("found {} leases", self.leases.len()));
        self.leases.iter().for_each(|lease| push(text, &format!("{:016x}", lease.id)));
    }

    fn fields(&self, text: &mut Vec<u8>) {
        answer::header(text, self.header.as_ref());
        self.leases.iter().for_each(|lease| push(text, &format!("\"ID\" : {}", lease.id)));
    }

    fn json(&self, _: Look) -> String {
        let leases: Vec<String> =
            self.leases.iter().map(|lease| object(&[("id", lease.id.to_string())])).collect();
        let mut fields = header_json(self.header.as_ref());
        fields.push(("leases", list(&leases)));
        object(&fields)
    }

    fn protobuf(&self) -> Vec<u8> {
        header_alone(self.header.as_ref())
    }
}

/// What `lease revoke` says; etcdctl has no protobuf of it.
struct Revoked(Said<pb::LeaseRevokeResponse>);

impl View for Revoked {
    const FORMATS: &'static [Format] = &[Format::Simple, Format::Fields, Format::Json];

    fn simple(&self, text: &mut Vec<u8>, look: Look) {
        self.0.simple(text, look);
    }

    fn fields(&self, text: &mut Vec<u8>) {
        self.0.fields(text);
    }

    fn json(&self, look: Look) -> String {
        self.0.json(look)
    }
}

/// What `lease timetolive` says.
struct Remaining {
    answer: pb::LeaseTimeToLiveResponse,
    with_keys: bool,
}

impl View for Remaining {
    const FORMATS: &'static [Format] = NO_TABLE;

    fn simple(&self, text: &mut Vec<u8>, _: Look) {
        let pb::LeaseTimeToLiveResponse { id, ttl, granted_ttl, keys, .. } = &self.answer;
        if *granted_ttl == 0 && *ttl == -1 {
            return push(text, &format!("lease {id:016x} already expired"));
        }
        let figures = format!("lease {id:016x} granted with TTL({granted_ttl}s), remaining({ttl}s)");
        text.extend_from_slice(figures.as_bytes());
        if self.with_keys {
            text.extend_from_slice(b", attached keys([");
            text.extend(keys.join(&b' '));
            text.extend_from_slice(b"])");
        }
        text.push(b'\n');
    }

    fn fields(&self, text: &mut Vec<u8>) {
        answer::header(text, self.answer.header.as_ref());
        push(text, &format!("\"ID\" : {}", self.answer.id));
        push(text, &format!("\"TTL\" : {}", self.answer.ttl));
        push(text, &format!("\"GrantedTTL\" : {}", self.answer.granted_ttl));
        self.answer.keys.iter().for_each(|key| push(text, &format!("\"Key\" : {}", quoted(key))));
    }

    fn json(&self, _: Look) -> String {
        let keys = match &self.answer.keys[..] {
            [] => "null".to_owned(),
            keys => list(&keys.iter().map(|key| format!("\"{}\"", base64(key))).collect::<Vec<_>>()),
        };
        let mut fields = header_json(self.answer.header.as_ref());
        fields.extend([
            ("id", self.answer.id.to_string()),
            ("ttl", self.answer.ttl.to_string()),
            ("granted-ttl", self.answer.granted_ttl.to_string()),
            ("keys", keys),
        ]);
        object(&fields)
    }

    fn protobuf(&self) -> Vec<u8> {
        header_alone(self.answer.header.as_ref())
    }
}
