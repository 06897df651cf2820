//! What the caller may say about registries: who we are, mirrors, and pulling ahead.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use super::fake::{Fake, Reply, Seen};
use super::scene::{Content, HOST, OTHER, Scene};

/// `me:secret` as HTTP has it.
const BASIC: &str = "Basic bWU6c2VjcmV0";

/// Shows the image only to those who are `me`.
fn private(content: Content) -> impl Fn(&Seen) -> Reply {
    move |seen| match seen.authorization.as_deref() {
        Some(BASIC) => content.get(seen),
        _ => Reply::status(401).header("WWW-Authenticate: Basic realm=\"x\""),
    }
}

#[test]
fn a_password_comes_from_a_file_or_stdin() {
    let Some(scene) = Scene::new("a_password_comes_from_a_file_or_stdin") else { return };
    scene.serve(private(Content::image(&scene.bench)));
    let file = scene.bench.path("password");
    fs::write(&file, "secret\n").unwrap();
    let flags = ["--username", "me", "--password-file", file.to_str().unwrap()];
    scene.create(&flags, "one").unwrap();
    let mut command = scene.bench.command_in(&scene.netns);
    command.args(["create", "--insecure-registry", HOST, "--username", "me"]);
    command.args(["--password-file", "-"]).arg(format!("docker://{HOST}/x:v1")).arg("two");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"secret").unwrap();
    assert!(child.wait().unwrap().success());
    for (content, want) in [("wrong", "username and password are invalid"), ("", "are invalid")] {
        fs::write(&file, content).unwrap();
        assert!(scene.create(&flags, "no").unwrap_err().contains(want));
    }
    fs::write(&file, "x".repeat(100_000)).unwrap();
    let said = scene.create(&flags, "no").unwrap_err();
    assert!(said.contains("holds more than a password"), "{said}");
    // One without the other is a mistake.
    let said = scene.create(&flags[..2], "no").unwrap_err();
    assert_eq!(said, "--username needs --password-file or --password");
    let said = scene.create(&flags[2..], "no").unwrap_err();
    assert_eq!(said, "--password-file needs --username");
}

#[test]
fn docker_s_configuration_says_who_we_are() {
    let Some(scene) = Scene::new("docker_s_configuration_says_who_we_are") else { return };
    scene.serve(private(Content::image(&scene.bench)));
    let file = scene.bench.path("config.json");
    let with = |config: &Value, flags: &[&str], id: &str| {
        fs::write(&file, config.to_string()).unwrap();
        let flags = [&["--docker-config", file.to_str().unwrap()], flags].concat();
        scene.create(&flags, id)
    };
    with(&json!({"auths": {HOST: {"auth": "bWU6c2VjcmV0"}}}), &[], "one").unwrap();
    let wrong = json!({"auths": {HOST: {"username": "me", "password": "hunter2"}}});
    let said = with(&wrong, &[], "no").unwrap_err();
    assert_eq!(said, "authorization failed: username and password are invalid");
    // What is said with the image counts more.
    with(&wrong, &["--username", "me", "--password", "secret"], "two").unwrap();
    let said = with(&json!({"auths": {OTHER: {"auth": "bWU6c2VjcmV0"}}}), &[], "no").unwrap_err();
    assert!(said.ends_with("does not exist or you do not have permissions to see it."), "{said}");
    let said = with(&json!({"credHelpers": {HOST: "ecr"}}), &[], "no").unwrap_err();
    assert!(said.contains("credential helpers are not supported"), "{said}");
    fs::write(&file, r#"{"auths": {"x": {"auth": 5hunter2"#).unwrap();
    let said = scene.create(&["--docker-config", file.to_str().unwrap()], "no").unwrap_err();
    assert!(said.contains("is malformed") && !said.contains("hunter2"), "{said}");
}

#[test]
fn a_mirror_is_asked_first_and_does_not_have_to_have_it() {
    let Some(scene) = Scene::new("a_mirror_is_asked_first_and_does_not_have_to_have_it") else {
        return;
    };
    let content = Content::image(&scene.bench);
    let layer = content.layer_path();
    // The mirror has the documents, but of the layer half, and then no more.
    let (half, mirrored) = (content.archive.len() / 2, content.clone());
    let mirror = Fake::start(&scene.netns, OTHER, move |seen| {
        match (seen.path.ends_with(&layer), &seen.range) {
            (true, None) => mirrored.ranged(seen).cut(half),
            (true, Some(_)) => Reply::status(404),
            (false, _) => mirrored.get(seen),
        }
    });
    let layer = content.layer_path();
    let fake = scene.serve(move |seen| match seen.path.ends_with(&layer) {
        true => content.ranged(seen),
        false => content.get(seen),
    });
    let flag = format!("{HOST}=http://{OTHER}");
    let flags = ["--registry-mirror", &flag, "--username", "me", "--password", "secret"];
    scene.create(&flags, "one").unwrap();
    assert!(mirror.asked("manifests/").len() == 1 && fake.asked("manifests/").is_empty());
    assert!(mirror.seen().iter().all(|seen| seen.authorization.is_none()));
    // The registry gave what the mirror did not.
    let ranges: Vec<_> = fake.asked("blobs/").into_iter().filter_map(|seen| seen.range).collect();
    assert_eq!(ranges, [format!("bytes={half}-")]);
    // A mirror that has nothing is in nobody's way.
    let flag = format!("{HOST}=http://127.0.0.9:9");
    scene.create(&["--registry-mirror", &flag], "two").unwrap();
    assert_eq!(fake.asked("manifests/").len(), 1);
}

#[test]
fn an_image_is_pulled_ahead_and_progress_told() {
    let Some(scene) = Scene::new("an_image_is_pulled_ahead_and_progress_told") else { return };
    let content = Content::image(&scene.bench);
    let layer = content.layer.clone();
    let size = content.archive.len();
    let fake = scene.serve(move |seen| content.get(seen));
    let pull = |style: &str| {
        let mut command = scene.bench.command_in(&scene.netns);
        command.args(["pull", "--insecure-registry", HOST, "--progress", style]);
        let output = command.arg(format!("docker://{HOST}/x:v1")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        (answer, String::from_utf8(output.stderr).unwrap())
    };
    let (answer, told) = pull("json");
    assert!(answer["layers"] == 1 && answer["known"] == 0, "{answer}");
    assert!(answer["bytes"].as_u64().unwrap() > 1 << 20, "{answer}");
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["layer"] == layer && line["size"] == size), "{told}");
    let states: Vec<_> = lines.iter().map(|line| line["state"].as_str().unwrap()).collect();
    assert_eq!(states[states.len() - 3..], ["download", "unpack", "done"]);
    assert_eq!(lines[lines.len() - 3]["bytes"], size);
    assert!(scene.bench.stored("images").is_empty() && scene.bench.stored("blobs").is_empty());
    let (answer, told) = pull("auto");
    assert_eq!((answer["known"].as_u64(), told.as_str()), (Some(1), ""));
    scene.create(&[], "one").unwrap();
    assert_eq!(fake.asked(&layer).len(), 1);
}
