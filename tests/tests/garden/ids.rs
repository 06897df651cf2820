//! Ids of a container's own, the host's files as its, and volumes for engines inside.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use guardian_tests::daemon::{Daemon, Options};
use guardian_tests::host;
use serde_json::{Value, json};

use crate::{can_run, code, ctl, options, run, stderr, stdout};

/// An id manager with state of its own, for the servers of one test.
struct Manager(tempfile::TempDir);

impl Manager {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("guardian-ids-").tempdir().unwrap();
        fs::write(directory.path().join("subid"), format!("root:3500000000:{}\n", 4 * 65_536))
            .unwrap();
        Self(directory)
    }

    fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.0.path().join(name).display().to_string();
        let flag = |name: &str, file: &str| format!("--{name}={}", path(file));
        vec![
            flag("state-dir", "state"),
            flag("run-dir", "run"),
            flag("subuid", "subid"),
            flag("subgid", "subid"),
        ]
    }

    fn options(&self, runtime: &str) -> Options {
        let flags = self.flags().iter().map(|flag| format!("--idmgr-extra-arg={flag}")).collect();
        Options { flags, ..options(runtime) }
    }

    fn list(&self) -> Value {
        let mut command = Command::new(host::bin_dir().join("idmgr"));
        serde_json::from_str(&host::output(command.args(self.flags()).arg("list")).unwrap())
            .unwrap()
    }

    /// Lists what is mounted for containers, and what volumes there are.
    fn left(&self) -> Vec<PathBuf> {
        let entries = |name: &str| fs::read_dir(self.0.path().join(name)).into_iter().flatten();
        let all = ["run/marks", "state/volumes", "state/sources", "state/containers"];
        all.iter().flat_map(|name| entries(name)).map(|entry| entry.unwrap().path()).collect()
    }

    fn assert_empty(&self) {
        assert_eq!(self.left(), Vec::<PathBuf>::new());
        assert_eq!(self.list()["holders"], json!({}));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.0.path().to_str().unwrap()), "{mounts}");
    }
}

fn with_each_runtime(check: &str, body: impl Fn(&mut Daemon, &Manager)) {
    for runtime in ["runc", "crun"] {
        let check = format!("{check} ({runtime})");
        if !can_run(&check, runtime) {
            continue;
        }
        let manager = Manager::new();
        let mut daemon = Daemon::start(manager.options(runtime)).unwrap();
        body(&mut daemon, &manager);
        assert_eq!(daemon.finish().unwrap(), Vec::<String>::new(), "{check}: left behind");
        manager.assert_empty();
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.uid(), stat.gid())
}

/// A directory that is root's alone.
fn private(daemon: &Daemon, name: &str) -> PathBuf {
    let path = daemon.path(name);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(path.join("of-root"), "secret\n").unwrap();
    fs::set_permissions(path.join("of-root"), fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn a_container_can_have_ids_of_its_own() {
    with_each_runtime("id policy", |daemon, manager| {
        let map = |words: &[&str]| {
            let output =
                run(daemon, &[words, &["--rm", "--", "cat", "/proc/self/uid_map"]].concat());
            assert_eq!(code(&output), 0, "{}", stderr(&output));
            stdout(&output).split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(map(&["--id-policy", "exclusive"]), "0 3500000000 65536");
        assert_eq!(map(&["--id-policy", "maximus"]), map(&[]));
        assert_eq!(map(&[]), "0 4294967294 1 1 1 4294967293");
        let handles: Vec<String> = (0..4).map(|at| daemon.handle(&format!("own{at}"))).collect();
        for handle in &handles {
            daemon.ctl(&["create", "--handle", handle, "--id-policy", "exclusive"]).unwrap();
        }
        let late = daemon.handle("late");
        let refused = ctl(daemon, &["create", "--handle", &late, "--id-policy", "exclusive"]);
        assert!(
            stderr(&refused).contains("0 of 4 blocks of 65536 are free"),
            "{}",
            stderr(&refused)
        );
        // A server that was killed gives back what it gave.
        daemon.kill().unwrap();
        daemon.up().unwrap();
        assert_eq!(manager.list()["blocks"]["free"], 0);
        daemon.ctl(&["rm", &handles[0]]).unwrap();
        daemon.ctl(&["create", "--handle", &late, "--id-policy", "exclusive"]).unwrap();
        daemon.destroy_all().unwrap();
    });
}

#[test]
fn the_host_s_root_s_files_can_be_the_container_s() {
    with_each_runtime("id-mapped bind mounts", |daemon, _| {
        let private = private(daemon, "private");
        chown(private.join("of-root"), Some(0), Some(1000)).unwrap();
        let bind = |options: &str| format!("{}:/data{options}", private.display());
        let script = |text: &'static str| ["--rm", "--", "sh", "-c", text];
        let output = run(daemon, &[&["-v", &bind("")][..], &script("cat /data/of-root")].concat());
        assert_ne!(code(&output), 0, "without a map, root's files are nobody's");
        for policy in ["maximus", "exclusive"] {
            let flags = ["--id-policy", policy, "-v", &bind(":idmap")];
            let text = "cd /data && cat of-root && stat -c %u:%g . of-root && echo x > made && chown 7:8 made && mkdir d";
            let output = run(daemon, &[&flags[..], &script(text)].concat());
            assert_eq!(stdout(&output), "secret\n0:0\n0:1000\n", "{policy}: {}", stderr(&output));
            assert_eq!(
                (owner(&private.join("made")), owner(&private.join("d"))),
                ((7, 8), (0, 0)),
                "{policy}"
            );
            assert_eq!(
                (owner(&private), owner(&private.join("of-root"))),
                ((0, 0), (0, 1000)),
                "{policy}"
            );
            fs::remove_file(private.join("made")).unwrap();
            fs::remove_dir(private.join("d")).unwrap();
        }
        let output = run(
            daemon,
            &[&["-v", &bind(":ro,idmap")][..], &script("cat /data/of-root; touch /data/x")]
                .concat(),
        );
        assert_eq!(
            (code(&output), stdout(&output).as_str()),
            (1, "secret\n"),
            "{}",
            stderr(&output)
        );
        let output = run(
            daemon,
            &[&["--privileged", "-v", &bind(":idmap")][..], &script("cat /data/of-root")].concat(),
        );
        assert_eq!(stdout(&output), "secret\n", "{}", stderr(&output));
        // Two containers, one source: gone with the last of them.
        let (one, two) = (daemon.handle("one"), daemon.handle("two"));
        for handle in [&one, &two] {
            daemon.ctl(&["create", "--handle", handle, "-v", &bind(":idmap")]).unwrap();
        }
        daemon.ctl(&["rm", &one]).unwrap();
        let said = daemon.ctl(&["exec", &two, "--", "cat", "/data/of-root"]).unwrap();
        assert_eq!(said, "secret\n");
        daemon.ctl(&["rm", &two]).unwrap();
        let output = run(daemon, &["-v", "/proc/self/status:/x:idmap", "--rm", "--", "true"]);
        assert!(stderr(&output).contains("can't be id-mapped"), "{}", stderr(&output));
        let output = run(daemon, &["-v", "/no/such:/x:idmap", "--rm", "--", "true"]);
        assert!(stderr(&output).contains("find /no/such"), "{}", stderr(&output));
    });
}

/// What an engine does for each of its containers. An overlay can't be the upper layer of another
/// overlay, so where the root filesystem is one this can't work without the volume.
const OVERLAY: &str = "cd /var/lib/docker && mkdir -p l u w m && echo low > l/f && \
    mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m && \
    cat m/f && echo up >> m/f && echo new > m/g && rm m/f && cat m/g && ls u && umount m";

#[test]
fn an_engine_inside_can_mount_overlays_in_a_volume() {
    with_each_runtime("volume store", |daemon, manager| {
        let script = ["--", "sh", "-c", OVERLAY];
        let store = ["--privileged", "--rm", "--volume-store", "docker"];
        let without = format!("mkdir -p /var/lib/docker && {OVERLAY}");
        let output = run(daemon, &["--privileged", "--rm", "--", "sh", "-c", &without]);
        assert!(stderr(&output).contains("mount: mounting overlay"), "{}", stderr(&output));
        let output = run(daemon, &[&store[..], &script].concat());
        assert_eq!(stdout(&output), "low\nnew\nf\ng\n", "{}", stderr(&output));
        // Without privileges a container may not mount, but what lives in its namespaces with the
        // rights of its root may, and the volume is its root's.
        for policy in ["maximus", "exclusive"] {
            let handle = daemon.handle(policy);
            let words =
                ["create", "--handle", &handle, "--id-policy", policy, "--volume-store", "docker"];
            daemon.ctl(&words).unwrap();
            let said =
                daemon.ctl(&["exec", &handle, "--", "stat", "-c", "%u:%g %a", "/var/lib/docker"]);
            assert_eq!(said.unwrap(), "0:0 700\n", "{policy}");
            let pid = fs::read_to_string(daemon.depot().join(&handle).join("pidfile")).unwrap();
            let mut inside = Command::new("nsenter");
            inside.args([
                "--target",
                pid.trim(),
                "--user",
                "--mount",
                "--root",
                "--wd",
                "sh",
                "-c",
                OVERLAY,
            ]);
            assert_eq!(host::output(&mut inside).unwrap(), "low\nnew\nf\ng\n", "{policy}");
            // What is in the volume is the container's own on disk, too: no ids of the host.
            let data =
                manager.0.path().join(format!("state/volumes/{handle}/%2Fvar%2Flib%2Fdocker/data"));
            assert_eq!((owner(&data), owner(&data.join("u/g"))), ((0, 0), (0, 0)), "{policy}");
            daemon.ctl(&["rm", &handle]).unwrap();
            assert!(!data.exists());
        }
    });
}

#[test]
fn a_volume_begins_as_the_image_s_and_is_saved_when_the_container_stops() {
    with_each_runtime("volume store of an image", |daemon, manager| {
        let handle = daemon.handle("saved");
        let words = [
            "create",
            "--handle",
            &handle,
            "--volume-store",
            "custom:/etc",
            "--volume-store",
            "k3s",
        ];
        daemon.ctl(&words).unwrap();
        let exec = |text: &str| daemon.ctl(&["exec", &handle, "--", "sh", "-c", text]).unwrap();
        assert!(exec("cat /etc/passwd").starts_with("root:"));
        exec("echo here > /etc/new && chown 5:6 /etc/new && echo x > /var/lib/rancher/k3s/f");
        daemon.ctl(&["stop", &handle]).unwrap();
        let config = fs::read_to_string(daemon.depot().join(&handle).join("config.json")).unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        let root = PathBuf::from(config["root"]["path"].as_str().unwrap());
        assert_eq!(fs::read_to_string(root.join("etc/new")).unwrap(), "here\n");
        assert_eq!(owner(&root.join("etc/new")), (5, 6));
        assert_eq!(fs::read_to_string(root.join("var/lib/rancher/k3s/f")).unwrap(), "x\n");
        assert_eq!(exec("cat /etc/new"), "here\n");
        // A server that was killed knows of them.
        daemon.kill().unwrap();
        daemon.up().unwrap();
        assert_eq!(manager.left().len(), 6);
        daemon.ctl(&["rm", &handle]).unwrap();
        let output = run(daemon, &["--volume-store", "none", "--rm", "--", "true"]);
        assert!(stderr(&output).contains("invalid value 'none'"), "{}", stderr(&output));
        let output = run(daemon, &["--volume-store", "custom", "--rm", "--", "true"]);
        assert!(stderr(&output).contains("a custom volume needs --dst"), "{}", stderr(&output));
    });
}
