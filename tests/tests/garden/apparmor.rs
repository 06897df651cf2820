//! Confinement by AppArmor, on hosts that have it.

use std::process::Command;

use guardian_tests::daemon::Daemon;
use guardian_tests::{host, skip};

use crate::{can_run, code, ctl, options, stderr};

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";

/// A profile that permits all but writing to one file; unloaded when dropped.
struct Profile {
    directory: tempfile::TempDir,
    name: String,
}

impl Profile {
    fn load(check: &str) -> Option<Self> {
        if !std::fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y')) {
            skip::note(check, "the kernel has no AppArmor");
            return None;
        }
        if !skip::can_run(check, &["apparmor_parser"]) {
            return None;
        }
        let name = format!("guardian-test-{}", std::process::id());
        let profile = Self { directory: tempfile::tempdir().unwrap(), name };
        let rules = "file, capability, network, mount, umount, pivot_root, ptrace, signal, unix,
            deny /forbidden w,";
        let flags = "flags=(attach_disconnected,mediate_deleted)";
        let text = format!("profile {} {flags} {{ {rules} }}\n", profile.name);
        std::fs::write(profile.file(), text).unwrap();
        profile.parse("--replace");
        Some(profile)
    }

    fn parse(&self, verb: &str) {
        let parser = host::program("apparmor_parser").unwrap();
        host::output(Command::new(parser).args([verb, "--skip-cache"]).arg(self.file())).unwrap();
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("profile")
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parse("--remove");
    }
}

#[test]
fn a_profile_confines_unprivileged_containers() {
    for runtime in ["runc", "crun"] {
        let check = format!("AppArmor ({runtime})");
        if !can_run(&check, runtime) {
            continue;
        }
        let Some(profile) = Profile::load(&check) else { continue };
        let mut options = options(runtime);
        options.flags = vec!["--apparmor".into(), profile.name.clone()];
        let daemon = Daemon::start(options).unwrap();
        let labels = ["--", "cat", "/proc/1/attr/current", "/proc/self/attr/current"];

        let confined = daemon.handle("confined");
        daemon.ctl(&["create", "--handle", &confined]).unwrap();
        let said = daemon.ctl(&[&["exec", &confined], &labels[..]].concat()).unwrap();
        let label = format!("{} (enforce)\n", profile.name);
        assert_eq!(said, label.repeat(2), "{runtime}");
        let write = |path: &str| {
            let script = format!("echo x > {path}");
            ctl(&daemon, &["exec", &confined, "--", "sh", "-c", &script])
        };
        assert_eq!(code(&write("/permitted")), 0, "{runtime}");
        let refused = write("/forbidden");
        assert_ne!(code(&refused), 0, "{runtime}");
        assert!(stderr(&refused).contains("Permission denied"), "{}", stderr(&refused));

        let privileged = daemon.handle("privileged");
        daemon.ctl(&["create", "--privileged", "--handle", &privileged]).unwrap();
        let said = daemon.ctl(&[&["exec", &privileged], &labels[..]].concat()).unwrap();
        assert_eq!(said, "unconfined\n".repeat(2), "{runtime}");
        assert_eq!(daemon.finish().unwrap(), Vec::<String>::new(), "{check}: left behind");
    }
}

#[test]
fn a_profile_that_is_not_loaded_is_named() {
    let check = "AppArmor profile that is not loaded";
    if !can_run(check, "crun") {
        return;
    }
    if !std::fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y')) {
        return skip::note(check, "the kernel has no AppArmor");
    }
    let mut options = options("crun");
    options.flags = vec!["--apparmor".into(), "no-such-profile".into()];
    let daemon = Daemon::start(options).unwrap();
    let refused = ctl(&daemon, &["create", "--handle", &daemon.handle("unconfined")]);
    assert_eq!(code(&refused), 1);
    let said = stderr(&refused);
    assert!(said.contains("AppArmor profile 'no-such-profile' is not loaded"), "{said}");
    // Nobody confines a privileged container.
    daemon.ctl(&["create", "--privileged", "--handle", &daemon.handle("free")]).unwrap();
    assert_eq!(daemon.finish().unwrap(), Vec::<String>::new());
}

#[test]
fn a_kernel_without_it_is_told_of_at_start() {
    let check = "AppArmor that the kernel does not have";
    if !can_run(check, "crun") {
        return;
    }
    if std::fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y')) {
        return skip::note(check, "the kernel has AppArmor");
    }
    let mut options = options("crun");
    options.flags = vec!["--apparmor".into(), "some-profile".into()];
    let daemon = Daemon::start(options).unwrap();
    let said = daemon.last_words();
    assert!(said.contains("guardian.apparmor") && said.contains("some-profile"), "{said}");
    daemon.ctl(&["create", "--handle", &daemon.handle("unconfined")]).unwrap();
    assert_eq!(daemon.finish().unwrap(), Vec::<String>::new());
}
