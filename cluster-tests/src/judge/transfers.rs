//! Judges accounts between which money is moved: at every revision all of them together hold what they held at first, and
//! one revision has one state.

use std::collections::HashMap;
use std::fmt;

/// All accounts as one read showed them, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balances {
    /// The revision that was read.
    pub revision: i64,
    /// What they hold.
    pub balances: Vec<i64>,
}

/// Something that must not be.
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Money came or went.
    Total { revision: i64, total: i64, expected: i64 },
    /// Two reads of one revision differ.
    TwoStates { revision: i64 },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total { revision, total, expected } => {
                write!(f, "at {revision} the accounts hold {total}, not {expected}")
            }
            Self::TwoStates { revision } => write!(f, "two reads at {revision} differ"),
        }
    }
}

/// Judges all reads.
pub fn judge(expected: i64, reads: &[Balances]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut known: HashMap<i64, &Vec<i64>> = HashMap::new();
    for Balances { revision, balances } in reads {
        let (revision, total) = (*revision, balances.iter().sum());
        if total != expected {
            findings.push(Finding::Total { revision, total, expected });
        }
        if known.insert(revision, balances).is_some_and(|before| before != balances) {
            findings.push(Finding::TwoStates { revision });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_that_hold_pass_and_others_are_found() {
        let read = |revision, balances: [i64; 2]| Balances { revision, balances: balances.to_vec() };
        assert_eq!(judge(10, &[read(2, [5, 5]), read(2, [5, 5]), read(3, [2, 8])]), []);
        let total = Finding::Total { revision: 3, total: 9, expected: 10 };
        assert_eq!(judge(10, &[read(2, [5, 5]), read(3, [2, 7])]), [total]);
        let states = Finding::TwoStates { revision: 2 };
        assert_eq!(judge(10, &[read(2, [5, 5]), read(2, [4, 6])]), [states]);
    }
}
