//! Pax extended headers: records of `LENGTH KEY=VALUE\n`, where only the length says where a
//! record ends (POSIX pax, "pax Extended Header").

use anyhow::{Context, anyhow, bail};

use super::Entry;

/// Splits the records of an extended header.
pub(super) fn records(mut text: &[u8]) -> anyhow::Result<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !text.is_empty() {
        let blank = text.iter().take(20).position(|byte| *byte == b' ');
        let blank = blank.context("pax record without a length")?;
        let length: usize = number(&text[..blank])?;
        if length <= blank + 1 || length > text.len() || text[length - 1] != b'\n' {
            bail!("pax record with a wrong length");
        }
        let record = &text[blank + 1..length - 1];
        let equals =
            record.iter().position(|byte| *byte == b'=').context("pax record without =")?;
        records.push((&record[..equals], &record[equals + 1..]));
        text = &text[length..];
    }
    Ok(records)
}

/// Parses a decimal number.
pub(super) fn number<T: std::str::FromStr>(text: &[u8]) -> anyhow::Result<T> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| anyhow!("'{}' is not a number here", text.escape_ascii()))
}

/// Applies one record to what the header block said. Keys we don't know are passed over.
pub(super) fn apply(entry: &mut Entry, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
    match key {
        b"path" => entry.path = value.to_vec(),
        b"uid" => entry.uid = number(value)?,
        b"gid" => entry.gid = number(value)?,
        b"mtime" => entry.mtime = time(value)?,
        key => {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                entry.xattrs.push((name.to_vec(), value.to_vec()));
            }
        }
    }
    Ok(())
}

/// Parses `SECONDS[.FRACTION]`.
fn time(text: &[u8]) -> anyhow::Result<(i64, u32)> {
    let (seconds, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    let mut digits = [b'0'; 9];
    for (digit, byte) in digits.iter_mut().zip(fraction) {
        *digit = *byte;
    }
    let (whole, nanos): (i64, u32) = (number(seconds)?, number(&digits)?);
    // A fraction always points away from zero, a timespec's always to the future.
    match seconds.starts_with(b"-") && nanos > 0 {
        true => Ok((whole.saturating_sub(1), 1_000_000_000 - nanos)),
        false => Ok((whole, nanos)),
    }
}

/// Appends one record.
pub(super) fn push(header: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = 3 + key.len() + value.len();
    // The length counts its own digits.
    let mut digits = 1;
    while rest + digits >= 10usize.pow(u32::try_from(digits).unwrap_or(u32::MAX)) {
        digits += 1;
    }
    header.extend_from_slice((rest + digits).to_string().as_bytes());
    header.push(b' ');
    header.extend_from_slice(key);
    header.push(b'=');
    header.extend_from_slice(value);
    header.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_binary_value_ends_where_its_length_says() {
        let mut header = Vec::new();
        push(&mut header, b"SCHILY.xattr.user.x", b"a\n12 path=/etc/passwd\n");
        push(&mut header, b"path", b"ok");
        let records = records(&header).unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(records[1], (&b"path"[..], &b"ok"[..]));
    }

    #[test]
    fn broken_records_are_refused() {
        for bad in [&b"x"[..], b"5 a=b\n9", b"3 =", b"99 a=b\n", b"0 a=b\n", b"6 a b \n", b"6 a=b."]
        {
            assert!(records(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn times_have_fractions() {
        assert_eq!(time(b"12.5").unwrap(), (12, 500_000_000));
        assert_eq!(time(b"-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(time(b"7").unwrap(), (7, 0));
        assert!(time(b"1.x").is_err());
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_read_back(key in "[a-zA-Z.]{1,120}", value: Vec<u8>) {
            let mut header = Vec::new();
            push(&mut header, key.as_bytes(), &value);
            prop_assert_eq!(records(&header).unwrap(), vec![(key.as_bytes(), &value[..])]);
        }

        #[test]
        fn no_bytes_make_it_panic(text: Vec<u8>) {
            let _ = records(&text);
        }
    }
}
