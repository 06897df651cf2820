//! Moving a tree from one range of ids to another, and back, bit for bit.
//!
//! Which way an id has gone is seen by the id itself, because the two ranges have nothing in
//! common ([`Translation::check`]) and the tree had no id of the range it goes to
//! ([`survey`]). So a run can be cut off at any moment and done again, in either direction, and a
//! file with several names is moved once. What the kernel takes from a file that is given away
//! (set-id bits, capabilities) is written down first, because afterwards nobody could tell.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context;
use guardian_contract::fault::Fault;
use rustix::fs::FileType;
use serde::Serialize;

use crate::inode::{self, ACLS, CAPABILITY};
use crate::translate::{Ids, Translation};
use crate::walk::{self, Entry, Visitor};

mod journal;

use journal::{Journal, Special};

/// What a run did.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Entries seen.
    pub(crate) entries: u64,
    /// Inodes changed; one with several names counts once.
    pub(crate) changed: u64,
    /// Mounts in the tree, which were left alone.
    pub(crate) mounts: u64,
}

/// Looks for ids that the tree is to be moved to: they could not be told apart afterwards.
///
/// # Errors
/// `Invalid`, with the first such file and its ids.
pub(crate) fn survey(top: &Path, translation: &Translation) -> anyhow::Result<()> {
    translation.check()?;
    let mut survey = Survey { top, translation };
    walk::walk(&walk::open_top(top)?, &mut survey)
}

struct Survey<'a> {
    top: &'a Path,
    translation: &'a Translation,
}

impl Visitor for Survey<'_> {
    fn enter(&mut self, entry: &Entry<'_>) -> anyhow::Result<()> {
        let attributes = inode::attributes(entry.file, entry.kind(), is_about_ids)?;
        let of = |name: &[u8]| attributes.iter().find(|one| one.0 == name).map(|one| &one.1[..]);
        let acls: Vec<&[u8]> = ACLS.iter().filter_map(|name| of(name)).collect();
        let strangers = self.translation.strangers(&Ids {
            uid: entry.stat.st_uid,
            gid: entry.stat.st_gid,
            acls: &acls,
            capability: of(CAPABILITY),
        });
        if strangers.is_empty() {
            return Ok(());
        }
        let path = match entry.path.as_os_str().is_empty() {
            true => self.top.to_owned(),
            false => self.top.join(entry.path),
        };
        let message = format!(
            "{} has ids of the range it would be moved to ({}), and could not be moved back",
            path.display(),
            strangers.join(", ")
        );
        Err(Fault::invalid(message).into())
    }
}

/// Moves a tree. `journal` is where what could be lost is written down; it is gone after success.
/// One that is there already is of a run in the same direction that was cut off.
///
/// # Errors
/// The kernel's, with the path; the run can then be done again.
pub(crate) fn shift(
    top: &Path,
    translation: &Translation,
    journal: &Path,
) -> anyhow::Result<Report> {
    translation.check()?;
    let root = walk::open_top(top)?;
    journal::replay(&root, journal, translation)
        .with_context(|| format!("restore {}", top.display()))?;
    let mut run = Run { translation, journal: Journal::at(journal), report: Report::default() };
    walk::walk(&root, &mut run).with_context(|| format!("change owners in {}", top.display()))?;
    run.journal.remove()?;
    Ok(run.report)
}

struct Run<'a> {
    translation: &'a Translation,
    journal: Journal,
    report: Report,
}

impl Visitor for Run<'_> {
    fn enter(&mut self, entry: &Entry<'_>) -> anyhow::Result<()> {
        self.report.entries += 1;
        if self.change(entry)? {
            self.report.changed += 1;
        }
        Ok(())
    }

    fn mount(&mut self, _path: &Path) {
        self.report.mounts += 1;
    }
}

impl Run<'_> {
    /// An inode that needs nothing is not touched: even a chown to the same owner takes its
    /// capabilities.
    fn change(&mut self, entry: &Entry<'_>) -> anyhow::Result<bool> {
        let (file, stat) = (entry.file, &entry.stat);
        let owner = (self.translation.uid(stat.st_uid), self.translation.gid(stat.st_gid));
        let is_given = owner != (stat.st_uid, stat.st_gid);
        let attributes = inode::attributes(file, entry.kind(), is_about_ids)?;
        let capability = attributes.iter().find(|one| one.0 == CAPABILITY).map(|one| &one.1);
        let mut changed = is_given;
        if is_given {
            if capability.is_some() || inode::has_set_id(stat) {
                self.journal.write(&Special::of(entry, capability))?;
            }
            inode::chown(file, owner.0, owner.1)?;
            if inode::has_set_id(stat) {
                inode::chmod(file, stat.st_mode)?;
            }
        }
        for (name, value) in &attributes {
            let is_capability = name == CAPABILITY;
            let new = match is_capability {
                true => self.translation.capability(value),
                false => self.translation.acl(value),
            };
            if new != *value || is_capability && is_given {
                inode::set_attribute(file, name, &new).context("write attribute")?;
                changed = true;
            }
        }
        Ok(changed)
    }
}

fn is_about_ids(name: &[u8]) -> bool {
    name == CAPABILITY || ACLS.contains(&name)
}

/// Restores what a run in the direction `cut_off` may have lost.
///
/// # Errors
/// The kernel's, with the path.
pub(crate) fn replay(top: &Path, journal: &Path, cut_off: &Translation) -> anyhow::Result<()> {
    journal::replay(&walk::open_top(top)?, journal, cut_off)
}

/// Returns the owner of a tree's top.
///
/// # Errors
/// With the path and the reason.
pub(crate) fn owner(top: &Path) -> anyhow::Result<(u32, u32)> {
    let root: OwnedFd = walk::open_top(top)?;
    let stat = rustix::fs::fstat(&root).with_context(|| format!("look at {}", top.display()))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Err(Fault::invalid(format!("{} is a symbolic link", top.display())).into());
    }
    Ok((stat.st_uid, stat.st_gid))
}
