//! Ranges of keys in a balanced tree that finds those that hold a key.
//!
//! An AVL tree by (start, end), each range once. Each node also knows the furthest end in its subtree:
//!
//! ```text
//!                  [d, f) →z              a key at or beyond →x: nothing in the subtree holds it
//!                 /        \              a key below a node's start: nothing to the right of it holds it
//!         [a, z) →z       [e, g) →g
//! ```
//! Everything left of a node starts at or before it. So where a walk goes on in a left subtree because of its furthest
//! end, and the node's start is not above the key, the subtree holds a range with the key: a walk that finds m ranges
//! visits at most (m + 1) paths, O((m + 1) log n).

use std::cmp::Ordering;

use bytes::Bytes;

use crate::interests::InterestId;

/// A range of keys; empty when the end is not beyond the start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) start: Bytes,
    pub(crate) end: End,
}

/// Where a span ends; the order of the variants is the order of the ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// Before this key.
    Before(Bytes),
    /// Nowhere.
    Unbounded,
}

/// The spans, each with the interest it stands for.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    root: Link,
}

type Link = Option<Box<Node>>;

#[derive(Debug)]
struct Node {
    span: Span,
    interest: InterestId,
    /// Of the subtree; a leaf has 1.
    height: u32,
    /// The furthest end in the subtree.
    furthest: End,
    left: Link,
    right: Link,
}

impl End {
    fn is_beyond(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end.as_ref(),
            Self::Unbounded => true,
        }
    }
}

impl Spans {
    /// The interest of exactly this span.
    pub(crate) fn get(&self, span: &Span) -> Option<InterestId> {
        let mut link = &self.root;
        while let Some(node) = link {
            link = match span.cmp(&node.span) {
                Ordering::Less => &node.left,
                Ordering::Greater => &node.right,
                Ordering::Equal => return Some(node.interest),
            };
        }
        None
    }

    /// Adds a span that is not there yet.
    pub(crate) fn insert(&mut self, span: Span, interest: InterestId) {
        let furthest = span.end.clone();
        let new = Box::new(Node { span, interest, height: 1, furthest, left: None, right: None });
        self.root = Some(insert(self.root.take(), new));
    }

    /// Removes a span that is there.
    pub(crate) fn remove(&mut self, span: &Span) {
        self.root = remove(self.root.take(), span);
    }

    /// Gives `found` each span that holds the key, ascending; returns how many nodes it looked at.
    pub(crate) fn holding(&self, key: &[u8], found: &mut impl FnMut(InterestId)) -> u64 {
        holding(&self.root, key, found)
    }
}

fn holding(link: &Link, key: &[u8], found: &mut impl FnMut(InterestId)) -> u64 {
    let Some(node) = link else { return 0 };
    if !node.furthest.is_beyond(key) {
        return 1;
    }
    let mut visited = 1 + holding(&node.left, key, found);
    if node.span.start.as_ref() <= key {
        if node.span.end.is_beyond(key) {
            found(node.interest);
        }
        visited += holding(&node.right, key, found);
    }
    visited
}

fn insert(link: Link, new: Box<Node>) -> Box<Node> {
    let Some(mut node) = link else { return new };
    match new.span.cmp(&node.span) {
        Ordering::Less => node.left = Some(insert(node.left.take(), new)),
        Ordering::Greater => node.right = Some(insert(node.right.take(), new)),
        Ordering::Equal => unreachable!("each span is held once"),
    }
    balance(node)
}

fn remove(link: Link, span: &Span) -> Link {
    let mut node = link.expect("a span that is removed is there");
    match span.cmp(&node.span) {
        Ordering::Less => node.left = remove(node.left.take(), span),
        Ordering::Greater => node.right = remove(node.right.take(), span),
        Ordering::Equal => return join(node.left.take(), node.right.take()),
    }
    Some(balance(node))
}

/// One tree of two whose heights differ by at most one, all of `left` before all of `right`.
fn join(left: Link, right: Link) -> Link {
    let Some(right) = right else { return left };
    let (mut first, rest) = take_first(right);
    first.left = left;
    first.right = rest;
    Some(balance(first))
}

fn take_first(mut node: Box<Node>) -> (Box<Node>, Link) {
    match node.left.take() {
        None => {
            let rest = node.right.take();
            (node, rest)
        }
        Some(left) => {
            let (first, rest) = take_first(left);
            node.left = rest;
            (first, Some(balance(node)))
        }
    }
}

fn height(link: &Link) -> u32 {
    link.as_ref().map_or(0, |node| node.height)
}

/// Recomputes what a node knows of its subtree.
fn refresh(node: &mut Node) {
    node.height = 1 + height(&node.left).max(height(&node.right));
    let below = [&node.left, &node.right].into_iter().flatten().map(|child| &child.furthest);
    let furthest = below.fold(&node.span.end, |furthest, end| furthest.max(end));
    node.furthest = furthest.clone();
}

/// Makes the heights of the two sides, which differ by at most two, differ by at most one.
fn balance(mut node: Box<Node>) -> Box<Node> {
    let (left, right) = (height(&node.left), height(&node.right));
    assert!(left.abs_diff(right) <= 2, "one change unbalances a tree by one");
    if left > right + 1 {
        let child = node.left.take().expect("the higher side is not empty");
        let is_inner_higher = height(&child.right) > height(&child.left);
        node.left = Some(if is_inner_higher { rotate_left(child) } else { child });
        rotate_right(node)
    } else if right > left + 1 {
        let child = node.right.take().expect("the higher side is not empty");
        let is_inner_higher = height(&child.left) > height(&child.right);
        node.right = Some(if is_inner_higher { rotate_right(child) } else { child });
        rotate_left(node)
    } else {
        refresh(&mut node);
        node
    }
}

fn rotate_left(mut node: Box<Node>) -> Box<Node> {
    let mut up = node.right.take().expect("a left rotation has a right child");
    node.right = up.left.take();
    refresh(&mut node);
    up.left = Some(node);
    refresh(&mut up);
    up
}

fn rotate_right(mut node: Box<Node>) -> Box<Node> {
    let mut up = node.left.take().expect("a right rotation has a left child");
    node.left = up.right.take();
    refresh(&mut node);
    up.right = Some(node);
    refresh(&mut up);
    up
}

#[cfg(test)]
mod tests;
