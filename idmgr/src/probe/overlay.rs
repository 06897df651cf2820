//! Which kinds of overlay work on a filesystem: plain, with an id-mapped lower layer, and with all
//! layers id-mapped. A mount call that succeeds proves little (an overlay can come up read-only
//! without a word), so each overlay is written to as root of a container would.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use guardian_contract::ids::host_id;
use guardian_contract::run::Answer;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, move_mount};
use rustix::thread::{capabilities, set_capabilities};
use serde::{Deserialize, Serialize};

use super::Outcome;
use super::idmap::clone_mapped;
use crate::maximus;
use crate::request::Overrides;

/// What works.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    /// Without id maps.
    pub(super) plain: Outcome,
    /// With an id-mapped lower layer, the upper one being owned by the container's root on disk.
    lower: Outcome,
    /// With all layers id-mapped: nothing is owned by the container's ids on disk.
    full: Outcome,
}

impl Report {
    fn failed(error: &anyhow::Error) -> Self {
        let outcome = Outcome { ok: false, error: Some(format!("{error:#}")) };
        Self { plain: outcome.clone(), lower: outcome.clone(), full: outcome }
    }
}

/// Probes the filesystem of `directory`. Mounts are made by a child in a mount namespace of its
/// own, so that no accident can leave one behind.
pub(super) fn probe(directory: &Path, userns: Option<&File>) -> Report {
    ask_child(directory, userns).unwrap_or_else(|error| Report::failed(&error))
}

fn ask_child(directory: &Path, userns: Option<&File>) -> anyhow::Result<Report> {
    let scratch = tempfile::Builder::new()
        .prefix(".idmgr-probe-")
        .tempdir_in(directory)
        .with_context(|| format!("make a directory in {}", directory.display()))?;
    let stdin = match userns {
        Some(userns) => userns.try_clone().context("copy a descriptor")?.into(),
        None => Stdio::null(),
    };
    let output = Command::new("/proc/self/exe")
        .arg("try-overlays")
        .arg(scratch.path())
        .stdin(stdin)
        .stderr(Stdio::null())
        .output()
        .context("run own program")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stdout).trim());
    }
    serde_json::from_slice(&output.stdout).context("read own program")
}

/// The child's half; its stdin is the user namespace to map by.
pub(crate) fn try_overlays(directory: &Path) -> anyhow::Result<Answer> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("make mounts private")?;
    let overrides = Overrides { uid_map_start: 1, gid_map_start: 1, ..Overrides::default() };
    let root = host_id(&maximus::maps(&overrides)?.uid, 0);
    let attempt = |name: &str, mapped: Mapped| {
        let layers = Layers { base: directory.join(name), mapped, root };
        Outcome::from(layers.attempt())
    };
    Answer::json(&Report {
        plain: attempt("plain", Mapped::None),
        lower: attempt("lower", Mapped::Lower),
        full: attempt("full", Mapped::All),
    })
}

/// Which layers are id-mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mapped {
    None,
    Lower,
    All,
}

/// The layers of one attempt, all below one directory.
struct Layers {
    base: PathBuf,
    mapped: Mapped,
    /// The host's id behind root of a container.
    root: u32,
}

impl Layers {
    fn attempt(&self) -> anyhow::Result<()> {
        for name in ["lower/dir", "rw/upper", "rw/work", "merged"] {
            fs::create_dir_all(self.base.join(name)).context("make layers")?;
        }
        fs::write(self.base.join("lower/dir/file"), "x").context("make layers")?;
        // Who is root in the merged directory is who owns the upper one.
        if self.mapped == Mapped::Lower {
            chown(self.base.join("rw/upper"), Some(self.root), Some(self.root))
                .context("chown the upper layer")?;
        }
        self.map_layers()?;
        self.become_container_root()?;
        let result = self.mount().and_then(|()| self.check());
        become_root();
        let _ = umount2(&self.base.join("merged"), MntFlags::MNT_DETACH);
        result
    }

    fn map_layers(&self) -> anyhow::Result<()> {
        let names: &[&str] = match self.mapped {
            Mapped::None => &[],
            Mapped::Lower => &["lower"],
            // Upper and work have to be on one mount, so it is their parent that is mapped.
            Mapped::All => &["lower", "rw"],
        };
        for name in names {
            let path = self.base.join(name);
            let mapped = clone_mapped(&path, &std::io::stdin())?;
            move_mount(&mapped, "", CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                .with_context(|| format!("mount {}", path.display()))?;
        }
        Ok(())
    }

    /// The kernel makes the work directory as whoever mounts, by a file id that the map must
    /// know: with root's, the overlay would silently be read-only.
    fn become_container_root(&self) -> anyhow::Result<()> {
        if self.mapped == Mapped::None {
            return Ok(());
        }
        let before = capabilities(None).context("read own capabilities")?;
        setfsgid(Gid::from_raw(self.root));
        setfsuid(Uid::from_raw(self.root));
        // Leaving file id 0 drops the capabilities that go with files (capabilities(7)).
        set_capabilities(None, before).context("keep own capabilities")
    }

    fn mount(&self) -> anyhow::Result<()> {
        let path = |name: &str| self.base.join(name).display().to_string();
        let layers = [("lowerdir", "lower"), ("upperdir", "rw/upper"), ("workdir", "rw/work")];
        let options: Vec<String> =
            layers.iter().map(|(key, name)| format!("{key}={}", path(name))).collect();
        let (merged, options) = (self.base.join("merged"), options.join(","));
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .context("mount the overlay")
    }

    /// Writes to the overlay: a new file, and a change to one of the lower layer.
    fn check(&self) -> anyhow::Result<()> {
        let merged = self.base.join("merged");
        let owner = if self.mapped == Mapped::None { 0 } else { self.root };
        let lower = fs::metadata(merged.join("dir/file")).context("look at a lower file")?;
        ensure!(lower.uid() == owner, "a lower file shows owner {}", lower.uid());
        fs::write(merged.join("new"), "x").context("create a file")?;
        fs::rename(merged.join("new"), merged.join("renamed")).context("rename a file")?;
        let made = fs::metadata(merged.join("renamed")).context("look at a new file")?;
        ensure!(made.uid() == owner, "a new file shows owner {}", made.uid());
        chown(merged.join("renamed"), Some(1), Some(1)).context("chown a file")?;
        fs::write(merged.join("dir/file"), "y").context("change a lower file")?;
        fs::remove_file(merged.join("dir/file")).context("remove a lower file")
    }
}

fn become_root() {
    setfsuid(Uid::from_raw(0));
    setfsgid(Gid::from_raw(0));
}
