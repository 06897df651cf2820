//! A real registry with images that skopeo pushed.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use super::distribution::{HOST, HTPASSWD, INSECURE, Registry, ready, told};
use super::identity::Identity;
use crate::bench::Bench;
use crate::layout::three_layers;

#[test]
fn an_image_is_pulled_in_either_format_once() {
    let Some(bench) = ready("an_image_is_pulled_in_either_format_once", &[]) else { return };
    let uri = three_layers(&bench).finish();
    let registry = Registry::start(&bench, "", "");
    registry.push(&uri, "x/docker:v1", &["--format", "v2s2"]);
    registry.push(&uri, "x/oci:latest", &["--format", "oci"]);
    let said = registry.create(&INSECURE, "x/docker#v1", "one").unwrap();
    assert!(said.contains(r#""env":["A=1","PATH=/bin"]"#), "{said}");
    let root = bench.path("store/images/one/rootfs");
    assert!(!root.join("etc/passwd").exists() && !root.join("home/alice").exists());
    assert_eq!(fs::read_to_string(root.join("home/only")).unwrap(), "only");
    assert_eq!(bench.stored("layers").len(), 3);
    assert_eq!(bench.stored("blobs"), [""; 0]);
    // The layers are known now, whatever the manifest that leads to them.
    registry.create(&INSECURE, "x/oci", "two").unwrap();
    remove_archives(&bench);
    registry.create(&INSECURE, "x/docker:v1", "three").unwrap();
    // A store that does not know them has no chance; and it is left clean.
    bench.done(&["delete-store"]);
    let said = registry.create(&INSECURE, "x/docker:v1", "x").unwrap_err();
    assert!(said.contains("does not exist or you do not have permissions"), "{said}");
    for directory in ["images", "layers", "partial", "blobs"] {
        assert_eq!(bench.stored(directory), [""; 0], "{directory}");
    }
}

/// Takes the layers from the registry, and leaves the documents.
fn remove_archives(bench: &Bench) {
    let blobs = bench.path("registry/docker/registry/v2/blobs/sha256");
    let mut removed = 0;
    for start in fs::read_dir(blobs).unwrap() {
        for blob in fs::read_dir(start.unwrap().path()).unwrap() {
            let blob = blob.unwrap().path();
            if !fs::read(blob.join("data")).unwrap().starts_with(b"{") {
                fs::remove_dir_all(blob).unwrap();
                removed += 1;
            }
        }
    }
    assert!(removed >= 3);
}

#[test]
fn an_image_is_found_by_digest_and_a_missing_one_is_not() {
    let Some(bench) = ready("an_image_is_found_by_digest_and_a_missing_one_is_not", &[]) else {
        return;
    };
    let registry = Registry::start(&bench, "", "");
    registry.push(&three_layers(&bench).finish(), "x:v1", &["--format", "oci"]);
    let links =
        bench.path("registry/docker/registry/v2/repositories/x/_manifests/revisions/sha256");
    let digest = fs::read_dir(links).unwrap().next().unwrap().unwrap().file_name();
    let digest = digest.into_string().unwrap();
    registry.create(&INSECURE, &format!("x@sha256:{digest}"), "one").unwrap();
    for name in ["x:v2", "nobody/nothing", &format!("x@sha256:{}", "0".repeat(64))] {
        let said = registry.create(&INSECURE, name, "no").unwrap_err();
        let want = format!(
            "docker://{HOST}/{name} does not exist or you do not have permissions to see it."
        );
        assert!(said.starts_with(&want) && !said.contains('\n'), "{said}");
    }
    assert_eq!(bench.stored("images"), ["one"]);
    // A known id is refused before anybody is asked.
    let said = registry.create(&[], "x:v1", "one").unwrap_err();
    assert_eq!(said, "image for id `one` already exists");
    // Nobody listens for TLS, and nothing says that less will do.
    let said = registry.create(&[], "x:v1", "two").unwrap_err();
    assert!(said.contains(&format!("registry {HOST} can't be reached")), "{said}");
}

#[test]
fn twenty_at_a_time_download_once() {
    let Some(bench) = ready("twenty_at_a_time_download_once", &[]) else { return };
    let registry = Registry::start(&bench, "", "");
    registry.push(&three_layers(&bench).finish(), "x:v1", &["--format", "v2s2"]);
    let uri = format!("docker://{HOST}/x:v1");
    let children: Vec<_> = (0..20)
        .map(|n| {
            let mut command = registry.rootfs();
            command.args(["--log-level", "info", "create", INSECURE[0], INSECURE[1], &uri]);
            command.arg(format!("c{n}")).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let mut downloaded = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        downloaded += String::from_utf8_lossy(&output.stderr).matches("layer-downloaded").count();
    }
    assert_eq!((downloaded, bench.mounts()), (3, 20));
    assert!(bench.stored("blobs").is_empty());
}

#[test]
fn a_password_is_asked_for_and_does_not_show() {
    let Some(bench) = ready("a_password_is_asked_for_and_does_not_show", &[]) else { return };
    let htpasswd = bench.path("htpasswd");
    fs::write(&htpasswd, HTPASSWD).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: x, path: {}}}}}", htpasswd.display());
    let registry = Registry::start(&bench, &auth, "");
    let uri = three_layers(&bench).finish();
    registry.push(&uri, "private:v1", &["--dest-creds", "user:secret"]);
    let with = |password: &str| {
        let mut command = registry.rootfs();
        command.args(["--log-level", "debug", "create", INSECURE[0], INSECURE[1]]);
        command.args(["--username", "user", "--password", password]);
        let output = command.arg(format!("docker://{HOST}/private:v1")).arg("x").output().unwrap();
        let all = [output.stdout.clone(), output.stderr].concat();
        assert!(!String::from_utf8_lossy(&all).contains(password), "{all:?}");
        let said = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    };
    let said = with("not-it-at-all").unwrap_err();
    assert_eq!(said, "authorization failed: username and password are invalid");
    let said = registry.create(&INSECURE, "private:v1", "x").unwrap_err();
    assert!(said.ends_with("does not exist or you do not have permissions to see it."), "{said}");
    with("secret").unwrap();
}

#[test]
fn tls_counts_with_the_hosts_authorities() {
    let Some(bench) = ready("tls_counts_with_the_hosts_authorities", &["openssl"]) else { return };
    let identity = Identity::make(&bench);
    let (certificate, key) = (&identity.certificate, &identity.key);
    let tls = format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), key.display());
    let registry = Registry::start(&bench, "", &tls);
    registry.push(&three_layers(&bench).finish(), "x:v1", &["--format", "oci"]);
    let create = |flags: &[&str], authority: &Path, id: &str| {
        let mut command = registry.rootfs();
        command.env("SSL_CERT_FILE", authority).env_remove("SSL_CERT_DIR");
        command.arg("create").args(flags).arg(format!("docker://{HOST}/x:v1")).arg(id);
        told(&mut command)
    };
    create(&[], &identity.authority, "trusted").unwrap();
    let said = create(&[], certificate, "other").unwrap_err();
    assert_eq!(
        said,
        "This registry is insecure. To pull images from this registry, please use the \
         --insecure-registry option."
    );
    create(&INSECURE, certificate, "insecure").unwrap();
    let said = create(&[], Path::new("/dev/null"), "none").unwrap_err();
    assert!(said.contains("no CA certificates"), "{said}");
}
