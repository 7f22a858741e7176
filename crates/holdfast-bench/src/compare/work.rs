//! What a case does in one measuring window.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::cli::{Case, SizeFlags, WorkFlags};
use crate::error::Error;
use crate::load::Load;
use crate::load::fanout::{Audience, Writes};
use crate::load::keys::KeySpace;
use crate::load::lists::{Listers, Way};
use crate::load::operation::Operation;
use crate::load::pace::Pace;
use crate::load::place::Place;
use crate::systems::System;

/// A list answers with a thousand keys: one client in so many of the other cases' keeps servers as busy.
const CLIENTS_PER_LISTER: u32 = 16;
/// Of the case that asks how late events are.
const LATENCY_WATCHERS: u32 = 10;
/// Of the case that asks what many more cost, each of a key of its own.
const FEW_KEY_WATCHERS: u32 = 10;
/// As a proxy in front of many clients has them.
pub(crate) const KEY_WATCHERS_PER_STREAM: u32 = 1000;
/// Of the case that asks what lists do to puts.
const LISTERS: u32 = 10;
/// Clients of put-64 and put-1000.
const SOME_CLIENTS: u32 = 64;
const MANY_CLIENTS: u32 = 1000;
/// What many clients share at least: 16 or 17 each, as in the case put by default.
const MANY_CONNECTIONS: u32 = 60;

/// One measurement: what is done while the servers are watched.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Calls.
    Calls {
        /// Which.
        load: Load,
        /// At which members.
        place: Place,
    },
    /// Puts by a timetable, while others list everything or nobody does.
    BesideLists {
        /// The puts.
        load: Load,
        /// Who lists.
        listers: Option<Listers>,
    },
    /// Puts that are watched.
    Fanout {
        /// Who watches.
        audience: Audience,
        /// What they are shown.
        writes: Writes,
        /// Behind the system's name.
        label: String,
        /// What is asked for.
        figures: Figures,
        /// Keys that are there before.
        keys: Option<KeySpace>,
    },
    /// Leases that live, and are renewed.
    Leases {
        /// How many.
        count: u32,
        /// How often each is renewed.
        every: Duration,
        /// For how long.
        duration: Duration,
    },
    /// Puts by a timetable while leases end, or while none does.
    LeaseEnd {
        /// How many leases; none in the calm half.
        count: u32,
        /// The puts.
        load: Load,
    },
    /// So many connections that do nothing after a first read.
    Connections(u32),
}

/// What is asked of puts that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figures {
    /// What an event costs, and how late it is.
    Events,
    /// What a put costs with all its events, and how late those are.
    EventsByPut,
    /// What a put costs with all its events, and how late its answer is.
    Puts,
}

/// The connections that a case's clients share.
pub(crate) fn connections(case: Case, size: &SizeFlags) -> u32 {
    match case {
        Case::Put1000 => size.connections.max(MANY_CONNECTIONS),
        _ => size.connections,
    }
}

/// The measurements of a case, to be made in turn. `busy` is the rate of the busy case, when it is known.
///
/// Errors: the busy case without its rate.
pub(crate) fn works(case: Case, flags: &WorkFlags, busy: Option<NonZeroU32>) -> Result<Vec<Work>, Error> {
    let space = KeySpace::new(flags.size.keys, flags.size.value_bytes as usize);
    let plan = Plan { flags, space };
    let clients = flags.size.clients;
    Ok(match case {
        Case::Put => plan.calls(Operation::Put, clients),
        Case::PutOne => plan.at(&[Place::Leader], Operation::Put, 1),
        Case::Put64 => plan.calls(Operation::Put, SOME_CLIENTS),
        Case::Put1000 => plan.calls(Operation::Put, MANY_CLIENTS),
        Case::PutSteady => vec![everywhere(plan.steady(Operation::Put))],
        Case::PutBusy => {
            let rate = busy.ok_or_else(|| {
                Error::Setting("put-busy needs the case put before it, to know how fast 30 % is".to_owned())
            })?;
            vec![everywhere(Load { pace: Pace::Open(rate), ..plan.load(Operation::Put, clients) })]
        }
        Case::GetLinearizable => plan.calls(Operation::GetLinearizable, clients),
        Case::GetSteady => vec![everywhere(plan.steady(Operation::GetLinearizable))],
        Case::GetSerializable => plan.calls(Operation::GetSerializable, clients),
        Case::GetLinearizableFollowers => {
            plan.at(&[Place::Leader, Place::Followers], Operation::GetLinearizable, clients)
        }
        Case::GetSerializableFollowers => {
            plan.at(&[Place::Leader, Place::Followers], Operation::GetSerializable, clients)
        }
        Case::Cas => plan.calls(Operation::Cas, clients),
        Case::Mixed => plan.calls(Operation::Mixed, clients),
        Case::List => plan.calls(Operation::List, clients.div_ceil(CLIENTS_PER_LISTER)),
        Case::ListPaged => plan.calls(Operation::ListPaged, clients.div_ceil(CLIENTS_PER_LISTER)),
        Case::ListWhole => vec![plan.list_all(Way::Whole)],
        Case::ListWholePaged => vec![plan.list_all(plan.paged())],
        Case::PutBesideLists => plan.beside_lists(),
        Case::WatchLatency => vec![plan.fanout(LATENCY_WATCHERS, 0, Figures::Events)],
        Case::WatchFanout => vec![plan.fanout(flags.watch.watchers, 0, Figures::Events)],
        Case::SlowWatchers => plan.slow_watchers(),
        Case::PutWatched => {
            [0, flags.watch.watchers].map(|readers| plan.fanout(readers, 0, Figures::Puts)).to_vec()
        }
        Case::PutKeysWatched => plan.keys_watched(),
        Case::LeaseGrant => plan.calls(Operation::LeaseGrant, clients),
        Case::LeaseKeepalive => plan.calls(Operation::LeaseKeepAlive, clients),
        Case::LeaseSteady => plan.leases(),
        Case::LeaseEnd => {
            let load = plan.steady(Operation::Put);
            [0, flags.lease.leases].map(|count| Work::LeaseEnd { count, load: load.clone() }).to_vec()
        }
        Case::Connections => vec![Work::Connections(flags.idle_connections)],
    })
}

fn everywhere(load: Load) -> Work {
    Work::Calls { load, place: Place::Everywhere }
}

/// Makes works of flags.
struct Plan<'a> {
    flags: &'a WorkFlags,
    space: KeySpace,
}

impl Plan<'_> {
    fn load(&self, operation: Operation, clients: u32) -> Load {
        Load {
            operation,
            clients,
            pace: self.flags.size.pace(),
            duration: self.flags.size.duration,
            space: self.space.clone(),
        }
    }

    fn steady(&self, operation: Operation) -> Load {
        Load { pace: Pace::Open(self.flags.steady_rate), ..self.load(operation, self.flags.size.clients) }
    }

    fn calls(&self, operation: Operation, clients: u32) -> Vec<Work> {
        self.at(&[Place::Everywhere], operation, clients)
    }

    fn at(&self, places: &[Place], operation: Operation, clients: u32) -> Vec<Work> {
        let work = |place: &Place| Work::Calls { load: self.load(operation, clients), place: *place };
        places.iter().map(work).collect()
    }

    fn paged(&self) -> Way {
        Way::Paged(self.flags.list.page_keys)
    }

    fn listed_space(&self) -> KeySpace {
        KeySpace::new(self.flags.list.list_keys, self.flags.size.value_bytes as usize)
    }

    fn list_all(&self, way: Way) -> Work {
        everywhere(Load { space: self.listed_space(), ..self.load(Operation::ListAll(way), 1) })
    }

    fn beside_lists(&self) -> Vec<Work> {
        let load = Load { space: self.listed_space(), ..self.steady(Operation::Put) };
        let listers = |way| Listers { clients: LISTERS, way, keys: load.space.keys };
        [None, Some(listers(Way::Whole)), Some(listers(self.paged()))]
            .map(|listers| Work::BesideLists { load: load.clone(), listers })
            .to_vec()
    }

    fn writes(&self, per_second: NonZeroU32) -> Writes {
        Writes { per_second, duration: self.flags.size.duration, space: self.space.clone() }
    }

    fn fanout(&self, readers: u32, silent: u32, figures: Figures) -> Work {
        let audience = Audience {
            readers,
            own_keys: 0,
            silent,
            per_stream: self.flags.watch.watchers_per_stream,
            connections: self.flags.size.connections,
        };
        let (label, rate, keys) = match figures {
            Figures::Events => (String::new(), self.flags.watch.watch_rate, None),
            Figures::EventsByPut => {
                (format!(" {readers} reading + {silent} silent"), self.flags.watch.watch_rate, None)
            }
            Figures::Puts => {
                (format!(" {readers} watchers"), self.flags.steady_rate, Some(self.space.clone()))
            }
        };
        Work::Fanout { audience, writes: self.writes(rate), label, figures, keys }
    }

    fn slow_watchers(&self) -> Vec<Work> {
        let all = self.flags.watch.watchers;
        let silent = self.flags.watch.silent.min(all);
        [0, silent].map(|present| self.fanout(all - silent, present, Figures::EventsByPut)).to_vec()
    }

    /// The keys of the many are there with the few, too, so that the stores are alike.
    fn keys_watched(&self) -> Vec<Work> {
        let many = self.flags.watch.key_watchers;
        let keys = |count: u32| KeySpace::new(u64::from(count), self.flags.size.value_bytes as usize);
        [FEW_KEY_WATCHERS.min(many), many]
            .map(|own_keys| Work::Fanout {
                audience: Audience {
                    readers: 0,
                    own_keys,
                    silent: 0,
                    per_stream: KEY_WATCHERS_PER_STREAM,
                    connections: self.flags.size.connections,
                },
                writes: Writes { space: keys(own_keys), ..self.writes(self.flags.steady_rate) },
                label: format!(" {own_keys} keys watched"),
                figures: Figures::Puts,
                keys: Some(keys(many)),
            })
            .to_vec()
    }

    fn leases(&self) -> Vec<Work> {
        let lease = &self.flags.lease;
        let (count, every) = (lease.leases, lease.lease_renewal);
        vec![Work::Leases { count, every, duration: self.flags.size.duration }]
    }
}

impl Work {
    /// Whether the empty server can take part: it holds no lists, has nothing to hold back for silent watchers, and
    /// sends every put to every watcher.
    pub(super) fn is_for(&self, system: System) -> bool {
        let needs_a_store = match self {
            Self::Calls { load, .. } => matches!(
                load.operation,
                Operation::List
                    | Operation::ListPaged
                    | Operation::ListAll(_)
                    | Operation::LeaseGrant
                    | Operation::LeaseKeepAlive
            ),
            Self::BesideLists { .. } | Self::Leases { .. } | Self::LeaseEnd { .. } => true,
            Self::Fanout { figures, audience, .. } => {
                *figures == Figures::EventsByPut || audience.own_keys > 0
            }
            Self::Connections(_) => false,
        };
        !needs_a_store || system != System::Ceiling
    }

    /// The keys that must be there before.
    pub(crate) fn preloaded(&self) -> Option<&KeySpace> {
        match self {
            Self::Calls { load, .. } => Some(&load.space).filter(|_| load.operation.needs_keys()),
            Self::BesideLists { load, .. } => Some(&load.space),
            Self::Fanout { keys, .. } => keys.as_ref(),
            Self::Connections(_) | Self::Leases { .. } | Self::LeaseEnd { .. } => None,
        }
    }

    /// Behind the system's name in tables.
    pub(crate) fn label(&self) -> &str {
        match self {
            Self::Fanout { label, .. } => label,
            Self::Calls { place: Place::Followers, .. } => " at followers",
            // One client is at the leader because somewhere it has to be.
            Self::Calls { place: Place::Leader, load } if load.clients > 1 => " at the leader",
            Self::LeaseEnd { count: 0, .. } | Self::BesideLists { listers: None, .. } => " calm",
            Self::LeaseEnd { .. } => " leases end",
            Self::BesideLists { listers: Some(Listers { way: Way::Whole, .. }), .. } => " beside lists",
            Self::BesideLists { .. } => " beside lists in pages",
            Self::Calls { .. } | Self::Connections(_) | Self::Leases { .. } => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Parser, ValueEnum};

    use super::*;
    use crate::cli::{Cli, Command};

    fn flags(more: &[&str]) -> WorkFlags {
        let Command::Compare(flags) =
            Cli::parse_from([&["holdfast-bench", "compare"], more].concat()).command
        else {
            panic!("no comparison")
        };
        flags.work
    }

    fn labels(case: Case) -> Vec<String> {
        let works = works(case, &flags(&["--key-watchers=200"]), NonZeroU32::new(5)).unwrap();
        works.iter().map(|work| work.label().to_owned()).collect()
    }

    #[test]
    fn every_case_can_be_made_and_its_sides_are_told_apart() {
        for case in Case::value_variants() {
            let mut labels = labels(*case);
            let count = labels.len();
            labels.dedup();
            assert!(count > 0 && labels.len() == count, "{case:?}: {labels:?}");
        }
        assert_eq!(labels(Case::PutOne), [""]);
        assert_eq!(labels(Case::GetLinearizableFollowers), [" at the leader", " at followers"]);
        assert_eq!(labels(Case::PutBesideLists), [" calm", " beside lists", " beside lists in pages"]);
        assert_eq!(labels(Case::PutWatched), [" 0 watchers", " 1000 watchers"]);
        assert_eq!(labels(Case::PutKeysWatched), [" 10 keys watched", " 200 keys watched"]);
        assert_eq!(labels(Case::SlowWatchers), [" 900 reading + 0 silent", " 900 reading + 100 silent"]);
    }

    #[test]
    fn keys_are_there_before_they_are_listed_or_watched() {
        let flags = flags(&["--list-keys=700", "--key-watchers=200", "--keys=50"]);
        let keys = |case| {
            let works = works(case, &flags, None).unwrap();
            works.iter().map(|work| work.preloaded().map_or(0, |space| space.keys)).collect::<Vec<_>>()
        };
        assert_eq!(keys(Case::Put), [0]);
        assert_eq!(keys(Case::GetSerializable), [50]);
        assert_eq!(keys(Case::ListWhole), [700]);
        assert_eq!(keys(Case::PutBesideLists), [700; 3]);
        assert_eq!(keys(Case::PutKeysWatched), [200; 2]);
    }

    #[test]
    fn the_empty_server_takes_part_where_it_can() {
        let takes_part = |case| {
            let works = works(case, &flags(&[]), None).unwrap();
            works.iter().all(|work| work.is_for(System::Ceiling))
        };
        assert!(takes_part(Case::Put1000) && takes_part(Case::PutWatched));
        assert!(takes_part(Case::GetLinearizableFollowers));
        for case in [Case::ListWhole, Case::ListWholePaged, Case::PutBesideLists, Case::PutKeysWatched] {
            assert!(!takes_part(case), "{case:?}");
        }
        assert_eq!(connections(Case::Put1000, &flags(&[]).size), 60);
        assert_eq!(connections(Case::Put1000, &flags(&["--connections=90"]).size), 90);
        assert_eq!(connections(Case::Put64, &flags(&[]).size), 15);
    }
}
