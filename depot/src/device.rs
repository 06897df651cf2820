//! Rules of the devices cgroup, as an operator writes them.

use std::str::FromStr;

use guardian_contract::fault::Fault;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType};

/// One rule: `<c|b> <major>:<minor> <access>`, where `*` stands for every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Character or block.
    kind: LinuxDeviceType,
    /// `None` is every major number.
    major: Option<i64>,
    /// `None` is every minor number.
    minor: Option<i64>,
    /// Among `r`, `w` and `m`.
    access: Access,
}

/// What may be done with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Access {
    read: bool,
    write: bool,
    mknod: bool,
}

impl Rule {
    /// Returns the rule that lets a character device be read, written and made.
    pub(crate) const fn character(major: i64, minor: Option<i64>) -> Self {
        let access = Access { read: true, write: true, mknod: true };
        Self { kind: LinuxDeviceType::C, major: Some(major), minor, access }
    }

    /// Returns the rule that lets every node of a kind be made, and not be used.
    pub(crate) const fn mknod(kind: LinuxDeviceType) -> Self {
        let access = Access { read: false, write: false, mknod: true };
        Self { kind, major: None, minor: None, access }
    }

    /// Tells whether this rule speaks of the devices of `other`, so that `other` need not be said.
    pub(crate) fn replaces(&self, other: &Self) -> bool {
        let every = self.major.is_none() && self.minor.is_none();
        let same = (self.major, self.minor) == (other.major, other.minor);
        self.kind == other.kind && (every || same)
    }

    /// Returns the rule as the runtime wants it.
    pub(crate) fn allow(&self) -> anyhow::Result<LinuxDeviceCgroup> {
        let Access { read, write, mknod } = self.access;
        let access: String = [(read, 'r'), (write, 'w'), (mknod, 'm')]
            .iter()
            .filter_map(|(allowed, letter)| allowed.then_some(*letter))
            .collect();
        let mut rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(self.kind)
            .access(access)
            .build()?;
        rule.set_major(self.major).set_minor(self.minor);
        Ok(rule)
    }
}

impl FromStr for Rule {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let wrong = |what: &str| Fault::invalid(format!("invalid device {what}: {text}"));
        let words: Vec<&str> = text.split_whitespace().collect();
        let [kind, numbers, access] = words[..] else { return Err(wrong("specification")) };
        let kind = match kind {
            "c" => LinuxDeviceType::C,
            "b" => LinuxDeviceType::B,
            _ => return Err(wrong("specification")),
        };
        let (major, minor) = numbers.split_once(':').ok_or_else(|| wrong("versions"))?;
        if access.chars().any(|letter| !"rwm".contains(letter)) {
            return Err(wrong("specification"));
        }
        Ok(Self {
            kind,
            major: number(major).ok_or_else(|| wrong("major version"))?,
            minor: number(minor).ok_or_else(|| wrong("minor version"))?,
            access: Access {
                read: access.contains('r'),
                write: access.contains('w'),
                mknod: access.contains('m'),
            },
        })
    }
}

/// Returns a device number; the inner `None` is `*`.
fn number(text: &str) -> Option<Option<i64>> {
    match text {
        "*" => Some(None),
        _ => text.parse::<u32>().ok().map(|number| Some(number.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_gdn_reads_them() {
        for (text, want) in [
            ("c 10:232 rwm", "c 10:232 rwm"),
            ("b *:* m", "b *:* m"),
            ("c  136:*  wr", "c 136:* rw"),
        ] {
            let rule: Rule = text.parse().unwrap();
            assert_eq!(rule.allow().unwrap().to_string(), want);
        }
    }

    #[test]
    fn a_bad_rule_is_told_in_gdn_s_words() {
        for (text, want) in [
            ("", "invalid device specification: "),
            ("c 1:2", "invalid device specification: c 1:2"),
            ("x 1:2 r", "invalid device specification: x 1:2 r"),
            ("c 1:2 rx", "invalid device specification: c 1:2 rx"),
            ("c 12 r", "invalid device versions: c 12 r"),
            ("c a:2 r", "invalid device major version: c a:2 r"),
            ("c 1:-2 r", "invalid device minor version: c 1:-2 r"),
        ] {
            assert_eq!(text.parse::<Rule>().unwrap_err().message, want);
        }
    }

    #[test]
    fn a_rule_replaces_its_own_devices_only() {
        let null = Rule::character(1, Some(3));
        for (text, want) in
            [("c 1:3 r", true), ("c *:* r", true), ("b *:* r", false), ("c 1:* r", false)]
        {
            assert_eq!(text.parse::<Rule>().unwrap().replaces(&null), want, "{text}");
        }
    }
}
