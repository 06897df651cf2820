//! The image's only layer: busybox, its applets as links, and what programs expect in /etc.

use std::io::Write;

use anyhow::Context;
use flate2::{Compression, write::GzEncoder};
use tar::{Builder, EntryType, Header};

/// Path and mode. Parents come before their children.
const DIRECTORIES: [(&str, u32); 15] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("sbin", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/local", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/tmp", 0o1777),
];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n";
const GROUP: &str = "root:x:0:\nalice:x:1000:\n";

/// Returns the layer as a tar archive, the same bytes for the same busybox.
///
/// # Errors
/// When an applet's path does not fit a tar header.
pub(super) fn archive(busybox: &[u8], applets: &str) -> anyhow::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for (path, mode) in DIRECTORIES {
        append(&mut builder, path, &header(EntryType::Directory, mode, 0), &[])?;
    }
    append(&mut builder, "home/alice", &header(EntryType::Directory, 0o755, 1000), &[])?;
    for (path, text) in [("etc/passwd", PASSWD), ("etc/group", GROUP)] {
        append(&mut builder, path, &header(EntryType::Regular, 0o644, 0), text.as_bytes())?;
    }
    append(&mut builder, "bin/busybox", &header(EntryType::Regular, 0o755, 0), busybox)?;
    for applet in applets.lines().filter(|path| is_applet(path)) {
        let mut link = header(EntryType::Symlink, 0o777, 0);
        builder
            .append_link(&mut link, applet, "/bin/busybox")
            .with_context(|| format!("applet {applet}"))?;
    }
    Ok(builder.into_inner()?)
}

/// Returns the bytes compressed.
///
/// # Errors
/// Never in memory; the writer's type says otherwise.
pub(super) fn gzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// Applets outside the directories made above (`linuxrc`) are of no use in a container.
fn is_applet(path: &str) -> bool {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    path != "bin/busybox" && DIRECTORIES.iter().any(|(known, _)| *known == directory)
}

fn header(kind: EntryType, mode: u32, owner: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(1);
    header.set_size(0);
    header
}

fn append(
    builder: &mut Builder<Vec<u8>>,
    path: &str,
    header: &Header,
    content: &[u8],
) -> anyhow::Result<()> {
    let mut header = header.clone();
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, path, content).with_context(|| format!("entry {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_has_programs_users_and_an_open_tmp() {
        let bytes = archive(b"program", "bin/sh\nusr/bin/awk\nlinuxrc\nbin/busybox\n").unwrap();
        assert_eq!(bytes, archive(b"program", "bin/sh\nusr/bin/awk\nlinuxrc\n").unwrap());
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries: Vec<(String, u32)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                (path, entry.header().mode().unwrap())
            })
            .collect();
        let mode = |path| entries.iter().find(|(name, _)| name == path).map(|(_, mode)| *mode);
        assert_eq!(mode("tmp"), Some(0o1777));
        assert_eq!(mode("bin/busybox"), Some(0o755));
        assert!(mode("bin/sh").is_some() && mode("etc/passwd").is_some());
        assert_eq!(mode("linuxrc"), None);
    }
}
