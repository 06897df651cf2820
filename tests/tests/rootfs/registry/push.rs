//! From a registry into a container and back again.

use std::fs;
use std::path::Path;
use std::process::Command;

use guardian_tests::host;
use serde_json::Value;

use super::distribution::{HOST, HTPASSWD, Registry, ready, told};
use super::identity::Identity;
use crate::bench::Bench;
use crate::layout::{look, three_layers, unpack_by_umoci};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The diff ids of an image in a layout.
fn diff_ids(layout: &Path, tag: &str) -> Value {
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--config"]).arg(format!("oci:{}:{tag}", layout.display()));
    json(&host::output(&mut skopeo).unwrap())["rootfs"]["diff_ids"].clone()
}

#[test]
fn what_was_pulled_run_committed_and_pushed_is_pulled_again() {
    let test = "what_was_pulled_run_committed_and_pushed_is_pulled_again";
    let Some(bench) = ready(test, &["openssl", "umoci"]) else { return };
    let identity = Identity::make(&bench);
    let htpasswd = bench.path("htpasswd");
    fs::write(&htpasswd, HTPASSWD).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: x, path: {}}}}}", htpasswd.display());
    let (certificate, key) = (&identity.certificate, &identity.key);
    let tls = format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), key.display());
    let registry = Registry::start(&bench, &auth, &tls);
    registry.push(&three_layers(&bench).finish(), "x:v1", &["--dest-creds", "user:secret"]);
    let rootfs = |words: &[&str]| {
        let mut command = registry.rootfs();
        command.env("SSL_CERT_FILE", &identity.authority).env_remove("SSL_CERT_DIR");
        command.arg(words[0]).args(["--username", "user", "--password", "secret"]);
        told(command.args(&words[1..]))
    };
    rootfs(&["create", &format!("docker://{HOST}/x:v1"), "one"]).unwrap();
    let one = bench.path("store/images/one/rootfs");
    let container = bench.container("one", &one, true).unwrap();
    let script = "mkdir /mine; echo new > /mine/file; ln /mine/file /mine/again; rm -r /usr/lib; \
                  chown 1001:1010 /mine/file; chmod 4755 /mine/file; echo done";
    assert_eq!(container.sh(script), "done");
    drop(container);
    // The runtime's mount points are directories of the container's.
    let layout = bench.path("committed");
    let target = format!("{}:v2", layout.display());
    bench.done(&["commit", "one", &target]);
    let to = format!("docker://{HOST}/y/z:v2");
    let pushed = json(&rootfs(&["push", &target, &to]).unwrap());
    assert_eq!((&pushed["sent"], &pushed["known"]), (&5.into(), &0.into()), "{pushed}");
    let again = json(&rootfs(&["push", &format!("oci://{target}"), &to]).unwrap());
    assert_eq!((&again["sent"], &again["known"]), (&0.into(), &5.into()), "{again}");
    assert_eq!(pushed["digest"], again["digest"]);
    // Layers of ours are the same bytes again.
    let pulled = bench.path("pulled");
    let mut skopeo = registry.netns.command(host::program("skopeo").unwrap());
    skopeo.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
    skopeo.args(["--src-creds", "user:secret"]).arg(&to);
    host::output(skopeo.arg(format!("oci:{}:v2", pulled.display()))).unwrap();
    let ids = diff_ids(&pulled, "v2");
    assert_eq!(ids, diff_ids(&layout, "v2"));
    assert_eq!(
        ids.as_array().unwrap()[..3],
        *diff_ids(&bench.path("layout"), "v1").as_array().unwrap()
    );
    // A store that knows nothing, and umoci, get what the container had.
    let want = look(&one);
    let bundle = unpack_by_umoci(&bench, &pulled, "v2");
    bench.done(&["delete-store"]);
    rootfs(&["create", &to, "two"]).unwrap();
    let two = bench.path("store/images/two/rootfs");
    assert_eq!(look(&two), want);
    assert_eq!(look(&two), look(&bundle));
    assert_eq!(fs::read_to_string(two.join("mine/again")).unwrap(), "new\n");
    refusals(&bench, &rootfs, &target, &to);
}

fn refusals(
    bench: &Bench,
    rootfs: &dyn Fn(&[&str]) -> Result<String, String>,
    target: &str,
    to: &str,
) {
    for (source, to, want) in [
        ("/no/such/layout:v2", to, "Image source doesn't exist"),
        (&target.replace(":v2", ":v3"), to, "no tag 'v3'"),
        (target, "docker:///x@sha256:1", "digest"),
        (target, "oci:///x", "push takes an OCI image layout and a docker:// URI"),
        ("raw:///x", to, "push takes an OCI image layout and a docker:// URI"),
    ] {
        let said = rootfs(&["push", source, to]).unwrap_err();
        assert!(said.contains(want) && !said.contains('\n'), "{source} {to}: {said}");
    }
    // A layout that lacks a layer is not pushed in part: its manifest never is.
    let blobs = bench.path("committed/blobs/sha256");
    let largest = fs::read_dir(blobs)
        .unwrap()
        .map(|blob| blob.unwrap())
        .max_by_key(|blob| blob.metadata().unwrap().len());
    fs::remove_file(largest.unwrap().path()).unwrap();
    let said = rootfs(&["push", target, &to.replace("y/z", "never")]).unwrap_err();
    assert!(said.contains("look at") && said.contains("No such file"), "{said}");
    let said = rootfs(&["create", &to.replace("y/z", "never"), "never"]).unwrap_err();
    assert!(said.contains("does not exist"), "{said}");
}

#[test]
fn who_may_only_read_is_told_so() {
    let Some(bench) = ready("who_may_only_read_is_told_so", &[]) else { return };
    let htpasswd = bench.path("htpasswd");
    fs::write(&htpasswd, HTPASSWD).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: x, path: {}}}}}", htpasswd.display());
    let registry = Registry::start(&bench, &auth, "");
    let source = three_layers(&bench).finish();
    let mut command = registry.rootfs();
    command.args(["push", "--insecure-registry", HOST, "--username", "user", "--password", "no"]);
    let said = told(command.arg(&source).arg(format!("docker://{HOST}/x:v1"))).unwrap_err();
    assert!(said.ends_with("authorization failed: username and password are invalid"), "{said}");
    let mut command = registry.rootfs();
    command.args(["push", "--insecure-registry", HOST]).arg(&source);
    let said = told(command.arg(format!("docker://{HOST}/x:v1"))).unwrap_err();
    assert!(said.ends_with("you do not have permissions to see it."), "{said}");
}
