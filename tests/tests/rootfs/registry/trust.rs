//! Why a registry is not trusted, and what to do about it.

use std::path::Path;
use std::process::Command;

use guardian_tests::skip;

use super::fake::Fake;
use super::identity::Identity;
use super::scene::{Content, HOST, Scene};

fn create(scene: &Scene, authorities: &Path, id: &str) -> Result<(), String> {
    let mut command: Command = scene.bench.command_in(&scene.netns);
    // That there are others in a directory makes none of a file that holds none.
    command.env("SSL_CERT_FILE", authorities).env("SSL_CERT_DIR", "/etc/ssl/certs");
    let output = command.args(["create", &format!("docker://{HOST}/x:v1"), id]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

#[test]
fn a_registry_without_tls_is_told_from_one_that_is_down() {
    let test = "a_registry_without_tls_is_told_from_one_that_is_down";
    let Some(scene) = Scene::new(test) else { return };
    if !skip::can_run(test, &["openssl"]) {
        return;
    }
    let content = Content::image(&scene.bench);
    scene.serve(move |seen| content.get(seen));
    let said = create(&scene, &Identity::make(&scene.bench).authority, "x").unwrap_err();
    assert_eq!(
        said,
        format!(
            "registry {HOST} can't be reached: it does not speak TLS; if it is to be trusted \
             without, allow it with --insecure-registry {HOST}"
        )
    );
}

#[test]
fn a_self_signed_certificate_is_trusted_unless_it_is_an_authority_s() {
    let test = "a_self_signed_certificate_is_trusted_unless_it_is_an_authority_s";
    for is_authority in [true, false] {
        let Some(scene) = Scene::new(test) else { return };
        if !skip::can_run(test, &["openssl"]) {
            return;
        }
        let identity = Identity::self_signed(&scene.bench, is_authority);
        let content = Content::image(&scene.bench);
        Fake::start_tls(&scene.netns, HOST, &identity, move |seen| content.get(seen));
        let created = create(&scene, &identity.authority, "x");
        if !is_authority {
            created.unwrap();
            continue;
        }
        let said = created.unwrap_err();
        assert!(said.contains("the certificate of a certificate authority as its own"), "{said}");
        assert!(said.contains("CA:FALSE") && said.contains(HOST), "{said}");
    }
}

#[test]
fn missing_authorities_are_not_the_registry_s_fault() {
    let test = "missing_authorities_are_not_the_registry_s_fault";
    let Some(scene) = Scene::new(test) else { return };
    if !skip::can_run(test, &["openssl"]) {
        return;
    }
    let identity = Identity::make(&scene.bench);
    let content = Content::image(&scene.bench);
    Fake::start_tls(&scene.netns, HOST, &identity, move |seen| content.get(seen));
    for (file, why) in [("/no/such/file", ": "), ("/dev/null", "")] {
        let said = create(&scene, Path::new(file), "x").unwrap_err();
        let want =
            format!("there are no CA certificates in {file}, which SSL_CERT_FILE names{why}");
        assert!(said.starts_with(&want), "{said}");
    }
    create(&scene, &identity.authority, "x").unwrap();
}
