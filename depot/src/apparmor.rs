//! AppArmor: whether the kernel has it, and which profiles are loaded. Nothing is loaded here.

use guardian_contract::fault::{Fault, Kind};

/// One line for each loaded profile, `NAME (MODE)` (apparmorfs).
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// Tells whether AppArmor is there and enabled.
pub(crate) fn is_enabled() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'))
}

/// Sees to it that a profile can be entered, so that the operator hears its name now, and not from a
/// runtime that failed to write some file of /proc. Without AppArmor nothing is required, and where
/// the list can't be read it is left to the runtime.
///
/// # Errors
/// When the profile is not loaded.
pub(crate) fn require(profile: &str) -> Result<(), Fault> {
    let loaded = std::fs::read_to_string(PROFILES).ok().filter(|_| is_enabled());
    if profile == "unconfined" || loaded.is_none_or(|text| is_among(profile, &text)) {
        return Ok(());
    }
    let message = format!(
        "AppArmor profile '{profile}' is not loaded (apparmor_parser loads one, aa-status lists them)"
    );
    Err(Fault::new(Kind::Failed, message))
}

fn is_among(profile: &str, loaded: &str) -> bool {
    let names = loaded.lines().filter_map(|line| Some(line.rsplit_once(" (")?.0));
    names.into_iter().any(|name| name == profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_by_its_whole_name() {
        let loaded = "garden-default (enforce)\n/usr/bin/man (complain)\na (b) (enforce)\n";
        for (profile, want) in [
            ("garden-default", true),
            ("garden", false),
            ("/usr/bin/man", true),
            ("a (b)", true),
            ("garden-default (enforce)", false),
        ] {
            assert_eq!(is_among(profile, loaded), want, "{profile}");
        }
    }
}
