//! Files of which nothing says how large they are: those that procfs and sysfs make up when they are
//! read claim to be empty.

use std::fs::File;
use std::io::Read;

use anyhow::bail;

/// Most that is read of one, because it is kept until its header is written.
const MAX: u64 = 1 << 20;

/// Reads a file that claims to be empty. One that can't be read is as empty as it claims.
///
/// # Errors
/// When it is larger than 1 MiB: a part of it would be taken for the whole.
pub(super) fn content(file: &File) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    match file.take(MAX + 1).read_to_end(&mut content) {
        Ok(length) if length as u64 > MAX => bail!("claims to be empty, but has more than 1 MiB"),
        Ok(_) => Ok(content),
        Err(_) => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packer, Purpose};
    use super::*;
    use crate::archive::read::Reader;
    use crate::beneath::Beneath;

    #[test]
    fn what_claims_to_be_empty_is_read() {
        let root = Beneath::without_links(File::open("/proc/self").unwrap().into());
        let (archive, failed) =
            Packer::new(root, Purpose::User, Vec::new()).run("comm".as_ref()).unwrap();
        assert!(failed.is_empty(), "{failed:?}");
        let mut reader = Reader::new(&archive[..]);
        let entry = reader.next().unwrap().unwrap();
        let comm = std::fs::read("/proc/self/comm").unwrap();
        assert_eq!((entry.path, entry.size), (b"comm".to_vec(), comm.len() as u64));
        assert_eq!(archive[512..][..comm.len()], comm);
    }

    #[test]
    fn what_has_no_end_is_an_error() {
        assert!(content(&File::open("/dev/zero").unwrap()).is_err());
        assert_eq!(content(&File::open("/dev/null").unwrap()).unwrap(), b"");
    }
}
