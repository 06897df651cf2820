//! Limits on what a container writes, through the API.

use crate::{code, ctl, stderr, with_each_runtime};

#[test]
fn inodes_are_limited_through_the_api() {
    with_each_runtime("limit inodes", |daemon| {
        let handle = daemon.handle("inodes");
        let count =
            |inodes: &str| ctl(daemon, &["create", "--handle", &handle, "--inodes", inodes]);
        let refused = count("3");
        assert_eq!(code(&refused), 1);
        assert!(stderr(&refused).contains("the inode limit is 3"), "{}", stderr(&refused));
        assert_eq!(code(&count("1000")), 0);
        let script = "i=0; while touch /tmp/$i 2>/dev/null; do i=$((i+1)); done; echo $i";
        let made = daemon.ctl(&["exec", &handle, "--", "sh", "-c", script]).unwrap();
        let made: u64 = made.trim().parse().unwrap();
        // The image has some, and so has what the runtime mounts upon.
        assert!((700..1000).contains(&made), "{made}");
    });
}
