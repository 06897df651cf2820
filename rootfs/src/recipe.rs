//! What of an archive is not in the files that it became: headers, padding, the order of members.
//!
//! With a layer's recipe its archive can be made again, byte for byte, so a committed image has the
//! layers of the image that it was made from, whoever packed those, and a registry that has them need
//! not get them again. Nothing is believed: whoever replays a recipe compares the digest.
//!
//! On disk a recipe is a gzip stream of records: bytes as they are, or a file whose content they are.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use rustix::fs::OFlags;

use crate::beneath::Beneath;

/// Longest record of bytes.
const PIECE: usize = 64 << 10;
/// Most bytes of a recipe before compression, which a million members with short names have. An archive
/// with more has none.
const MOST: u64 = 2 << 30;

const BYTES: u8 = 0;
const CONTENT: u8 = 1;

/// Writes a recipe while an archive is read.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// `None` once it has become too long, or could not be written.
    output: Option<BufWriter<GzEncoder<File>>>,
    pending: Vec<u8>,
    total: u64,
}

impl Recorder {
    /// Writes to `file`, which is empty.
    pub(crate) fn new(file: File) -> Self {
        let encoder = GzEncoder::new(file, Compression::fast());
        Self { output: Some(BufWriter::new(encoder)), pending: Vec::new(), total: 0 }
    }

    /// The archive goes on with these bytes.
    fn bytes(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= PIECE {
            self.flush();
        }
    }

    /// The archive goes on with the content of a file of the layer.
    fn content(&mut self, path: &Path, length: u64) {
        self.flush();
        let path = path.as_os_str().as_bytes();
        self.total += path.len() as u64;
        let name = u16::try_from(path.len()).ok().map(u16::to_le_bytes);
        self.write(
            name.is_some(),
            &[&[CONTENT], &length.to_le_bytes(), &name.unwrap_or_default(), path],
        );
    }

    fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        for piece in pending.chunks(PIECE) {
            let length = u32::try_from(piece.len()).unwrap_or_default().to_le_bytes();
            self.write(true, &[&[BYTES], &length, piece]);
        }
    }

    /// A recipe is good to have; that there is none is no reason to refuse an image.
    fn write(&mut self, is_possible: bool, parts: &[&[u8]]) {
        let Some(output) = self.output.as_mut().filter(|_| is_possible && self.total < MOST) else {
            self.output = None;
            return;
        };
        if parts.iter().any(|part| output.write_all(part).is_err()) {
            self.output = None;
        }
    }

    /// Ends the recipe; tells whether there is one.
    pub(crate) fn finish(mut self) -> bool {
        self.flush();
        let encoder = self.output.and_then(|output| output.into_inner().ok());
        encoder.is_some_and(|encoder| encoder.finish().is_ok())
    }
}

/// An archive that may be recorded while it is read.
#[derive(Debug)]
pub(crate) struct Tape<R> {
    input: R,
    recorder: Option<Recorder>,
    /// Bytes to come that are the content of a file, and told of already.
    content: u64,
}

impl<R> Tape<R> {
    pub(crate) fn new(input: R, recorder: Option<Recorder>) -> Self {
        Self { input, recorder, content: 0 }
    }

    /// Says that the next `length` bytes are the content of this file of the layer.
    pub(crate) fn content(&mut self, path: &Path, length: u64) {
        if let Some(recorder) = &mut self.recorder {
            recorder.content(path, length);
            self.content = length;
        }
    }

    /// Returns what recorded.
    pub(crate) fn into_recorder(self) -> Option<Recorder> {
        self.recorder
    }
}

impl<R: BufRead> BufRead for Tape<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        if let Some(recorder) = &mut self.recorder {
            let told = self.content.min(length as u64);
            self.content -= told;
            let told = usize::try_from(told).unwrap_or(length);
            // What is consumed is in the buffer, so this reads nothing.
            if told < length
                && let Ok(buffer) = self.input.fill_buf()
            {
                recorder.bytes(buffer.get(told..length).unwrap_or_default());
            }
        }
        self.input.consume(length);
    }
}

impl<R: BufRead> Read for Tape<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

/// Writes the archive that a recipe and the files beneath `layer` make.
///
/// # Errors
/// When the recipe is broken, or a file is not as it was.
pub(crate) fn replay(recipe: File, layer: &Beneath, output: &mut impl Write) -> anyhow::Result<()> {
    let mut recipe = BufReader::new(GzDecoder::new(BufReader::new(recipe)));
    while let Some(kind) = recipe.by_ref().bytes().next() {
        match kind.context("read recipe")? {
            BYTES => {
                let length = u32::from_le_bytes(number(&mut recipe)?);
                copy(&mut recipe, length.into(), output)?;
            }
            CONTENT => {
                let length = u64::from_le_bytes(number(&mut recipe)?);
                let path = path(&mut recipe)?;
                let told = || format!("read {}", path.display());
                // Opening what became a pipe must not wait for its other end.
                let flags = OFlags::RDONLY | OFlags::NONBLOCK;
                let file = File::from(layer.open(&path, flags).with_context(told)?);
                if !file.metadata().with_context(told)?.is_file() {
                    bail!("{} is not a file any more", path.display());
                }
                copy(file, length, output).with_context(told)?;
            }
            other => bail!("recipe with a record of type {other}"),
        }
    }
    Ok(())
}

fn number<const N: usize>(recipe: &mut impl Read) -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    recipe.read_exact(&mut bytes).context("read recipe")?;
    Ok(bytes)
}

fn path(recipe: &mut impl Read) -> anyhow::Result<PathBuf> {
    let mut name = vec![0; u16::from_le_bytes(number(recipe)?).into()];
    recipe.read_exact(&mut name).context("read recipe")?;
    Ok(std::ffi::OsString::from_vec(name).into())
}

fn copy(input: impl Read, length: u64, output: &mut impl Write) -> anyhow::Result<()> {
    let copied = io::copy(&mut input.take(length), output).context("copy")?;
    if copied != length {
        bail!("{copied} bytes instead of {length}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::os::fd::OwnedFd;

    use crate::unpack::Unpacker;

    fn tar(kind: tar::EntryType, name: &str, content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path(name).unwrap();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_size(content.len() as u64);
        header.set_cksum();
        let fill = vec![7; content.len().next_multiple_of(512) - content.len()];
        [header.as_bytes(), content, &fill].concat()
    }

    /// Unpacks an archive and makes it again of the files and the recipe.
    fn again(archive: &[u8]) -> anyhow::Result<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let (root, recipe) = (dir.path().join("root"), dir.path().join("recipe"));
        std::fs::create_dir(&root).unwrap();
        let open = || OwnedFd::from(File::open(&root).unwrap());
        let mut unpacker = Unpacker::layer(open(), &[], u64::MAX);
        let is_whole = Cell::new(false);
        unpacker.record(Recorder::new(File::create(&recipe).unwrap()), &is_whole);
        unpacker.run(archive).unwrap();
        assert!(is_whole.get());
        let mut output = Vec::new();
        replay(File::open(&recipe).unwrap(), &Beneath::in_root(open()), &mut output)?;
        Ok(output)
    }

    #[test]
    fn an_archive_comes_out_as_it_went_in() {
        use tar::EntryType;
        let large = vec![b'x'; 300_000];
        let archive = [
            tar(EntryType::Directory, "d/", b""),
            tar(EntryType::Regular, "./d/large", &large),
            tar(EntryType::Regular, "d/empty", b""),
            tar(EntryType::Regular, "d/.wh.gone", b"whiteouts may have content"),
            tar(EntryType::Char, "d/null", b""),
            tar(EntryType::new(b'Q'), "unknown", b"passed over"),
            tar(EntryType::Regular, "last", b"no end follows, but this"),
            vec![0; 1024],
            b"anything".repeat(1000),
        ]
        .concat();
        assert!(again(&archive).unwrap() == archive);
    }

    #[test]
    fn of_two_files_with_one_name_the_first_is_lost() {
        use tar::EntryType;
        let archive =
            [tar(EntryType::Regular, "f", b"first"), tar(EntryType::Regular, "f", b"2")].concat();
        let error = again(&archive).unwrap_err();
        assert!(format!("{error:#}").contains("1 bytes instead of 5"), "{error:#}");
    }
}
