//! `member`: list, add, remove, update and promote.

use clap::{Args, Subcommand};
use holdfast_proto::etcdserverpb as pb;
use prost::Message;

use crate::client::{Client, service};
use crate::error::{CtlError, Done};
use crate::output::answer::{self, Answer, Said, SaidWithoutFields};
use crate::output::json::{list, message, object, string};
use crate::output::quote::quoted;
use crate::output::{Format, Look, Out, View, push, table};

/// The commands of `member`.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// Adds a member, and writes what to start it with
    Add(Add),
    /// Removes a member
    Remove {
        /// Its id, in hexadecimal
        #[arg(value_name = "MEMBER")]
        words: Vec<String>,
    },
    /// Changes the peer URLs of a member
    Update(Update),
    /// All members: id, status, name, peer URLs, client URLs, whether it is a learner
    List {
        #[arg(hide = true)]
        words: Vec<String>,
    },
    /// Makes a voter of a learner
    Promote {
        /// Its id, in hexadecimal
        #[arg(value_name = "MEMBER")]
        words: Vec<String>,
    },
}

/// Flags of `member add`.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The name that it will have
    #[arg(value_name = "NAME")]
    words: Vec<String>,
    /// Its peer URLs, comma-separated
    #[arg(long, default_value = "")]
    peer_urls: String,
    /// As a learner, which has no vote
    #[arg(long)]
    learner: bool,
}

/// Flags of `member update`.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Its id, in hexadecimal
    #[arg(value_name = "MEMBER")]
    words: Vec<String>,
    /// Its peer URLs, comma-separated
    #[arg(long, default_value = "")]
    peer_urls: String,
}

/// `member`.
pub(crate) async fn member(client: &Client, out: Out, command: &MemberCommand) -> Done {
    match command {
        MemberCommand::Add(flags) => add(client, out, flags).await,
        MemberCommand::Remove { words } => remove(client, out, words).await,
        MemberCommand::Update(flags) => update(client, out, flags).await,
        MemberCommand::List { .. } => {
            out.has::<pb::MemberListResponse>()?;
            out.show(&members(client).await?)
        }
        MemberCommand::Promote { words } => promote(client, out, words).await,
    }
}

/// The members, as a quorum sees them.
pub(crate) async fn members(client: &Client) -> Result<pb::MemberListResponse, CtlError> {
    let request = pb::MemberListRequest { linearizable: true };
    client.read(async |conn| service::cluster(conn).member_list(request).await).await
}

/// The id of a member, in hexadecimal.
pub(crate) fn member_id(text: &str) -> Result<u64, CtlError> {
    u64::from_str_radix(text, 16).map_err(|error| {
        CtlError::Arguments(format!("a member's id is a hexadecimal number, and not {text}: {error}"))
    })
}

fn one(words: &[String]) -> Result<u64, CtlError> {
    match words {
        [id] => member_id(id),
        _ => Err(CtlError::Arguments("this takes the id of one member".to_owned())),
    }
}

fn urls(flag: &str) -> Result<Vec<String>, CtlError> {
    if flag.is_empty() {
        return Err(CtlError::Arguments("--peer-urls is missing".to_owned()));
    }
    Ok(flag.split(',').map(str::to_owned).collect())
}

async fn add(client: &Client, out: Out, flags: &Add) -> Done {
    let [name] = &flags.words[..] else {
        let url = flags.words.iter().skip(1).find(|word| word.to_lowercase().starts_with("http"));
        let hint = url.map(|url| format!("; is --peer-urls={url} meant?")).unwrap_or_default();
        return Err(CtlError::Arguments(format!("member add takes the name of one member{hint}")));
    };
    let request = pb::MemberAddRequest { peer_ur_ls: urls(&flags.peer_urls)?, is_learner: flags.learner };
    out.has::<SaidWithoutFields<pb::MemberAddResponse>>()?;
    let answer = client.write(async |conn| service::cluster(conn).member_add(request.clone()).await).await?;
    let added = answer.member.clone().unwrap_or_default();
    let urls_of = |member: &pb::Member| {
        let name = if member.id == added.id { name } else { &member.name };
        member.peer_ur_ls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>()
    };
    let cluster: Vec<String> = answer.members.iter().flat_map(urls_of).collect();
    let mut text = said("added to", added.id, &answer);
    for (variable, value) in [
        ("NAME", name.as_str()),
        ("INITIAL_CLUSTER", &cluster.join(",")),
        ("INITIAL_ADVERTISE_PEER_URLS", &flags.peer_urls),
        ("INITIAL_CLUSTER_STATE", "existing"),
    ] {
        text.push_str(if variable == "NAME" { "\n" } else { "" });
        text.push_str(&format!("ETCD_{variable}={}\n", quoted(value.as_bytes())));
    }
    out.show(&SaidWithoutFields(Said { text, answer }))
}

async fn remove(client: &Client, out: Out, words: &[String]) -> Done {
    let id = one(words)?;
    out.has::<SaidWithoutFields<pb::MemberRemoveResponse>>()?;
    let request = pb::MemberRemoveRequest { id };
    let answer = client.write(async |conn| service::cluster(conn).member_remove(request).await).await?;
    out.show(&SaidWithoutFields(Said { text: said("removed from", id, &answer), answer }))
}

async fn update(client: &Client, out: Out, flags: &Update) -> Done {
    let id = one(&flags.words)?;
    let request = pb::MemberUpdateRequest { id, peer_ur_ls: urls(&flags.peer_urls)? };
    out.has::<SaidWithoutFields<pb::MemberUpdateResponse>>()?;
    let answer =
        client.write(async |conn| service::cluster(conn).member_update(request.clone()).await).await?;
    out.show(&SaidWithoutFields(Said { text: said("updated in", id, &answer), answer }))
}

async fn promote(client: &Client, out: Out, words: &[String]) -> Done {
    let id = one(words)?;
    out.has::<SaidWithoutFields<pb::MemberPromoteResponse>>()?;
    let request = pb::MemberPromoteRequest { id };
    let answer = client.write(async |conn| service::cluster(conn).member_promote(request).await).await?;
    out.show(&SaidWithoutFields(Said { text: said("promoted in", id, &answer), answer }))
}

fn said(what: &str, id: u64, answer: &impl Answer) -> String {
    let cluster = answer.header().map_or(0, |header| header.cluster_id);
    format!("Member {id:16x} {what} cluster {cluster:16x}\n")
}

impl View for pb::MemberListResponse {
    const FORMATS: &'static [Format] =
        &[Format::Simple, Format::Fields, Format::Json, Format::Table, Format::Protobuf];

    fn simple(&self, text: &mut Vec<u8>, _: Look) {
        self.members.iter().for_each(|member| push(text, &row(member).join(", ")));
    }

    fn fields(&self, text: &mut Vec<u8>) {
        answer::header(text, self.header.as_ref());
        for member in &self.members {
            push(text, &format!("\"ID\" : {}", member.id));
            let mut quote =
                |name: &str, value: &str| push(text, &format!("\"{name}\" : {}", quoted(value.as_bytes())));
            quote("Name", &member.name);
            member.peer_ur_ls.iter().for_each(|url| quote("PeerURL", url));
            member.client_ur_ls.iter().for_each(|url| quote("ClientURL", url));
            push(text, &format!("\"IsLearner\" : {}", member.is_learner));
            push(text, "");
        }
    }

    fn json(&self, look: Look) -> String {
        if look.hex { hexadecimal(self) } else { message(self) }
    }

    fn table(&self) -> String {
        let names = ["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"];
        table(&names, &self.members.iter().map(row).collect::<Vec<_>>())
    }

    fn protobuf(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

fn row(member: &pb::Member) -> Vec<String> {
    vec![
        format!("{:x}", member.id),
        if member.name.is_empty() { "unstarted" } else { "started" }.to_owned(),
        member.name.clone(),
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
        member.is_learner.to_string(),
    ]
}

/// Ids as hexadecimal texts, which no reader rounds; in etcdctl's shape, odd names included.
fn hexadecimal(answer: &pb::MemberListResponse) -> String {
    let id = |id: u64| format!("\"{id:x}\"");
    let texts = |texts: &[String]| match texts {
        [] => "null".to_owned(),
        texts => list(&texts.iter().map(|text| string(text)).collect::<Vec<_>>()),
    };
    let members: Vec<String> = answer
        .members
        .iter()
        .map(|member| {
            object(&[
                ("ID", id(member.id)),
                ("name", string(&member.name)),
                ("peerURLs", texts(&member.peer_ur_ls)),
                ("clientURLS", texts(&member.client_ur_ls)),
            ])
        })
        .collect();
    let header = answer.header.unwrap_or_default();
    let header = object(&[
        ("cluster_id", id(header.cluster_id)),
        ("member_id", id(header.member_id)),
        // A number without quotes has to be one in any base.
        ("raft_term", header.raft_term.to_string()),
    ]);
    object(&[("header", header), ("members", list(&members))])
}
