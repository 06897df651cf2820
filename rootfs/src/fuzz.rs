//! What the fuzz targets (`rootfs/fuzz`) drive, and a property test on every ordinary run.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a fuzz target fails by panicking"
)]

use std::fs;
use std::path::Path;

use crate::archive::read::Reader;
use crate::digest;
use crate::layout;
use crate::store::Store;
use crate::unpack::Unpacker;

/// Bytes that an archive may unpack to here.
const ROOM: u64 = 1 << 20;

/// Unpacks an archive as a layer and as a user's, and looks whether anything came out beside the
/// directory that it was to stay in.
pub fn unpack(archive: &[u8]) {
    for is_layer in [true, false] {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("canary"), "old").unwrap();
        fs::create_dir(top.path().join("root")).unwrap();
        let root = fs::File::open(top.path().join("root")).unwrap();
        let unpacker = match is_layer {
            true => Unpacker::layer(root.into(), &[], ROOM),
            false => Unpacker::user(root.into(), 0o022),
        };
        // A user is confined by being that user; as root, only archives without links are.
        if is_layer || !has_links(archive) {
            let _ = unpacker.run(archive);
        }
        assert_eq!(fs::read_to_string(top.path().join("canary")).unwrap(), "old");
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 2);
        let top = crate::layer::open_directory(top.path()).unwrap();
        crate::remove::tree(&top, "root".as_ref()).unwrap();
    }
}

fn has_links(archive: &[u8]) -> bool {
    let mut reader = Reader::new(archive);
    while let Ok(Some(entry)) = reader.next() {
        if matches!(entry.kind, crate::archive::Kind::Symlink(_)) {
            return true;
        }
    }
    false
}

/// Reads an image layout whose index, manifest and configuration are given, each after a zero
/// byte; `$1` to `$3` in one of them stand for the digests of the others.
pub fn layout(documents: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let blobs = directory.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let mut parts = documents.splitn(3, |byte| *byte == 0);
    let mut digests = Vec::new();
    let mut last = Vec::new();
    // The configuration comes first, so that the others can name it.
    let mut documents: Vec<&[u8]> = parts.by_ref().collect();
    documents.reverse();
    for document in documents {
        last = named(document, &digests);
        let digest = digest::of(&last);
        fs::write(blobs.join(&digest), &last).unwrap();
        digests.push(digest);
    }
    fs::write(directory.path().join("index.json"), last).unwrap();
    for tag in [None, Some("x")] {
        check(directory.path(), tag);
    }
}

fn check(directory: &Path, tag: Option<&str>) {
    let Ok(store) = Store::at(&directory.join("store")) else { return };
    let Ok(image) = layout::image(directory, tag, &store, true) else { return };
    assert!(!image.layers.is_empty());
    for layer in image.layers {
        // It becomes a file name.
        assert!(layer.chain_id.len() == 64);
        assert!(layer.chain_id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}

fn named(document: &[u8], digests: &[String]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut rest = document;
    while let Some(at) = rest.iter().position(|byte| *byte == b'$') {
        let digit = rest.get(at + 1).map_or(0, |byte| usize::from(byte.wrapping_sub(b'1')));
        text.extend_from_slice(&rest[..at]);
        let digest = digests.get(digit).map_or_else(String::new, |hex| format!("sha256:{hex}"));
        text.extend_from_slice(digest.as_bytes());
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    text.extend_from_slice(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Entry, Kind, write};
    use proptest::prelude::*;

    /// Members with names that mean something to an unpacker.
    fn member() -> impl Strategy<Value = Entry> {
        let name = "(\\.\\./|/|\\./|a/|b/|l/|\\.wh\\.){0,3}(a|b|l|\\.\\.|canary|\\.wh\\.a|\\.wh\\.\\.wh\\.\\.opq|\\.wh\\.)?";
        let kind = prop_oneof![
            Just(Kind::File),
            Just(Kind::Directory),
            Just(Kind::Fifo),
            Just(Kind::CharDevice(0, 0)),
            name.prop_map(|target: String| Kind::Symlink(target.into_bytes())),
            name.prop_map(|target: String| Kind::HardLink(target.into_bytes())),
        ];
        (name, kind, 0u32..0o10000).prop_map(|(path, kind, mode)| Entry {
            path: path.into_bytes(),
            kind,
            mode,
            ..Entry::default()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn no_members_leave_their_root(
            members in proptest::collection::vec(member(), 1..12),
            damage in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut archive = Vec::new();
            for entry in members {
                write::header(&mut archive, &entry).unwrap();
            }
            write::end(&mut archive).unwrap();
            if let Some((at, byte)) = damage {
                let at = at.index(archive.len());
                archive[at] = byte;
            }
            unpack(&archive);
        }

        #[test]
        fn no_documents_make_a_layout_panic(
            documents in "(\\{|\\}|\\[|\\]|,|:|\"schemaVersion\"|2|\"manifests\"|\"layers\"|\"config\"|\"digest\"|\"\\$1\"|\"size\"|0|\"mediaType\"|\"x\"|\\x00){0,40}",
        ) {
            layout(documents.as_bytes());
        }
    }

    #[test]
    fn a_layout_can_be_told_in_one_text() {
        let zeros = "0".repeat(64);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["sha256:{zeros}"]}}}}"#
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"$1","size":1}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:{zeros}","size":1}}]}}"#
        );
        let index = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"$2","size":1}]}"#;
        layout(format!("{index}\0{manifest}\0{config}").as_bytes());
        let directory = tempfile::tempdir().unwrap();
        let blobs = directory.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let mut digests = Vec::new();
        for document in [&config, &manifest] {
            let text = named(document.as_bytes(), &digests);
            digests.push(digest::of(&text));
            fs::write(blobs.join(&digests[digests.len() - 1]), text).unwrap();
        }
        fs::write(directory.path().join("index.json"), named(index.as_bytes(), &digests)).unwrap();
        assert_eq!(
            layout::image(directory.path(), None, &Store::at(directory.path()).unwrap(), true)
                .unwrap()
                .layers
                .len(),
            1
        );
    }
}
