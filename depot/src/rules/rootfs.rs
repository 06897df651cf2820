//! The root filesystem.

use oci_spec::runtime::{RootBuilder, Spec};

use crate::wanted::Wanted;

/// Sets `root`, never read-only.
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    let path = wanted.spec.root.path.clone();
    spec.set_root(Some(RootBuilder::default().path(path).readonly(false).build()?));
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixture::{made_by, wanted};

    #[test]
    fn the_root_is_the_image_s_and_writable() {
        assert_eq!(
            made_by(apply, &wanted())["root"],
            serde_json::json!({"path": "/images/web-1/rootfs", "readonly": false})
        );
    }
}
