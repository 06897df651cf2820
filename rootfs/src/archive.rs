//! Tar archives as streams: [`read`] takes one apart, [`write`] makes one.
//!
//! The `tar` crate parses and renders header blocks; iteration, pax records and sparse maps are
//! ours, because the crate reads pax headers of any length into memory and breaks on a binary
//! extended attribute with a newline in it.

mod pax;
pub(crate) mod read;
mod sparse;
pub(crate) mod write;

use crate::xattr::Attributes;

/// The unit of a tar archive.
pub(crate) const BLOCK: u64 = 512;

/// One member of an archive, without its data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name as written, which may be anything.
    pub(crate) path: Vec<u8>,
    /// What it is.
    pub(crate) kind: Kind,
    /// Permission bits, set-id bits included.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    /// Extended attributes.
    pub(crate) xattrs: Attributes,
    /// Size of a regular file once it is unpacked.
    pub(crate) size: u64,
    /// Where its data goes, when that is not simply the beginning.
    pub(crate) extents: Option<Vec<Extent>>,
}

/// A piece of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where it begins in the file.
    pub(crate) offset: u64,
    /// How long it is.
    pub(crate) length: u64,
}

/// What a member is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    #[default]
    File,
    /// Another name of a member with this name.
    HardLink(Vec<u8>),
    /// A symbolic link with this content.
    Symlink(Vec<u8>),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
    /// A type we don't know.
    Other(u8),
}
