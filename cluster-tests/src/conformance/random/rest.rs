//! Random calls of the rest of the contract: locks, elections, members and maintenance.
//!
//! No call waits: each lock and each election is another, so that whoever asks is alone.

use rand::RngExt;

use super::Calls;

/// Calls for these, of a hundred.
pub(super) const REST_PERCENT: u32 = 4;

/// The locks and elections that were asked for.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Names, with the lease that was named.
    taken: Vec<(String, i64)>,
    asked: u32,
}

impl Calls {
    pub(super) fn rest_call(&mut self) -> String {
        match self.rng.random_range(0..100) {
            0..22 => {
                let (name, lease) = self.place("L");
                format!("Lock name: \"{name}\" lease: {lease}")
            }
            22..34 => format!("Unlock key: \"{}\"", self.place_key()),
            34..52 => {
                let (name, lease) = self.place("E");
                format!("Campaign name: \"{name}\" lease: {lease} value: \"{}\"", self.values)
            }
            52..64 => format!("Proclaim {} value: \"{}\"", self.leader(), self.values),
            64..76 => format!("Leader name: \"{}\"", self.place_name()),
            76..86 => format!("Resign {}", self.leader()),
            86..89 => "MemberList".to_owned(),
            89..91 => "MemberList linearizable: true".to_owned(),
            91..94 => "Alarm action: GET".to_owned(),
            94..96 => "Status".to_owned(),
            96..98 => "Hash".to_owned(),
            _ => "Defragment".to_owned(),
        }
    }

    /// A new name, and a lease that there may be.
    fn place(&mut self, kind: &str) -> (String, i64) {
        self.places.asked += 1;
        let place = (format!("{kind}{}", self.places.asked), self.lease());
        self.places.taken.push(place.clone());
        place
    }

    /// One that was taken, of late mostly.
    fn taken(&mut self) -> (String, i64) {
        let taken = &self.places.taken;
        let back = self.rng.random_range(1..=4.min(taken.len().max(1)));
        let place = taken.len().checked_sub(back).and_then(|at| taken.get(at));
        place.cloned().unwrap_or_else(|| ("none".to_owned(), 1))
    }

    fn place_name(&mut self) -> String {
        self.taken().0
    }

    /// The key of who has it.
    fn place_key(&mut self) -> String {
        let (name, lease) = self.taken();
        let sign = if lease < 0 { "-" } else { "" };
        format!("{name}/{sign}{:x}", lease.unsigned_abs())
    }

    fn leader(&mut self) -> String {
        let (name, lease) = self.taken();
        let sign = if lease < 0 { "-" } else { "" };
        let back = self.rng.random_range(0..3);
        format!(
            "leader {{ name: \"{name}\" key: \"{name}/{sign}{:x}\" rev: @head-{back} lease: {lease} }}",
            lease.unsigned_abs()
        )
    }
}
