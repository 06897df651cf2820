//! Images that want more than is good for their host.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use guardian_tests::patience::patience;

use flate2::{Compression, write::GzEncoder};

use crate::bench::{Bench, program};

fn header(name: &str, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

/// A gzip file of a few hundred kilobytes: the header, and so many MiB of zeros.
fn bomb(bench: &Bench, header: &tar::Header, mebibytes: usize) -> PathBuf {
    let path = bench.path("bomb.tar.gz");
    let mut gzip = GzEncoder::new(fs::File::create(&path).unwrap(), Compression::fast());
    gzip.write_all(header.as_bytes()).unwrap();
    for _ in 0..mebibytes {
        gzip.write_all(&[0; 1 << 20]).unwrap();
    }
    gzip.write_all(&[0; 1024]).unwrap();
    gzip.finish().unwrap().sync_all().unwrap();
    assert!(path.metadata().unwrap().len() < 1 << 20);
    path
}

#[test]
fn a_bomb_goes_off_within_its_limit() {
    let Some(bench) = Bench::new("a_bomb_goes_off_within_its_limit") else { return };
    bench.done(&["init-store"]);
    let limit = ["--max-layer-bytes", "1000000"];
    for kind in [tar::EntryType::Regular, tar::EntryType::new(b'V')] {
        let bomb = bomb(&bench, &header("bomb", kind, 40 << 20), 40);
        let create = ["create", bomb.to_str().unwrap(), "x"];
        let said = bench.refused(&[&limit[..], &create].concat());
        assert!(said.contains("may unpack to 1000000 bytes (--max-layer-bytes)"), "{said}");
        let quota = ["create", "--disk-limit-size-bytes", "900000"];
        let said = bench.refused(&[&limit[..], &quota, &create[1..]].concat());
        assert_eq!(said.matches("uncompressed layer size exceeds quota").count(), 1, "{said}");
        assert!(!said.contains("--max-layer-bytes"), "{said}");
    }
    // After the end of the archive nobody counts files.
    let mut end = header("x", tar::EntryType::Regular, 0);
    end.as_mut_bytes().fill(0);
    let bomb = bomb(&bench, &end, 66);
    let said = bench.refused(&["create", bomb.to_str().unwrap(), "x"]);
    assert!(said.contains("follow the end of the archive"), "{said}");
    for directory in ["layers", "meta", "partial", "images", "trash"] {
        assert_eq!(bench.stored(directory), [""; 0], "{directory}");
    }
}

/// A thousand names, told a thousand times each.
#[test]
fn a_million_members_take_bounded_time_and_memory() {
    let Some(bench) = Bench::new("a_million_members_take_bounded_time_and_memory") else { return };
    let mut chunk = Vec::new();
    for n in 0..1000 {
        // Making a file anew costs the kernel more than all of our work.
        let (kind, slash) = match n % 20 {
            0 => (tar::EntryType::Regular, ""),
            _ => (tar::EntryType::Directory, "/"),
        };
        chunk.extend_from_slice(header(&format!("d/{n}{slash}"), kind, 0).as_bytes());
    }
    let start = Instant::now();
    // 200 MB of address space, most of which is the program itself.
    let script = format!("ulimit -v 200000; exec {} extract $0", program("ocitar").display());
    let mut ocitar = Command::new("sh")
        .args(["-c", &script])
        .arg(bench.path("million"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = ocitar.stdin.take().unwrap();
    for _ in 0..1000 {
        stdin.write_all(&chunk).unwrap();
    }
    drop(stdin);
    assert!(ocitar.wait().unwrap().success());
    assert_eq!(fs::read_dir(bench.path("million/d")).unwrap().count(), 1000);
    assert!(start.elapsed() < patience(Duration::from_secs(120)), "{:?}", start.elapsed());
}

/// Threads count as processes of the user (RLIMIT_NPROC, setrlimit(2)), of which there may be no more.
#[test]
fn who_may_have_no_more_processes_unpacks_all_the_same() {
    let Some(bench) = Bench::new("who_may_have_no_more_processes_unpacks_all_the_same") else {
        return;
    };
    let mut archive = Vec::new();
    for number in 0..200 {
        let mut header = header(&number.to_string(), tar::EntryType::Regular, 0);
        header.set_uid(65534);
        header.set_gid(65534);
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
    }
    fs::write(bench.path("many.tar"), &archive).unwrap();
    fs::copy(program("ocitar"), bench.path("ocitar")).unwrap();
    fs::create_dir(bench.path("many")).unwrap();
    std::os::unix::fs::chown(bench.path("many"), Some(65534), Some(65534)).unwrap();
    let status = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "prlimit", "--nproc=1"])
        .arg(bench.path("ocitar"))
        .arg("extract")
        .arg(bench.path("many"))
        .stdin(fs::File::open(bench.path("many.tar")).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::read_dir(bench.path("many")).unwrap().count(), 200);
}
