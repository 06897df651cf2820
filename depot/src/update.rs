//! `depot update`: other limits in a bundle that is there.

use std::fs::File;

use anyhow::Context;
use guardian_contract::depot::{BLOCK_IO_WEIGHT, Bundle};
use guardian_contract::fault::Fault;
use guardian_contract::file::{read_json, replace_json};
use guardian_contract::garden::LimitsChange;
use guardian_contract::run::{Answer, check_caller};
use oci_spec::runtime::{LinuxResources, Spec};

use crate::cli::Limits;
use crate::host::Host;
use crate::rules::limits;

/// Changes the bundle's configuration, unless it is a dry run, and answers its resources as a runtime's
/// own `update` takes them. A container that runs already is not touched.
pub(crate) fn update(
    bundle: &Bundle,
    change: &LimitsChange,
    options: &Limits,
    dry_run: bool,
) -> anyhow::Result<Answer> {
    change.check()?;
    let path = bundle.config();
    let directory =
        File::open(bundle.path()).with_context(|| format!("open {}", bundle.path().display()))?;
    directory.lock().with_context(|| format!("lock {}", bundle.path().display()))?;
    check_caller()?;
    let spec: Option<Spec> = read_json(&path)?;
    let mut spec = spec.with_context(|| {
        Fault::not_found(format!("bundle '{}' has no configuration", bundle.handle()))
    })?;
    limits::change(&mut spec, change, options, &Host::read()?)?;
    if !dry_run {
        replace_json(&path, &spec)?;
    }
    Answer::json(&resources(&spec))
}

/// The resources, with the weight that bundles keep elsewhere ([`BLOCK_IO_WEIGHT`]).
fn resources(spec: &Spec) -> LinuxResources {
    let linux = spec.linux().as_ref();
    let mut all = linux.and_then(|linux| linux.resources().clone()).unwrap_or_default();
    let weight = spec.annotations().as_ref().and_then(|all| all.get(BLOCK_IO_WEIGHT)?.parse().ok());
    if weight.is_some() {
        let mut block_io = all.block_io().clone().unwrap_or_default();
        block_io.set_weight(weight);
        all.set_block_io(Some(block_io));
    }
    all
}
