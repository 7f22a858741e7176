//! The tree against a plain list, and its own promises: order, balance, furthest ends, short walks.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{End, Link, Span, Spans, height};
use crate::interests::InterestId;

/// Height, and the furthest end, as they should be; checks order and balance on the way.
fn check(link: &Link, all: &mut Vec<Span>) -> (u32, Option<End>) {
    let Some(node) = link else { return (0, None) };
    let (left, furthest_left) = check(&node.left, all);
    all.push(node.span.clone());
    let (right, furthest_right) = check(&node.right, all);
    assert!(left.abs_diff(right) <= 1, "balanced");
    assert_eq!(node.height, 1 + left.max(right));
    let furthest = [furthest_left, furthest_right, Some(node.span.end.clone())].into_iter().flatten().max();
    assert_eq!(Some(&node.furthest), furthest.as_ref());
    (node.height, furthest)
}

fn key(number: u8) -> Bytes {
    Bytes::from(vec![b'a' + number / 8, b'a' + number % 8])
}

fn span() -> impl Strategy<Value = Span> {
    (0..40_u8, prop_oneof![1 => Just(None), 9 => (0..40_u8).prop_map(Some)]).prop_map(|(start, end)| Span {
        start: key(start),
        end: end.map_or(End::Unbounded, |end| End::Before(key(end))),
    })
}

proptest! {
    #[test]
    fn finds_what_a_list_finds(steps in prop::collection::vec((span(), any::<bool>()), 1..200), probe in 0..41_u8) {
        let mut tree = Spans::default();
        let mut list: BTreeMap<Span, InterestId> = BTreeMap::new();
        for (at, (span, is_removed)) in steps.into_iter().enumerate() {
            if is_removed || list.contains_key(&span) {
                // Removes the next one that is there, so that many removals hit.
                if let Some((span, _)) = list.range(span..).next().map(|(span, id)| (span.clone(), *id)) {
                    list.remove(&span);
                    tree.remove(&span);
                }
            } else {
                list.insert(span.clone(), InterestId::new(at));
                tree.insert(span, InterestId::new(at));
            }
            let mut all = Vec::new();
            check(&tree.root, &mut all);
            prop_assert!(all.iter().eq(list.keys()), "in order, and the same");
        }
        let probe = key(probe);
        let mut found = Vec::new();
        let visited = tree.holding(&probe, &mut |id| found.push(id));
        let holds = |span: &Span| span.start <= probe && span.end.is_beyond(&probe);
        let expected: Vec<_> = list.iter().filter(|(span, _)| holds(span)).map(|(_, id)| *id).collect();
        let paths = u64::try_from(expected.len()).unwrap() + 1;
        prop_assert_eq!(found, expected);
        prop_assert!(visited <= paths * 2 * u64::from(height(&tree.root)), "{} nodes", visited);
        for (span, id) in &list {
            prop_assert_eq!(tree.get(span), Some(*id));
        }
    }
}

/// A plain tree would be a list here.
#[test]
fn ascending_spans_make_a_low_tree() {
    let mut tree = Spans::default();
    for at in 0..10_000_u32 {
        let start = Bytes::copy_from_slice(&at.to_be_bytes());
        let end = End::Before(Bytes::copy_from_slice(&(at + 1).to_be_bytes()));
        tree.insert(Span { start, end }, InterestId::new(at as usize));
    }
    assert!(height(&tree.root) <= 20, "1.44 times the logarithm: {}", height(&tree.root));
    let mut found = Vec::new();
    let visited = tree.holding(&7_000_u32.to_be_bytes(), &mut |id| found.push(id));
    assert_eq!(found, [InterestId::new(7_000)]);
    assert!(visited <= 40, "{visited} nodes of 10000");
}
