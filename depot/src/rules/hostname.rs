//! The host name inside.

use oci_spec::runtime::Spec;

use crate::wanted::Wanted;

/// Sets `hostname`; a pea has its sandbox's already.
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    let own = wanted.spec.sandbox.is_none();
    spec.set_hostname(own.then(|| wanted.handle.hostname().to_owned()));
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixture::{made_by, wanted};

    #[test]
    fn a_long_handle_is_cut_in_front() {
        for (handle, want) in [
            ("web-1", "web-1"),
            (
                "7132-ec774112a9cd-101f8293-230e-4fa8-4138-e8244e6dcfa1",
                "ec774112a9cd-101f8293-230e-4fa8-4138-e8244e6dcfa1",
            ),
        ] {
            let mut wanted = wanted();
            wanted.handle = handle.parse().unwrap();
            assert_eq!(made_by(apply, &wanted)["hostname"], want);
        }
    }
}
