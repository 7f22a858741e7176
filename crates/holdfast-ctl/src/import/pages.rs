//! All keys of a cluster at one revision, in pages of about equal bytes.

use std::collections::VecDeque;

use bytes::Bytes;
use holdfast_proto::etcdserverpb::RangeRequest;
use holdfast_proto::mvccpb::KeyValue;
use tonic::Code;

use super::fault::Fault;
use super::flags::{PAGE_KEYS_FIRST, PAGE_KEYS_MAX};
use super::ranges::{KeyRange, Ranges};
use super::remote::Remote;

/// The text of an answer to a read of a revision that is gone.
pub(crate) const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// Reads the keys of some ranges, ascending.
#[derive(Debug)]
pub(crate) struct Pages {
    remote: Remote,
    ranges: Ranges,
    left: VecDeque<KeyRange>,
    /// 0 for the newest at each page.
    revision: i64,
    size: PageSize,
}

impl Pages {
    /// From the first key on; at a revision, or with 0 at the newest for each page.
    pub(crate) fn new(remote: &Remote, ranges: &Ranges, revision: i64, page_bytes: usize) -> Self {
        Self {
            remote: remote.clone(),
            ranges: ranges.clone(),
            left: ranges.list().into(),
            revision,
            size: PageSize { bytes_wanted: page_bytes, keys: PAGE_KEYS_FIRST },
        }
    }

    /// The next page; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, Fault> {
        while let Some(range) = self.left.front_mut() {
            let request = RangeRequest {
                key: range.start.clone(),
                range_end: range.end.clone(),
                limit: self.size.keys,
                revision: self.revision,
                // This member has answered linearizable reads before: it has all that this session may have to see.
                serializable: true,
                ..RangeRequest::default()
            };
            let answer = match self.remote.range(request).await {
                Ok(answer) => answer,
                Err(fault) if fault.says(Code::OutOfRange, COMPACTED) => return Err(Fault::Compacted),
                // gRPC's own: the answer is larger than what is taken.
                Err(fault) if is_too_large(&fault) && self.size.shrink() => continue,
                Err(fault) => return Err(fault),
            };
            let mut pairs = answer.kvs;
            match pairs.last().filter(|_| answer.more) {
                Some(last) => range.start = [&last.key[..], b"\0"].concat().into(),
                None => drop(self.left.pop_front()),
            }
            self.size.learn(&pairs);
            pairs.retain(|kv| self.ranges.cover(&kv.key));
            return Ok(Some(pairs));
        }
        Ok(None)
    }
}

fn is_too_large(fault: &Fault) -> bool {
    fault.status().is_some_and(|status| {
        matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted)
            && !status.message().starts_with("etcdserver: ")
    })
}

/// How many keys the next page has.
#[derive(Debug)]
struct PageSize {
    bytes_wanted: usize,
    keys: i64,
}

impl PageSize {
    /// At most twice as many as before, and as many as would have had the wanted bytes.
    fn learn(&mut self, page: &[KeyValue]) {
        let bytes: usize = page.iter().map(bytes_of).sum();
        let Some(average) = bytes.checked_div(page.len()) else { return };
        let fitting = i64::try_from(self.bytes_wanted / average.max(1)).unwrap_or(PAGE_KEYS_MAX);
        self.keys = fitting.min(self.keys * 2).clamp(1, PAGE_KEYS_MAX);
    }

    /// Half as many; false when it is only one.
    fn shrink(&mut self) -> bool {
        let before = self.keys;
        self.keys = (self.keys / 2).max(1);
        self.keys < before
    }
}

/// Bytes of a pair for who counts them.
pub(crate) fn bytes_of(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len()
}

/// How many keys the ranges have; those of imports themselves are counted.
pub(crate) async fn count(remote: &Remote, ranges: &Ranges, revision: i64) -> Result<u64, Fault> {
    let mut all = 0;
    for KeyRange { start, end } in ranges.list() {
        all += count_range(remote, (start, end), revision).await?;
    }
    Ok(all)
}

/// How many keys a range has.
pub(crate) async fn count_range(
    remote: &Remote,
    (key, range_end): (Bytes, Bytes),
    revision: i64,
) -> Result<u64, Fault> {
    let request = RangeRequest { key, range_end, revision, count_only: true, ..RangeRequest::default() };
    match remote.range(request).await {
        Ok(answer) => Ok(u64::try_from(answer.count).unwrap_or(0)),
        Err(fault) if fault.says(Code::OutOfRange, COMPACTED) => Err(Fault::Compacted),
        Err(fault) => Err(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(keys: usize, bytes: usize) -> Vec<KeyValue> {
        vec![KeyValue { value: Bytes::from(vec![0; bytes]), ..KeyValue::default() }; keys]
    }

    #[test]
    fn pages_grow_slowly_and_shrink_at_once() {
        let mut size = PageSize { bytes_wanted: 1 << 20, keys: 64 };
        size.learn(&page(64, 100));
        assert_eq!(size.keys, 128);
        size.learn(&page(128, 100));
        assert_eq!(size.keys, 256);
        size.learn(&page(256, 100_000));
        assert_eq!(size.keys, 10);
        size.learn(&page(10, 2_000_000));
        assert_eq!(size.keys, 1);
        size.learn(&[]);
        assert_eq!(size.keys, 1);
        assert!(!size.shrink());
        let mut size = PageSize { bytes_wanted: 1 << 20, keys: 3 };
        assert!(size.shrink() && size.keys == 1);
    }
}
