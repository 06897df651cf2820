//! Request heads: parsed by httparse, bounded, nothing read beyond them.

/// How the body of a request is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks until an empty one.
    Chunked,
}

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// The method, as sent.
    pub(crate) method: String,
    /// The path, still escaped.
    pub(crate) path: String,
    /// What follows the question mark, still escaped; empty when there is none.
    pub(crate) query: String,
    /// How the body is framed.
    pub(crate) framing: Framing,
    /// Whether the client wants the connection closed after the answer.
    pub(crate) close: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
}

/// The largest head accepted, in bytes.
pub(crate) const LIMIT_BYTES: usize = 64 * 1024;

/// Header fields at most; Go's client sends four.
const LIMIT_FIELDS: usize = 100;

/// Parses a head and returns it with its length; `None` when more bytes are needed.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
    let mut fields = [httparse::EMPTY_HEADER; LIMIT_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes).map_err(|error| error.to_string())? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial if bytes.len() >= LIMIT_BYTES => {
            return Err("request head is too large".into());
        }
        httparse::Status::Partial => return Ok(None),
    };
    let field = |name: &str| {
        let mut found =
            request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        found.next().map(|field| String::from_utf8_lossy(field.value).trim().to_ascii_lowercase())
    };
    let target = request.path.unwrap_or_default();
    // A proxy's absolute form; the authority has no meaning here.
    let target = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let connection = field("connection").unwrap_or_default();
    let close = match request.version {
        Some(1) => connection.contains("close"),
        _ => !connection.contains("keep-alive"),
    };
    let head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        framing: framing(field("transfer-encoding"), field("content-length"))?,
        close,
        expects_continue: field("expect").is_some_and(|value| value == "100-continue"),
    };
    Ok(Some((head, length)))
}

/// RFC 9112 section 6.3. Both fields at once are refused: that is how requests are smuggled.
fn framing(encoding: Option<String>, length: Option<String>) -> Result<Framing, String> {
    match (encoding.as_deref(), length) {
        (Some("chunked"), None) => Ok(Framing::Chunked),
        (Some(_), Some(_)) => Err("both Transfer-Encoding and Content-Length".into()),
        (Some(other), None) => Err(format!("unsupported transfer encoding '{other}'")),
        (None, None) => Ok(Framing::Length(0)),
        (None, Some(length)) => match length.bytes().all(|byte| byte.is_ascii_digit()) {
            true => length.parse().map(Framing::Length).map_err(|error| error.to_string()),
            false => Err(format!("bad Content-Length '{length}'")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_client_s_head_is_understood() {
        let bytes = b"PUT /containers/h/files?user=&destination=%2Fx HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nrest";
        let (head, length) = parse(bytes).unwrap().unwrap();
        assert_eq!(&bytes[length..], b"rest");
        assert_eq!((head.method.as_str(), head.path.as_str()), ("PUT", "/containers/h/files"));
        assert_eq!(head.query, "user=&destination=%2Fx");
        assert_eq!(head.framing, Framing::Chunked);
        assert!(head.close);
    }

    #[test]
    fn a_cut_head_needs_more_and_a_bad_one_is_refused() {
        assert_eq!(parse(b"GET /ping HTTP/1.1\r\nHost:").unwrap(), None);
        for bad in [
            "GET /ping\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(&vec![b'a'; LIMIT_BYTES]).is_err());
    }

    #[test]
    fn old_clients_close_unless_they_say_otherwise() {
        for (text, close) in [
            ("GET / HTTP/1.0\r\n\r\n", true),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false),
            ("GET / HTTP/1.1\r\n\r\n", false),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().unwrap().0.close, close, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_head_or_an_error(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
