//! Who a process runs as: `user[:group]` looked up in the container's own passwd and group files.

use guardian_contract::fault::Fault;

/// The largest id accepted; the kernel's own limit is higher, but Garden promises this one.
const LARGEST_ID: u32 = i32::MAX as u32;

/// A user as a process needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// User id.
    pub(crate) uid: u32,
    /// Primary group id.
    pub(crate) gid: u32,
    /// Supplementary group ids.
    pub(crate) groups: Vec<u32>,
    /// Home directory.
    pub(crate) home: String,
}

/// A line of /etc/passwd.
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Resolves `spec` (`user`, `uid`, `user:group`, `uid:gid`, …; empty is root) against the texts
/// of the two files; a missing file is an empty text.
///
/// # Errors
/// In gdn's words, which its clients compare.
pub(crate) fn resolve(spec: &str, passwd: &str, group: &str) -> Result<Account, Fault> {
    let (user, wanted_group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let matched = match number(user)? {
        _ if user.is_empty() => users(passwd).find(|line| line.uid == 0),
        Some(uid) => users(passwd).find(|line| line.uid == uid),
        None => users(passwd).find(|line| line.name == user),
    };
    let uid = match (number(user)?, &matched) {
        (Some(uid), _) => uid,
        (None, Some(line)) => line.uid,
        (None, None) if user.is_empty() || user == "root" => 0,
        (None, None) => {
            let text = format!("unable to find user {user}: no matching entries in passwd file");
            return Err(Fault::not_found(text));
        }
    };
    let (gid, groups) = match wanted_group {
        Some(wanted) => (group_id(wanted, group)?, Vec::new()),
        None => match &matched {
            Some(line) => (line.gid, member_of(line.name, group)),
            None => (0, Vec::new()),
        },
    };
    if uid > LARGEST_ID || gid > LARGEST_ID {
        return Err(Fault::invalid("uids and gids must be in range 0-2147483647"));
    }
    let home = matched.map(|line| line.home).filter(|home| home.starts_with('/'));
    Ok(Account { uid, gid, groups, home: home.unwrap_or("/").to_owned() })
}

/// Returns the number a word of digits stands for. Anything else is a name; so is nothing.
fn number(word: &str) -> Result<Option<u32>, Fault> {
    if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match word.parse() {
        Ok(id) if id <= LARGEST_ID => Ok(Some(id)),
        _ => Err(Fault::invalid("uids and gids must be in range 0-2147483647")),
    }
}

/// passwd(5): name:password:uid:gid:comment:home:shell. Other lines are passed over.
fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(User { name, uid, gid, home: fields.nth(1).unwrap_or("/") })
    })
}

/// group(5): name:password:gid:members. Other lines are passed over.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

fn group_id(wanted: &str, group: &str) -> Result<u32, Fault> {
    if let Some(gid) = number(wanted)? {
        return Ok(gid);
    }
    let found = groups(group).find(|(name, ..)| *name == wanted);
    found.map(|(_, gid, _)| gid).ok_or_else(|| {
        let text = format!("unable to find group {wanted}: no matching entries in group file");
        Fault::not_found(text)
    })
}

fn member_of(user: &str, group: &str) -> Vec<u32> {
    groups(group)
        .filter(|(.., members)| members.split(',').any(|member| member.trim() == user))
        .map(|(_, gid, _)| gid)
        .filter(|gid| *gid <= LARGEST_ID)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1001:1010::/home/alice:/bin/sh\n\
        alice:x:9:9::/second:/bin/sh\nnohome:x:5:6\n::::\n";
    const GROUP: &str =
        "root:x:0:\nwheel:x:10:root,bob\nalice:x:1010:\nmore:x:1011:bob, alice\nbroken\n";

    fn account(spec: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        resolve(spec, PASSWD, GROUP)
            .map(|a| (a.uid, a.gid, a.groups, a.home))
            .map_err(|fault| fault.message)
    }

    #[test]
    fn users_are_found_as_gdn_finds_them() {
        for (spec, uid, gid, groups, home) in [
            ("", 0, 0, vec![10], "/root"),
            ("root", 0, 0, vec![10], "/root"),
            ("alice", 1001, 1010, vec![1011], "/home/alice"),
            ("1001", 1001, 1010, vec![1011], "/home/alice"),
            ("4242", 4242, 0, vec![], "/"),
            ("alice:wheel", 1001, 10, vec![], "/home/alice"),
            ("alice:77", 1001, 77, vec![], "/home/alice"),
            ("1000000000:1000000000", 1_000_000_000, 1_000_000_000, vec![], "/"),
            ("nohome", 5, 6, vec![], "/"),
            ("1000:", 1000, 0, vec![], "/"),
        ] {
            assert_eq!(account(spec).unwrap(), (uid, gid, groups, home.to_owned()), "{spec}");
        }
    }

    #[test]
    fn unknown_names_and_wild_numbers_are_refused() {
        for (spec, words) in [
            ("bob", "unable to find user bob: no matching entries in passwd file"),
            ("alice:nope", "unable to find group nope: no matching entries in group file"),
            ("-1", "unable to find user -1"),
            ("+0", "unable to find user +0"),
            ("0x0", "unable to find user 0x0"),
            ("4294967296", "range 0-2147483647"),
            ("2147483648", "range 0-2147483647"),
            ("0:4294967295", "range 0-2147483647"),
        ] {
            let message = account(spec).unwrap_err();
            assert!(message.contains(words), "{spec}: {message}");
        }
    }

    #[test]
    fn without_files_root_and_numbers_still_work() {
        for spec in ["", "root", "0"] {
            assert_eq!(resolve(spec, "", "").unwrap().home, "/");
        }
        assert!(resolve("alice", "", "").is_err());
    }
}
