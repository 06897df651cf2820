//! What a registry asks for when it answers 401: the `WWW-Authenticate` header (RFC 9110, 11.6.1).

/// A way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from the service at `realm`.
    Bearer {
        /// URL of the token service.
        realm: String,
        /// How the registry is called there.
        service: Option<String>,
    },
}

impl Challenge {
    /// Parses one header; `None` for a way that we don't know.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => Some(Self::Basic),
            "bearer" => {
                let mut found = parameters(rest);
                let mut take = |name: &str| {
                    let at = found.iter().position(|(key, _)| key == name)?;
                    Some(found.swap_remove(at).1)
                };
                Some(Self::Bearer { realm: take("realm")?, service: take("service") })
            }
            _ => None,
        }
    }
}

/// Reads `key=value, key="quoted \"value\""`; what follows a mistake is ignored.
fn parameters(mut text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let Some((key, rest)) = text.split_once('=') {
        let key = key.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim().to_owned(), &rest[end..])
            }
        };
        found.push((key, value));
        text = rest;
    }
    found
}

/// Returns the text up to the closing quote, and what follows it.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned) })
        };
        for (header, want) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                r#"Bearer realm="https://a/t",service="r,1",scope="repository:x:pull""#,
                bearer("https://a/t", Some("r,1")),
            ),
            ("bearer scope=x , Realm=https://a/t", bearer("https://a/t", None)),
            (r#"Bearer realm="a\"b"#, bearer("a\"b", None)),
            ("Bearer service=x", None),
            ("Negotiate abc", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(header), want, "{header}");
        }
    }
}
