//! `cargo xtask demo`: from a checkout to a container and back, on a host that keeps nothing.

use anyhow::bail;
use guardian_tests::daemon::{Daemon, Options};
use guardian_tests::hierarchy::Hierarchies;
use guardian_tests::{host, image};

use crate::{build, interrupt, need, say};

/// What the container says of itself.
const SCRIPT: &str = r#"
echo "uid map:";  cat /proc/self/uid_map
echo "address:";  ip -o -4 addr show scope global | awk '{print "     ", $2, $4}'
echo "processes:"; ps -o pid,user,comm
"#;

/// Shows a container.
///
/// # Errors
/// When something is missing, fails, or is left behind.
pub(crate) fn demo() -> anyhow::Result<()> {
    if !host::is_root() {
        bail!("containers are made by root; try: sudo cargo xtask demo");
    }
    interrupt::catch()?;
    need::ensure(&need::CONTAINER)?;
    interrupt::check()?;
    say("building (cargo build --release)");
    build::release()?;
    interrupt::check()?;
    let image = image::make(&image::cache())?;
    say(&format!("image {image}"));
    let hierarchies = Hierarchies::now();
    let options = Options { runtime: "crun".into(), image, ..Options::default() };
    let daemon = Daemon::start(options)?;
    say(&format!("guardiand runs, its socket is {}", daemon.socket().display()));
    let shown = show(&daemon);
    let mut left = daemon.finish()?;
    left.extend(hierarchies.restore());
    if !left.is_empty() {
        bail!("left behind:\n  {}", left.join("\n  "));
    }
    interrupt::check()?;
    shown?;
    say("all is gone again: no link, mount, rule, cgroup, process, loop device or file is left");
    Ok(())
}

fn show(daemon: &Daemon) -> anyhow::Result<()> {
    let handle = daemon.handle("demo");
    say("\n$ guardctl run -- sh -c '…'");
    let words = ["run", "--memory", "64M", "--handle", &handle, "--", "sh", "-c", SCRIPT];
    build::run(daemon.guardctl().args(words))?;
    interrupt::check()?;
    let kept = daemon.handle("kept");
    daemon.ctl(&["create", "--handle", &kept])?;
    daemon.ctl(&["exec", "--detach", &kept, "--", "sleep", "1000"])?;
    say("\n$ guardctl create; guardctl exec --detach … sleep 1000; guardctl ps");
    build::run(daemon.guardctl().arg("ps"))?;
    say("");
    interrupt::check()
}
