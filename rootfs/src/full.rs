//! A disk that is full: which failures say so, and whose disk it is.

use std::io::ErrorKind;

use rustix::io::Errno;

use crate::store::Store;

/// Tells whether a failure is for want of room: `ENOSPC`, or `EDQUOT` of whoever runs us.
pub(crate) fn is_full(error: &anyhow::Error) -> bool {
    let of_io = error.downcast_ref().map(std::io::Error::kind);
    matches!(of_io, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
        || matches!(error.downcast_ref(), Some(&(Errno::NOSPC | Errno::DQUOT)))
}

/// Says which store it was that had no room, if that is what failed.
pub(crate) fn explain(store: &Store, error: anyhow::Error) -> anyhow::Error {
    match is_full(&error) {
        true => error.context(format!("no room in the store {}", store.root().display())),
        false => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use std::path::Path;

    #[test]
    fn the_store_is_named_that_is_full_and_no_other() {
        let store = Store::at(Path::new("/the/store")).unwrap();
        let told = |error: anyhow::Result<()>| {
            format!("{:#}", explain(&store, error.context("write x").unwrap_err()))
        };
        for full in [Errno::NOSPC, Errno::DQUOT] {
            let of_io = std::io::Error::from_raw_os_error(full.raw_os_error());
            for error in [Err(full.into()), Err(of_io.into())] {
                let said = told(error);
                assert!(said.starts_with("no room in the store /the/store: write x: "), "{said}");
            }
        }
        assert!(told(Err(Errno::ACCESS.into())).starts_with("write x: "));
    }
}
