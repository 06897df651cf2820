//! OCI whiteouts → overlay whiteouts.
//!
//! `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` hides all that its directory holds
//! there; neither hides anything of its own layer, wherever in the archive it stands
//! (OCI image spec, layer.md, "Whiteouts"). Overlay wants a character device 0:0 in place of NAME,
//! or the attribute `trusted.overlay.opaque` on the directory.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, FileType, Mode, XattrFlags};
use rustix::io::Errno;

use super::{Unpacker, place};
use crate::archive::{Entry, Kind};

/// How the name of a whiteout begins.
pub(crate) const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The attribute by which overlay knows an opaque directory.
pub(super) const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";

impl Unpacker<'_> {
    /// Obeys a whiteout; tells whether the member was one.
    pub(super) fn take_whiteout(&mut self, path: &Path, entry: &Entry) -> anyhow::Result<bool> {
        let Some(name) = path.file_name() else { return Ok(false) };
        if name.as_bytes() == OPAQUE {
            let directory = path.parent().unwrap_or(Path::new(""));
            self.open_or_make(directory)?;
            let fd = self.root.open(directory, rustix::fs::OFlags::RDONLY).context("open it")?;
            make_opaque(&fd)?;
            return Ok(true);
        }
        let hidden = match name.as_bytes().strip_prefix(PREFIX) {
            Some(hidden) => OsStr::from_bytes(hidden).to_owned(),
            // What overlay itself has for a whiteout.
            None if entry.kind == Kind::CharDevice(0, 0) => name.to_owned(),
            None => return Ok(false),
        };
        match hidden.as_bytes() {
            b"" | b"." | b".." => bail!("whiteout of nothing"),
            // Other files of that prefix are aufs' own books.
            name if name.starts_with(PREFIX) => Ok(true),
            _ => self.hide(&path.with_file_name(&hidden), &hidden).map(|()| true),
        }
    }

    fn hide(&mut self, path: &Path, name: &OsString) -> anyhow::Result<()> {
        let parent = self.parent(path)?.as_fd();
        match rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            // What this layer has made itself stays, but only its own part of it.
            Err(Errno::EXIST) if is_directory(parent, name) => {
                make_opaque(&place::open_directory(parent, name)?)
            }
            Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error).context("make whiteout"),
        }
    }
}

/// Marks a directory as opaque.
pub(super) fn make_opaque(directory: &OwnedFd) -> anyhow::Result<()> {
    rustix::fs::fsetxattr(directory, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())
        .context("make directory opaque")
}

/// Tells whether this attribute is there and says yes.
pub(crate) fn is_marked(file: &impl AsFd, attribute: &str) -> bool {
    let mut value = [0; 1];
    rustix::fs::fgetxattr(file, attribute, &mut value).is_ok() && value == *b"y"
}

/// Tells whether `name` is an overlay whiteout.
pub(super) fn is_at(parent: impl AsFd, name: &OsStr) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| is_one(&stat))
}

/// Tells whether this is what overlay takes for a whiteout.
pub(crate) fn is_one(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_char_device() && stat.st_rdev == 0
}

fn is_directory(parent: impl AsFd, name: &OsStr) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
}
