//! A tree with all that ids can be in, and what it is like to the last bit.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

/// What a file may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    /// Another name of the file before.
    Link,
}

/// One entry to be made.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
    /// Users and groups of an ACL.
    pub(crate) acl: Vec<(bool, u32)>,
    /// Capabilities, and who is root where they count; 0 is the old format.
    pub(crate) capability: Option<u32>,
    pub(crate) attribute: Option<Vec<u8>>,
}

impl Node {
    /// Returns a file of root.
    pub(crate) fn file() -> Self {
        Self {
            kind: Kind::File,
            uid: 0,
            gid: 0,
            mode: 0o644,
            acl: Vec::new(),
            capability: None,
            attribute: None,
        }
    }
}

/// A tree with every special thing in it, and `more` files.
pub(crate) fn special(more: u32) -> Vec<Node> {
    let file = Node::file;
    let mut nodes = vec![
        Node { mode: 0o4755, ..file() },
        Node { kind: Kind::Link, ..file() },
        Node { mode: 0o2755, gid: 5, capability: Some(0), ..file() },
        Node { uid: 1000, gid: 1001, acl: vec![(true, 1000), (false, 1001)], ..file() },
        Node { kind: Kind::Directory, mode: 0o3777, acl: vec![(true, 7)], ..file() },
        Node { capability: Some(9), attribute: Some(b"x\0y".to_vec()), ..file() },
        Node { kind: Kind::Symlink, uid: 3, ..file() },
        Node { kind: Kind::Fifo, mode: 0o6666, ..file() },
        Node { uid: 500_000_000, gid: 600_000_000, mode: 0o6755, ..file() },
    ];
    nodes.extend((0..more).map(|at| Node {
        uid: at % 65_536,
        mode: if at % 7 == 0 { 0o4711 } else { 0o640 },
        capability: (at % 11 == 0).then_some(0),
        ..file()
    }));
    nodes
}

/// Makes the tree at `top`. Directories are filled with what comes after them, up to four deep.
pub(crate) fn make(top: &Path, nodes: &[Node]) {
    fs::create_dir(top).unwrap();
    let mut directory = top.to_owned();
    let mut last: Option<PathBuf> = None;
    for (number, node) in nodes.iter().enumerate() {
        let path = directory.join(format!("n{number}"));
        match node.kind {
            Kind::File => fs::write(&path, number.to_string()).unwrap(),
            Kind::Directory => fs::create_dir(&path).unwrap(),
            Kind::Symlink => symlink("/etc/passwd", &path).unwrap(),
            Kind::Fifo => {
                rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                    .unwrap();
            }
            Kind::Link => match &last {
                Some(other) => {
                    fs::hard_link(other, &path).unwrap();
                    continue;
                }
                None => continue,
            },
        }
        dress(&path, node);
        if node.kind == Kind::File {
            last = Some(path.clone());
        }
        if node.kind == Kind::Directory && path.strip_prefix(top).unwrap().components().count() < 4
        {
            directory = path;
        }
    }
}

fn dress(path: &Path, node: &Node) {
    lchown(path, Some(node.uid), Some(node.gid)).unwrap();
    if node.kind == Kind::Symlink {
        return;
    }
    let set = |name: &str, value: &[u8]| {
        let set = rustix::fs::lsetxattr(path, name, value, XattrFlags::empty());
        assert_eq!(set, Ok(()), "{name} of {}", path.display());
    };
    if !node.acl.is_empty() {
        set("system.posix_acl_access", &acl(&node.acl));
        if node.kind == Kind::Directory {
            set("system.posix_acl_default", &acl(&node.acl));
        }
    }
    rustix::fs::chmod(path, Mode::from_raw_mode(node.mode)).unwrap();
    if node.kind == Kind::File {
        if let Some(value) = &node.attribute {
            set("user.x", value);
            set("trusted.x", value);
        }
        if let Some(root) = node.capability {
            set("security.capability", &capability(root));
        }
    }
}

/// The value of an ACL (linux/posix_acl_xattr.h), with the entries it can't do without.
fn acl(named: &[(bool, u32)]) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let mut entries =
        vec![(0x01_u16, 7_u16, NOBODY), (0x04, 5, NOBODY), (0x10, 7, NOBODY), (0x20, 5, NOBODY)];
    entries.extend(named.iter().map(|(is_user, id)| (if *is_user { 0x02 } else { 0x08 }, 7, *id)));
    entries.sort_by_key(|(tag, _, id)| (*tag, *id));
    entries.dedup_by_key(|(tag, _, id)| (*tag, *id));
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// `cap_net_raw` (linux/capability.h).
fn capability(root: u32) -> Vec<u8> {
    let version: u32 = if root == 0 { 0x0200_0001 } else { 0x0300_0001 };
    let mut value = version.to_le_bytes().to_vec();
    value.extend([0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    if root != 0 {
        value.extend(root.to_le_bytes());
    }
    value
}

/// What of a file could change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
    links: u64,
    modified: (i64, i64),
    pub(crate) attributes: BTreeMap<String, Vec<u8>>,
    content: Vec<u8>,
}

impl Fact {
    /// What an overlay can't change in its upper layer by copying something into it.
    pub(crate) fn of_layer(&self) -> (u32, u32, u32, &BTreeMap<String, Vec<u8>>) {
        (self.uid, self.gid, self.mode, &self.attributes)
    }
}

/// Returns all there is to know of a tree.
pub(crate) fn facts(top: &Path) -> BTreeMap<PathBuf, Fact> {
    let mut facts = BTreeMap::new();
    let mut left = vec![top.to_owned()];
    while let Some(path) = left.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = match stat.file_type() {
            kind if kind.is_file() => fs::read(&path).unwrap(),
            kind if kind.is_symlink() => {
                fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
            }
            kind if kind.is_dir() => {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                Vec::new()
            }
            _ => Vec::new(),
        };
        let fact = Fact {
            uid: stat.uid(),
            gid: stat.gid(),
            mode: stat.mode(),
            links: stat.nlink(),
            modified: (stat.mtime(), stat.mtime_nsec()),
            attributes: attributes(&path),
            content,
        };
        facts.insert(path.strip_prefix(top).unwrap().to_owned(), fact);
    }
    facts
}

fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = [0_u8; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    // An overlay's notes in its upper layer are the kernel's own.
    let is_ours = |name: &&[u8]| !name.is_empty() && !name.starts_with(b"trusted.overlay.");
    let names = names[..length].split(|byte| *byte == 0).filter(is_ours);
    names
        .map(|name| {
            let mut value = [0_u8; 4096];
            let length =
                rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
            (String::from_utf8_lossy(name).into_owned(), value[..length].to_vec())
        })
        .collect()
}
