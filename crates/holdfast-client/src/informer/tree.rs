//! An ordered set whose copies share what they have in common: a B+ tree whose nodes are copied when they are written to
//! while another copy still uses them.
//!
//! A copy is a pointer. A write copies the nodes from the root to a leaf that are shared, and none that are not: many
//! writes between two copies cost little more than one. A tree that is built from what is ordered already has full leaves.
//!
//! ```text
//!   old root ──┐                    ┌── new root
//!              ├─► leaf ◄───────────┤
//!              ├─► leaf ◄───────────┤
//!              └─► leaf (before)    └─► leaf (after)
//! ```

use std::cmp::Ordering;
use std::iter::FusedIterator;
use std::sync::Arc;

/// The most elements of a leaf, and children of a branch.
const NODE_MAX: usize = 64;
/// A node with fewer is joined with one beside it, if both together stay well below the most.
const NODE_MIN: usize = NODE_MAX / 4;
const JOINED_MAX: usize = NODE_MAX * 3 / 4;

/// Elements in their order, each once. Cloning it is cheap, and clones do not see each other's writes.
#[derive(Debug)]
pub(super) struct Tree<E> {
    root: Option<Arc<Node<E>>>,
    len: usize,
}

/// Never empty.
#[derive(Debug, Clone)]
enum Node<E> {
    Leaf(Vec<E>),
    Branch(Vec<Child<E>>),
}

#[derive(Debug)]
struct Child<E> {
    /// The first element below it.
    first: E,
    node: Arc<Node<E>>,
}

impl<E: Clone> Clone for Child<E> {
    fn clone(&self) -> Self {
        Self { first: self.first.clone(), node: Arc::clone(&self.node) }
    }
}

impl<E> Clone for Tree<E> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<E> Tree<E> {
    pub(super) const EMPTY: Self = Self { root: None, len: 0 };

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The element of which `order` says that it is the one; `order` tells how an element stands to it.
    pub(super) fn get(&self, order: impl Fn(&E) -> Ordering) -> Option<&E> {
        let mut node = self.root.as_ref()?;
        loop {
            match &**node {
                Node::Leaf(elements) => {
                    return elements.binary_search_by(&order).ok().map(|at| &elements[at]);
                }
                Node::Branch(children) => {
                    let behind = children.partition_point(|child| order(&child.first).is_le());
                    node = &children[behind.checked_sub(1)?].node;
                }
            }
        }
    }

    /// All elements.
    pub(super) fn iter(&self) -> Iter<'_, E> {
        self.from(|_| Ordering::Greater)
    }

    /// The elements from the first on that `order` does not say to be less than what is looked for.
    pub(super) fn from(&self, order: impl Fn(&E) -> Ordering) -> Iter<'_, E> {
        let mut iter = Iter { branches: Vec::new(), leaf: [].iter() };
        let Some(mut node) = self.root.as_deref() else { return iter };
        loop {
            match node {
                Node::Leaf(elements) => {
                    let start = elements.partition_point(|element| order(element).is_lt());
                    iter.leaf = elements[start..].iter();
                    return iter;
                }
                Node::Branch(children) => {
                    let behind = children.partition_point(|child| order(&child.first).is_lt());
                    let at = behind.saturating_sub(1);
                    iter.branches.push(children[at + 1..].iter());
                    node = &children[at].node;
                }
            }
        }
    }
}

impl<E: Ord + Clone> Tree<E> {
    /// Of elements that ascend.
    pub(super) fn from_ascending(elements: impl IntoIterator<Item = E>) -> Self {
        let mut elements = elements.into_iter();
        let mut len = 0;
        let mut level = Vec::new();
        loop {
            let leaf: Vec<E> = elements.by_ref().take(NODE_MAX).collect();
            let Some(first) = leaf.first().cloned() else { break };
            debug_assert!(leaf.is_sorted_by(|a, b| a < b), "elements ascend");
            len += leaf.len();
            level.push(Child { first, node: Arc::new(Node::Leaf(leaf)) });
        }
        while level.len() > 1 {
            level = branches(level);
        }
        Self { root: level.pop().map(|child| child.node), len }
    }

    /// Puts an element in the place of its equal, which is given back, or between its neighbours.
    pub(super) fn insert(&mut self, element: E) -> Option<E> {
        let Some(root) = &mut self.root else {
            self.root = Some(Arc::new(Node::Leaf(vec![element])));
            self.len = 1;
            return None;
        };
        let (replaced, split) = insert(root, element);
        if let Some(right) = split {
            let left = Child { first: root.first().clone(), node: Arc::clone(root) };
            *root = Arc::new(Node::Branch(vec![left, right]));
        }
        self.len += usize::from(replaced.is_none());
        replaced
    }

    /// Takes the element out of which `order` says that it is the one.
    pub(super) fn remove(&mut self, order: impl Fn(&E) -> Ordering) -> Option<E> {
        // Nothing is copied for what is not there.
        self.get(&order)?;
        let root = self.root.as_mut()?;
        let removed = remove(root, &order)?;
        self.len -= 1;
        while let Node::Branch(children) = &**root
            && let [only] = children.as_slice()
        {
            *root = Arc::clone(&only.node);
        }
        if self.len == 0 {
            self.root = None;
        }
        Some(removed)
    }
}

/// One level above these.
fn branches<E: Clone>(level: Vec<Child<E>>) -> Vec<Child<E>> {
    let mut children = level.into_iter();
    let mut above = Vec::new();
    loop {
        let branch: Vec<Child<E>> = children.by_ref().take(NODE_MAX).collect();
        let Some(first) = branch.first().map(|child| child.first.clone()) else { return above };
        above.push(Child { first, node: Arc::new(Node::Branch(branch)) });
    }
}

impl<E> Node<E> {
    fn first(&self) -> &E {
        match self {
            Self::Leaf(elements) => &elements[0],
            Self::Branch(children) => &children[0].first,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Leaf(elements) => elements.len(),
            Self::Branch(children) => children.len(),
        }
    }
}

/// What was replaced, and the right half of a node that became too large.
fn insert<E: Ord + Clone>(node: &mut Arc<Node<E>>, element: E) -> (Option<E>, Option<Child<E>>) {
    match Arc::make_mut(node) {
        Node::Leaf(elements) => match elements.binary_search(&element) {
            Ok(at) => (Some(std::mem::replace(&mut elements[at], element)), None),
            Err(at) => {
                elements.insert(at, element);
                let split = (elements.len() > NODE_MAX).then(|| {
                    let right = elements.split_off(elements.len() / 2);
                    Child { first: right[0].clone(), node: Arc::new(Node::Leaf(right)) }
                });
                (None, split)
            }
        },
        Node::Branch(children) => {
            let at = children.partition_point(|child| child.first <= element).saturating_sub(1);
            let child = &mut children[at];
            let (replaced, split) = insert(&mut child.node, element);
            // What was replaced is equal, and still another element.
            child.first = child.node.first().clone();
            let Some(right) = split else { return (replaced, None) };
            children.insert(at + 1, right);
            let split = (children.len() > NODE_MAX).then(|| {
                let right = children.split_off(children.len() / 2);
                Child { first: right[0].first.clone(), node: Arc::new(Node::Branch(right)) }
            });
            (replaced, split)
        }
    }
}

/// May leave the node empty.
fn remove<E: Clone>(node: &mut Arc<Node<E>>, order: &impl Fn(&E) -> Ordering) -> Option<E> {
    match Arc::make_mut(node) {
        Node::Leaf(elements) => {
            let at = elements.binary_search_by(order).ok()?;
            Some(elements.remove(at))
        }
        Node::Branch(children) => {
            let behind = children.partition_point(|child| order(&child.first).is_le());
            let at = behind.checked_sub(1)?;
            let child = &mut children[at];
            let removed = remove(&mut child.node, order)?;
            if child.node.len() == 0 {
                children.remove(at);
                return Some(removed);
            }
            child.first = child.node.first().clone();
            if child.node.len() < NODE_MIN {
                join(children, at);
            }
            Some(removed)
        }
    }
}

/// Joins a small child with one beside it, when both are not too large together.
fn join<E: Clone>(children: &mut Vec<Child<E>>, at: usize) {
    let left = if at + 1 < children.len() { at } else { at.saturating_sub(1) };
    let Some(right) = children.get(left + 1) else { return };
    if children[left].node.len() + right.node.len() > JOINED_MAX {
        return;
    }
    let right = Arc::unwrap_or_clone(children.remove(left + 1).node);
    match (Arc::make_mut(&mut children[left].node), right) {
        (Node::Leaf(elements), Node::Leaf(mut behind)) => elements.append(&mut behind),
        (Node::Branch(children), Node::Branch(mut behind)) => children.append(&mut behind),
        (Node::Leaf(_), Node::Branch(_)) | (Node::Branch(_), Node::Leaf(_)) => {
            unreachable!("all leaves are on one level")
        }
    }
}

/// Elements in their order.
pub(super) struct Iter<'a, E> {
    /// What is left of each branch on the way to the leaf.
    branches: Vec<std::slice::Iter<'a, Child<E>>>,
    leaf: std::slice::Iter<'a, E>,
}

impl<'a, E> Iterator for Iter<'a, E> {
    type Item = &'a E;

    fn next(&mut self) -> Option<&'a E> {
        loop {
            if let Some(element) = self.leaf.next() {
                return Some(element);
            }
            let child = loop {
                match self.branches.last_mut()?.next() {
                    Some(child) => break child,
                    None => {
                        self.branches.pop();
                    }
                }
            };
            let mut node = &*child.node;
            while let Node::Branch(children) = node {
                let mut rest = children.iter();
                node = &rest.next().expect("no node is empty").node;
                self.branches.push(rest);
            }
            if let Node::Leaf(elements) = node {
                self.leaf = elements.iter();
            }
        }
    }
}

impl<E> FusedIterator for Iter<'_, E> {}

#[cfg(test)]
pub(crate) mod tests;
