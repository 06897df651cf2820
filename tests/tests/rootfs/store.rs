//! The image plugin's verbs, without a container.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use guardian_tests::patience::patience;

use guardian_contract::image::Stats;

use crate::bench::{Bench, MAPS};

#[test]
fn an_image_lives_from_create_to_delete() {
    let Some(bench) = Bench::new("an_image_lives_from_create_to_delete") else { return };
    let (root, env) = bench.create(&[], &bench.tar(), "one");
    assert!(env.is_empty());
    assert_eq!(fs::read_to_string(root.join("usr/sub/f")).unwrap(), "below");
    let image = bench.path("store/images/one");
    assert_eq!(bench.done(&["list"]), image.display().to_string());
    let stats =
        || serde_json::from_str::<Stats>(&bench.done(&["stats", "one"])).unwrap().disk_usage;
    let before = stats();
    assert!(before.total_bytes_used > 1 << 20 && before.exclusive_bytes_used == 0, "{before:?}");
    fs::write(root.join("new"), vec![1; 3 << 20]).unwrap();
    let grown = stats();
    assert_eq!(grown.exclusive_bytes_used, 3 << 20);
    assert_eq!(grown.total_bytes_used, before.total_bytes_used + (3 << 20));
    assert_eq!(bench.done(&["delete", image.to_str().unwrap()]), "Image one deleted");
    assert_eq!(bench.done(&["delete", "one"]), "Image `one` not found. Skipping delete.");
    assert_eq!(bench.done(&["list"]), "Store empty");
    assert_eq!(bench.mounts(), 0);
    bench.refused(&["stats", "one"]);
}

#[test]
fn store_verbs_can_be_repeated() {
    let Some(bench) = Bench::new("store_verbs_can_be_repeated") else { return };
    for verb in ["delete-store", "init-store", "init-store"] {
        bench.done(&[verb]);
    }
    let mode = |name: &str| fs::metadata(bench.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("store"), mode("store/layers")), (0o711, 0o700));
    bench.create(&MAPS, &bench.tar(), "x");
    assert_eq!(mode("store/images/x"), 0o700);
    assert_eq!(fs::metadata(bench.path("store/images/x")).unwrap().uid(), 4_294_967_294);
    assert!(bench.done(&["capacity"]).starts_with(r#"{"capacity":"#));
    for verb in ["delete-store", "delete-store"] {
        bench.done(&[verb]);
    }
    assert!(!bench.path("store").exists());
    assert_eq!(bench.mounts(), 0);
}

#[test]
fn maps_given_to_init_store_hold_for_images_without_any() {
    let Some(bench) = Bench::new("maps_given_to_init_store_hold_for_images_without_any") else {
        return;
    };
    bench.done(&["init-store"]);
    let said = bench.refused(&["init-store", "--uid-mapping", "1:1:10", "--gid-mapping", "0:1:1"]);
    assert!(said.contains("must map id 0"), "{said}");
    bench.done(&[&MAPS[..], &["init-store"]].concat());
    let other_order = [&MAPS[2..4], &MAPS[..2], &MAPS[4..], &["init-store"]].concat();
    bench.done(&other_order);
    bench.done(&["init-store"]);
    let said = bench.refused(&["init-store", "--uid-mapping", "0:7:9", "--gid-mapping", "0:7:9"]);
    assert!(said.contains("provided UID mappings do not match"), "{said}");
    let owner = |path: PathBuf| fs::metadata(path).unwrap().uid();
    let tar = bench.tar();
    let (root, _) = bench.create(&[], &tar, "store-s");
    assert_eq!(owner(root.join("bin/busybox")), 4_294_967_294);
    // As gdn does for a process's working directory, with no user namespace around it.
    fs::create_dir(root.join("home/alice/new")).unwrap();
    chown(root.join("home/alice/new"), Some(1001), Some(1010)).unwrap();
    let flags = ["--uid-mapping", "0:100000:65536", "--gid-mapping", "0:100000:65536"];
    let (other, _) = bench.create(&flags, &tar, "flags");
    assert_eq!(owner(other.join("bin/busybox")), 100_000);
    let Some(container) = bench.container("store-s", &root, false) else { return };
    assert_eq!(container.sh("stat -c %u:%g /home/alice/new"), "1001:1010");
}

#[test]
fn a_limited_image_that_is_not_mounted_here_has_no_stats() {
    let Some(bench) = Bench::new("a_limited_image_that_is_not_mounted_here_has_no_stats") else {
        return;
    };
    let limit = ["create", "--disk-limit-size-bytes", "20000000", "--exclude-image-from-quota"];
    bench.done(&[&limit[..], &[&bench.tar(), "limited"]].concat());
    let stats: Stats = serde_json::from_str(&bench.done(&["stats", "limited"])).unwrap();
    assert!(stats.disk_usage.exclusive_bytes_used < 1 << 20, "{stats:?}");
    let merged = bench.path("store/images/limited/rootfs");
    assert!(Command::new("umount").arg(&merged).status().unwrap().success());
    let said = bench.refused(&["stats", "limited"]);
    assert!(said.contains("is not mounted here"), "{said}");
    bench.done(&["delete", "limited"]);
    assert!(bench.stored("images").is_empty());
}

#[test]
fn mistakes_are_told_in_one_line_and_leave_nothing() {
    let Some(bench) = Bench::new("mistakes_are_told_in_one_line_and_leave_nothing") else { return };
    let tar = bench.tar();
    bench.create(&[], &tar, "there");
    let broken = bench.path("broken.tar");
    fs::write(&broken, &fs::read(&tar).unwrap()[..300_000]).unwrap();
    let not_tar = bench.path("not.tar");
    fs::write(&not_tar, "hello".repeat(1000)).unwrap();
    let directory = bench.tree();
    for (uri, id, want) in [
        (tar.as_str(), "there", "image for id `there` already exists"),
        (&tar, "a/b", "id `a/b` contains invalid characters: `/`"),
        (directory.to_str().unwrap(), "x", "directory provided instead of a tar file"),
        ("/no/such.tar", "x", "No such file or directory"),
        (broken.to_str().unwrap(), "x", "unexpected end of archive"),
        (not_tar.to_str().unwrap(), "x", "does not look like a tar archive"),
        ("docker:///Busybox", "x", "malformed name of a repository"),
        ("oci:///no/such/layout", "x", "Image source doesn't exist: /no/such/layout"),
        ("raw:///no/such/dir", "x", "no directory"),
    ] {
        let said = bench.refused(&["create", uri, id]);
        assert!(said.contains(want) && !said.contains('\n'), "{uri}: {said}");
    }
    for directory in ["partial", "trash"] {
        assert!(bench.stored(directory).is_empty());
    }
    assert_eq!(bench.stored("images"), ["there"]);
    assert_eq!(bench.stored("layers").len(), 1);
}

#[test]
fn a_raw_directory_is_used_as_it_is() {
    let Some(bench) = Bench::new("a_raw_directory_is_used_as_it_is") else { return };
    let uri = format!("raw://{}", bench.tree().display());
    let (root, _) = bench.create(&MAPS, &uri, "raw");
    assert_eq!(root, bench.tree());
    assert_eq!(bench.mounts(), 0);
    bench.done(&["delete", "raw"]);
    assert!(bench.tree().join("bin").exists());
}

#[test]
fn twenty_at_a_time_unpack_once() {
    let Some(bench) = Bench::new("twenty_at_a_time_unpack_once") else { return };
    let tar = bench.tar();
    let children: Vec<_> = (0..20)
        .map(|n| {
            let mut command = bench.command();
            command.args(["--log-level", "info"]).args(if n % 2 == 0 { &MAPS[..] } else { &[] });
            command.args(["create", &tar, &format!("c{n}")]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut unpacked = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        unpacked += String::from_utf8_lossy(&output.stderr).matches("layer-unpacked").count();
    }
    assert_eq!(unpacked, 1);
    assert_eq!((bench.stored("layers").len(), bench.mounts()), (1, 20));
    for n in 0..20 {
        bench.done(&["delete", &format!("c{n}")]);
    }
    assert_eq!(bench.mounts(), 0);
    assert!(bench.stored("images").is_empty() && bench.stored("trash").is_empty());
}

#[test]
fn one_of_many_with_the_same_id_wins() {
    let Some(bench) = Bench::new("one_of_many_with_the_same_id_wins") else { return };
    let tar = bench.tar();
    let children: Vec<_> = (0..10)
        .map(|_| bench.command().args(["create", &tar, "same"]).stdout(Stdio::piped()).spawn())
        .collect();
    let done = children
        .into_iter()
        .map(|child| child.unwrap().wait_with_output().unwrap())
        .filter(|output| output.status.success())
        .count();
    assert_eq!((done, bench.mounts()), (1, 1));
}

#[test]
fn a_create_killed_anywhere_leaves_nothing_that_matters() {
    let Some(bench) = Bench::new("a_create_killed_anywhere_leaves_nothing_that_matters") else {
        return;
    };
    // Many files, so that most deaths are in the middle of a layer.
    for n in 0..3000 {
        fs::write(bench.tree().join(format!("usr/{n}")), n.to_string()).unwrap();
    }
    let tar = bench.tar();
    let start = Instant::now();
    bench.create(&MAPS, &tar, "whole");
    let whole = start.elapsed();
    bench.done(&["delete-store"]);
    for step in 0..24 {
        let mut child =
            bench.command().args(MAPS).args(["create", &tar, "x"]).stdout(Stdio::null()).spawn();
        std::thread::sleep(whole.mul_f64(f64::from(step) / 21.0));
        let child = child.as_mut().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        if step % 2 == 0 {
            bench.done(&["delete", "x"]);
            assert_eq!(bench.mounts(), 0);
        } else if !bench.rootfs(&[&MAPS[..], &["create", &tar, "x"]].concat()).status.success() {
            // It was made whole before it was killed.
            assert!(bench.path("store/images/x/info.json").exists());
        }
        if step % 8 == 7 {
            bench.done(&["delete-store"]);
        }
    }
    let _ = bench.rootfs(&["delete", "x"]);
    let (root, _) = bench.create(&MAPS, &tar, "last");
    assert_eq!(fs::read_dir(root.join("usr")).unwrap().count(), 3002);
    assert!(bench.stored("partial").is_empty() && bench.stored("trash").is_empty());
    assert_eq!((bench.stored("layers").len(), bench.stored("images").len()), (1, 1));
    assert_eq!(bench.mounts(), 1);
}

#[test]
fn limits_hold_and_leave_no_loop_device() {
    let Some(bench) = Bench::new("limits_hold_and_leave_no_loop_device") else { return };
    let tar = bench.tar();
    let said = bench.refused(&["create", "--disk-limit-size-bytes", "300000", &tar, "small"]);
    assert!(said.contains("exceeds quota"), "{said}");
    let limit = (10 << 20).to_string();
    let flags = ["--disk-limit-size-bytes", &limit, "--exclude-image-from-quota"];
    bench.done(&[&["create"], &flags[..], &[&tar, "limited"]].concat());
    assert_eq!(bench.mounts(), 1);
    let root = bench.path("store/images/limited/rootfs");
    fs::write(root.join("fits"), vec![1; 9 << 20]).unwrap();
    let used = || serde_json::from_str::<Stats>(&bench.done(&["stats", "limited"])).unwrap();
    let used = used().disk_usage.exclusive_bytes_used;
    assert!(used.abs_diff(9 << 20) < 256 << 10, "{used}");
    let error = fs::write(root.join("more"), vec![1; 2 << 20]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    bench.done(&["delete", "limited"]);
    assert_eq!(bench.mounts(), 0);
    // The device is freed by the kernel a moment after the last user is gone.
    let tag = bench.path("store").display().to_string();
    let deadline = Instant::now() + patience(Duration::from_secs(5));
    let is_used = || {
        (0..64).any(|n| {
            fs::read_to_string(format!("/sys/block/loop{n}/loop/backing_file"))
                .is_ok_and(|file| file.contains(&tag))
        })
    };
    while is_used() {
        assert!(Instant::now() < deadline, "a loop device is left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn limits_of_every_size_hold() {
    let Some(bench) = Bench::new("limits_of_every_size_hold") else { return };
    let tar = bench.tar();
    for limit in [1, 256 << 10, 4 << 20, 15 << 20, 16 << 20, 17 << 20, 200 << 20] {
        let flags = ["--disk-limit-size-bytes", &limit.to_string(), "--exclude-image-from-quota"];
        bench.done(&[&["create"], &flags[..], &[&tar, "x"]].concat());
        let path = bench.path("store/images/x/rootfs/full");
        let mut file = fs::File::create(path).unwrap();
        let piece = vec![1; 4 << 10];
        let mut written = 0;
        let error = loop {
            match std::io::Write::write(&mut file, &piece) {
                Ok(length) => written += length,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        let room = limit.max(256 << 10);
        // ext4 keeps a fiftieth of a filesystem for itself.
        let least = room - room / 40 - (32 << 10);
        assert!(written <= room + (128 << 10) && written >= least, "{limit}: {written}");
        drop(file);
        bench.done(&["delete", "x"]);
    }
}

/// ext4 without a journal looks at every inode freed in the last seconds before it takes one.
#[test]
fn files_removed_and_made_again_take_no_longer_each_time() {
    let Some(bench) = Bench::new("files_removed_and_made_again_take_no_longer_each_time") else {
        return;
    };
    let flags = ["--disk-limit-size-bytes", "100000000", "--exclude-image-from-quota"];
    bench.done(&[&["create"], &flags[..], &[&bench.tar(), "x"]].concat());
    let root = bench.path("store/images/x/rootfs/many");
    let mut times = Vec::new();
    for _ in 0..8 {
        let start = Instant::now();
        fs::create_dir(&root).unwrap();
        for n in 0..4000 {
            fs::write(root.join(n.to_string()), "").unwrap();
        }
        times.push(start.elapsed());
        fs::remove_dir_all(&root).unwrap();
    }
    // Machines are noisy, so it is the fastest of the later ones that counts.
    let later = times[4..].iter().min().unwrap();
    assert!(*later < times[0].max(Duration::from_millis(100)) * 4, "{times:?}");
}

#[test]
fn grootfs_other_flags_are_taken() {
    let Some(bench) = Bench::new("grootfs_other_flags_are_taken") else { return };
    let helpers = ["--tardis-bin", "t", "--newuidmap-bin", "u", "--newgidmap-bin", "g"];
    let all =
        [&helpers[..], &["--metron-endpoint", "127.0.0.1:1", "--log-level", "FATAL"]].concat();
    let init = ["init-store", "--store-size-bytes", "12345678", "--with-direct-io"];
    bench.done(&[&all[..], &init].concat());
    assert_eq!(bench.done(&["capacity"]), r#"{"capacity":12345678}"#);
    let limit = ["--disk-limit-size-bytes", "9000000", "--exclude-image-from-quota"];
    let tar = bench.tar();
    let create = [&all[..], &["create", "--without-mount"], &limit, &[&tar, "x"]].concat();
    bench.done(&create);
    let stats: Stats = serde_json::from_str(&bench.done(&["stats", "x"])).unwrap();
    let usage = stats.disk_usage;
    assert_eq!(usage.quota_size_bytes, 9_000_000);
    assert_eq!(usage.committed_space_bytes, 9_000_000 + usage.total_bytes_used);
}
