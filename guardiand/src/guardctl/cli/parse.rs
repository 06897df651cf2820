//! Small words of the command line: sizes, times, pairs, mounts, places.

use std::str::FromStr;
use std::time::Duration;

use guardian_contract::garden::{BindMount, VolumeStore};

/// Reads `64M`: a number of bytes, with k, M, G or T for powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim_end_matches(['b', 'B']).trim_end_matches(['i']);
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        Some((at, 't' | 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.trim().parse().map_err(|_| "not a size such as 64M".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too big".into())
}

/// Reads `5m` or `1h 30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "not a time such as 30s or 5m".into())
}

/// Reads a time as nanoseconds.
pub(crate) fn nanoseconds(text: &str) -> Result<i64, String> {
    i64::try_from(duration(text)?.as_nanos()).map_err(|_| "too long".into())
}

/// Reads an absolute path in the container: there is no directory that others start from.
pub(crate) fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.into()) } else { Err("not an absolute path".into()) }
}

/// Reads `K=V`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("not K=V".into()),
    }
}

/// Reads `K=V`, or `K` for the caller's own value, as docker does.
pub(crate) fn variable(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('=') {
        return Err("not K=V".into());
    }
    match text.contains('=') {
        true => Ok(text.into()),
        false => std::env::var(text)
            .map(|value| format!("{text}={value}"))
            .map_err(|_| format!("{text} is not set here")),
    }
}

/// Reads `SRC:DST[:OPTION,…]` with the options ro, rw and idmap.
pub(crate) fn bind_mount(text: &str) -> Result<BindMount, String> {
    let words: Vec<&str> = text.split(':').collect();
    let (source, destination, options) = match words[..] {
        [source, destination] => (source, destination, "rw"),
        [source, destination, options] => (source, destination, options),
        _ => return Err("not SRC:DST or SRC:DST:OPTION,…".into()),
    };
    let (mut mode, mut idmap) = (1, false);
    for option in options.split(',') {
        match option {
            "ro" => mode = 0,
            "rw" => mode = 1,
            "idmap" => idmap = true,
            other => return Err(format!("'{other}' is none of ro, rw and idmap")),
        }
    }
    if !source.starts_with('/') || !destination.starts_with('/') {
        return Err("both paths must be absolute".into());
    }
    Ok(BindMount { src_path: source.into(), dst_path: destination.into(), mode, origin: 0, idmap })
}

/// Reads `KIND[:PATH]`.
pub(crate) fn volume_store(text: &str) -> Result<VolumeStore, String> {
    let (kind, path) = text.split_once(':').unwrap_or((text, ""));
    if kind.is_empty() || text.ends_with(':') || !path.is_empty() && !path.starts_with('/') {
        return Err("not KIND or KIND:/PATH".into());
    }
    Ok(VolumeStore { kind: kind.into(), dst_path: path.into() })
}

/// `HANDLE:PATH`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The container.
    pub(crate) handle: String,
    /// The path in it.
    pub(crate) path: String,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((handle, path)) if !handle.is_empty() && !path.is_empty() => {
                Ok(Self { handle: handle.into(), path: path.into() })
            }
            _ => Err("not HANDLE:PATH".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, want) in
            [("0", 0), ("123", 123), ("1k", 1024), ("64M", 64 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(size(text), Ok(want), "{text}");
        }
        for wrong in ["", "M", "-1", "1.5G", "99999999T", "x"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_nanoseconds() {
        assert_eq!(nanoseconds("5m"), Ok(300_000_000_000));
        for wrong in ["soon", "x", "5", "-5s"] {
            assert!(nanoseconds(wrong).unwrap_err().contains("30s"), "{wrong}");
        }
    }

    #[test]
    fn mounts_are_writable_unless_said_otherwise() {
        for (text, mode) in [("/a:/b", 1), ("/a:/b:rw", 1), ("/a:/b:ro", 0)] {
            assert_eq!(bind_mount(text).unwrap().mode, mode, "{text}");
        }
        for (text, mode) in [("/a:/b:idmap", 1), ("/a:/b:ro,idmap", 0), ("/a:/b:idmap,rw", 1)] {
            let mount = bind_mount(text).unwrap();
            assert_eq!((mount.mode, mount.idmap), (mode, true), "{text}");
        }
        for wrong in ["", "/a", "a:/b", "/a:b", "/a:/b:rx", "/a:/b:ro:z", "/a:/b:", "/a:/b:ro,"] {
            assert!(bind_mount(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn volume_stores_have_a_kind_and_maybe_a_path() {
        for (text, kind, path) in [("docker", "docker", ""), ("custom:/a:b", "custom", "/a:b")] {
            let store = volume_store(text).unwrap();
            assert_eq!((store.kind.as_str(), store.dst_path.as_str()), (kind, path));
        }
        for wrong in ["", ":/a", "docker:", "docker:a"] {
            assert!(volume_store(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn places_name_handle_and_path() {
        let place: Place = "web:/a:b".parse().unwrap();
        assert_eq!((place.handle.as_str(), place.path.as_str()), ("web", "/a:b"));
        for wrong in ["web", ":x", "web:"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
