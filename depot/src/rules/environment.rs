//! The environment of init, which processes in the container inherit.

use oci_spec::runtime::Spec;

use super::process;
use crate::wanted::Wanted;

/// Sets `process.env`: the image's, then the client's. Duplicates stay; the later one wins.
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    let (image, client) = (&wanted.spec.process.env, &wanted.spec.env);
    process(&mut spec).set_env(Some(image.iter().chain(client).cloned().collect()));
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixture::{made_by, wanted};

    #[test]
    fn the_client_comes_after_the_image() {
        let mut wanted = wanted();
        wanted.spec.process.env = vec!["A=1".into(), "B=2".into()];
        wanted.spec.env = vec!["A=3".into()];
        assert_eq!(
            made_by(apply, &wanted)["process"]["env"],
            serde_json::json!(["A=1", "B=2", "A=3"])
        );
    }
}
