//! `preloaded+layer:`: a tar file, and an archive from elsewhere unpacked in one of its directories.
//!
//! `preloaded+layer:///BASE.tar?layer=URL&layer_path=DIRECTORY&layer_digest=HEX`, as Diego asks gdn for
//! it. gdn turns it into an image layout before it calls its plugin ([`crate::layout`] reads that);
//! asked directly, we need no layout.

use std::path::PathBuf;

use anyhow::{Context, bail};
use guardian_contract::fault::Fault;

use crate::beneath::contained;
use crate::digest;
use crate::layer::{Blob, Layer, Packing};
use crate::registry;
use crate::store::Store;

/// The URI, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preloaded {
    /// The tar file.
    pub(crate) base: PathBuf,
    url: String,
    path: PathBuf,
    digest: String,
}

impl Preloaded {
    /// Takes a URI apart, whose scheme `rest` is without.
    ///
    /// # Errors
    /// `Invalid`, in gdn's words for a parameter that is missing.
    pub(crate) fn parse(uri: &str, rest: &str) -> anyhow::Result<Self> {
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
        let parameter = |name: &str| {
            let found =
                query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            let missing =
                || Fault::invalid(format!("no query parameter '{name}' found in URL {uri}"));
            unescaped(found.filter(|value| !value.is_empty()).ok_or_else(missing)?)
        };
        let url = parameter("layer")?;
        let path = parameter("layer_path")?;
        let path =
            contained(path.as_bytes()).context(Fault::invalid("layer_path is not a path"))?;
        let digest = digest::parse(&digest::named(&parameter("layer_digest")?))?;
        Ok(Self { base: unescaped(base)?.into(), url, path, digest })
    }

    /// Returns the layer that lies over the tar file's.
    ///
    /// # Errors
    /// When its server can't be reached, or does not have it.
    pub(crate) fn layer(&self, below: &Layer, store: &Store) -> anyhow::Result<Layer> {
        let (digest, path) = (digest::named(&self.digest), self.path.display());
        let chain_id = digest::of(format!("{} {digest} {path}", below.chain_id));
        let blob = Blob {
            path: store.blob(&self.digest),
            digest: Some(self.digest.clone()),
            size: 0,
            diff_id: None,
            packing: Packing::Guess,
            urls: vec![self.url.clone()],
        };
        let mut layer = Layer { chain_id, blob, base: self.path.clone() };
        registry::measure(&mut layer, store)?;
        Ok(layer)
    }
}

/// Undoes the escapes of a URL (RFC 3986, 2.1).
fn unescaped(text: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => bytes.push(byte),
            None => bail!(Fault::invalid(format!("'{text}' has a malformed escape"))),
        }
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| Fault::invalid(format!("'{text}' is not a text")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_taken_apart() {
        let digest = "0123456789abcdef".repeat(4);
        let of = |rest: &str| Preloaded::parse("preloaded+layer:x", rest);
        let good = format!(
            "///base%20x.tar?layer=https%3A%2F%2Fh%2Fl.tgz%3Fa%3Db&layer_path=/home/vcap&layer_digest={digest}"
        );
        let got = of(&good).unwrap();
        assert_eq!((got.url.as_str(), got.path), ("https://h/l.tgz?a=b", "home/vcap".into()));
        assert_eq!((got.base, got.digest), ("/base x.tar".into(), digest));
        let said = of("///base.tar?layer=x&layer_digest=1").unwrap_err().to_string();
        assert_eq!(said, "no query parameter 'layer_path' found in URL preloaded+layer:x");
        for bad in ["///b?layer=x&layer_path=y&layer_digest=../../x", "///b?layer=%zz"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
