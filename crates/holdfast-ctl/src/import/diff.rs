//! Two clusters side by side, in the order of their keys: pure but for the pages that are asked for.
//!
//! Both are read in pages, and no more than a page of each is held. What is the same on both sides costs nothing but its
//! reading, so that one way serves a first copy, a target that was restored from a snapshot, a copy that was cut off, and
//! the comparison at the switch.

use std::collections::VecDeque;

use holdfast_proto::mvccpb::KeyValue;

use super::fault::{Fault, Side};
use super::pages::Pages;

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// A key that only the source has.
    Source(KeyValue),
    /// A key that only the target has.
    Target(KeyValue),
    /// A key of both, the source's first.
    Both(KeyValue, KeyValue),
}

/// What the merge of two sorted streams says.
#[derive(Debug, PartialEq)]
enum Merged {
    /// What comes next.
    Step(Step),
    /// It cannot know before it has the next page of this one.
    Wants(Side),
    /// Both have ended.
    End,
}

/// One of the two streams.
#[derive(Debug, Default)]
struct Sorted {
    page: VecDeque<KeyValue>,
    has_ended: bool,
}

/// Merges two streams of pairs that ascend.
#[derive(Debug, Default)]
struct Merge {
    source: Sorted,
    target: Sorted,
}

impl Merge {
    /// The next page of one of them; `None` when it has ended.
    fn page(&mut self, side: Side, page: Option<Vec<KeyValue>>) {
        let sorted = match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        };
        match page {
            Some(page) => sorted.page.extend(page),
            None => sorted.has_ended = true,
        }
    }

    fn next(&mut self) -> Merged {
        for (sorted, side) in [(&self.source, Side::Source), (&self.target, Side::Target)] {
            if sorted.page.is_empty() && !sorted.has_ended {
                return Merged::Wants(side);
            }
        }
        let (source, target) = (self.source.page.front(), self.target.page.front());
        let (takes_source, takes_target) = match (source, target) {
            (None, None) => return Merged::End,
            (Some(_), None) => (true, false),
            (None, Some(_)) => (false, true),
            (Some(source), Some(target)) => (source.key <= target.key, target.key <= source.key),
        };
        let source = takes_source.then(|| self.source.page.pop_front()).flatten();
        let target = takes_target.then(|| self.target.page.pop_front()).flatten();
        match (source, target) {
            (Some(source), Some(target)) => Merged::Step(Step::Both(source, target)),
            (Some(source), None) => Merged::Step(Step::Source(source)),
            (None, Some(target)) => Merged::Step(Step::Target(target)),
            (None, None) => Merged::End,
        }
    }
}

/// Two clusters side by side.
#[derive(Debug)]
pub(crate) struct Diff {
    merge: Merge,
    source: Pages,
    target: Pages,
}

impl Diff {
    /// Of all keys of these pages.
    pub(crate) fn new(source: Pages, target: Pages) -> Self {
        Self { merge: Merge::default(), source, target }
    }

    /// The next key, ascending; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Step>, Fault> {
        loop {
            match self.merge.next() {
                Merged::Step(step) => return Ok(Some(step)),
                Merged::End => return Ok(None),
                Merged::Wants(side) => {
                    let pages = match side {
                        Side::Source => &mut self.source,
                        Side::Target => &mut self.target,
                    };
                    let page = pages.next().await?;
                    self.merge.page(side, page);
                }
            }
        }
    }
}

/// Whether two pairs are the same for clients, revisions left out: those differ between clusters.
pub(crate) fn is_same(source: &KeyValue, target: &KeyValue) -> bool {
    source.value == target.value && source.lease == target.lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(keys: &[&str]) -> Option<Vec<KeyValue>> {
        let pair = |key: &&str| KeyValue { key: (*key).to_owned().into(), ..KeyValue::default() };
        Some(keys.iter().map(pair).collect())
    }

    /// Merges pages, of one stream after the other as they are asked for; what comes out as text.
    fn merged(source: &[&[&str]], target: &[&[&str]]) -> Vec<String> {
        let (mut merge, mut said) = (Merge::default(), Vec::new());
        let (mut source, mut target) = (source.iter(), target.iter());
        loop {
            let name = |kv: &KeyValue| String::from_utf8_lossy(&kv.key).into_owned();
            match merge.next() {
                Merged::End => return said,
                Merged::Wants(Side::Source) => {
                    merge.page(Side::Source, source.next().and_then(|page| pairs(page)));
                }
                Merged::Wants(Side::Target) => {
                    merge.page(Side::Target, target.next().and_then(|page| pairs(page)));
                }
                Merged::Step(Step::Source(kv)) => said.push(format!("<{}", name(&kv))),
                Merged::Step(Step::Target(kv)) => said.push(format!(">{}", name(&kv))),
                Merged::Step(Step::Both(a, b)) => {
                    assert_eq!(a.key, b.key);
                    said.push(name(&a));
                }
            }
        }
    }

    #[test]
    fn each_key_comes_once_wherever_pages_end() {
        let expected = ["a", "<b", "c", ">d", "e", "<f"];
        let source = ["a", "b", "c", "e", "f"];
        let target = ["a", "c", "d", "e"];
        for (first, second) in (1..source.len()).flat_map(|n| (1..target.len()).map(move |m| (n, m))) {
            let source: Vec<&[&str]> = source.chunks(first).collect();
            let target: Vec<&[&str]> = target.chunks(second).collect();
            assert_eq!(merged(&source, &target), expected);
        }
    }

    #[test]
    fn one_of_them_may_be_empty() {
        assert_eq!(merged(&[&["a"], &["b"]], &[]), ["<a", "<b"]);
        assert_eq!(merged(&[], &[&["a", "b"]]), [">a", ">b"]);
        assert_eq!(merged(&[], &[]), [] as [&str; 0]);
        // A page may be empty and not the last: all of it was left out.
        assert_eq!(merged(&[&[], &["a"]], &[&[]]), ["<a"]);
    }

    #[test]
    fn revisions_do_not_count() {
        let one = KeyValue { value: "v".into(), mod_revision: 4, ..KeyValue::default() };
        let other = KeyValue { mod_revision: 9, version: 2, ..one.clone() };
        assert!(is_same(&one, &other));
        assert!(!is_same(&one, &KeyValue { lease: 7, ..one.clone() }));
        assert!(!is_same(&one, &KeyValue { value: "w".into(), ..one.clone() }));
    }
}
