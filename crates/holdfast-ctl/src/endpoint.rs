//! `endpoint`: health, status and hashkv of each endpoint by itself.

use std::sync::Arc;

use clap::{Args, Subcommand};
use holdfast_env::{Clock, RealClock};
use holdfast_proto::etcdserverpb as pb;
use tonic::Code;

use crate::client::{Client, service};
use crate::error::{CtlError, Done, Unreached};
use crate::member::members;
use crate::output::answer;
use crate::output::duration::duration;
use crate::output::json::{list, message, object, string};
use crate::output::quote::quoted;
use crate::output::{self, Format, Look, NO_PROTOBUF, Out, View, push, table, tell};

/// Flags and commands of `endpoint`.
#[derive(Debug, Args)]
pub(crate) struct EndpointFlags {
    /// All members that the endpoints know, and not the endpoints alone
    #[arg(long, global = true)]
    cluster: bool,
    #[command(subcommand)]
    command: EndpointCommand,
}

/// The commands of `endpoint`.
#[derive(Debug, Subcommand)]
enum EndpointCommand {
    /// Whether each endpoint serves a read that a quorum agrees to
    Health,
    /// What each endpoint says of itself: endpoint, id, version, size, whether it leads, whether it is a learner, term,
    /// log index, applied index, errors
    Status,
    /// A hash of each endpoint's history
    Hashkv {
        /// Up to this revision; 0 is all of it
        #[arg(long, default_value_t = 0)]
        rev: i64,
    },
}

/// `endpoint`.
pub(crate) async fn endpoint(client: &Arc<Client>, out: Out, flags: &EndpointFlags) -> Done {
    match flags.command {
        EndpointCommand::Health => {
            out.has::<Health>()?;
            health(client, out, flags.cluster).await
        }
        EndpointCommand::Status => {
            out.has::<Statuses>()?;
            let ask = async |client: &Client| status(client).await;
            let (all, error) = each(client, flags.cluster, "the status", ask).await?;
            out.show(&Statuses(all))?;
            error.map_or(Ok(()), Err)
        }
        EndpointCommand::Hashkv { rev } => {
            out.has::<Hashes>()?;
            let request = pb::HashKvRequest { revision: rev };
            let ask = async |client: &Client| {
                client.read(async |conn| service::maintenance(conn).hash_kv(request).await).await
            };
            let (all, error) = each(client, flags.cluster, "the hash", ask).await?;
            out.show(&Hashes(all))?;
            error.map_or(Ok(()), Err)
        }
    }
}

/// What a member says of itself.
pub(crate) async fn status(client: &Client) -> Result<pb::StatusResponse, CtlError> {
    client.read(async |conn| service::maintenance(conn).status(pb::StatusRequest {}).await).await
}

/// The endpoints of the flags, or of all members.
pub(crate) async fn endpoints(client: &Client, all_members: bool) -> Result<Vec<String>, CtlError> {
    if !all_members {
        return Ok(client.endpoints().to_vec());
    }
    // Members are listed for everybody: nobody is asked for a password for it.
    let list = members(&client.as_nobody()).await.map_err(|error| error.at("cannot list the members: "))?;
    Ok(list.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}

/// Asks each endpoint by itself: the answers, and the last error. Errors are told as they come.
async fn each<R>(
    client: &Client,
    all_members: bool,
    what: &str,
    ask: impl AsyncFn(&Client) -> Result<R, CtlError>,
) -> Result<(Vec<(String, R)>, Option<CtlError>), CtlError> {
    let mut answers = Vec::new();
    let mut last = None;
    for endpoint in endpoints(client, all_members).await? {
        match ask(&client.of(&endpoint)).await {
            Ok(answer) => answers.push((endpoint, answer)),
            Err(error) => {
                tell(&format!("holdfastctl: {what} of {endpoint} cannot be had: {}", in_short(&error)));
                last = Some(CtlError::Exit(error.exit_code()));
            }
        }
    }
    Ok((answers, last))
}

/// An error of one endpoint, which has been named already.
pub(crate) fn in_short(error: &CtlError) -> String {
    match error {
        CtlError::Unreachable(all) => match &all[..] {
            [Unreached { cause, .. }] => cause.clone(),
            _ => error.to_string(),
        },
        CtlError::Broken { cause, .. } => format!("the connection broke: {cause}"),
        CtlError::Late { limit, .. } => format!("no answer within {}", duration(*limit)),
        _ => error.to_string(),
    }
}

/// Of one endpoint.
#[derive(Debug, Clone)]
struct Checked {
    endpoint: String,
    took: String,
    /// Empty when it is healthy.
    error: String,
}

async fn health(client: &Arc<Client>, out: Out, all_members: bool) -> Done {
    let mut checks = Vec::new();
    for endpoint in endpoints(client, all_members).await? {
        let one = client.of(&endpoint);
        checks.push(tokio::task::spawn_local(async move { check(&one, endpoint).await }));
    }
    let mut all = Vec::new();
    for check in checks {
        all.push(check.await.map_err(anyhow::Error::from)?);
    }
    let is_healthy = all.iter().all(|checked| checked.error.is_empty());
    if out.format == Format::Simple {
        for Checked { endpoint, error, .. } in all.iter().filter(|checked| !checked.error.is_empty()) {
            tell(&format!("{endpoint} is unhealthy: {error}"));
        }
    }
    out.show(&Health(all))?;
    if is_healthy { Ok(()) } else { Err(CtlError::Unhealthy("not every endpoint is healthy".to_owned())) }
}

/// Reads a key that need not be there, and the alarms.
async fn check(client: &Client, endpoint: String) -> Checked {
    let clock = RealClock::new(tokio::runtime::Handle::current());
    let begin = clock.now();
    let request = pb::RangeRequest { key: "health".into(), ..Default::default() };
    let read = client.read(async |conn| service::kv(conn).range(request.clone()).await).await;
    let took = duration(clock.now().since(begin));
    let error = match read {
        // Who may not read has been told so behind the confirmation by a quorum.
        Err(CtlError::Refused { status, .. }) if status.code() == Code::PermissionDenied => {
            alarms(client).await
        }
        Ok(_) => alarms(client).await,
        Err(error) => in_short(&error),
    };
    Checked { endpoint, took, error }
}

/// The alarms in words; empty when there are none.
async fn alarms(client: &Client) -> String {
    match crate::cluster::alarms(client).await {
        Ok(answer) if answer.alarms.is_empty() => String::new(),
        Ok(answer) => answer.alarms.iter().fold("Active Alarm(s): ".to_owned(), |mut text, alarm| {
            text.push_str(&format!("{} ", alarm.alarm().as_str_name()));
            text
        }),
        Err(error) => format!("the alarms cannot be listed: {}", in_short(&error)),
    }
}

struct Health(Vec<Checked>);

impl View for Health {
    const FORMATS: &'static [Format] = NO_PROTOBUF;

    fn simple(&self, text: &mut Vec<u8>, _: Look) {
        for Checked { endpoint, took, error } in &self.0 {
            if error.is_empty() {
                push(text, &format!("{endpoint} is healthy: successfully committed proposal: took = {took}"));
            }
        }
    }

    fn fields(&self, text: &mut Vec<u8>) {
        for Checked { endpoint, took, error } in &self.0 {
            push(text, &format!("\"Endpoint\" : {}", quoted(endpoint.as_bytes())));
            push(text, &format!("\"Health\" : {}", error.is_empty()));
            push(text, &format!("\"Took\" : {took}"));
            push(text, &format!("\"Error\" : {error}"));
            push(text, "");
        }
    }

    fn json(&self, _: Look) -> String {
        let one = |Checked { endpoint, took, error }: &Checked| {
            let mut fields = vec![
                ("endpoint", string(endpoint)),
                ("health", error.is_empty().to_string()),
                ("took", string(took)),
            ];
            fields.extend((!error.is_empty()).then(|| ("error", string(error))));
            object(&fields)
        };
        list(&self.0.iter().map(one).collect::<Vec<_>>())
    }

    fn table(&self) -> String {
        let row = |Checked { endpoint, took, error }: &Checked| {
            vec![endpoint.clone(), error.is_empty().to_string(), took.clone(), error.clone()]
        };
        table(&["ENDPOINT", "HEALTH", "TOOK", "ERROR"], &self.0.iter().map(row).collect::<Vec<_>>())
    }
}

struct Statuses(Vec<(String, pb::StatusResponse)>);

impl View for Statuses {
    const FORMATS: &'static [Format] = NO_PROTOBUF;

    fn simple(&self, text: &mut Vec<u8>, _: Look) {
        self.0.iter().for_each(|one| push(text, &status_row(one).join(", ")));
    }

    fn fields(&self, text: &mut Vec<u8>) {
        for (endpoint, status) in &self.0 {
            answer::header(text, status.header.as_ref());
            push(text, &format!("\"Version\" : {}", quoted(status.version.as_bytes())));
            push(text, &format!("\"DBSize\" : {}", status.db_size));
            push(text, &format!("\"Leader\" : {}", status.leader));
            push(text, &format!("\"IsLearner\" : {}", status.is_learner));
            push(text, &format!("\"RaftIndex\" : {}", status.raft_index));
            push(text, &format!("\"RaftTerm\" : {}", status.raft_term));
            push(text, &format!("\"RaftAppliedIndex\" : {}", status.raft_applied_index));
            push(text, &format!("\"Errors\" : [{}]", status.errors.join(" ")));
            push(text, &format!("\"Endpoint\" : {}", quoted(endpoint.as_bytes())));
            push(text, "");
        }
    }

    fn json(&self, _: Look) -> String {
        let one = |(endpoint, status): &(String, pb::StatusResponse)| {
            object(&[("Endpoint", string(endpoint)), ("Status", message(status))])
        };
        list(&self.0.iter().map(one).collect::<Vec<_>>())
    }

    fn table(&self) -> String {
        let names = [
            "ENDPOINT",
            "ID",
            "VERSION",
            "DB SIZE",
            "IS LEADER",
            "IS LEARNER",
            "RAFT TERM",
            "RAFT INDEX",
            "RAFT APPLIED INDEX",
            "ERRORS",
        ];
        table(&names, &self.0.iter().map(status_row).collect::<Vec<_>>())
    }
}

fn status_row((endpoint, status): &(String, pb::StatusResponse)) -> Vec<String> {
    let id = status.header.map_or(0, |header| header.member_id);
    vec![
        endpoint.clone(),
        format!("{id:x}"),
        status.version.clone(),
        output::bytes(status.db_size.unsigned_abs()),
        (status.leader == id).to_string(),
        status.is_learner.to_string(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join(", "),
    ]
}

struct Hashes(Vec<(String, pb::HashKvResponse)>);

impl View for Hashes {
    const FORMATS: &'static [Format] = NO_PROTOBUF;

    fn simple(&self, text: &mut Vec<u8>, _: Look) {
        self.0.iter().for_each(|(endpoint, answer)| push(text, &format!("{endpoint}, {}", answer.hash)));
    }

    fn fields(&self, text: &mut Vec<u8>) {
        for (endpoint, answer) in &self.0 {
            answer::header(text, answer.header.as_ref());
            push(text, &format!("\"Endpoint\" : {}", quoted(endpoint.as_bytes())));
            push(text, &format!("\"Hash\" : {}", answer.hash));
            push(text, "");
        }
    }

    fn json(&self, _: Look) -> String {
        let one = |(endpoint, answer): &(String, pb::HashKvResponse)| {
            object(&[("Endpoint", string(endpoint)), ("HashKV", message(answer))])
        };
        list(&self.0.iter().map(one).collect::<Vec<_>>())
    }

    fn table(&self) -> String {
        let row = |(endpoint, answer): &(String, pb::HashKvResponse)| {
            vec![endpoint.clone(), answer.hash.to_string()]
        };
        table(&["ENDPOINT", "HASH"], &self.0.iter().map(row).collect::<Vec<_>>())
    }
}
