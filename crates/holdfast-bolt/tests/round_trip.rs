//! What is written is read back, and what is damaged is refused without a panic.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::collections::BTreeMap;

use holdfast_bolt::{PAGE_BYTES, ReadError, Reader, WriteError, Writer};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;
type Content = BTreeMap<Vec<u8>, Pairs>;

/// Writes as a caller does: takes what is ready now and then.
fn written(content: &Content) -> Vec<u8> {
    let mut writer = Writer::new();
    let mut file = Vec::new();
    for (name, pairs) in content {
        writer.bucket(name).unwrap();
        for (key, value) in pairs {
            writer.put(key, value).unwrap();
            if writer.ready_bytes() > 3 * PAGE_BYTES {
                file.extend(writer.take());
            }
        }
    }
    file.extend(writer.take());
    let finished = writer.finish().unwrap();
    file.extend(finished.rest);
    file[..finished.metas.len()].copy_from_slice(&finished.metas);
    assert_eq!(file.len() as u64, finished.bytes);
    file
}

/// Everything a reader can be asked.
fn read(file: &[u8]) -> Result<Content, ReadError> {
    let reader = Reader::open(file)?;
    reader.check()?;
    let mut content = Content::new();
    for (name, bucket) in reader.buckets()? {
        let mut pairs = Pairs::new();
        let mut scan = reader.scan(&bucket);
        while let Some(pair) = scan.next()? {
            pairs.insert(pair.key.to_vec(), pair.value.to_vec());
        }
        let last = pairs.last_key_value().map(|(key, value)| (key.clone(), value.clone()));
        assert_eq!(reader.last(&bucket)?, last);
        if let Some((key, value)) = last {
            assert_eq!(reader.value(&bucket, &key)?, Some(value));
        }
        content.insert(name, pairs);
    }
    Ok(content)
}

fn numbered(count: u32, value_bytes: usize) -> Pairs {
    (0..count).map(|n| (n.to_be_bytes().to_vec(), vec![n.to_le_bytes()[0]; value_bytes])).collect()
}

/// A branch that has room for one long key only must take two: otherwise there would be levels without end.
#[test]
fn long_keys_make_a_tree_that_ends() {
    for bytes in [2_500, 3_000, PAGE_BYTES, 32_768] {
        let keys = (0..40_u8).map(|n| ([&[n][..], &vec![b'k'; bytes - 1]].concat(), b"v".to_vec()));
        let content = Content::from([(b"long".to_vec(), keys.collect())]);
        assert_eq!(read(&written(&content)).unwrap(), content, "{bytes}");
    }
}

#[test]
fn an_empty_database_and_empty_buckets() {
    assert_eq!(read(&written(&Content::new())).unwrap(), Content::new());
    let empty: Content = ["alarm", "auth", "key"].map(|name| (name.into(), Pairs::new())).into();
    let file = written(&empty);
    assert_eq!(read(&file).unwrap(), empty);
    assert_eq!(file.len(), 4 * PAGE_BYTES, "metas, root and freelist: empty buckets lie in the root");
}

#[test]
fn trees_of_several_levels_and_values_longer_than_a_page() {
    let long =
        [(b"a".to_vec(), vec![7; 3 * PAGE_BYTES]), (b"b".to_vec(), vec![8; 4000]), (b"c".to_vec(), vec![])];
    let content: Content = [
        (b"deep".to_vec(), numbered(40_000, 20)),
        (b"long".to_vec(), long.into()),
        (b"short".to_vec(), numbered(3, 9)),
    ]
    .into();
    assert_eq!(read(&written(&content)).unwrap(), content);
}

#[test]
fn what_does_not_ascend_is_refused() {
    let mut writer = Writer::new();
    assert_eq!(writer.put(b"k", b""), Err(WriteError::NoBucket));
    writer.bucket(b"b").unwrap();
    writer.put(b"k", b"").unwrap();
    assert_eq!(writer.put(b"k", b""), Err(WriteError::OutOfOrder));
    assert_eq!(writer.put(b"", b""), Err(WriteError::EmptyKey));
    assert_eq!(writer.put(&[1; 40_000], b""), Err(WriteError::TooLong { bytes: 40_000 }));
    assert_eq!(writer.bucket(b"b"), Err(WriteError::OutOfOrder));
    assert_eq!(writer.bucket(b"a"), Err(WriteError::OutOfOrder));
    writer.bucket(b"c").unwrap();
}

#[test]
fn a_file_that_is_cut_is_refused_at_every_length() {
    let content: Content = [(b"key".to_vec(), numbered(2000, 40)), (b"meta".to_vec(), numbered(2, 8))].into();
    let file = written(&content);
    for len in (0..file.len()).step_by(509) {
        assert!(
            matches!(read(&file[..len]), Err(ReadError::Cut { .. } | ReadError::NotBolt { .. })),
            "{len}"
        );
    }
    // What an etcd server appends is no part of it.
    assert_eq!(read(&[&file[..], &[9; 32]].concat()).unwrap(), content);
}

#[test]
fn one_damaged_meta_is_no_loss() {
    let content: Content = [(b"key".to_vec(), numbered(9, 40))].into();
    let file = written(&content);
    for meta in [0, PAGE_BYTES] {
        let mut damaged = file.clone();
        damaged[meta + 40] ^= 1;
        assert_eq!(read(&damaged).unwrap(), content);
        damaged[PAGE_BYTES - meta + 40] ^= 1;
        assert!(matches!(read(&damaged), Err(ReadError::NotBolt { .. })));
    }
}

#[test]
fn a_page_that_leads_to_itself_ends_the_walk() {
    let file = written(&[(b"key".to_vec(), numbered(2000, 40))].into());
    let branch = (2..file.len() / PAGE_BYTES).find(|page| file[page * PAGE_BYTES + 8] == 1).unwrap();
    let mut damaged = file.clone();
    // The second child of the branch is the branch.
    let at = branch * PAGE_BYTES + 16 + 16 + 8;
    damaged[at..at + 8].copy_from_slice(&(branch as u64).to_le_bytes());
    assert!(matches!(read(&damaged), Err(ReadError::Damaged { .. })));
}

fn content() -> impl Strategy<Value = Content> {
    let value = prop_oneof![8 => vec(any::<u8>(), 0..60), 1 => vec(any::<u8>(), 3000..9000)];
    let pairs = btree_map(vec(any::<u8>(), 1..24), value, 0..150);
    btree_map(vec(any::<u8>(), 1..12), pairs, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_content_round_trips(content in content()) {
        prop_assert_eq!(read(&written(&content)).unwrap(), content);
    }

    /// Any outcome but a panic, an endless walk, or memory without bound.
    #[test]
    fn damaged_bytes_are_survived(content in content(), flips in vec((any::<u32>(), 0_u8..8), 1..12)) {
        let mut file = written(&content);
        for (at, bit) in flips {
            let at = at as usize % file.len();
            file[at] ^= 1 << bit;
        }
        drop(read(&file));
    }

    /// As above, aimed at where pages say what they are.
    #[test]
    fn damaged_headers_are_survived(
        content in content(),
        flips in vec((any::<u16>(), 0_usize..48, any::<u8>()), 1..6),
    ) {
        let mut file = written(&content);
        for (page, at, byte) in flips {
            let pages = file.len() / PAGE_BYTES;
            file[2 * PAGE_BYTES..][(usize::from(page) % (pages - 2)) * PAGE_BYTES + at] = byte;
        }
        drop(read(&file));
    }
}
