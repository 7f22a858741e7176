//! The two contents of a simulated disk, and what is left of them at a crash. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Fate;

/// The unit in which a file's content becomes durable.
pub const PAGE_BYTES: usize = 4096;
/// How many sectors a page has; each is written whole or not at all.
pub const SECTORS_PER_PAGE: usize = 8;
/// A sector's length in bytes.
pub const SECTOR_BYTES: usize = PAGE_BYTES / SECTORS_PER_PAGE;

/// A file, whatever its name.
pub(super) type InodeId = u64;

/// Something that is not durable yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit {
    /// A page of a file, named by the file's number and the page's.
    Page(u64, u64),
    /// The length of a file.
    Length(u64),
    /// A created, renamed or removed name.
    Name(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir,
    File(InodeId),
}

/// A change of names. It becomes durable by a sync of its directory, together with all before it there.
#[derive(Debug, Clone)]
enum NameChange {
    Set(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, Node),
}

/// A file's bytes. Absent pages are zero.
#[derive(Debug, Clone, Default)]
struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE_BYTES]>>,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    cached: Content,
    durable: Content,
    /// Pages that the next sync makes durable.
    dirty: BTreeSet<u64>,
    is_len_dirty: bool,
}

type Names = BTreeMap<PathBuf, Node>;

/// The whole disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    names: Names,
    durable_names: Names,
    changes: Vec<NameChange>,
    inodes: BTreeMap<InodeId, Inode>,
    inode_next: InodeId,
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// The root is always there.
fn is_root(path: &Path) -> bool {
    path.parent().is_none() || path.as_os_str().is_empty()
}

impl NameChange {
    fn dir(&self) -> &Path {
        match self {
            Self::Set(path, _) | Self::Remove(path) | Self::Rename(_, path, _) => parent(path),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Set(path, _) | Self::Remove(path) | Self::Rename(_, path, _) => path,
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Set(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Remove(path) => names.retain(|name, _| !name.starts_with(path)),
            Self::Rename(from, to, node) => {
                names.retain(|name, _| !name.starts_with(to));
                let inside: Vec<_> = names.keys().filter(|name| name.starts_with(from)).cloned().collect();
                for name in inside {
                    let node = names.remove(&name).expect("the name was just listed");
                    let rest = name.strip_prefix(from).expect("the name begins so");
                    // `join("")` would add a slash.
                    let moved = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                    names.insert(moved, node);
                }
                // The creation may be lost while the rename is kept.
                names.insert(to.clone(), *node);
            }
        }
    }
}

impl Content {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset + buffer.len() as u64 > self.len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter"));
        }
        for_pages(offset, buffer.len(), |page, within, range| match self.pages.get(&page) {
            Some(bytes) => buffer[range.clone()].copy_from_slice(&bytes[within..within + range.len()]),
            None => buffer[range].fill(0),
        });
        Ok(())
    }

    fn write(&mut self, data: &[u8], offset: u64) {
        for_pages(offset, data.len(), |page, within, range| {
            let data = &data[range];
            if !self.pages.contains_key(&page) && data.iter().all(|byte| *byte == 0) {
                return;
            }
            let bytes = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(bytes)[within..within + data.len()].copy_from_slice(data);
        });
        self.len = self.len.max(offset + data.len() as u64);
    }

    /// Cuts or extends. Gives the pages that lost bytes.
    fn set_len(&mut self, len: u64) -> Vec<u64> {
        let first = len.div_ceil(PAGE_BYTES as u64);
        let mut cut: Vec<u64> = self.pages.split_off(&first).into_keys().collect();
        let within = usize::try_from(len % PAGE_BYTES as u64).expect("less than a page");
        if within > 0
            && let Some(bytes) = self.pages.get_mut(&(first - 1))
        {
            Arc::make_mut(bytes)[within..].fill(0);
            cut.push(first - 1);
        }
        self.len = len;
        cut
    }

    fn copy_page(&mut self, page: u64, from: &Self) {
        match from.pages.get(&page) {
            Some(bytes) => self.pages.insert(page, Arc::clone(bytes)),
            None => self.pages.remove(&page),
        };
    }

    fn tear_page(&mut self, page: u64, from: &Self, mask: u8) {
        let mut bytes = self.pages.get(&page).map_or([0; PAGE_BYTES], |bytes| **bytes);
        let new = from.pages.get(&page).map_or([0; PAGE_BYTES], |bytes| **bytes);
        for sector in (0..SECTORS_PER_PAGE).filter(|sector| mask & (1 << sector) != 0) {
            let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
            bytes[range.clone()].copy_from_slice(&new[range]);
        }
        self.pages.insert(page, Arc::new(bytes));
    }

    fn has_same_page(&self, page: u64, other: &Self) -> bool {
        let zeros = [0; PAGE_BYTES];
        let mine = self.pages.get(&page).map_or(&zeros, |bytes| &**bytes);
        let theirs = other.pages.get(&page).map_or(&zeros, |bytes| &**bytes);
        std::ptr::eq(mine, theirs) || mine == theirs
    }
}

/// Cuts `offset..offset + len` at page borders: page number, offset within it, range of the buffer.
fn for_pages(offset: u64, len: usize, mut each: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let within = usize::try_from(at % PAGE_BYTES as u64).expect("less than a page");
        let count = (PAGE_BYTES - within).min(len - done);
        each(at / PAGE_BYTES as u64, within, done..done + count);
        done += count;
    }
}

impl Inode {
    fn sync(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            self.durable.copy_page(page, &self.cached);
        }
        if std::mem::take(&mut self.is_len_dirty) {
            self.durable.set_len(self.cached.len);
        }
    }

    /// What is left of the file.
    fn survivor(&self, id: InodeId, choose: &mut dyn FnMut(&Unit) -> Fate) -> Self {
        let mut content = self.durable.clone();
        let has_new_len = self.is_len_dirty && self.cached.len != content.len;
        let len = match has_new_len && choose(&Unit::Length(id)) != Fate::Lost {
            true => self.cached.len,
            false => content.len,
        };
        for page in self.dirty.iter().copied() {
            if self.durable.has_same_page(page, &self.cached) {
                continue;
            }
            match choose(&Unit::Page(id, page)) {
                Fate::Lost => {}
                Fate::Kept => content.copy_page(page, &self.cached),
                Fate::Torn(mask) => content.tear_page(page, &self.cached, mask),
            }
        }
        content.set_len(len);
        Self { cached: content.clone(), durable: content, dirty: BTreeSet::new(), is_len_dirty: false }
    }
}

impl Image {
    fn inode(&self, id: InodeId) -> &Inode {
        self.inodes.get(&id).expect("an open file has an inode")
    }

    fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        self.inodes.get_mut(&id).expect("an open file has an inode")
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        if self.is_dir(parent(path)) { Ok(()) } else { Err(not_found(parent(path))) }
    }

    pub(super) fn is_dir(&self, path: &Path) -> bool {
        is_root(path) || self.names.get(path) == Some(&Node::Dir)
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        is_root(path) || self.names.contains_key(path)
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<InodeId> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Dir) => Err(io::Error::new(io::ErrorKind::IsADirectory, path.display().to_string())),
            None => Err(not_found(path)),
        }
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let missing: Vec<_> =
            path.ancestors().take_while(|dir| !self.is_dir(dir)).map(Path::to_owned).collect();
        for dir in missing.into_iter().rev() {
            if self.names.contains_key(&dir) {
                return Err(io::Error::new(io::ErrorKind::NotADirectory, dir.display().to_string()));
            }
            self.change(NameChange::Set(dir, Node::Dir));
        }
        Ok(())
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<InodeId> {
        self.check_parent(path)?;
        if self.exists(path) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, path.display().to_string()));
        }
        self.inode_next += 1;
        let inode = self.inode_next;
        self.inodes.insert(inode, Inode::default());
        self.change(NameChange::Set(path.to_owned(), Node::File(inode)));
        Ok(inode)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_parent(to)?;
        let node = *self.names.get(from).ok_or_else(|| not_found(from))?;
        self.change(NameChange::Rename(from.to_owned(), to.to_owned(), node));
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        self.change(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        if !self.is_dir(path) {
            return Err(not_found(path));
        }
        self.change(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    pub(super) fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        if !self.is_dir(path) {
            return Err(not_found(path));
        }
        Ok(self.names.keys().filter(|name| !is_root(name) && parent(name) == path).cloned().collect())
    }

    /// Makes the names in a directory durable.
    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        if !self.is_dir(path) {
            return Err(not_found(path));
        }
        let changes = std::mem::take(&mut self.changes);
        let (durable, waiting) = changes.into_iter().partition(|change| change.dir() == path);
        self.changes = waiting;
        let durable: Vec<NameChange> = durable;
        for change in durable {
            change.apply(&mut self.durable_names);
        }
        Ok(())
    }

    pub(super) fn len(&self, inode: InodeId) -> u64 {
        self.inode(inode).cached.len
    }

    pub(super) fn read(&self, inode: InodeId, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inode(inode).cached.read(buffer, offset)
    }

    pub(super) fn write(&mut self, inode: InodeId, data: &[u8], offset: u64) -> io::Result<()> {
        let inode = self.inode_mut(inode);
        inode.is_len_dirty |= offset + data.len() as u64 > inode.cached.len;
        inode.cached.write(data, offset);
        for_pages(offset, data.len(), |page, _, _| {
            inode.dirty.insert(page);
        });
        Ok(())
    }

    pub(super) fn set_len(&mut self, inode: InodeId, len: u64) -> io::Result<()> {
        let inode = self.inode_mut(inode);
        inode.is_len_dirty |= len != inode.cached.len;
        let cut = inode.cached.set_len(len);
        inode.dirty.extend(cut);
        Ok(())
    }

    pub(super) fn sync(&mut self, inode: InodeId) -> io::Result<()> {
        self.inode_mut(inode).sync();
        Ok(())
    }

    /// What a failed sync does: the pages count as clean, and are not on the disk.
    pub(super) fn forget_dirty(&mut self, inode: InodeId) {
        let inode = self.inode_mut(inode);
        inode.dirty.clear();
        inode.is_len_dirty = false;
    }

    /// Bytes that the named files take.
    pub(super) fn used(&self) -> u64 {
        self.files().into_iter().map(|(_, len)| len).sum()
    }

    /// True when the file has a name that begins so.
    pub(super) fn is_under(&self, inode: InodeId, prefix: &str) -> bool {
        let mut names = self.names.iter().filter(|(_, node)| **node == Node::File(inode));
        names.any(|(path, _)| path.to_string_lossy().starts_with(prefix))
    }

    pub(super) fn files(&self) -> Vec<(PathBuf, u64)> {
        let file = |(path, node): (&PathBuf, &Node)| match node {
            Node::File(inode) => Some((path.clone(), self.len(*inode))),
            Node::Dir => None,
        };
        self.names.iter().filter_map(file).collect()
    }

    pub(super) fn flip(&mut self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let id = self.find(path)?;
        let inode = self.inode_mut(id);
        for content in [&mut inode.cached, &mut inode.durable] {
            let mut byte = [0];
            content.read(&mut byte, offset)?;
            content.write(&[byte[0] ^ mask], offset);
        }
        Ok(())
    }

    /// What is left of the disk; `choose` is asked once for each unit that is not durable.
    pub(super) fn survivors(&self, choose: &mut dyn FnMut(&Unit) -> Fate) -> Self {
        let mut names = self.durable_names.clone();
        for change in &self.changes {
            if choose(&Unit::Name(change.path().to_owned())) != Fate::Lost {
                change.apply(&mut names);
            }
        }
        // Nobody finds what lies in a directory that was lost.
        let found: Vec<bool> = names
            .keys()
            .map(|path| {
                path.ancestors().skip(1).all(|dir| is_root(dir) || names.get(dir) == Some(&Node::Dir))
            })
            .collect();
        let mut is_found = found.into_iter();
        names.retain(|_, _| is_found.next().unwrap_or(false));
        let mut inodes = BTreeMap::new();
        for node in names.values() {
            if let Node::File(inode) = node {
                inodes.insert(*inode, self.inode(*inode).survivor(*inode, choose));
            }
        }
        Self {
            names: names.clone(),
            durable_names: names,
            changes: Vec::new(),
            inodes,
            inode_next: self.inode_next,
        }
    }
}
