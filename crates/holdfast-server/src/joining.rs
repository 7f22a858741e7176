//! Who this member is, when that does not follow from its flags: a member that is, or is to be, added to a running
//! cluster.
//!
//! Two ways in. etcd's: the member is added first (`etcdctl member add`), and started with
//! `--initial-cluster-state existing` and all members in `--initial-cluster`; it asks them, at their peer URLs, under
//! which id they know its own. Ours: `holdfast join`, which adds it, too, and can be run again at any time: it goes on
//! where it was. With `--replace` it first removes the member whose place it takes.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{Disk, Env};
use holdfast_mvcc::types::MemberId;
use holdfast_proto::etcdserverpb as pb;
use holdfast_tls::{ClientTls, Connector, TlsError};
use pb::cluster_client::ClusterClient;
use tonic::transport::{Channel, Endpoint};

use crate::config::flags::{ClientTlsFlags, JoinFlags};
use crate::config::{ClusterState, Config, ConfigError, MemberUrl};
use crate::data_dir::{DataDir, DataDirError};
use crate::error::{ServerError, innermost};
use crate::identity::{Identity, Origin};

/// How long a cluster may take to answer one question.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// Why a member cannot find its place in a running cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody told who the members are.
    #[error(
        "--initial-cluster-state existing, and no other member of --initial-cluster tells who the members are ({why}): \
         start them first, or use holdfast join --endpoints with a member's client URL"
    )]
    NoAnswer {
        /// Of the last one asked.
        why: String,
    },
    /// The cluster does not know our peer URLs.
    #[error(
        "the running cluster has no member with the peer URLs {urls}: add it with etcdctl member add, or use holdfast \
         join, which does that, too"
    )]
    Unknown {
        /// Ours.
        urls: String,
    },
    /// The member had data, and has none now.
    #[error(
        "member {id:016x} ({urls}) had data, and data directory {} is empty: a member must not forget what it has \
         acknowledged. Restore the directory, or let a new member take its place: holdfast join --replace --endpoints \
         with a member's client URL, and this member's flags",
        path.display()
    )]
    Wiped {
        /// Its id.
        id: u64,
        /// Its peer URLs.
        urls: String,
        /// The directory.
        path: PathBuf,
    },
    /// A member with these peer URLs runs, or ran.
    #[error(
        "the cluster has a member {id:016x} (\"{name}\") with a peer URL of ours: give this one its own \
         --listen-peer-urls, or let it take the other's place with --replace"
    )]
    Taken {
        /// Its id.
        id: u64,
        /// Its name.
        name: String,
    },
    /// An endpoint cannot be used.
    #[error(transparent)]
    Endpoint(#[from] ConfigError),
    /// The files to connect with cannot be used.
    #[error(transparent)]
    Tls(TlsError),
    /// The cluster did not do what was asked.
    #[error("{doing} through {endpoints}: {status}")]
    Refused {
        /// What was asked.
        doing: &'static str,
        /// Who was asked.
        endpoints: String,
        /// What was answered.
        status: String,
    },
    /// The old data directory is in the way.
    #[error("cannot move data directory {} aside to {}: {source}", from.display(), to.display())]
    Aside {
        /// The directory.
        from: PathBuf,
        /// Its new name.
        to: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

/// Who the configuration and the data directory say that this member is. Changes nothing.
///
/// # Errors
/// A directory that cannot be used; a cluster that does not answer, does not know us, or counts on data that is gone.
pub async fn identify(env: &Env, config: &Config) -> Result<Identity, ServerError> {
    let owner = DataDir::owner(env, &config.data_dir)?;
    match (owner, config.cluster_state) {
        // Its ids follow from nothing else. The flags about the first start mean nothing any more, as in etcd.
        (Some(owner), _) if owner.origin == Origin::Joined => named(config, owner),
        (Some(owner), ClusterState::Existing) => named(config, owner),
        (_, ClusterState::New) => Ok(Identity::of(config)),
        (None, ClusterState::Existing) => Ok(ask_peers(env, config).await?),
    }
}

fn named(config: &Config, owner: Identity) -> Result<Identity, ServerError> {
    if owner.name == config.name {
        return Ok(owner);
    }
    let (path, expected) = (config.data_dir.clone(), config.name.clone());
    Err(DataDirError::OtherMember { path, found: owner.name, expected }.into())
}

async fn ask_peers(env: &Env, config: &Config) -> Result<Identity, JoinError> {
    let ours = config.own_peer_urls();
    let others = config.initial_cluster.iter().filter(|member| member.name != config.name);
    let urls: Vec<String> = others.flat_map(|member| &member.peer_urls).map(ToString::to_string).collect();
    let found = holdfast_raft::discover(env, &urls).await.map_err(|why| JoinError::NoAnswer { why })?;
    let urls = ours.join(",");
    let known = found.members.iter().find(|known| is_same(&known.member.peer_urls, &ours));
    let known = known.ok_or_else(|| JoinError::Unknown { urls: urls.clone() })?;
    let id = known.member.id;
    if known.had_log {
        return Err(JoinError::Wiped { id: id.0, urls, path: config.data_dir.clone() });
    }
    Ok(joined(config, found.cluster_id, id.0))
}

fn joined(config: &Config, cluster_id: u64, id: u64) -> Identity {
    Identity { cluster_id, member_id: MemberId(id), name: config.name.clone(), origin: Origin::Joined }
}

fn is_same(theirs: &[String], ours: &[String]) -> bool {
    let (mut theirs, mut ours) = (theirs.to_vec(), ours.to_vec());
    theirs.sort_unstable();
    ours.sort_unstable();
    theirs == ours
}

/// Finds or makes this member's place in a running cluster, and marks the data directory with it: behind this, the
/// member is started as any other.
///
/// # Errors
/// As the variants say. What was done before stays done; running it again goes on.
pub async fn join(env: &Env, config: &Config, flags: &JoinFlags) -> Result<(), ServerError> {
    if !flags.replace
        && let Some(owner) = DataDir::owner(env, &config.data_dir)?
    {
        tracing::info!(
            member_id = format!("{:x}", owner.member_id.0),
            "a member already: it is only started"
        );
        return named(config, owner).map(drop);
    }
    let mut cluster = Cluster::connect(&flags.endpoints, &flags.tls).await?;
    let owner = if flags.replace { DataDir::owner(env, &config.data_dir).ok().flatten() } else { None };
    let ours = config.own_peer_urls();
    let (cluster_id, members) = cluster.members().await?;
    let holder = members.iter().find(|member| member.peer_ur_ls.iter().any(|url| ours.contains(url)));
    // One without a name was added and never started: that is what an earlier, cut off join left behind.
    let mut place = None;
    match holder {
        Some(member) if flags.replace => cluster.remove(member.id).await?,
        Some(member) if member.name.is_empty() => place = Some(member.id),
        Some(member) => {
            return Err(JoinError::Taken { id: member.id, name: member.name.clone() }.into());
        }
        None => {}
    }
    // The directory's own member, when it had other peer URLs.
    if let Some(id) = owner.map(|owner| owner.member_id.0)
        && holder.is_none_or(|holder| holder.id != id)
        && members.iter().any(|member| member.id == id)
    {
        cluster.remove(id).await?;
    }
    if flags.replace {
        move_aside(env.disk.as_ref(), &config.data_dir)?;
    }
    let id = match place {
        Some(id) => id,
        None => cluster.add(&ours, flags.learner).await?,
    };
    let identity = joined(config, cluster_id, id);
    DataDir::lock(env, &config.data_dir, &identity)?.mark()?;
    tracing::info!(
        member_id = format!("{id:x}"),
        cluster_id = format!("{cluster_id:x}"),
        "joined the cluster"
    );
    Ok(())
}

/// Renames a directory that has something in it, keeping it for a look.
fn move_aside(disk: &dyn Disk, path: &Path) -> Result<(), JoinError> {
    let mut to = path.to_owned();
    let renamed = rename_aside(disk, path, &mut to);
    renamed.map_err(|source| JoinError::Aside { from: path.to_owned(), to, source })
}

fn rename_aside(disk: &dyn Disk, path: &Path, to: &mut PathBuf) -> io::Result<()> {
    if !disk.exists(path)? || disk.read_dir(path)?.is_empty() {
        return Ok(());
    }
    for number in 1.. {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".replaced-{number}"));
        *to = path.with_file_name(name);
        if !disk.exists(to)? {
            break;
        }
    }
    disk.rename(path, to)?;
    tracing::warn!(from = %path.display(), to = %to.display(), "moved the old data directory aside");
    Ok(())
}

/// A running cluster, as its clients see it.
struct Cluster {
    client: ClusterClient<Channel>,
    endpoints: String,
}

impl Cluster {
    /// Connects to the first endpoint that can be connected to.
    async fn connect(endpoints: &str, tls: &ClientTlsFlags) -> Result<Self, JoinError> {
        let mut causes = Vec::new();
        for text in endpoints.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let text = tls.with_scheme(text);
            let url = MemberUrl::parse("endpoints", &text)?;
            let endpoint = Endpoint::from_shared(url.to_string()).map_err(|_| ConfigError::Url {
                flag: "endpoints",
                url: text,
                why: "it is not a URL: write http://host:port",
            })?;
            let endpoint = endpoint.connect_timeout(ANSWER_LIMIT).timeout(ANSWER_LIMIT);
            let connected = if url.is_tls() {
                let settings = ClientTls::load(&tls.files()).map_err(JoinError::Tls)?;
                endpoint.connect_with_connector(Connector::new(Arc::new(settings))).await
            } else {
                endpoint.connect().await
            };
            match connected {
                Ok(channel) => {
                    let client = ClusterClient::new(channel);
                    return Ok(Self { client, endpoints: url.to_string() });
                }
                Err(error) => causes.push(innermost(&error)),
            }
        }
        let (endpoints, status) = (endpoints.to_owned(), causes.join("; "));
        Err(JoinError::Refused { doing: "connecting", endpoints, status })
    }

    fn refused(&self, doing: &'static str, status: &tonic::Status) -> JoinError {
        let status = match status.source() {
            Some(cause) => innermost(cause),
            None => status.message().to_owned(),
        };
        JoinError::Refused { doing, endpoints: self.endpoints.clone(), status }
    }

    async fn members(&mut self) -> Result<(u64, Vec<pb::Member>), JoinError> {
        let listed = self.client.member_list(pb::MemberListRequest { linearizable: true }).await;
        let listed = listed.map_err(|status| self.refused("listing the members", &status))?.into_inner();
        Ok((listed.header.unwrap_or_default().cluster_id, listed.members))
    }

    async fn remove(&mut self, id: u64) -> Result<(), JoinError> {
        tracing::warn!(member_id = format!("{id:x}"), "removing the member whose place is taken");
        let removed = self.client.member_remove(pb::MemberRemoveRequest { id }).await;
        removed.map(drop).map_err(|status| self.refused("removing the member whose place is taken", &status))
    }

    async fn add(&mut self, peer_urls: &[String], is_learner: bool) -> Result<u64, JoinError> {
        let request = pb::MemberAddRequest { peer_ur_ls: peer_urls.to_vec(), is_learner };
        let added = self.client.member_add(request).await;
        let added = added.map_err(|status| self.refused("adding this member", &status))?.into_inner();
        Ok(added.member.unwrap_or_default().id)
    }
}
