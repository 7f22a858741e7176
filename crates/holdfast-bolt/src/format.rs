//! Pages and metas as bytes.

/// The size of a page as we write it.
pub const PAGE_BYTES: usize = 4096;
/// The longest key.
pub const KEY_BYTES_MAX: usize = 32_768;
/// The longest value.
pub const VALUE_BYTES_MAX: usize = (1 << 31) - 2;

/// What a page begins with, and what an element of a page takes beside its bytes.
pub(crate) const HEADER: usize = 16;
pub(crate) const ELEMENT: usize = 16;
/// The root and the sequence of a bucket.
pub(crate) const BUCKET: usize = 16;
/// The flag of an element whose value is a bucket.
pub(crate) const IS_BUCKET: u32 = 1;
/// A freelist there is none.
pub(crate) const NO_FREELIST: u64 = u64::MAX;
/// The count of a freelist that is too long for the header.
pub(crate) const COUNT_FOLLOWS: u16 = u16::MAX;

/// A meta behind the header of its page: all of it, and what the checksum covers.
pub(crate) const META: usize = 64;
const META_SUMMED: usize = 56;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// The sizes of pages that there are: systems use 4 to 64 KiB.
const PAGE_BYTES_BOUNDS: (u32, u32) = (1024, 64 * 1024);

/// What a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Branch,
    Leaf,
    Meta,
    Freelist,
}

impl Kind {
    const fn bits(self) -> u16 {
        match self {
            Self::Branch => 1,
            Self::Leaf => 2,
            Self::Meta => 4,
            Self::Freelist => 16,
        }
    }

    fn of(bits: u16) -> Option<Self> {
        [Self::Branch, Self::Leaf, Self::Meta, Self::Freelist].into_iter().find(|kind| kind.bits() == bits)
    }
}

/// What a page begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    pub(crate) count: u16,
    /// So many pages behind this one belong to it.
    pub(crate) overflow: u32,
}

impl Header {
    pub(crate) fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.kind.bits().to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }

    /// `None` when it is too short, or of no kind.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let count = bytes.get(10..12)?.first_chunk().map(|b| u16::from_le_bytes(*b))?;
        let kind = bytes.get(8..10)?.first_chunk().map(|b| u16::from_le_bytes(*b))?;
        Some(Self { id: long(bytes, 0)?, kind: Kind::of(kind)?, count, overflow: word(bytes, 12)? })
    }
}

/// What the database is, as of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) page_bytes: u32,
    /// The page of the root bucket.
    pub(crate) root: u64,
    pub(crate) freelist: u64,
    /// How many pages there are.
    pub(crate) pages: u64,
    pub(crate) transaction: u64,
}

impl Meta {
    /// The first two pages of a file: this, and the same as of the transaction behind it.
    pub(crate) fn pages(self) -> Vec<u8> {
        let mut pages = Vec::new();
        for id in 0..2 {
            let header = Header { id, kind: Kind::Meta, count: 0, overflow: 0 };
            pages.extend_from_slice(&header.encode());
            pages.extend_from_slice(&Self { transaction: self.transaction + id, ..self }.encode());
            pages.resize(pages.len().next_multiple_of(self.page_bytes as usize), 0);
        }
        pages
    }

    pub(crate) fn encode(self) -> [u8; META] {
        let mut bytes = [0; META];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.page_bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.root.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.freelist.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.pages.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.transaction.to_le_bytes());
        let sum = fnv(&bytes[..META_SUMMED]);
        bytes[META_SUMMED..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `None` when these bytes, behind the header of a page, are no meta.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let summed = bytes.get(..META_SUMMED)?;
        let (least, most) = PAGE_BYTES_BOUNDS;
        let page_bytes = word(bytes, 8)?;
        let is_meta = word(bytes, 0)? == MAGIC
            && word(bytes, 4)? == VERSION
            && long(bytes, META_SUMMED)? == fnv(summed)
            && page_bytes.is_power_of_two()
            && (least..=most).contains(&page_bytes);
        let meta = Self {
            page_bytes,
            root: long(bytes, 16)?,
            freelist: long(bytes, 32)?,
            pages: long(bytes, 40)?,
            transaction: long(bytes, 48)?,
        };
        is_meta.then_some(meta)
    }
}

/// A number of four bytes; `None` behind the end.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A number of eight bytes; `None` behind the end.
pub(crate) fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// FNV-1a, 64 bit.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors of the hash's authors.
    #[test]
    fn the_checksum_is_fnv_1a() {
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn headers_and_metas_round_trip() {
        let header = Header { id: 7, kind: Kind::Leaf, count: 300, overflow: 2 };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        assert_eq!(Header::decode(&header.encode()[..15]), None);
        let meta = Meta { page_bytes: 4096, root: 3, freelist: 2, pages: 9, transaction: 5 };
        assert_eq!(Meta::decode(&meta.encode()), Some(meta));
        for at in 0..META {
            let mut bytes = meta.encode();
            bytes[at] ^= 4;
            assert_eq!(Meta::decode(&bytes), None, "byte {at}");
        }
    }
}
