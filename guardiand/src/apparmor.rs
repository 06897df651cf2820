//! AppArmor: whether asking for a profile has any effect.

use guardian_contract::log;
use serde_json::json;

/// `Y` where it is built in and enabled (apparmor(7)).
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";

/// Tells that containers won't be confined as the operator wants it. That is no failure: one
/// command line serves hosts with AppArmor and without.
pub(crate) fn tell_if_missing(profile: Option<&str>) {
    let is_enabled = std::fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'));
    if let (Some(profile), false) = (profile, is_enabled) {
        let error = "the kernel has no AppArmor, or it is disabled: no container is confined by it";
        log::error("apparmor", &json!({"profile": profile, "error": error}));
    }
}
