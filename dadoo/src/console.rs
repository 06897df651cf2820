//! The console socket: where the runtime sends the master of the process's new terminal.

use std::ffi::OsStr;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use guardian_contract::fault::Fault;
use nix::unistd::mkdtemp;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// gdn's limit on `--socket-dir-path`, which leaves room for what is appended.
const BASE_LIMIT: usize = 80;
const TEMPLATE: &str = "dadoo-XXXXXX";

/// A socket in a directory of its own, both of which vanish when this is dropped.
#[derive(Debug)]
pub(crate) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    /// Listens below `base`.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub(crate) fn listen(base: &Path) -> anyhow::Result<Self> {
        let dir = mkdtemp(&base.join(TEMPLATE))
            .with_context(|| format!("make a directory in {}", base.display()))?;
        let path = dir.join("tty.sock");
        let listener = UnixListener::bind(&path).with_context(|| {
            let _ = std::fs::remove_dir(&dir);
            format!("listen on {}", path.display())
        })?;
        Ok(Self { listener, path })
    }

    /// Returns the socket's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Receives the master from a runtime that has ended. It connected and sent before that, and
    /// the socket's queue holds both, so there is nothing to wait for.
    ///
    /// # Errors
    /// When the runtime has sent nothing.
    pub(crate) fn receive(self) -> anyhow::Result<OwnedFd> {
        self.listener.set_nonblocking(true)?;
        let (stream, _) = self.listener.accept().context("the runtime sent no terminal")?;
        stream.set_nonblocking(true)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        // The data is the terminal's name, which is of no use here.
        let mut name = [0; 256];
        let mut data = [IoSliceMut::new(&mut name)];
        recvmsg(&stream, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)
            .context("receive the terminal")?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
                && let Some(master) = descriptors.next()
            {
                return Ok(master);
            }
        }
        bail!("the runtime's message holds no terminal")
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = self.path.parent().map(std::fs::remove_dir);
    }
}

/// Chooses where the socket's directory is made: where the caller wishes, or in `temporary`.
/// `sun_path` holds 108 bytes (unix(7)): a long `temporary` gives way to /tmp.
///
/// # Errors
/// When the caller's wish is too long.
pub(crate) fn socket_base(wish: Option<&Path>, temporary: PathBuf) -> Result<PathBuf, Fault> {
    let fits = |path: &OsStr| path.as_bytes().len() <= BASE_LIMIT;
    match wish {
        Some(wish) if fits(wish.as_os_str()) => Ok(wish.into()),
        Some(_) => Err(Fault::invalid(format!(
            "value for --socket-dir-path cannot exceed {BASE_LIMIT} characters in length"
        ))),
        None if fits(temporary.as_os_str()) => Ok(temporary),
        None => Ok("/tmp".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_socket_is_kept_short() {
        let long = format!("/{}", "x".repeat(80));
        let edge = format!("/{}", "x".repeat(79));
        let base = |wish: Option<&str>, temporary: &str| {
            socket_base(wish.map(Path::new), temporary.into()).ok()
        };
        assert_eq!(base(None, "/var/tmp"), Some("/var/tmp".into()));
        assert_eq!(base(None, &long), Some("/tmp".into()));
        assert_eq!(base(Some(&edge), "/tmp"), Some(edge.clone().into()));
        assert_eq!(base(Some(&long), "/tmp"), None);
        assert!(edge.len() + "/dadoo-XXXXXX/tty.sock".len() < 108);
    }

    #[test]
    fn the_directory_vanishes_with_the_console() {
        let dir = tempfile::tempdir().unwrap();
        let console = Console::listen(dir.path()).unwrap();
        assert!(console.path().exists());
        assert!(console.receive().is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
