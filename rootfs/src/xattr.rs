//! Extended attributes: which ones travel with an image, and reading those of an open file.

use std::os::fd::AsFd;

use rustix::io::Errno;

/// Names and values.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Tells whether an attribute of an archive is set, or one of a file archived.
///
/// Overlay's own attributes would let an image redirect lookups and forge whiteouts, and labels of
/// security modules are the host's to give.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability"
        || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
        || name.starts_with(b"trusted.") && !name.starts_with(b"trusted.overlay.")
        || name.starts_with(b"system.posix_acl_")
}

/// Reads the attributes that travel; a filesystem without attributes has none.
///
/// # Errors
/// The kernel's.
pub(crate) fn read(file: &impl AsFd) -> Result<Attributes, Errno> {
    let names = match sized(|buffer| rustix::fs::flistxattr(file, buffer)) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut attributes = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| is_kept(name)) {
        match sized(|buffer| rustix::fs::fgetxattr(file, name, buffer)) {
            Ok(value) => attributes.push((name.to_vec(), value)),
            // Gone meanwhile, or not for us.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(attributes)
}

/// Calls again with a larger buffer until the answer fits; most files have no attribute at all,
/// so the first try costs no allocation worth speaking of.
fn sized(mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            // 64 KiB is the kernel's own limit (XATTR_LIST_MAX, XATTR_SIZE_MAX).
            Err(Errno::RANGE) if buffer.len() < 65536 => buffer.resize(65536, 0),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_s_and_the_host_s_attributes_do_not_travel() {
        for name in ["security.capability", "user.x", "trusted.x", "system.posix_acl_access"] {
            assert!(is_kept(name.as_bytes()), "{name}");
        }
        for name in ["trusted.overlay.redirect", "user.overlay.opaque", "security.selinux", "x"] {
            assert!(!is_kept(name.as_bytes()), "{name}");
        }
    }
}
