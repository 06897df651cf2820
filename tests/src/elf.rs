//! Whether an executable is static: it asks for no interpreter (elf(5), `PT_INTERP`).

use std::path::Path;

use anyhow::{Context, bail};

const PT_INTERP: u32 = 3;

/// Tells whether the executable at `path` runs in an otherwise empty root filesystem.
///
/// # Errors
/// When it can't be read or is no 64-bit little-endian ELF file.
pub fn is_static(path: &Path) -> anyhow::Result<bool> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let types = program_header_types(&bytes);
    let types = types.with_context(|| format!("{} is no 64-bit ELF file", path.display()))?;
    Ok(!types.contains(&PT_INTERP))
}

/// Returns `p_type` of every program header.
fn program_header_types(bytes: &[u8]) -> anyhow::Result<Vec<u32>> {
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01".as_slice()) {
        bail!("wrong magic");
    }
    let offset = usize::try_from(u64::from_le_bytes(field(bytes, 0x20)?))?;
    let size = usize::from(u16::from_le_bytes(field(bytes, 0x36)?));
    let count = usize::from(u16::from_le_bytes(field(bytes, 0x38)?));
    (0..count).map(|at| Ok(u32::from_le_bytes(field(bytes, offset + at * size)?))).collect()
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> anyhow::Result<[u8; N]> {
    let end = at.checked_add(N).context("header out of bounds")?;
    Ok(bytes.get(at..end).context("header out of bounds")?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_dynamic_and_text_is_no_program() {
        assert!(!is_static(&std::env::current_exe().unwrap()).unwrap());
        assert!(is_static(Path::new("/etc/passwd")).is_err());
        assert!(program_header_types(b"\x7fELF\x02\x01").is_err());
    }
}
