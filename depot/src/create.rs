//! `depot create`: a bundle from a request.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use anyhow::Context;
use guardian_contract::depot::{Bundle, BundleSpec};
use guardian_contract::fault::Fault;
use guardian_contract::file;
use guardian_contract::run::Answer;

use crate::cli::Options;
use crate::rules;
use crate::wanted::Wanted;

/// Makes the bundle, or leaves nothing of its own behind.
pub(crate) fn create(
    bundle: &Bundle,
    spec: BundleSpec,
    options: Options,
) -> anyhow::Result<Answer> {
    let mut wanted = Wanted::gather(bundle.handle(), spec, options)?;
    let claim = Claim::take(bundle)?;
    if let Err(error) = write(bundle, &mut wanted) {
        claim.abandon(bundle);
        return Err(error);
    }
    Answer::json(&serde_json::json!({"bundle": bundle.path()}))
}

fn write(bundle: &Bundle, wanted: &mut Wanted) -> anyhow::Result<()> {
    if wanted.spec.sandbox.is_none() {
        for path in [bundle.hosts(), bundle.resolv_conf()] {
            touch(&path, wanted.owner()).with_context(|| format!("make {}", path.display()))?;
        }
    }
    if wanted.spec.privileged {
        wanted.give_own_init(bundle)?;
    }
    wanted.bind_own_files(bundle)?;
    file::replace_json(&bundle.config(), &rules::apply(wanted)?)
}

/// Makes an empty file that its owner in the container may write.
fn touch(path: &Path, (uid, gid): (u32, u32)) -> std::io::Result<()> {
    let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
    fchown(&file, Some(uid), Some(gid))?;
    file.set_permissions(Permissions::from_mode(0o644))
}

/// The right to fill a bundle directory, held by a lock on the directory itself, so that of two
/// creates of one handle exactly one wins.
#[derive(Debug)]
struct Claim {
    /// Closing it drops the lock.
    _directory: File,
    /// Whether the directory is ours; else a caller reserved it, who will also remove it.
    made: bool,
}

impl Claim {
    fn take(bundle: &Bundle) -> anyhow::Result<Self> {
        let path = bundle.path();
        if let Some(depot) = path.parent() {
            file::private_dir(depot)?;
        }
        let context = || format!("make directory {}", path.display());
        let made = match DirBuilder::new().mode(0o755).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error).with_context(context),
        };
        let directory = File::open(path).with_context(context)?;
        directory.lock().with_context(|| format!("lock {}", path.display()))?;
        if bundle.config().exists() {
            let message = format!("Handle '{}' already in use", bundle.handle());
            return Err(Fault::exists(message).into());
        }
        // The container's root reads hosts and resolv.conf through this directory.
        directory.set_permissions(Permissions::from_mode(0o755)).with_context(context)?;
        Ok(Self { _directory: directory, made })
    }

    fn abandon(self, bundle: &Bundle) {
        let files = [bundle.hosts(), bundle.resolv_conf(), bundle.init_program(), bundle.config()];
        for path in files {
            let _ = std::fs::remove_file(path);
        }
        if self.made {
            let _ = std::fs::remove_dir(bundle.path());
        }
    }
}
