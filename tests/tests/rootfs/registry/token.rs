//! A registry with a token service on another host, as Docker Hub is one: all over TLS.

use std::process::Command;

use guardian_tests::skip;

use super::fake::{Fake, Reply, Seen};
use super::identity::Identity;
use super::scene::{Content, HOST, OTHER, Scene};

/// The service's: `me` may see more than others.
fn tokens(seen: &Seen) -> Reply {
    match seen.authorization.as_deref() {
        Some("Basic bWU6c2VjcmV0") => Reply::ok(r#"{"token":"mine"}"#),
        Some(_) => Reply::status(401),
        None => Reply::ok(r#"{"token":"anybody-s"}"#),
    }
}

fn registry(content: Content) -> impl Fn(&Seen) -> Reply {
    move |seen| match seen.authorization.as_deref() {
        Some("Bearer mine") => content.get(seen),
        _ => Reply::status(401).header(format!(
            "WWW-Authenticate: Bearer realm=\"https://{OTHER}/token\",service=\"r\",error=\"x\""
        )),
    }
}

fn create(scene: &Scene, identity: &Identity, flags: &[&str], id: &str) -> Result<String, String> {
    let mut command: Command = scene.bench.command_in(&scene.netns);
    command.env("SSL_CERT_FILE", &identity.authority).env_remove("SSL_CERT_DIR");
    command.arg("create").args(flags).arg(format!("docker://{HOST}/x:v1")).arg(id);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

fn scene(test: &str) -> Option<(Scene, Identity)> {
    if !skip::can_run(test, &["openssl"]) {
        return None;
    }
    let scene = Scene::new(test)?;
    let identity = Identity::make(&scene.bench);
    Some((scene, identity))
}

#[test]
fn a_private_image_is_for_those_who_may_see_it() {
    let Some((scene, identity)) = scene("a_private_image_is_for_those_who_may_see_it") else {
        return;
    };
    let service = Fake::start_tls(&scene.netns, OTHER, &identity, tokens);
    let content = Content::image(&scene.bench);
    let fake = Fake::start_tls(&scene.netns, HOST, &identity, registry(content));
    let login = ["--username", "me", "--password", "secret"];
    let said = create(&scene, &identity, &[], "no").unwrap_err();
    let want =
        format!("docker://{HOST}/x:v1 does not exist or you do not have permissions to see it.");
    assert_eq!(said, want);
    let wrong = ["--username", "me", "--password", "wrong"];
    let said = create(&scene, &identity, &wrong, "no").unwrap_err();
    assert_eq!(said, "authorization failed: username and password are invalid");
    create(&scene, &identity, &login, "one").unwrap();
    // The registry itself was never shown the password, and the service asked once each time.
    let shown = fake.seen().into_iter().filter_map(|seen| seen.authorization);
    assert!(shown.clone().count() > 0 && shown.clone().all(|it| it.starts_with("Bearer ")));
    let asked = service.seen();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked.iter().all(|seen| seen.path == "/token?service=r&scope=repository:x:pull"));
}

#[test]
fn tls_is_never_left() {
    let Some((scene, identity)) = scene("tls_is_never_left") else { return };
    let content = Content::image(&scene.bench);
    let layer = content.layer_path();
    let plain = Fake::start(&scene.netns, OTHER, |_| Reply::status(500));
    Fake::start_tls(&scene.netns, HOST, &identity, move |seen| match seen.path.ends_with(&layer) {
        true => Reply::status(307).header(format!("Location: http://{OTHER}/y")),
        false => content.get(seen),
    });
    let said = create(&scene, &identity, &[], "no").unwrap_err();
    assert!(said.contains("refused a redirect from https to http"), "{said}");
    assert_eq!(plain.seen(), []);
}
