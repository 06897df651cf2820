//! cp-in and cp-out: files as tar archives.
//!
//! What comes out of a container is not to be trusted: only files, directories and links are
//! unpacked, never above the directory named, without owners and set-user-id bits.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use tar::{Archive, Builder, Entry, EntryType};

use crate::cli::{CpInArgs, CpOutArgs};
use crate::client::Client;
use crate::stdio;

/// Copies files into a container.
pub(super) fn cp_in(client: &Client, args: &CpInArgs) -> anyhow::Result<()> {
    let place = &args.destination;
    let to = (place.handle.as_str(), args.user.as_str(), place.path.as_str());
    let source = args.source.as_str();
    client.stream_in(to, |out| match source {
        "-" => io::copy(&mut io::stdin().lock(), out).map(|_| ()).context("standard input"),
        source => pack(source, out),
    })
}

/// Copies files out of a container.
pub(super) fn cp_out(client: &Client, args: &CpOutArgs) -> anyhow::Result<()> {
    let place = &args.source;
    let mut body = client.stream_out(&place.handle, &args.user, &place.path)?;
    if args.destination == "-" {
        let copied = io::copy(&mut body, &mut File::from(own_stdout()?));
        return stdio::written(copied).map(drop);
    }
    let destination = Path::new(&args.destination);
    std::fs::create_dir_all(destination)
        .with_context(|| format!("make directory {}", destination.display()))?;
    match unpack(&mut body, destination)? {
        Count { entries: 0, .. } => bail!("{}: nothing there", place.path),
        Count { left_out: 0, .. } => Ok(()),
        Count { entries, left_out } => bail!("{left_out} of {entries} not copied"),
    }
}

fn own_stdout() -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::AsFd;
    io::stdout().as_fd().try_clone_to_owned()
}

/// Writes `source` under its own name; with a trailing slash, what is in it.
fn pack(source: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let path = Path::new(source);
    let mut builder = Builder::new(out);
    builder.follow_symlinks(false);
    builder.sparse(false);
    let kind = path.symlink_metadata().with_context(|| source.to_owned())?.file_type();
    let contents = source.ends_with('/') || source.ends_with("/.") || source == ".";
    let packed = if contents {
        builder.append_dir_all(".", path)
    } else {
        let name = path.file_name().with_context(|| format!("{source} has no name"))?;
        match kind.is_dir() {
            true => builder.append_dir_all(name, path),
            false => builder.append_path_with_name(path, name),
        }
    };
    packed.and_then(|()| builder.finish())?;
    Ok(())
}

/// How many entries there were, and how many of them stayed behind.
#[derive(Debug, Default, PartialEq)]
struct Count {
    entries: usize,
    left_out: usize,
}

/// Unpacks below `destination`, and tells of each entry that stays behind.
fn unpack(body: &mut impl Read, destination: &Path) -> anyhow::Result<Count> {
    let mut archive = Archive::new(&mut *body);
    // Directories last and deepest first: one that is read-only can still be filled.
    let mut directories = Vec::new();
    let mut count = Count::default();
    for entry in archive.entries()? {
        let mut entry = entry?;
        count.entries += 1;
        match entry.header().entry_type() {
            EntryType::Directory => directories.push(entry),
            EntryType::Regular | EntryType::Continuous | EntryType::Link | EntryType::Symlink => {
                unpack_entry(&mut entry, destination)?;
            }
            _ => {
                count.left_out += 1;
                stdio::complain(&format!("{}: not copied, no file or directory", name(&entry)));
            }
        }
    }
    directories.sort_by(|one, other| other.path_bytes().cmp(&one.path_bytes()));
    for directory in &mut directories {
        unpack_entry(directory, destination)?;
    }
    drop(directories);
    // An archive that was cut off behind its last entry is noticed only by reading on.
    io::copy(body, &mut io::sink())?;
    Ok(count)
}

/// The tar crate refuses `..` and every path that a link would lead out of `destination`; it
/// strips set-user-id bits and gives the file to the caller.
fn unpack_entry<R: Read>(entry: &mut Entry<'_, R>, destination: &Path) -> anyhow::Result<()> {
    match entry.unpack_in(destination)? {
        true => Ok(()),
        false => bail!("{}: leads out of {}", name(entry), destination.display()),
    }
}

fn name<R: Read>(entry: &Entry<'_, R>) -> String {
    String::from_utf8_lossy(&entry.path_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tar::Header;

    fn entry(builder: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, link: &str) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_size(0);
        // Straight into the header: the builder itself would refuse what an attacker writes.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, io::empty()).unwrap();
    }

    fn attack(entries: &[(&str, EntryType, &str)]) -> anyhow::Result<(tempfile::TempDir, Count)> {
        let mut builder = Builder::new(Vec::new());
        for (path, kind, link) in entries {
            entry(&mut builder, path, *kind, link);
        }
        let bytes = builder.into_inner().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        let unpacked = unpack(&mut &bytes[..], &dir.path().join("in"));
        assert!(!dir.path().join("out").exists(), "escaped");
        unpacked.map(|count| (dir, count))
    }

    #[test]
    fn nothing_is_written_outside() {
        use EntryType::{Link, Regular, Symlink};
        assert!(attack(&[("../out", Regular, "")]).is_err());
        assert!(attack(&[("s", Symlink, ".."), ("s/out", Regular, "")]).is_err());
        assert!(attack(&[("h", Link, "/etc/passwd")]).is_err());
        let (absolute, _) = attack(&[("/out", Regular, "")]).unwrap();
        assert!(absolute.path().join("in/out").exists());
    }

    #[test]
    fn set_user_id_bits_and_devices_stay_behind() {
        let (dir, count) =
            attack(&[("su", EntryType::Regular, ""), ("null", EntryType::Char, "")]).unwrap();
        assert_eq!(count, Count { entries: 2, left_out: 1 });
        let mode = dir.path().join("in/su").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        assert!(!dir.path().join("in/null").exists());
    }

    #[test]
    fn what_is_packed_unpacks_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("a");
        std::fs::create_dir_all(source.join("sub")).unwrap();
        std::fs::write(source.join("sub/f"), "text").unwrap();
        symlink("sub/f", source.join("l")).unwrap();
        std::fs::set_permissions(source.join("sub"), PermissionsExt::from_mode(0o500)).unwrap();
        for (suffix, prefix) in [("", "a/"), ("/", "")] {
            let mut bytes = Vec::new();
            pack(&format!("{}{suffix}", source.display()), &mut bytes).unwrap();
            let out = dir.path().join(format!("out{}", suffix.len()));
            std::fs::create_dir(&out).unwrap();
            unpack(&mut &bytes[..], &out).unwrap();
            let file = out.join(prefix).join("l");
            assert_eq!(std::fs::read_to_string(file).unwrap(), "text");
        }
    }
}
