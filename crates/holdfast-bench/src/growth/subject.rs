//! A system under load, and the figures that are taken of it.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::curve::{Curve, Point, float};
use super::flags::GrowthFlags;
use super::tell;
use crate::compare::measuring;
use crate::error::Error;
use crate::footprint::until_it_answers;
use crate::load::keys::KeySpace;
use crate::load::operation::Operation;
use crate::load::pace::Pace;
use crate::load::{Connections, Load, bulk};
use crate::measure::procfs::ProcessUsage;
use crate::measure::window;
use crate::report::Round;
use crate::systems::cluster::{Cluster, Layout};
use crate::systems::{Programs, System};

pub(super) const PUT_CPU: &str = "server CPU us a put";
pub(super) const GET_CPU: &str = "server CPU us a linearizable get";
pub(super) const READ_CPU: &str = "server CPU us a serializable get";
pub(super) const RESIDENT: &str = "MiB a member";

/// How often a round is measured again because members wrote checkpoints of their indexes meanwhile. Those come once for as many
/// puts as there are keys, where there are many, and a round is far shorter.
const CHECKPOINTS_MAX: u32 = 2;

/// The programs that are measured.
pub(super) fn programs(flags: &GrowthFlags) -> Programs {
    flags.servers.programs(flags.value_bytes)
}

/// How a system is started.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    /// Members.
    pub(super) members: u32,
    /// Connections.
    pub(super) connections: u32,
    /// Flags for holdfast that hold where the user has not set them.
    pub(super) holdfast_defaults: Vec<String>,
}

impl Setup {
    /// As the flags say.
    pub(super) fn of(flags: &GrowthFlags) -> Self {
        Self { members: flags.members, connections: flags.connections, holdfast_defaults: Vec::new() }
    }
}

/// A running system, and where it stands on a curve.
pub(super) struct Subject<'a> {
    cluster: Cluster,
    connections: Connections,
    setup: Setup,
    flags: &'a GrowthFlags,
    /// How much there is of what grows.
    pub(super) at: u64,
}

impl<'a> Subject<'a> {
    /// With fresh data.
    pub(super) async fn start(system: System, flags: &'a GrowthFlags, setup: Setup) -> Result<Self, Error> {
        let mut programs = programs(flags);
        for default in &setup.holdfast_defaults {
            let name = default.split('=').next().unwrap_or_default();
            if !programs.holdfast_flags.iter().any(|flag| flag.starts_with(name)) {
                programs.holdfast_flags.push(default.clone());
            }
        }
        let layout = Layout { members: setup.members as usize, parent: flags.servers.data_parent.clone() };
        let cluster = Cluster::start(system, &programs, &layout).await?;
        let connections = Connections::open(&cluster.endpoints(), setup.connections).await?;
        Ok(Self { cluster, connections, setup, flags, at: 0 })
    }

    /// Who it is.
    pub(super) fn side(&self) -> &'static str {
        self.cluster.system.name()
    }

    /// Writes keys and waits until nothing is left to do for them.
    pub(super) async fn write(&mut self, space: &KeySpace, numbers: Range<u64>) -> Result<(), Error> {
        self.write_on(space, numbers).await?;
        self.rest().await
    }

    /// Writes keys, and does not wait.
    pub(super) async fn write_on(&mut self, space: &KeySpace, numbers: Range<u64>) -> Result<(), Error> {
        bulk::write(space, numbers, &self.connections).await
    }

    /// Waits until nothing is left to do.
    pub(super) async fn rest(&mut self) -> Result<(), Error> {
        window::rest(&mut self.cluster).await
    }

    /// So many clients do the same for the time of a load.
    pub(super) async fn calls(
        &mut self,
        curve: &mut Curve,
        operation: Operation,
        (space, clients): (&KeySpace, u32),
    ) -> Result<Round, Error> {
        let (pace, duration) = (Pace::Closed, self.flags.duration);
        let load = Load { operation, clients, pace, duration, space: space.clone() };
        let warm_up = self.flags.warm_up;
        let round = measuring::calls(&mut self.cluster, &self.connections, &load, warm_up).await?;
        self.note(curve, &format!("{operation:?}"), &round);
        Ok(round)
    }

    /// CPU of puts and of both kinds of gets, as figures of the curve.
    pub(super) async fn puts_and_gets(&mut self, curve: &mut Curve, space: &KeySpace) -> Result<(), Error> {
        let calls = [
            (Operation::Put, PUT_CPU),
            (Operation::GetLinearizable, GET_CPU),
            (Operation::GetSerializable, READ_CPU),
        ];
        let mut dumps = 0;
        for (operation, figure) in calls {
            let mut round = self.calls(curve, operation, (space, self.flags.clients)).await?;
            for _ in 0..CHECKPOINTS_MAX {
                if round.checkpoints == 0 {
                    break;
                }
                round = self.calls(curve, operation, (space, self.flags.clients)).await?;
            }
            dumps += round.dumps;
            self.add(curve, figure, cpu_each(&round));
        }
        self.add(curve, "dumps meanwhile", float(dumps));
        Ok(())
    }

    /// Puts that are watched.
    pub(super) async fn watched(
        &mut self,
        curve: &mut Curve,
        watched: measuring::Watched<'_>,
    ) -> Result<Round, Error> {
        let warm_up = self.flags.warm_up;
        let round = measuring::fanout(&mut self.cluster, &self.connections, watched, warm_up).await?;
        self.note(curve, "watched puts", &round);
        Ok(round)
    }

    /// Kills the first member and starts it again: how long until it answers. Waits until all are at rest.
    pub(super) async fn restart(&mut self) -> Result<Duration, Error> {
        let endpoint = self.cluster.endpoints().swap_remove(0);
        let began = Instant::now();
        self.cluster.kill_and_restart(0)?;
        until_it_answers(&mut self.cluster, &endpoint).await?;
        let back = began.elapsed();
        window::rest(&mut self.cluster).await?;
        self.connections = Connections::open(&self.cluster.endpoints(), self.setup.connections).await?;
        Ok(back)
    }

    /// Resident memory of the member that has most, in bytes.
    pub(super) fn resident_most(&self) -> Result<f64, Error> {
        let mut most = 0;
        for pid in self.cluster.pids() {
            most = most.max(ProcessUsage::read(pid)?.resident_bytes);
        }
        Ok(float(most))
    }

    /// Resident memory of the first member, in bytes.
    pub(super) fn resident_first(&self) -> Result<f64, Error> {
        let first = self.cluster.pids().swap_remove(0);
        Ok(float(ProcessUsage::read(first)?.resident_bytes))
    }

    /// Adds a figure to the curve.
    pub(super) fn add(&self, curve: &mut Curve, figure: &str, value: f64) {
        tell(&format!("{}: {} at {} {}: {value:.2} {figure}", curve.name, self.side(), self.at, curve.over));
        curve.add(self.side(), figure, Point::known(self.at, value));
    }

    /// Adds that there is no figure here.
    pub(super) fn add_unknown(&self, curve: &mut Curve, figure: &str) {
        curve.add(self.side(), figure, Point { at: self.at, figure: None });
    }

    fn note(&self, curve: &mut Curve, what: &str, round: &Round) {
        if round.failures > 0 {
            let words = round.first_failure.as_deref().unwrap_or("no words");
            let (side, at, over, failures) = (self.side(), self.at, &curve.over, round.failures);
            let line = format!("{side} at {at} {over}, {what}: {failures} failed, the first: {words}");
            tell(&line);
            curve.failures.push(line);
        }
    }
}

/// Server CPU of one unit, in microseconds.
pub(super) fn cpu_each(round: &Round) -> f64 {
    float(round.server_cpu_us) / float(round.units.max(1))
}

/// Bytes as MiB.
pub(super) fn mib(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}
