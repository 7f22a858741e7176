//! Leases that objects share: one for all that are put within a short while, instead of one each.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::client::Client;
use crate::codec::LeaseId;
use crate::error::Error;
use crate::lease::new_id;

/// A lease takes objects at most so long.
const REUSE_MAX: Duration = Duration::from_secs(60);
/// Or for this part of the time that they are to live, if that is less.
const REUSE_PART: u32 = 20;
/// And at most so many of them: all end at once.
const OBJECTS_MAX: u32 = 1_000;
/// Times to live for which a lease is remembered.
const TTLS_MAX: usize = 64;

/// The leases that still take objects, by the time that these are to live.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// Held while a lease is granted, so that of many who need one, one asks.
    open: Mutex<BTreeMap<Duration, Open>>,
}

/// A lease that takes objects.
#[derive(Debug, Clone, Copy)]
struct Open {
    id: LeaseId,
    until: Instant,
    objects: u32,
}

fn reuse(ttl: Duration) -> Duration {
    (ttl / REUSE_PART).min(REUSE_MAX)
}

/// How long a lease lives that takes objects to live so long. Of what is longer than there is the cluster says so.
fn granted(ttl: Duration) -> Duration {
    ttl.saturating_add(reuse(ttl))
}

/// Where an object goes that is to live so long, if there is a lease for it.
fn take(open: &mut BTreeMap<Duration, Open>, ttl: Duration, now: Instant) -> Option<LeaseId> {
    let lease = open.get_mut(&ttl).filter(|lease| lease.objects < OBJECTS_MAX && now < lease.until)?;
    lease.objects += 1;
    Some(lease.id)
}

impl Leases {
    /// A lease on which an object lives at least so long. It is not kept alive: it ends by itself.
    ///
    /// Errors: those of the grant. After [`Error::Unknown`] a lease without objects may be there, until it ends.
    pub(super) async fn for_object(&self, client: &Client, ttl: Duration) -> Result<LeaseId, Error> {
        let mut open = self.open.lock().await;
        let asked = Instant::now();
        if let Some(id) = take(&mut open, ttl, asked) {
            return Ok(id);
        }
        let id = new_id();
        client.grant(id, granted(ttl)).await?;
        open.retain(|_, lease| asked < lease.until);
        if open.len() < TTLS_MAX {
            // Counted from before the grant: the last object that is taken lives as long as it is to.
            open.insert(ttl, Open { id, until: asked + reuse(ttl), objects: 1 });
        }
        Ok(id)
    }

    /// The lease is gone: nothing is put on it any more.
    pub(super) async fn forget(&self, id: LeaseId) {
        self.open.lock().await.retain(|_, lease| lease.id != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AW10: 100,000 objects that live an hour need 100 leases, and one more for each minute.
    #[test]
    fn aw10_a_lease_takes_a_thousand_objects_and_no_more_than_a_minute() {
        let (start, ttl) = (Instant::now(), Duration::from_secs(3_600));
        let (mut open, mut granted) = (BTreeMap::new(), 0_i64);
        for object in 0..100_000_u32 {
            // Two minutes in all.
            let now = start + Duration::from_micros(1_200) * object;
            if take(&mut open, ttl, now).is_none() {
                granted += 1;
                open.insert(ttl, Open { id: LeaseId(granted), until: now + reuse(ttl), objects: 1 });
            }
        }
        assert!(granted <= 102, "{granted}");
        assert_eq!(reuse(ttl), Duration::from_secs(60));
        assert_eq!(reuse(Duration::from_secs(100)), Duration::from_secs(5));
        let late = start + Duration::from_secs(200);
        assert_eq!(take(&mut open, ttl, late), None, "its time is over");
    }

    #[test]
    fn a_lease_lives_longer_than_its_objects_if_there_is_such_a_time() {
        assert_eq!(granted(Duration::from_secs(3_600)), Duration::from_secs(3_660));
        assert_eq!(granted(Duration::MAX), Duration::MAX);
    }
}
