//! Curves over what is asked: watchers, sizes of values, members, clients.

use super::curve::{Curve, float, sizes};
use super::flags::GrowthFlags;
use super::subject::{GET_CPU, PUT_CPU, READ_CPU, RESIDENT, Setup, Subject, cpu_each, mib};
use crate::compare::measuring::Watched;
use crate::compare::work::{Figures, KEY_WATCHERS_PER_STREAM};
use crate::error::Error;
use crate::load::fanout::{Audience, Writes};
use crate::load::keys::KeySpace;
use crate::load::operation::Operation;
use crate::report::Round;
use crate::systems::System;

const KEYS: u64 = 10_000;
/// Fewer where values are large, so that the disk is not what is filled.
const LARGE_VALUE_KEYS: u64 = 1000;
/// Bytes of values under way at a time, at most.
const UNDER_WAY_BYTES: u64 = 64 << 20;
/// Of the mixed watchers, one in so many watches everything.
const MIXED_EVERY: u32 = 100;
/// Watchers of a prefix that share a stream.
const PREFIX_WATCHERS_PER_STREAM: u32 = 20;
/// Clients that share a connection.
const CLIENTS_PER_CONNECTION: u32 = 20;

/// Who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    OwnKeys,
    OnePrefix,
    Mixed,
}

impl Kind {
    const ALL: [Self; 3] = [Self::OwnKeys, Self::OnePrefix, Self::Mixed];

    fn words(self) -> &'static str {
        match self {
            Self::OwnKeys => "own keys",
            Self::OnePrefix => "one prefix",
            Self::Mixed => "mixed",
        }
    }

    /// How many watch everything and how many a key of their own, of so many; `None` if those are too many for the
    /// prefix.
    fn split(self, watchers: u32, prefix_max: u32) -> Option<(u32, u32)> {
        let everything = match self {
            Self::OwnKeys => 0,
            Self::OnePrefix => watchers,
            Self::Mixed => watchers.div_ceil(MIXED_EVERY),
        };
        (everything <= prefix_max).then(|| (everything, watchers - everything))
    }
}

/// CPU and lateness of puts at a fixed rate, over watchers of each kind.
pub(super) async fn watchers(system: System, flags: &GrowthFlags, curve: &mut Curve) -> Result<(), Error> {
    let mut subject = Subject::start(system, flags, Setup::of(flags)).await?;
    let most = u64::from(flags.range.watchers_max);
    let all = KeySpace::new(most, flags.value_bytes as usize);
    subject.write(&all, 0..most).await?;
    for watchers in sizes(10, most, 10) {
        subject.at = watchers;
        for kind in Kind::ALL {
            let count = u32::try_from(watchers).unwrap_or(u32::MAX);
            let (cpu, late) =
                (format!("{PUT_CPU}, {}", kind.words()), format!("p99 ms of a put, {}", kind.words()));
            let Some((readers, own_keys)) = kind.split(count, flags.range.prefix_watchers_max) else {
                subject.add_unknown(curve, &cpu);
                subject.add_unknown(curve, &late);
                continue;
            };
            let round = watched(&mut subject, curve, flags, (readers, own_keys)).await?;
            subject.add(curve, &cpu, cpu_each(&round));
            subject.add(curve, &late, millis(round.latency.p99_us));
        }
    }
    Ok(())
}

async fn watched(
    subject: &mut Subject<'_>,
    curve: &mut Curve,
    flags: &GrowthFlags,
    (readers, own_keys): (u32, u32),
) -> Result<Round, Error> {
    let audience = Audience {
        readers,
        own_keys,
        silent: 0,
        per_stream: if own_keys > 0 { KEY_WATCHERS_PER_STREAM } else { PREFIX_WATCHERS_PER_STREAM },
        connections: flags.connections,
    };
    let keys = if own_keys > 0 { u64::from(own_keys) } else { KEYS };
    let space = KeySpace::new(keys, flags.value_bytes as usize);
    let writes = Writes { per_second: flags.watch_rate, duration: flags.duration, space };
    subject.watched(curve, Watched { audience: &audience, writes: &writes, figures: Figures::Puts }).await
}

/// CPU of puts and what they carry, over the size of a value.
pub(super) async fn values(system: System, flags: &GrowthFlags, curve: &mut Curve) -> Result<(), Error> {
    let mut subject = Subject::start(system, flags, Setup::of(flags)).await?;
    for bytes in sizes(16, u64::from(flags.range.value_bytes_max), 16) {
        subject.at = bytes;
        let space = KeySpace::new(LARGE_VALUE_KEYS, usize::try_from(bytes).unwrap_or(usize::MAX));
        let round = subject.calls(curve, Operation::Put, (&space, clients_for(bytes, flags.clients))).await?;
        subject.add(curve, PUT_CPU, cpu_each(&round));
        subject.add(curve, "MiB a second", mib(round.per_second * float(bytes)));
        subject.add(curve, "p99 ms", millis(round.latency.p99_us));
    }
    Ok(())
}

fn clients_for(value_bytes: u64, clients: u32) -> u32 {
    let fitting = UNDER_WAY_BYTES / value_bytes.max(1);
    clients.min(u32::try_from(fitting).unwrap_or(u32::MAX)).max(1)
}

/// CPU and speed of puts and gets, over the members there are.
pub(super) async fn members(system: System, flags: &GrowthFlags, curve: &mut Curve) -> Result<(), Error> {
    for members in [1, 3, 5] {
        let mut subject = Subject::start(system, flags, Setup { members, ..Setup::of(flags) }).await?;
        subject.at = u64::from(members);
        let space = KeySpace::new(KEYS, flags.value_bytes as usize);
        subject.write(&space, 0..KEYS).await?;
        let calls = [
            (Operation::Put, PUT_CPU, "puts a second"),
            (Operation::GetLinearizable, GET_CPU, "linearizable gets a second"),
            (Operation::GetSerializable, READ_CPU, "serializable gets a second"),
        ];
        for (operation, cpu, speed) in calls {
            let round = subject.calls(curve, operation, (&space, flags.clients)).await?;
            subject.add(curve, cpu, cpu_each(&round));
            subject.add(curve, speed, round.per_second);
        }
    }
    Ok(())
}

/// CPU, speed and latencies of puts, over the clients that make them.
pub(super) async fn clients(system: System, flags: &GrowthFlags, curve: &mut Curve) -> Result<(), Error> {
    let most = flags.range.clients_max;
    let connections = flags.connections.max(most.div_ceil(CLIENTS_PER_CONNECTION));
    let mut subject = Subject::start(system, flags, Setup { connections, ..Setup::of(flags) }).await?;
    let space = KeySpace::new(KEYS, flags.value_bytes as usize);
    subject.write(&space, 0..KEYS).await?;
    for clients in sizes(1, u64::from(most), 10) {
        subject.at = clients;
        let count = u32::try_from(clients).unwrap_or(u32::MAX);
        let round = subject.calls(curve, Operation::Put, (&space, count)).await?;
        subject.add(curve, PUT_CPU, cpu_each(&round));
        subject.add(curve, "puts a second", round.per_second);
        subject.add(curve, "p50 ms", millis(round.latency.p50_us));
        subject.add(curve, "p99 ms", millis(round.latency.p99_us));
        subject.add(curve, RESIDENT, mib(subject.resident_most()?));
    }
    Ok(())
}

fn millis(micros: u64) -> f64 {
    float(micros) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchers_are_split_by_kind_up_to_what_a_prefix_may_have() {
        assert_eq!(Kind::OwnKeys.split(100_000, 1000), Some((0, 100_000)));
        assert_eq!(Kind::OnePrefix.split(1000, 1000), Some((1000, 0)));
        assert_eq!(Kind::OnePrefix.split(10_000, 1000), None);
        assert_eq!(Kind::Mixed.split(100_000, 1000), Some((1000, 99_000)));
        assert_eq!(Kind::Mixed.split(10, 1000), Some((1, 9)));
    }

    #[test]
    fn large_values_have_fewer_clients() {
        assert_eq!(
            (clients_for(16, 256), clients_for(1 << 20, 256), clients_for(1 << 40, 256)),
            (256, 64, 1)
        );
    }
}
