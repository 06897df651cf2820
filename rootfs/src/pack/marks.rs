//! What overlay writes down in extended attributes.

use std::os::fd::AsFd;

use anyhow::bail;

/// Where overlay keeps its marks (kernel: Documentation/filesystems/overlayfs.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marks {
    /// `trusted.overlay.*`.
    Trusted,
    /// `user.overlay.*`, of overlays mounted with `userxattr`.
    User,
}

impl Marks {
    pub(super) fn name(self, mark: &str) -> String {
        match self {
            Self::Trusted => format!("trusted.overlay.{mark}"),
            Self::User => format!("user.overlay.{mark}"),
        }
    }

    pub(super) fn is_there(self, file: &impl AsFd, mark: &str) -> bool {
        rustix::fs::fgetxattr(file, self.name(mark), &mut [0; 0][..]).is_ok()
    }

    /// Refuses what makes sense only to overlay, together with the layers below.
    pub(super) fn check(self, file: &impl AsFd) -> anyhow::Result<()> {
        for (mark, what) in [
            ("redirect", "its content is elsewhere in a layer below"),
            ("metacopy", "its content is in a layer below"),
        ] {
            if self.is_there(file, mark) {
                bail!("{what} ({}), which a layer can't tell", self.name(mark));
            }
        }
        Ok(())
    }
}
