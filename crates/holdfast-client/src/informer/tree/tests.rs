//! The set beside a standard one, and what copies of it share.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

impl<E> Tree<E> {
    /// What its nodes take: of each allocation what was asked for, rounded as usual allocators do.
    pub(crate) fn node_bytes(&self) -> usize {
        fn of<E>(node: &Node<E>) -> usize {
            let own = allocated(size_of::<usize>() * 2 + size_of::<Node<E>>());
            own + match node {
                Node::Leaf(elements) => allocated(elements.capacity() * size_of::<E>()),
                Node::Branch(children) => {
                    let below: usize = children.iter().map(|child| of(&child.node)).sum();
                    allocated(children.capacity() * size_of::<Child<E>>()) + below
                }
            }
        }
        self.root.as_deref().map_or(0, of)
    }

    fn depth_of_leaves(&self) -> BTreeSet<usize> {
        fn visit<E>(node: &Node<E>, depth: usize, found: &mut BTreeSet<usize>) {
            match node {
                Node::Leaf(elements) => {
                    assert!((1..=NODE_MAX).contains(&elements.len()));
                    found.insert(depth);
                }
                Node::Branch(children) => {
                    assert!((1..=NODE_MAX).contains(&children.len()));
                    for child in children {
                        visit(&child.node, depth + 1, found);
                    }
                }
            }
        }
        let mut found = BTreeSet::new();
        if let Some(root) = &self.root {
            visit(root, 0, &mut found);
        }
        found
    }
}

/// What an allocation of so many bytes takes: eight more, in steps of 16.
pub(crate) fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}

fn all(tree: &Tree<u16>) -> Vec<u16> {
    tree.iter().copied().collect()
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u16),
    Remove(u16),
    /// Many at once, so that nodes become small and are joined.
    RemoveBetween(u16, u16),
    Copy,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..3_000_u16).prop_map(Step::Insert),
        3 => (0..3_000_u16).prop_map(Step::Remove),
        1 => (0..3_000_u16, 0..400_u16).prop_map(|(from, count)| Step::RemoveBetween(from, count)),
        1 => Just(Step::Copy),
    ];
    proptest::collection::vec(step, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_tree_is_the_set_it_stands_for_and_copies_stay_as_they_are(
        start in proptest::collection::btree_set(0..3_000_u16, 0..2_000),
        steps in steps(),
    ) {
        let mut tree = Tree::from_ascending(start.iter().copied());
        let mut set = start;
        let mut copies = Vec::new();
        for step in steps {
            match step {
                Step::Insert(n) => prop_assert_eq!(tree.insert(n).is_none(), set.insert(n)),
                Step::Remove(n) => prop_assert_eq!(tree.remove(|e| e.cmp(&n)).is_some(), set.remove(&n)),
                Step::RemoveBetween(from, count) => {
                    for n in from..from + count {
                        prop_assert_eq!(tree.remove(|e| e.cmp(&n)).is_some(), set.remove(&n));
                    }
                }
                Step::Copy => copies.push((tree.clone(), set.clone())),
            }
        }
        copies.push((tree, set));
        for (tree, set) in copies {
            prop_assert_eq!(tree.len(), set.len());
            prop_assert_eq!(all(&tree), set.iter().copied().collect::<Vec<_>>());
            prop_assert!(tree.depth_of_leaves().len() <= 1, "all leaves are on one level");
            for n in (0..3_100).step_by(37) {
                prop_assert_eq!(tree.get(|e| e.cmp(&n)).copied(), set.get(&n).copied());
                let from: Vec<_> = tree.from(|e| e.cmp(&n)).copied().collect();
                prop_assert_eq!(from, set.range(n..).copied().collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn what_takes_the_place_of_an_equal_is_found_everywhere() {
    #[derive(Debug, Clone)]
    struct Named(u32, &'static str);
    impl PartialEq for Named {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }
    impl Eq for Named {}
    impl PartialOrd for Named {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for Named {
        fn cmp(&self, other: &Self) -> Ordering {
            self.0.cmp(&other.0)
        }
    }
    let mut tree = Tree::from_ascending((0..500).map(|n| Named(n, "old")));
    let before = tree.clone();
    for n in 0..500 {
        assert_eq!(tree.insert(Named(n, "new")).map(|named| named.1), Some("old"));
    }
    assert!(tree.iter().all(|named| named.1 == "new"));
    assert!(before.iter().all(|named| named.1 == "old"));
    fn firsts(node: &Node<Named>) -> Vec<&'static str> {
        match node {
            Node::Leaf(_) => vec![],
            Node::Branch(children) => {
                children.iter().flat_map(|c| [vec![c.first.1], firsts(&c.node)].concat()).collect()
            }
        }
    }
    let firsts = firsts(tree.root.as_ref().unwrap());
    assert!(!firsts.is_empty() && firsts.iter().all(|name| *name == "new"), "nothing old is kept alive");
}
