//! A user namespace to map ids by. Once its map is written nobody has to live in it: the open
//! descriptor keeps it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use guardian_contract::ids::{IdMapping, IdMaps};
use guardian_contract::run::Answer;
use nix::sched::{CloneFlags, unshare};

/// What the child says from within.
const ENTERED: &str = "entered";

/// Makes a user namespace with these maps.
///
/// A process can't map itself to more than one id and can't leave a namespace again, so a child
/// of ours goes in and we write its maps.
///
/// # Errors
/// When the kernel makes no user namespace or refuses the maps.
pub(crate) fn with_maps(maps: &IdMaps) -> anyhow::Result<File> {
    let mut child = Command::new("/proc/self/exe")
        .arg("keep-userns")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("run own program")?;
    let made = entered(&mut child).and_then(|()| {
        let pid = child.id();
        write_map(&format!("/proc/{pid}/uid_map"), &maps.uid)?;
        write_map(&format!("/proc/{pid}/gid_map"), &maps.gid)?;
        File::open(format!("/proc/{pid}/ns/user")).context("open the user namespace")
    });
    // Its stdin ends, and with it the child.
    drop(child.stdin.take());
    child.wait().context("wait for own program")?;
    made
}

fn entered(child: &mut Child) -> anyhow::Result<()> {
    let mut said = String::new();
    let stdout = child.stdout.as_mut().context("own program has no stdout")?;
    BufReader::new(stdout).read_line(&mut said).context("read own program")?;
    ensure!(said.trim() == ENTERED, "make a user namespace: {}", said.trim());
    Ok(())
}

fn write_map(path: &str, map: &[IdMapping]) -> anyhow::Result<()> {
    let lines: String = map
        .iter()
        .map(|one| format!("{} {} {}\n", one.container_id, one.host_id, one.size))
        .collect();
    std::fs::write(path, lines).with_context(|| format!("write {path}"))
}

/// The child's half: says so from within a new user namespace, or says why there is none.
pub(crate) fn keep() -> anyhow::Result<Answer> {
    let said = match unshare(CloneFlags::CLONE_NEWUSER) {
        Ok(()) => ENTERED,
        Err(errno) => errno.desc(),
    };
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{said}").and_then(|()| stdout.flush()).context("answer")?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).context("wait")?;
    Ok(Answer::Silent)
}
