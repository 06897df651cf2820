//! Go's `encoding/json` as seen from outside: lenient reading, escaped writing.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::ser::Formatter;

/// Members whose keys are the client's own words and must keep their case.
const FREE_KEYS: [&str; 1] = ["properties"];

/// Reads the first JSON value of a body: keys in any case, `null` anywhere meaning "not given",
/// whatever follows the value ignored.
///
/// # Errors
/// With Go's words for an empty (`EOF`) or cut-off body (`unexpected EOF`), else serde's.
pub fn decode<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, String> {
    match first_value(body)? {
        // serde takes a list for a structure whose members are given in order; Go does not.
        Value::Array(_) => Err("json: cannot unmarshal array".into()),
        value => typed(value),
    }
}

/// Reads a list as [`decode`] reads anything else.
///
/// # Errors
/// As [`decode`].
pub fn decode_list<T: DeserializeOwned>(body: &[u8]) -> Result<Vec<T>, String> {
    typed(first_value(body)?)
}

fn first_value(body: &[u8]) -> Result<Value, String> {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    match values.next() {
        None => Err("EOF".into()),
        Some(Err(error)) if error.is_eof() => Err("unexpected EOF".into()),
        Some(Err(error)) => Err(format!("invalid JSON: {error}")),
        Some(Ok(value)) => Ok(value),
    }
}

fn typed<T: DeserializeOwned + Default>(value: Value) -> Result<T, String> {
    match normalise(value) {
        Value::Null => Ok(T::default()),
        value => serde_json::from_value(value)
            .map_err(|error| format!("json: cannot unmarshal request: {error}")),
    }
}

/// Lowers the case of keys and drops nulls, which serde would take for wrong types.
fn normalise(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| {
                    let key = key.to_lowercase();
                    let value =
                        if FREE_KEYS.contains(&key.as_str()) { value } else { normalise(value) };
                    (key, value)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(normalise).collect()),
        other => other,
    }
}

/// Writes a value as Go does: compact, with `<`, `>`, `&`, U+2028 and U+2029 escaped.
///
/// # Errors
/// When the value has no JSON form; none of the API's types does that.
pub fn encode(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, GoFormatter))?;
    Ok(out)
}

/// Like [`encode`], with the newline that Go's encoder ends each value with.
///
/// # Errors
/// As [`encode`].
pub fn encode_line(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut out = encode(value)?;
    out.push(b'\n');
    Ok(out)
}

#[derive(Debug)]
struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, tail) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let Some(escaped) = tail.chars().next() else { break };
            write!(writer, "\\u{:04x}", u32::from(escaped))?;
            rest = &tail[escaped.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::garden::{ContainerSpec, NetOutRule};

    #[test]
    fn keys_may_come_in_any_case_and_nulls_mean_nothing() {
        let spec: ContainerSpec = decode(
            br#"{"HANDLE":"x","Env":null,"properties":{"CamelCase":"v"},"limits":{"Memory_Limits":{"limit_in_bytes":5}}} trailing"#,
        )
        .unwrap();
        assert_eq!(spec.handle, "x");
        assert_eq!(spec.properties["CamelCase"], "v");
        assert_eq!(spec.limits.memory.limit_in_bytes, 5);
        assert_eq!(decode_list::<NetOutRule>(b"null").unwrap(), vec![]);
        assert_eq!(decode_list::<NetOutRule>(b"[{}]").unwrap(), [NetOutRule::default()]);
    }

    #[test]
    fn broken_bodies_get_go_s_words() {
        assert_eq!(decode::<ContainerSpec>(b"").unwrap_err(), "EOF");
        assert_eq!(decode::<ContainerSpec>(b"{\"a\":").unwrap_err(), "unexpected EOF");
        for wrong in ["{]", "nonsense", r#"{"grace_time":"5"}"#, r#"{"grace_time":1.5}"#, "[]"] {
            assert!(decode::<ContainerSpec>(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn writing_escapes_what_go_escapes() {
        assert_eq!(
            encode(&"a<b>&\u{2028}ä\n").unwrap(),
            "\"a\\u003cb\\u003e\\u0026\\u2028ä\\n\"".as_bytes()
        );
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(text: String) {
            let bytes = encode(&text).unwrap();
            proptest::prop_assert_eq!(serde_json::from_slice::<String>(&bytes).unwrap(), text);
        }

        #[test]
        fn any_bytes_are_an_error_or_a_spec(bytes: Vec<u8>) {
            let _ = decode::<ContainerSpec>(&bytes);
        }
    }
}
