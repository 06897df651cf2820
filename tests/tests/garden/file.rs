//! Copying files in and out.

use std::os::unix::fs::PermissionsExt;

use crate::{code, ctl, stderr, with_each_runtime};

#[test]
fn files_come_back_as_they_went() {
    with_each_runtime("copy files", |daemon| {
        let handle = daemon.handle("files");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let source = daemon.path("tree");
        std::fs::create_dir_all(source.join("sub")).unwrap();
        std::fs::write(source.join("sub/data"), vec![7; 3 << 20]).unwrap();
        std::fs::write(source.join("run.sh"), "#!/bin/sh\necho ran\n").unwrap();
        std::fs::set_permissions(source.join("run.sh"), PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("run.sh", source.join("link")).unwrap();
        let place = format!("{handle}:/srv");
        daemon.ctl(&["cp-in", &source.display().to_string(), &place]).unwrap();
        let ran = daemon.ctl(&["exec", &handle, "--", "/srv/tree/link"]).unwrap();
        assert_eq!(ran, "ran\n");
        let out = daemon.path("out");
        let out_name = out.display().to_string();
        daemon.ctl(&["cp-out", &format!("{handle}:/srv/tree/"), &out_name]).unwrap();
        assert_eq!(std::fs::read(out.join("sub/data")).unwrap(), vec![7; 3 << 20]);
        assert_eq!(std::fs::read_link(out.join("link")).unwrap().display().to_string(), "run.sh");
        daemon.ctl(&["cp-out", &format!("{handle}:/srv/tree/run.sh"), &out_name]).unwrap();
        assert!(out.join("run.sh").is_file());
    });
}

#[test]
fn what_can_t_be_copied_says_why() {
    with_each_runtime("copy failures", |daemon| {
        let handle = daemon.handle("nofiles");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let missing = ctl(daemon, &["cp-in", "/no/such/file", &format!("{handle}:/srv")]);
        assert_eq!(code(&missing), 1);
        assert!(stderr(&missing).contains("/no/such/file"), "{}", stderr(&missing));
        let out = daemon.path("nothing").display().to_string();
        let missing = ctl(daemon, &["cp-out", &format!("{handle}:/no/such/file"), &out]);
        assert_eq!(code(&missing), 1, "{}", stderr(&missing));
        let stranger = ["cp-in", "-u", "nobody-at-all", "/etc/passwd", &format!("{handle}:/srv")];
        let refused = ctl(daemon, &stranger);
        assert!(stderr(&refused).contains("error streaming in"), "{}", stderr(&refused));
    });
}
