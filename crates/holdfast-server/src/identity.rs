//! Ids of the cluster and its members. Those of the founders are computed from the initial cluster, so that all members
//! agree without a word; a member that is added later gets its id from the member that was asked to add it.
//!
//! A member's id is the first 8 bytes (big-endian) of the SHA-1 over the cluster token and its sorted peer URLs; the
//! cluster's id is the same over the sorted member ids. Neither is ever 0, which means "none" on the wire.

use holdfast_env::UnixMillis;
use holdfast_mvcc::types::MemberId;
use sha1::{Digest, Sha1};

use crate::config::{Config, InitialMember};

/// Who this member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster_id: u64,
    /// Its own id.
    pub member_id: MemberId,
    /// Its name.
    pub name: String,
    /// How it came into the cluster.
    pub origin: Origin,
}

/// How a member came into the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It is one of those that formed it: its ids follow from the flags.
    Founder,
    /// It was added to a running one: its ids were given to it, and stand in its data directory alone.
    Joined,
}

impl Identity {
    /// The identity that a checked configuration describes.
    pub fn of(config: &Config) -> Self {
        let ours = config
            .initial_cluster
            .iter()
            .find(|member| member.name == config.name)
            .expect("a checked configuration contains its own member");
        Self {
            cluster_id: cluster_id(&config.cluster_token, &config.initial_cluster),
            member_id: member_id(&config.cluster_token, ours),
            name: config.name.clone(),
            origin: Origin::Founder,
        }
    }
}

/// The id of one initial member.
pub fn member_id(token: &str, member: &InitialMember) -> MemberId {
    let urls: Vec<String> = member.peer_urls.iter().map(ToString::to_string).collect();
    let parts = std::iter::once(token.as_bytes()).chain(urls.iter().map(String::as_bytes));
    MemberId(digest(parts))
}

/// An id for a member that is added to a running cluster: from its peer URLs and the time, as in etcd, and a random
/// number, so that it is never one that was used before.
pub fn added_member_id(cluster_id: u64, peer_urls: &[String], now: UnixMillis, random: u64) -> MemberId {
    let (cluster, now, random) = (cluster_id.to_be_bytes(), now.0.to_be_bytes(), random.to_be_bytes());
    let numbers = [&cluster[..], &now[..], &random[..]];
    MemberId(digest(numbers.into_iter().chain(peer_urls.iter().map(String::as_bytes))))
}

fn cluster_id(token: &str, members: &[InitialMember]) -> u64 {
    let mut ids: Vec<[u8; 8]> =
        members.iter().map(|member| member_id(token, member).0.to_be_bytes()).collect();
    ids.sort_unstable();
    digest(ids.iter().map(<[u8; 8]>::as_slice))
}

/// Each part is preceded by its length, so that no two lists of parts give the same bytes.
fn digest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut sha = Sha1::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    let hash = sha.finalize();
    let first: [u8; 8] = hash[..8].try_into().expect("a SHA-1 has 20 bytes");
    u64::from_be_bytes(first).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MemberUrl;

    fn member(name: &str, urls: &[&str]) -> InitialMember {
        let mut peer_urls: Vec<_> = urls.iter().map(|u| MemberUrl::parse("test", u).unwrap()).collect();
        peer_urls.sort();
        InitialMember { name: name.to_owned(), peer_urls }
    }

    #[test]
    fn ids_are_those_of_the_first_release() {
        let members = [member("a", &["http://10.0.0.1:2380"]), member("b", &["http://10.0.0.2:2380"])];
        let id = member_id("etcd-cluster", &members[0]);
        // A change of these numbers would make every existing data directory a stranger's.
        assert_eq!(format!("{:016x}", id.0), "5af31892485c5e5f");
        assert_eq!(format!("{:016x}", cluster_id("etcd-cluster", &members)), "6e1d24c4a73a0835");
    }

    #[test]
    fn ids_depend_on_token_and_urls_only() {
        let a = member("a", &["http://h:1", "http://h:2"]);
        let renamed = InitialMember { name: "z".to_owned(), ..a.clone() };
        let moved = member("a", &["http://h:1", "http://h:3"]);
        assert_eq!(member_id("t", &a), member_id("t", &renamed));
        assert_ne!(member_id("t", &a), member_id("u", &a));
        assert_ne!(member_id("t", &a), member_id("t", &moved));
        let b = member("b", &["http://i:1"]);
        assert_eq!(cluster_id("t", &[a.clone(), b.clone()]), cluster_id("t", &[b, a]));
    }
}
