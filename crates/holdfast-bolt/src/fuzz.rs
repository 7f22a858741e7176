//! The fuzz target: databases, whole or as the pages behind two metas that hold. Run by `scripts/fuzz`; the inputs that
//! are kept run with the tests.

use crate::format::{Meta, NO_FREELIST};
use crate::reader::Reader;
use crate::writer::Writer;

/// The smallest pages there are, of which most inputs have several, and those that we write.
const PAGE_BYTES: [u32; 2] = [1024, 4096];

/// A database can be walked, or is refused; one that passes the check can be written again, and then it holds the same.
pub fn database(input: &[u8]) {
    let Some((&form, input)) = input.split_first() else { return };
    let file = match form % 3 {
        0 => input.to_vec(),
        size => behind_metas(input, PAGE_BYTES[usize::from(size) - 1]),
    };
    let Ok(reader) = Reader::open(&file[..]) else { return };
    let is_whole = reader.check().is_ok();
    let found = reader.buckets();
    assert!(found.is_ok() || !is_whole, "what is whole can be walked");
    let mut content = Vec::new();
    for (name, bucket) in found.unwrap_or_default() {
        let (mut pairs, mut is_flat) = (Vec::new(), true);
        let mut scan = reader.scan(&bucket);
        let walked = loop {
            match scan.next() {
                Ok(Some(pair)) => {
                    is_flat &= !pair.is_bucket;
                    pairs.push((pair.key.to_vec(), pair.value.to_vec()));
                }
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        assert!(walked || !is_whole, "what is whole can be walked");
        let last = reader.last(&bucket);
        if is_whole {
            assert_eq!(last.expect("what is whole can be walked").as_ref(), pairs.last());
        }
        if let Some((key, value)) = pairs.first()
            && is_flat
        {
            assert_eq!(reader.value(&bucket, key).expect("it was read before").as_ref(), Some(value));
        }
        // We write no buckets in buckets.
        if is_flat {
            content.push((name, pairs));
        }
    }
    if is_whole {
        write_again(&content);
    }
}

type Content = Vec<(Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>)>;

/// Names and keys that bbolt does not take cannot be written.
fn write_again(content: &Content) {
    let mut writer = Writer::new();
    let mut pages = Vec::new();
    for (name, pairs) in content {
        if writer.bucket(name).is_err() {
            return;
        }
        for (key, value) in pairs {
            if writer.put(key, value).is_err() {
                return;
            }
        }
        pages.extend(writer.take());
    }
    let finished = writer.finish().expect("the names were taken");
    let mut file = pages;
    file.extend(finished.rest);
    file[..finished.metas.len()].copy_from_slice(&finished.metas);
    let again = Reader::open(&file[..]).expect("what was written can be read");
    again.check().expect("what was written is whole");
    let found = again.buckets().expect("what was written can be read");
    let read: Content = found
        .into_iter()
        .map(|(name, bucket)| {
            let (mut pairs, mut scan) = (Vec::new(), again.scan(&bucket));
            while let Some(pair) = scan.next().expect("what was written can be read") {
                pairs.push((pair.key.to_vec(), pair.value.to_vec()));
            }
            (name, pairs)
        })
        .collect();
    assert!(&read == content, "what was written is there");
}

/// A file with these pages, the first of which holds the root.
fn behind_metas(content: &[u8], page_bytes: u32) -> Vec<u8> {
    let whole = content.len().next_multiple_of(page_bytes as usize);
    let pages = 2 + (whole / page_bytes as usize) as u64;
    let mut file = Meta { page_bytes, root: 2, freelist: NO_FREELIST, pages, transaction: 0 }.pages();
    let end = file.len() + whole;
    file.extend_from_slice(content);
    file.resize(end, 0);
    file
}

#[cfg(test)]
#[path = "../../holdfast-sim/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay;

    #[test]
    fn the_kept_databases_do_no_harm() {
        replay::replay("bolt", super::database);
    }
}
