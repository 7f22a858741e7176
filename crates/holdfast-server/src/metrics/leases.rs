//! Forms the figures of leases, under etcd's names where it has one.

use holdfast_raft::Health;
use holdfast_storage::LeaseFigures;
use prometheus::{IntCounter, IntGauge};

use super::{Maker, raise};
use crate::codec::response::signed;

/// What is copied when the page is asked for.
pub(super) struct LeaseGauges {
    leases: IntGauge,
    granted: IntCounter,
    revoked: IntCounter,
    renewed: IntCounter,
    expired: IntCounter,
}

impl LeaseGauges {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            leases: maker.gauge("holdfast_leases", "Leases that exist."),
            granted: maker
                .counter("etcd_debugging_lease_granted_total", "The total number of granted leases."),
            revoked: maker
                .counter("etcd_debugging_lease_revoked_total", "The total number of revoked leases."),
            renewed: maker.counter(
                "etcd_debugging_lease_renewed_total",
                "The number of renewed leases seen by the leader.",
            ),
            expired: maker
                .counter("etcd_debugging_server_lease_expired_total", "The total number of expired leases."),
        }
    }

    pub(super) fn refresh(&self, leases: LeaseFigures, health: &Health) {
        self.leases.set(signed(leases.count as u64));
        raise(&self.granted, leases.granted);
        raise(&self.revoked, leases.ended);
        raise(&self.renewed, health.leases_renewed);
        raise(&self.expired, health.leases_expired);
    }
}
