//! A file that is being downloaded: what there is of it, and getting the rest.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use guardian_contract::fault::{Fault, Kind};
use ureq::http::StatusCode;

use super::download::Watch;
use super::origin::Origin;
use crate::digest::Hashed;
use crate::layer::size_mismatch;
use crate::progress::State;

/// How often a download may break off without having got further.
const TRIES: u32 = 4;
/// Bytes per second of a registry that is of any use.
const SLOWEST: u64 = 16 << 10;
/// What a download may take beside its bytes.
const EXTRA: Duration = Duration::from_secs(60);
const BUFFER: usize = 256 * 1024;

/// A file and the hash of what is in it.
pub(super) struct Partial<'a> {
    file: &'a File,
    path: &'a Path,
    /// The digits of the digest by which the registry knows it.
    name: &'a str,
    hash: Hashed<std::io::Sink>,
    has: u64,
    size: u64,
}

impl<'a> Partial<'a> {
    /// Reads again what is there already.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn resume(
        mut file: &'a File,
        path: &'a Path,
        name: &'a str,
        size: u64,
    ) -> anyhow::Result<Self> {
        if file.metadata().context("look at download")?.len() > size {
            file.set_len(0).context("drop download")?;
        }
        file.seek(SeekFrom::Start(0)).context("read download")?;
        let mut hash = Hashed::new(std::io::sink());
        let has = std::io::copy(&mut file, &mut hash).context("read download")?;
        Ok(Self { file, path, name, hash, has, size })
    }

    /// Returns the SHA-256 of what is there.
    pub(super) fn digest(self) -> String {
        self.hash.finish().0
    }

    /// Downloads until all is there; a connection that breaks off is made again, as long as there
    /// is more to show for it than before.
    ///
    /// # Errors
    /// When the registry does not give all of it, or more, or not in time.
    pub(super) fn complete(
        &mut self,
        origin: &Origin<'_>,
        watch: &Watch<'_>,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + time(self.size);
        let (mut most, mut fruitless) = (self.has, 0);
        while self.has < self.size {
            let broken = self.carry_on(origin, watch, end)?;
            fruitless = if self.has > most { 0 } else { fruitless + 1 };
            most = most.max(self.has);
            if self.has < self.size && (fruitless == TRIES || Instant::now() > end) {
                let text =
                    format!("download of layer {} breaks off at byte {}", self.name, self.has);
                return Err(broken).context(Fault::new(Kind::Unavailable, text));
            }
        }
        Ok(())
    }

    /// Returns why the connection broke off, if it did before its time.
    fn carry_on(
        &mut self,
        origin: &Origin<'_>,
        watch: &Watch<'_>,
        end: Instant,
    ) -> anyhow::Result<anyhow::Error> {
        let response = origin.blob(self.name, self.has)?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if self.has > 0 => {}
            StatusCode::OK => self.restart()?,
            status => {
                self.restart()?;
                return Ok(anyhow!("the registry answers {status}"));
            }
        }
        let announced = response.body().content_length();
        let wanted = self.size - self.has;
        if announced.is_some_and(|length| length != wanted) {
            let actual = self.has.saturating_add(announced.unwrap_or_default());
            bail!(size_mismatch(self.size, actual));
        }
        let mut told = watch.progress.layer(self.name, self.size);
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            if watch.is_over() {
                bail!("another layer failed");
            }
            let length = match body.read(&mut buffer) {
                Ok(0) => return Ok(anyhow!("the connection was closed")),
                Ok(length) => length,
                Err(error) => return Ok(error.into()),
            };
            if Instant::now() > end {
                return Ok(anyhow!("slower than {SLOWEST} bytes per second"));
            }
            self.add(&buffer[..length])?;
            told.is(State::Download, self.has);
        }
    }

    fn add(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let has = self.has + bytes.len() as u64;
        if has > self.size {
            bail!(size_mismatch(self.size, has));
        }
        let told = || format!("write download {}", self.path.display());
        self.file.write_all(bytes).with_context(told)?;
        self.hash.write_all(bytes).context("hash download")?;
        self.has = has;
        Ok(())
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.file.set_len(0).context("drop download")?;
        self.file.seek(SeekFrom::Start(0)).context("drop download")?;
        (self.hash, self.has) = (Hashed::new(std::io::sink()), 0);
        Ok(())
    }
}

/// How long a download of so many bytes may take.
fn time(bytes: u64) -> Duration {
    EXTRA + Duration::from_secs(bytes / SLOWEST)
}
