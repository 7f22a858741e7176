//! Golden bytes of the layout, and what the decoder refuses.

use super::*;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term::new(term), LogIndex::new(index))
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(8)
        .map(|row| row.iter().map(|b| format!("{b:02x}")).collect::<String>())
        .collect::<Vec<_>>()
        .join(" ")
}

const SEGMENT: SegmentId = SegmentId { epoch: 0x0102, tag: 0xabcd };
const PLACE: Place = Place { segment: SEGMENT, offset: 4096 + 80, batch_start: 4096 };

fn encoded(record: &Record) -> Vec<u8> {
    let mut out = Vec::new();
    encode(record, PLACE, &mut out);
    out
}

fn head() -> Record {
    Record::Head(Head {
        purged: Some(id(1, 2)),
        last: Some(id(3, 4)),
        committed: None,
        vote: Some(Bytes::from_static(b"me")),
        earlier: vec![
            HeadRow { epoch: 0x0100, first: None, end: 0x4000 },
            HeadRow { epoch: 0x0101, first: Some(LogIndex::new(3)), end: 0x3ff8 },
        ],
    })
}

fn records() -> Vec<Record> {
    vec![
        head(),
        Record::Entry(Entry { id: id(5, 6), payload: Bytes::from_static(b"hello") }),
        Record::Vote(Bytes::from_static(b"voted")),
        Record::Truncate(Some(id(7, 8))),
        Record::Truncate(None),
        Record::Purge(id(9, 10)),
        Record::Committed(id(11, 12)),
    ]
}

#[test]
fn the_file_header_has_these_bytes() {
    let block = encode_file_header(SEGMENT, 0x0400_0000);
    assert_eq!(block.len(), 4096);
    assert_eq!(
        hex(&block[..48]),
        "484f4c4446415354 0100000056856a13 0201000000000000 0000000400000000 0000000000000000 cdab000000000000"
    );
    assert!(block[48..].iter().all(|byte| *byte == 0));
    assert_eq!(decode_file_header(&block), Ok((SEGMENT, 0x0400_0000)));
}

#[test]
fn records_have_these_bytes() {
    let golden = [
        "20acee8b6e000000 cdab000000000000 5000000001000000 0101000000000000 0002000000000000 0001030000000000 0000040000000000 0000000000000000 0000000000000000 0000000102000000 6d65020000000001 000000000000ffff ffffffffffff0040 0000000000000101 0000000000000300 000000000000f83f 0000000000000000",
        "1b5303d215000000 cdab000000000000 5000000002000000 0500000000000000 0600000000000000 68656c6c6f000000",
        "236d58e705000000 cdab000000000000 5000000003000000 766f746564000000",
        "f00f6c7911000000 cdab000000000000 5000000004000000 0107000000000000 0008000000000000 0000000000000000",
        "6d1b4fb111000000 cdab000000000000 5000000004000000 0000000000000000 0000000000000000 0000000000000000",
        "acb6c5ad10000000 cdab000000000000 5000000005000000 0900000000000000 0a00000000000000",
        "45bb90a610000000 cdab000000000000 5000000006000000 0b00000000000000 0c00000000000000",
    ];
    for (record, golden) in records().iter().zip(golden) {
        assert_eq!(hex(&encoded(record)), golden, "{record:?}");
    }
}

#[test]
fn records_come_back_at_their_place_and_nowhere_else() {
    for record in records() {
        let bytes = Bytes::from(encoded(&record));
        let found = decode(&bytes, PLACE.offset, SEGMENT, PLACE.offset).unwrap();
        assert_eq!(found.record, record);
        assert_eq!(found.next, PLACE.offset + bytes.len() as u64);
        assert_eq!(found.batch_start, PLACE.batch_start);
        assert!(decode(&bytes, PLACE.offset + 8, SEGMENT, PLACE.offset + 8).is_none(), "another offset");
        let other = SegmentId { epoch: SEGMENT.epoch + 1, ..SEGMENT };
        assert!(decode(&bytes, PLACE.offset, other, PLACE.offset).is_none(), "another epoch");
        let other = SegmentId { tag: SEGMENT.tag + 1, ..SEGMENT };
        assert!(decode(&bytes, PLACE.offset, other, PLACE.offset).is_none(), "another tag");
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_seen() {
    for record in records() {
        let good = encoded(&record);
        let body = usize::try_from(u32_at(&good, 4)).unwrap();
        for at in 0..RECORD_HEADER_BYTES + body {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(
                    decode(&bad.into(), PLACE.offset, SEGMENT, PLACE.offset).is_none(),
                    "{record:?} {at}"
                );
            }
            let cut = Bytes::copy_from_slice(&good[..at]);
            assert!(decode(&cut, PLACE.offset, SEGMENT, PLACE.offset).is_none());
        }
    }
}

#[test]
fn a_file_header_that_is_newer_foreign_or_damaged_is_told_apart() {
    let good = encode_file_header(SEGMENT, 4096 * 4);
    let mut newer = good.clone();
    newer[8] = FORMAT_VERSION + 1;
    assert_eq!(decode_file_header(&newer), Err(BadHeader::Newer(FORMAT_VERSION + 1)));
    assert_eq!(decode_file_header(&[0; 4096]), Err(BadHeader::Magic));
    for at in (9..FILE_HEADER_BYTES).chain([0]) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(decode_file_header(&bad).is_err(), "byte {at}");
    }
}
