//! Registries that lie, break off, or want what is not theirs.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use guardian_tests::patience::patience;

use serde_json::{Value, json};

use super::fake::{Fake, Reply};
use super::scene::{Content, HOST, INDEX, LAYER, MANIFEST, OTHER, Scene, described};

#[test]
fn documents_that_lie_are_refused() {
    let Some(scene) = Scene::new("documents_that_lie_are_refused") else { return };
    let content = Arc::new(Mutex::new(Content::default()));
    let served = content.clone();
    let fake = scene.serve(move |seen| served.lock().unwrap().get(seen));
    let good = Content::image(&scene.bench);
    let with = |change: &dyn Fn(&mut Content), want: &str| {
        let mut changed = good.clone();
        change(&mut changed);
        *content.lock().unwrap() = changed;
        scene.refused(want);
    };
    let manifest = |change: fn(&mut Value), want: &str| {
        with(&|content| content.describe(change), want);
    };
    manifest(|it| it["layers"][0]["size"] = json!(5), "layer size is different from the value");
    manifest(|it| it["layers"][0]["mediaType"] = json!("a/b"), "image layer of media type 'a/b'");
    manifest(
        |it| {
            it["layers"][0]["mediaType"] =
                json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
        },
        "foreign.diff.tar.gzip",
    );
    manifest(|it| it["layers"] = json!([]), "image with 0 layers and 1 diff ids");
    manifest(
        |it| it["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json"),
        "helm",
    );
    manifest(|it| it["config"]["size"] = json!(5 << 20), "configuration is larger than");
    manifest(|it| it["manifests"] = json!([]), "image index and an image manifest");
    manifest(|it| it["mediaType"] = json!(INDEX), "media type");
    manifest(|it| it["layers"][0]["digest"] = json!("sha256:../../../etc/passwd"), "encoded value");
    let layers = vec![json!({"mediaType": LAYER, "size": 1, "digest": good.layer}); 501];
    with(&|content| content.describe(|it| it["layers"] = json!(layers)), "501 layers");
    let old = json!({"schemaVersion": 1, "fsLayers": []});
    with(
        &|content| {
            drop(content.tag(
                "v1",
                &old,
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
            ))
        },
        "schema 1",
    );
    with(
        &|content| drop(content.tag("v1", &json!({"schemaVersion": 2}), "text/html")),
        "text/html",
    );
    // Another configuration than the one named, and one that has no end.
    let config = |content: &Content| {
        let layer = content.layer_path();
        content
            .found
            .keys()
            .find(|path| path.starts_with("blobs/") && **path != layer)
            .unwrap()
            .clone()
    };
    with(
        &|content| drop(content.found.insert(config(content), Reply::ok("{}"))),
        "digest mismatch",
    );
    let endless = Reply::ok(vec![b' '; 5 << 20]);
    with(&|content| drop(content.found.insert(config(content), endless.clone())), "larger than");
    with(
        &|content| drop(content.found.insert("manifests/v1".into(), endless.clone())),
        "larger than",
    );
    // Other bytes of the right length, too few of them, too many.
    let mut other = good.archive.clone();
    other[600] ^= 1;
    for (body, want) in [
        (other, "layerID digest mismatch"),
        (good.archive[..1000].to_vec(), "layer size is different"),
        ([good.archive.as_slice(), b"x"].concat(), "layer size is different"),
    ] {
        let path = good.layer_path();
        with(&|content| drop(content.found.insert(path.clone(), Reply::ok(body.as_slice()))), want);
    }
    // An index that leads to itself can't be made; one that leads to ever other ones can.
    with(
        &|content| {
            let mut next = described(MANIFEST, &("sha256:".to_owned() + &"0".repeat(64), 2));
            for _ in 0..9 {
                let index = json!({"schemaVersion": 2, "manifests": [next]});
                next = described(INDEX, &content.tag("v1", &index, INDEX));
            }
        },
        "image index within image index",
    );
    // What is named by its digest can't be exchanged.
    let pin = format!("sha256:{}", "0".repeat(64));
    let manifest = good.found["manifests/v1"].clone();
    content.lock().unwrap().found.insert(format!("manifests/{pin}"), manifest);
    let said = scene.create_from(&format!("x@{pin}"), &[], "no").unwrap_err();
    assert!(said.contains("digest mismatch"), "{said}");
    *content.lock().unwrap() = good.clone();
    let said = scene.create(&[], "yes").unwrap();
    assert!(said.contains(r#""env":["A=1"]"#), "{said}");
    assert!(fake.seen().iter().all(|seen| seen.authorization.is_none()));
}

#[test]
fn what_breaks_off_is_carried_on() {
    let Some(scene) = Scene::new("what_breaks_off_is_carried_on") else { return };
    let content = Content::image(&scene.bench);
    let layer = content.layer_path();
    let length = content.archive.len();
    let fake = scene.serve(move |seen| match seen.path.ends_with(&layer) {
        // Each answer brings a third of the whole.
        true => {
            let reply = content.ranged(seen);
            let most = reply.body.len().min(length / 3);
            if most < reply.body.len() { reply.cut(most) } else { reply }
        }
        false => content.get(seen),
    });
    scene.create(&[], "one").unwrap();
    let ranges: Vec<_> = fake.asked("blobs/").into_iter().map(|seen| seen.range).collect();
    let at = |byte: usize| Some(format!("bytes={byte}-"));
    // The configuration, and the layer in four pieces, because three thirds are not the whole.
    assert_eq!(ranges[1..3], [None, at(length / 3)], "{ranges:?}");
    assert!(ranges.len() >= 4, "{ranges:?}");
}

#[test]
fn a_download_that_gets_nowhere_ends() {
    let Some(scene) = Scene::new("a_download_that_gets_nowhere_ends") else { return };
    let content = Content::image(&scene.bench);
    let layer = content.layer_path();
    let half = content.archive.len() / 2;
    let is_whole = Arc::new(AtomicUsize::new(0));
    let mended = is_whole.clone();
    let fake = scene.serve(move |seen| {
        let is_layer = seen.path.ends_with(&layer);
        match (is_layer, mended.load(Ordering::Relaxed), &seen.range) {
            (true, 0, None) => content.ranged(seen).cut(half),
            (true, 0, Some(_)) => content.ranged(seen).cut(0),
            (true, ..) => content.ranged(seen),
            (false, ..) => content.get(seen),
        }
    });
    let said = scene.create(&[], "one").unwrap_err();
    assert!(said.contains(&format!("breaks off at byte {half}")), "{said}");
    // What came is kept for the next attempt, which asks for the rest only.
    assert_eq!(scene.bench.stored("blobs").len(), 1);
    is_whole.store(1, Ordering::Relaxed);
    scene.create(&[], "one").unwrap();
    let last = fake.asked("blobs/").pop().unwrap();
    assert_eq!(last.range, Some(format!("bytes={half}-")));
    assert!(scene.bench.stored("blobs").is_empty());
}

#[test]
fn what_another_left_is_not_believed() {
    let Some(scene) = Scene::new("what_another_left_is_not_believed") else { return };
    let content = Content::image(&scene.bench);
    let name = content.layer.replace("sha256:", "");
    let layer = content.layer_path();
    scene.serve(move |seen| match seen.path.ends_with(&layer) {
        true => content.ranged(seen),
        false => content.get(seen),
    });
    let blobs = scene.bench.path("store/blobs");
    scene.bench.done(&["init-store"]);
    fs::create_dir(&blobs).unwrap();
    fs::write(blobs.join(&name), "something else").unwrap();
    scene.create(&[], "one").unwrap();
    // What nobody needs goes with the next image that goes.
    fs::write(blobs.join(&name), "something else").unwrap();
    scene.bench.done(&["delete", "one"]);
    assert!(scene.bench.stored("blobs").is_empty());
}

#[test]
fn an_overloaded_server_is_given_time() {
    let Some(scene) = Scene::new("an_overloaded_server_is_given_time") else { return };
    let content = Content::image(&scene.bench);
    let asked = AtomicUsize::new(0);
    let fake = scene.serve(move |seen| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::status(429).header("Retry-After: 2"),
        2 => Reply::status(500),
        4 => Reply::status(503),
        _ => content.get(seen),
    });
    let start = Instant::now();
    scene.create(&[], "one").unwrap();
    assert!(start.elapsed().as_secs() >= 2, "{:?}", start.elapsed());
    assert_eq!(fake.seen().len(), 6);
}

#[test]
fn a_server_that_always_fails_is_given_up() {
    let Some(scene) = Scene::new("a_server_that_always_fails_is_given_up") else { return };
    let fake = scene.serve(|_| Reply::status(502));
    let said = scene.create(&[], "one").unwrap_err();
    assert!(said.contains("answers 502"), "{said}");
    assert_eq!(fake.seen().len(), 4);
}

#[test]
fn a_redirect_takes_no_credentials_along() {
    let Some(scene) = Scene::new("a_redirect_takes_no_credentials_along") else { return };
    let content = Content::image(&scene.bench);
    let layer = content.layer_path();
    let archive = content.archive.clone();
    let elsewhere = Fake::start(&scene.netns, OTHER, move |_| Reply::ok(archive.as_slice()));
    let fake = scene.serve(move |seen| match &seen.authorization {
        None => Reply::status(401).header("WWW-Authenticate: Basic realm=\"x\""),
        Some(_) if seen.path.ends_with(&layer) => {
            Reply::status(307).header(format!("Location: http://{OTHER}/y?signature=z"))
        }
        Some(_) => content.get(seen),
    });
    scene.create(&["--username", "me", "--password", "secret"], "one").unwrap();
    let basic = Some("Basic bWU6c2VjcmV0".to_owned());
    assert!(fake.asked("blobs/").iter().all(|seen| seen.authorization == basic));
    let seen = elsewhere.seen();
    assert_eq!((seen.len(), seen[0].authorization.as_ref()), (1, None), "{seen:?}");
}

#[test]
fn a_redirect_s_end_may_not_ask_who_we_are() {
    let Some(scene) = Scene::new("a_redirect_s_end_may_not_ask_who_we_are") else { return };
    let content = Content::image(&scene.bench);
    let layer = content.layer_path();
    let thief = Fake::start(&scene.netns, OTHER, |_| {
        let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{HOST}/token\"");
        Reply::status(401).header(challenge)
    });
    let fake = scene.serve(move |seen| match seen.path.ends_with(&layer) {
        true => Reply::status(307).header(format!("Location: http://{OTHER}/y")),
        false => content.get(seen),
    });
    let said = scene.create(&["--username", "me", "--password", "secret"], "one").unwrap_err();
    assert!(said.contains("does not exist or you do not have permissions"), "{said}");
    assert!(fake.asked("/token").is_empty());
    assert!(thief.seen().iter().chain(&fake.seen()).all(|seen| seen.authorization.is_none()));
}

#[test]
fn a_layer_shorter_than_announced_is_not_asked_for_for_ever() {
    let Some(scene) = Scene::new("a_layer_shorter_than_announced_is_not_asked_for_for_ever") else {
        return;
    };
    let content = Content::image(&scene.bench);
    let layer = content.layer_path();
    let half = content.archive.len() / 2;
    let fake = scene.serve(move |seen| match (seen.path.ends_with(&layer), &seen.range) {
        (true, None) => content.ranged(seen).cut(half),
        (true, Some(_)) => Reply::status(416),
        (false, _) => content.get(seen),
    });
    let said = scene.create(&[], "one").unwrap_err();
    assert!(said.contains("breaks off at byte"), "{said}");
    assert!(fake.seen().len() < 10, "{:?}", fake.seen());
}

#[test]
fn who_waits_for_a_download_takes_over_from_the_dead() {
    let Some(scene) = Scene::new("who_waits_for_a_download_takes_over_from_the_dead") else {
        return;
    };
    let content = Content::image(&scene.bench);
    let layer = content.layer_path();
    let half = content.archive.len() / 2;
    let asked = AtomicUsize::new(0);
    // The first one who asks for the layer gets half of it, and then nothing for a long time.
    let fake = scene.serve(move |seen| match seen.path.ends_with(&layer) {
        true => match asked.fetch_add(1, Ordering::Relaxed) {
            0 => content.ranged(seen).stall(half),
            _ => content.ranged(seen),
        },
        false => content.get(seen),
    });
    let start = |id: &str| {
        let mut command = scene.bench.command_in(&scene.netns);
        command.args(["create", "--insecure-registry", HOST]);
        command.arg(format!("docker://{HOST}/x:v1")).arg(id).stdout(Stdio::null()).spawn().unwrap()
    };
    let until = |done: &dyn Fn() -> bool| {
        let end = Instant::now() + patience(Duration::from_secs(20));
        while !done() {
            assert!(Instant::now() < end, "{:?}", fake.seen());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let mut first = start("first");
    let size = || {
        let mut blobs = fs::read_dir(scene.bench.path("store/blobs")).into_iter().flatten();
        blobs.next().map_or(0, |blob| blob.unwrap().metadata().unwrap().len())
    };
    until(&|| size() == half as u64);
    let mut second = start("second");
    until(&|| fake.asked("manifests/").len() == 2);
    // An image of another kind does not wait for it.
    scene.bench.create(&[], &scene.bench.tar(), "other");
    assert!(second.try_wait().unwrap().is_none());
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(second.wait().unwrap().success());
    let last = fake.asked("blobs/").pop().unwrap();
    assert_eq!(last.range, Some(format!("bytes={half}-")));
    assert!(scene.bench.stored("blobs").is_empty());
    // What the dead one had begun goes when somebody asks for its id, or with the next prune.
    assert_eq!(scene.bench.stored("images"), ["first", "other", "second"]);
    scene.bench.done(&["delete", "first"]);
    assert_eq!(scene.bench.stored("images"), ["other", "second"]);
}

#[test]
fn a_redirect_in_circles_ends() {
    let Some(scene) = Scene::new("a_redirect_in_circles_ends") else { return };
    let fake = scene.serve(|_| Reply::status(302).header("Location: /v2/x/manifests/v1"));
    scene.refused("more than 5 redirects");
    assert!(fake.seen().len() < 10);
}

#[test]
fn a_token_is_for_this_repository_only() {
    let Some(scene) = Scene::new("a_token_is_for_this_repository_only") else { return };
    let content = Content::image(&scene.bench);
    // It asks for more than we want, and at a place that is the registry's own.
    let challenge = format!(
        "WWW-Authenticate: Bearer realm=\"http://{HOST}/token?a=b&scope=repository:z:pull\",service=\"reg & co\",\
         scope=\"repository:other/secret:pull,push\""
    );
    let fake = scene.serve(move |seen| match &seen.authorization {
        _ if seen.path.starts_with("/token") => Reply::ok(r#"{"access_token":"t0ken"}"#),
        Some(token) if token == "Bearer t0ken" => content.get(seen),
        _ => Reply::status(401).header(challenge.clone()),
    });
    scene.create(&["--username", "me", "--password", "secret"], "one").unwrap();
    let asked = fake.asked("/token");
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].path, "/token?a=b&service=reg%20%26%20co&scope=repository:x:pull");
    assert_eq!(asked[0].authorization.as_deref(), Some("Basic bWU6c2VjcmV0"));
}

#[test]
fn credentials_go_to_no_token_service_without_tls() {
    let Some(scene) = Scene::new("credentials_go_to_no_token_service_without_tls") else { return };
    let thief = Fake::start(&scene.netns, OTHER, |_| Reply::ok(r#"{"token":"t"}"#));
    scene.serve(|_| {
        let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{OTHER}/token\"");
        Reply::status(401).header(challenge)
    });
    let said = scene.create(&["--username", "me", "--password", "secret"], "one").unwrap_err();
    assert!(said.contains("its token service is not secured by TLS"), "{said}");
    assert_eq!(thief.seen(), []);
}
