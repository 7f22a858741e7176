//! Judges a list that elements are appended to: what was acknowledged stays, in one order, once; a read shows a beginning
//! of that order, with all that had been acknowledged before it was called.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

/// An element that was to be appended. Each is tried once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Append {
    /// The element.
    pub element: u64,
    /// What came of it: `Some(true)` it is there, `Some(false)` it is not, `None` nobody knows.
    pub outcome: Option<bool>,
    /// When that was known, since the run began.
    pub ended: Duration,
}

/// A read of the whole list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// When it was called.
    pub began: Duration,
    /// What it showed.
    pub elements: Vec<u64>,
}

/// Something that must not be.
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// An acknowledged element is not there in the end.
    Lost { element: u64 },
    /// One is there that nobody appended, or that was refused.
    Phantom { element: u64 },
    /// One is there twice.
    Repeated { element: u64 },
    /// A read shows another order, or something that is gone in the end.
    OtherOrder { element: u64 },
    /// A read does not show an element that was acknowledged before it.
    Stale { element: u64 },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { element } => write!(f, "element {element} is lost"),
            Self::Phantom { element } => write!(f, "element {element} comes from nowhere"),
            Self::Repeated { element } => write!(f, "element {element} is there twice"),
            Self::OtherOrder { element } => {
                write!(f, "a read showed element {element} where it is not in the end")
            }
            Self::Stale { element } => {
                write!(f, "a read did not show element {element}, acknowledged before")
            }
        }
    }
}

/// Judges one list; `end` is what it is when nobody appends any more.
pub fn judge(appends: &[Append], reads: &[Read], end: &[u64]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let outcomes: HashMap<u64, Option<bool>> =
        appends.iter().map(|append| (append.element, append.outcome)).collect();
    let mut places: BTreeMap<u64, usize> = BTreeMap::new();
    for (place, element) in end.iter().copied().enumerate() {
        if places.insert(element, place).is_some() {
            findings.push(Finding::Repeated { element });
        }
        if matches!(outcomes.get(&element), None | Some(Some(false))) {
            findings.push(Finding::Phantom { element });
        }
    }
    let acked = || appends.iter().filter(|append| append.outcome == Some(true));
    let lost = acked().filter(|append| !places.contains_key(&append.element));
    findings.extend(lost.map(|append| Finding::Lost { element: append.element }));
    for read in reads {
        let differs = read.elements.iter().zip(end.iter().map(Some).chain(std::iter::repeat(None)));
        let differs = differs.into_iter().find(|(shown, held)| Some(*shown) != *held);
        findings.extend(differs.map(|(element, _)| Finding::OtherOrder { element: *element }));
        // A beginning of the list holds an element if it is long enough.
        let missed = acked()
            .filter(|append| append.ended < read.began)
            .find(|append| places.get(&append.element).is_some_and(|place| *place >= read.elements.len()));
        findings.extend(missed.map(|append| Finding::Stale { element: append.element }));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(element: u64, outcome: Option<bool>) -> Append {
        Append { element, outcome, ended: Duration::from_secs(element) }
    }

    fn read(began: u64, elements: &[u64]) -> Read {
        Read { began: Duration::from_secs(began), elements: elements.to_vec() }
    }

    #[test]
    fn a_sound_list_passes() {
        let appends = [append(1, Some(true)), append(2, None), append(3, Some(false)), append(4, Some(true))];
        let reads = [read(0, &[]), read(2, &[1]), read(9, &[1, 2, 4])];
        assert_eq!(judge(&appends, &reads, &[1, 2, 4]), []);
        assert_eq!(judge(&appends, &[read(2, &[1])], &[1, 4]), []);
    }

    #[test]
    fn what_is_lost_repeated_or_from_nowhere_is_found() {
        let appends = [append(1, Some(true)), append(3, Some(false))];
        assert_eq!(judge(&appends, &[], &[]), [Finding::Lost { element: 1 }]);
        assert_eq!(judge(&appends, &[], &[1, 1]), [Finding::Repeated { element: 1 }]);
        assert_eq!(judge(&appends, &[], &[1, 3]), [Finding::Phantom { element: 3 }]);
        assert_eq!(judge(&appends, &[], &[1, 7]), [Finding::Phantom { element: 7 }]);
    }

    #[test]
    fn reads_of_another_order_and_of_the_past_are_found() {
        let appends = [append(1, Some(true)), append(2, Some(true))];
        assert_eq!(judge(&appends, &[read(1, &[2])], &[1, 2]), [Finding::OtherOrder { element: 2 }]);
        assert_eq!(judge(&appends, &[read(3, &[1])], &[1, 2]), [Finding::Stale { element: 2 }]);
    }
}
