//! Takes a tar archive apart, with limits on everything an archive could make us keep in memory.

use std::io::{BufRead, ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, bail};
use tar::{EntryType, Header};

use super::sparse::Map;
use super::{BLOCK, Entry, Kind, pax};
use crate::recipe::{Recorder, Tape};

/// Longest name (PATH_MAX): no kernel call takes a longer one.
const MAX_NAME: u64 = 4096;
/// Longest pax header: room for extended attributes of 64 KiB (XATTR_SIZE_MAX) in any number that
/// a file can have.
const MAX_PAX: u64 = 1 << 20;
/// All pax headers together: a million files with large ones.
const MAX_PAX_TOTAL: u64 = 1 << 30;
/// What may follow the end of an archive: tar fills up to whole tapes of 10 KiB, others to more.
const MAX_TRAILER: u64 = 64 << 20;
/// More members than this make no image but a directory that can't be removed again.
const MAX_ENTRIES: u64 = 4_000_000;

/// Reads members one after the other.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    input: Tape<R>,
    /// Data of the current member not read yet.
    data: u64,
    /// What fills its last block.
    padding: u64,
    entries: u64,
    /// Bytes that pax headers may still take.
    pax: u64,
}

/// What extension members said of the member that follows them.
#[derive(Debug, Default)]
struct Said {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Vec<u8>>,
}

impl<R: BufRead> Reader<R> {
    /// Reads an archive from `input`.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn new(input: R) -> Self {
        Self::recorded(input, None)
    }

    /// Reads an archive from `input`; what is not the content of a file is recorded.
    pub(crate) fn recorded(input: R, recorder: Option<Recorder>) -> Self {
        let input = Tape::new(input, recorder);
        Self { input, data: 0, padding: 0, entries: 0, pax: MAX_PAX_TOTAL }
    }

    /// Returns the next member; what is left of the current one's data is passed over.
    ///
    /// # Errors
    /// When the archive is broken, cut off or beyond a limit.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Entry>> {
        let mut said = Said::default();
        loop {
            self.skip().context("read archive")?;
            let Some(header) = self.header()? else { return Ok(None) };
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                bail!("archive has more than {MAX_ENTRIES} entries");
            }
            let size = header.entry_size().context("read size of an entry")?;
            let kind = header.entry_type();
            self.expect(size)?;
            if kind.is_gnu_longname() {
                said.path = Some(self.text(size, MAX_NAME, "name")?);
            } else if kind.is_gnu_longlink() {
                said.link = Some(self.text(size, MAX_NAME, "link name")?);
            } else if kind.is_pax_local_extensions() {
                said.pax = Some(self.pax_header(size)?);
            } else if kind.is_pax_global_extensions() {
                // What it says of every member, nobody we know relies on.
                self.pax_header(size)?;
            } else {
                return self.member(&header, said, size).map(Some);
            }
        }
    }

    /// Gives the data of the current member to `sink`, piece by piece.
    ///
    /// # Errors
    /// When the archive ends too early, or whatever `sink` says.
    pub(crate) fn data(
        &mut self,
        most: u64,
        sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        let mut left = most.min(self.data);
        while left > 0 {
            let piece = match self.input.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                piece => piece.context("read archive")?,
            };
            if piece.is_empty() {
                bail!("unexpected end of archive");
            }
            let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            sink(&piece[..length])?;
            self.input.consume(length);
            left -= length as u64;
            self.data -= length as u64;
        }
        Ok(())
    }

    /// Says that the data of the current member becomes the content of this file, as it is.
    pub(crate) fn becomes(&mut self, path: &Path) {
        self.input.content(path, self.data);
    }

    /// Returns what recorded the archive.
    pub(crate) fn into_recorder(self) -> Option<Recorder> {
        self.input.into_recorder()
    }

    /// Reads what follows the end of the archive, so that a hash sees all of it and whoever
    /// writes it can finish.
    ///
    /// # Errors
    /// When the input can't be read, or goes on for too long.
    pub(crate) fn drain(&mut self) -> anyhow::Result<()> {
        let mut rest = self.input.by_ref().take(MAX_TRAILER + 1);
        let length = std::io::copy(&mut rest, &mut std::io::sink()).context("read archive")?;
        if length > MAX_TRAILER {
            bail!("more than {MAX_TRAILER} bytes follow the end of the archive");
        }
        Ok(())
    }

    fn expect(&mut self, size: u64) -> anyhow::Result<()> {
        size.checked_add(BLOCK).context("size of an entry runs over")?;
        self.data = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
        Ok(())
    }

    fn skip(&mut self) -> std::io::Result<()> {
        let left = self.data + self.padding;
        (self.data, self.padding) = (0, 0);
        let skipped = std::io::copy(&mut self.input.by_ref().take(left), &mut std::io::sink())?;
        if skipped == left { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    /// Returns the next header block; `None` at the end of the archive, which is a block of
    /// zeros or, as GNU tar has it too, simply the end.
    fn header(&mut self) -> anyhow::Result<Option<Header>> {
        if self.input.fill_buf().context("read archive")?.is_empty() {
            return Ok(None);
        }
        let mut header = Header::new_old();
        self.input.read_exact(header.as_mut_bytes()).context("unexpected end of archive")?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum counts its own eight bytes as blanks.
        let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
        let own: u32 = bytes[148..156].iter().map(|byte| u32::from(*byte)).sum();
        match header.cksum() {
            Ok(told) if told == sum - own + 8 * u32::from(b' ') => Ok(Some(header)),
            _ => bail!("this does not look like a tar archive"),
        }
    }

    fn pax_header(&mut self, size: u64) -> anyhow::Result<Vec<u8>> {
        let text = self.text(size, MAX_PAX, "pax header")?;
        let left = self.pax.checked_sub(size);
        self.pax =
            left.with_context(|| format!("more than {MAX_PAX_TOTAL} bytes of pax headers"))?;
        Ok(text)
    }

    fn text(&mut self, size: u64, limit: u64, what: &str) -> anyhow::Result<Vec<u8>> {
        if size > limit {
            bail!("{what} of {size} bytes in the archive, {limit} are allowed");
        }
        let mut text = Vec::new();
        self.data(size, &mut |piece| {
            text.extend_from_slice(piece);
            Ok(())
        })?;
        if what != "pax header" {
            text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
        }
        Ok(text)
    }

    fn member(&mut self, header: &Header, said: Said, mut size: u64) -> anyhow::Result<Entry> {
        let mut entry = base(header, said.path)?;
        let mut link = said.link.or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
        let mut map = header.entry_type().is_gnu_sparse().then(Map::default);
        for (key, value) in pax::records(said.pax.as_deref().unwrap_or_default())? {
            match key {
                b"size" => size = pax::number(value)?,
                b"linkpath" => link = Some(value.to_vec()),
                b"GNU.sparse.name" => entry.path = value.to_vec(),
                key if key.starts_with(b"GNU.sparse.") => {
                    map.get_or_insert_default().take(key, value)?;
                }
                key => pax::apply(&mut entry, key, value)?,
            }
        }
        entry.kind = kind(header, link.unwrap_or_default(), &entry.path)?;
        if !matches!(entry.kind, Kind::File | Kind::Other(_)) {
            // Only files have data, whatever the size field says (as Go's archive/tar has it).
            size = 0;
        }
        self.expect(size)?;
        entry.size = size;
        if let (Some(mut map), Kind::File) = (map, &entry.kind) {
            if let Some(gnu) = header.as_gnu().filter(|_| header.entry_type().is_gnu_sparse()) {
                map.read_old(gnu, &mut self.input)?;
            } else if map.is_in_data {
                let taken = map.read_from_data(&mut self.input)?;
                self.data = size.checked_sub(taken).context("sparse map longer than its entry")?;
            }
            entry.size = map.size;
            entry.extents = Some(map.finish(self.data)?);
        }
        Ok(entry)
    }
}

/// What the header block alone says.
fn base(header: &Header, path: Option<Vec<u8>>) -> anyhow::Result<Entry> {
    let id = |id: u64| u32::try_from(id).context("owner of an entry is beyond 32 bits");
    Ok(Entry {
        path: path.unwrap_or_else(|| header.path_bytes().into_owned()),
        mode: header.mode().context("read mode of an entry")? & 0o7777,
        uid: id(header.uid().context("read owner of an entry")?)?,
        gid: id(header.gid().context("read group of an entry")?)?,
        mtime: (i64::try_from(header.mtime().unwrap_or_default()).unwrap_or_default(), 0),
        ..Entry::default()
    })
}

fn kind(header: &Header, link: Vec<u8>, path: &[u8]) -> anyhow::Result<Kind> {
    let device = || -> anyhow::Result<(u32, u32)> {
        let numbers = (header.device_major()?, header.device_minor()?);
        Ok((numbers.0.unwrap_or_default(), numbers.1.unwrap_or_default()))
    };
    Ok(match header.entry_type() {
        // Archives older than POSIX mark a directory by its slash only.
        EntryType::Regular if path.ends_with(b"/") && header.as_bytes()[156] == 0 => {
            Kind::Directory
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Link => Kind::HardLink(link),
        EntryType::Symlink => Kind::Symlink(link),
        EntryType::Directory => Kind::Directory,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char => device().map(|(major, minor)| Kind::CharDevice(major, minor))?,
        EntryType::Block => device().map(|(major, minor)| Kind::BlockDevice(major, minor))?,
        other => Kind::Other(other.as_byte()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_headers_are_counted() {
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        let bytes = header.as_bytes().repeat(2);
        let mut reader = Reader::new(&bytes[..]);
        reader.entries = MAX_ENTRIES - 1;
        assert!(reader.next().unwrap().is_some());
        assert!(reader.next().unwrap_err().to_string().contains("entries"));
        for kind in [b'x', b'g'] {
            header.set_entry_type(EntryType::new(kind));
            header.set_size(600);
            header.set_cksum();
            let bytes = [header.as_bytes(), &[0; 1024][..]].concat();
            let mut reader = Reader::new(&bytes[..]);
            reader.pax = 500;
            assert!(reader.next().unwrap_err().to_string().contains("of pax headers"));
        }
    }
}
