//! Renders members of a tar archive: ustar blocks, with a pax header where ustar has no room.

use std::io::{self, Write};

use tar::{EntryType, Header};

use super::{BLOCK, Entry, Kind, pax};

/// The largest number in a field of seven octal digits.
const MAX_SMALL: u32 = 0o7_777_777;
/// The largest number in a field of eleven octal digits.
const MAX_LARGE: u64 = 0o77_777_777_777;

/// Writes the blocks that precede a member's data.
///
/// # Errors
/// When `output` can't be written.
pub(crate) fn header(output: &mut impl Write, entry: &Entry) -> io::Result<()> {
    let mut header = Header::new_ustar();
    let mut extended = Vec::new();
    let (kind, link) = match &entry.kind {
        Kind::HardLink(link) => (EntryType::Link, Some(link)),
        Kind::Symlink(link) => (EntryType::Symlink, Some(link)),
        Kind::Directory => (EntryType::Directory, None),
        Kind::Fifo => (EntryType::Fifo, None),
        Kind::CharDevice(major, minor) => {
            header.set_device_major(*major)?;
            header.set_device_minor(*minor)?;
            (EntryType::Char, None)
        }
        Kind::BlockDevice(major, minor) => {
            header.set_device_major(*major)?;
            header.set_device_minor(*minor)?;
            (EntryType::Block, None)
        }
        Kind::File | Kind::Other(_) => (EntryType::Regular, None),
    };
    header.set_entry_type(kind);
    header.set_mode(entry.mode & 0o7777);
    put_name(&mut header, &mut extended, &entry.path);
    if let Some(link) = link
        && !fill(field(&mut header, 157, 100), link)
    {
        pax::push(&mut extended, b"linkpath", link);
    }
    put_numbers(&mut header, &mut extended, entry);
    for (name, value) in &entry.xattrs {
        pax::push(&mut extended, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    if !extended.is_empty() {
        extension(output, &extended)?;
    }
    header.set_cksum();
    output.write_all(header.as_bytes())
}

/// Writes what fills the last block of `size` bytes of data.
///
/// # Errors
/// When `output` can't be written.
pub(crate) fn padding(output: &mut impl Write, size: u64) -> io::Result<()> {
    let zeros = [0; BLOCK as usize];
    let missing = usize::try_from((BLOCK - size % BLOCK) % BLOCK).unwrap_or_default();
    output.write_all(&zeros[..missing])
}

/// Writes the two blocks of zeros that end an archive.
///
/// # Errors
/// When `output` can't be written.
pub(crate) fn end(output: &mut impl Write) -> io::Result<()> {
    output.write_all(&[0; 2 * BLOCK as usize])
}

fn put_name(header: &mut Header, extended: &mut Vec<u8>, path: &[u8]) {
    if fill(field(header, 0, 100), path) {
        return;
    }
    // ustar has room for a longer name if it can be cut at a slash into at most 155 and 100.
    let cut = path.iter().enumerate().rev().find(|(at, byte)| {
        **byte == b'/' && *at > 0 && *at <= 155 && path.len() - at - 1 <= 100 && at + 1 < path.len()
    });
    match cut {
        Some((at, _)) => {
            fill(field(header, 345, 155), &path[..at]);
            fill(field(header, 0, 100), &path[at + 1..]);
        }
        None => {
            fill(field(header, 0, 100), &path[path.len() - 99..]);
            pax::push(extended, b"path", path);
        }
    }
}

fn put_numbers(header: &mut Header, extended: &mut Vec<u8>, entry: &Entry) {
    for (key, id) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
        let small = if id > MAX_SMALL { 0 } else { id };
        if id > MAX_SMALL {
            pax::push(extended, key, id.to_string().as_bytes());
        }
        match key {
            b"uid" => header.set_uid(small.into()),
            _ => header.set_gid(small.into()),
        }
    }
    match u64::try_from(entry.mtime.0) {
        Ok(seconds) if seconds <= MAX_LARGE => header.set_mtime(seconds),
        _ => {
            header.set_mtime(0);
            pax::push(extended, b"mtime", entry.mtime.0.to_string().as_bytes());
        }
    }
    if entry.size > MAX_LARGE {
        pax::push(extended, b"size", entry.size.to_string().as_bytes());
        header.set_size(0);
    } else {
        header.set_size(entry.size);
    }
}

fn extension(output: &mut impl Write, records: &[u8]) -> io::Result<()> {
    let mut header = Header::new_ustar();
    fill(field(&mut header, 0, 100), b"./PaxHeaders/entry");
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(records.len() as u64);
    header.set_cksum();
    output.write_all(header.as_bytes())?;
    output.write_all(records)?;
    padding(output, records.len() as u64)
}

fn field(header: &mut Header, at: usize, length: usize) -> &mut [u8] {
    &mut header.as_mut_bytes()[at..at + length]
}

/// Fills a field if the text fits; tells whether it did.
fn fill(field: &mut [u8], text: &[u8]) -> bool {
    if text.len() > field.len() {
        return false;
    }
    field[..text.len()].copy_from_slice(text);
    true
}

#[cfg(test)]
mod tests {
    use super::super::read::Reader;
    use super::*;
    use proptest::prelude::*;

    fn read_back(entry: &Entry) -> Entry {
        let mut archive = Vec::new();
        header(&mut archive, entry).unwrap();
        end(&mut archive).unwrap();
        Reader::new(&archive[..]).next().unwrap().unwrap()
    }

    #[test]
    fn large_numbers_and_binary_attributes_survive() {
        let entry = Entry {
            path: b"x".into(),
            mode: 0o4755,
            uid: 4_294_967_294,
            gid: 1_000_000_000,
            mtime: (-5, 0),
            xattrs: vec![(b"security.capability".into(), b"\x01\n=\x00\n".into())],
            size: 1 << 40,
            ..Entry::default()
        };
        assert_eq!(read_back(&entry), entry);
    }

    proptest! {
        #[test]
        fn names_of_any_length_survive(path in "[a-z/]{0,3}[a-z]{1,400}(/[a-z]{1,200}){0,3}") {
            let link = Kind::Symlink(path.clone().into_bytes());
            let entry = Entry { path: path.into_bytes(), kind: link, ..Entry::default() };
            prop_assert_eq!(read_back(&entry), entry);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let mut reader = Reader::new(&bytes[..]);
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
