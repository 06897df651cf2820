//! The four ways GNU tar writes down where a sparse file has its holes.

use std::io::BufRead;

use anyhow::{Context, bail};
use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

use super::pax::number;
use super::{BLOCK, Extent};

/// More pieces than this are not a file but an attack.
const MAX_EXTENTS: usize = 1 << 20;

/// Collects the map of one file.
#[derive(Debug, Default)]
pub(super) struct Map {
    /// The pieces so far.
    pub(super) extents: Vec<Extent>,
    /// The size of the whole file.
    pub(super) size: u64,
    /// Whether the map precedes the data (pax format 1.0).
    pub(super) is_in_data: bool,
}

impl Map {
    /// Takes a pax record; tells whether it was one of ours.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<bool> {
        match key {
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.size = number(value)?,
            b"GNU.sparse.major" => self.is_in_data = value == b"1",
            b"GNU.sparse.offset" => self.push(number(value)?, 0)?,
            b"GNU.sparse.numbytes" => {
                let extent = self.extents.last_mut().context("sparse length without offset")?;
                extent.length = number(value)?;
            }
            b"GNU.sparse.map" => {
                let numbers: Vec<&[u8]> = value.split(|byte| *byte == b',').collect();
                for pair in numbers.chunks(2) {
                    let [offset, length] = pair else { bail!("sparse map with an odd number") };
                    self.push(number(offset)?, number(length)?)?;
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads the old GNU format: pieces in the header block, more of them in blocks after it.
    pub(super) fn read_old(
        &mut self,
        gnu: &GnuHeader,
        input: &mut impl BufRead,
    ) -> anyhow::Result<()> {
        self.size = gnu.real_size()?;
        self.push_all(&gnu.sparse)?;
        let mut is_extended = gnu.is_extended();
        while is_extended {
            let mut block = GnuExtSparseHeader::new();
            input.read_exact(block.as_mut_bytes()).context("read sparse map")?;
            self.push_all(block.sparse())?;
            is_extended = block.is_extended();
        }
        Ok(())
    }

    /// Reads the map that begins the data in pax format 1.0: decimal numbers, one a line, filled
    /// up to whole blocks. Returns how many bytes it took.
    pub(super) fn read_from_data(&mut self, input: &mut impl BufRead) -> anyhow::Result<u64> {
        let mut taken = 0;
        let count: usize = line(input, &mut taken)?;
        for _ in 0..count {
            let offset = line(input, &mut taken)?;
            let length = line(input, &mut taken)?;
            self.push(offset, length)?;
        }
        let mut rest = (BLOCK - taken % BLOCK) % BLOCK;
        taken += rest;
        while rest > 0 {
            let byte = &mut [0];
            input.read_exact(byte).context("read sparse map")?;
            rest -= 1;
        }
        Ok(taken)
    }

    /// Checks the map and returns its pieces: in order, apart from each other, inside the file,
    /// and together as long as the data.
    pub(super) fn finish(self, data: u64) -> anyhow::Result<Vec<Extent>> {
        let (mut end, mut total) = (0u64, 0u64);
        for extent in &self.extents {
            let Some(next) = extent.offset.checked_add(extent.length) else {
                bail!("sparse map runs over");
            };
            if extent.offset < end || next > self.size {
                bail!("sparse map is out of order");
            }
            end = next;
            total = total.saturating_add(extent.length);
        }
        if total != data {
            bail!("sparse map tells of {total} bytes, the archive of {data}");
        }
        Ok(self.extents)
    }

    fn push_all(&mut self, pieces: &[GnuSparseHeader]) -> anyhow::Result<()> {
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            self.push(piece.offset()?, piece.length()?)?;
        }
        Ok(())
    }

    fn push(&mut self, offset: u64, length: u64) -> anyhow::Result<()> {
        if self.extents.len() >= MAX_EXTENTS {
            bail!("sparse file in more than {MAX_EXTENTS} pieces");
        }
        self.extents.push(Extent { offset, length });
        Ok(())
    }
}

fn line<T: std::str::FromStr>(input: &mut impl BufRead, taken: &mut u64) -> anyhow::Result<T> {
    let mut text = Vec::new();
    while text.last() != Some(&b'\n') {
        let byte = &mut [0];
        input.read_exact(byte).context("read sparse map")?;
        text.push(byte[0]);
        if text.len() > 21 {
            bail!("sparse map with an endless line");
        }
    }
    *taken += text.len() as u64;
    number(&text[..text.len() - 1])
}
