//! Rules of the workspace that no compiler checks: who may depend on whom, how files begin and
//! how long they get, where `unsafe` and bincode may be written.

#![expect(clippy::unwrap_used, reason = "a test that can't go on must fail")]

use std::path::{Path, PathBuf};
use std::process::Command;

use guardian_tests::host;
use serde_json::Value;

/// The one package of ours that the others may depend on.
const SHARED: &str = "guardian-contract";

/// They drive everything, so they may depend on everything.
const EXEMPT: [&str; 2] = ["guardian-tests", "xtask"];

/// Where neither nix nor rustix has a safe form of what is needed: mount_setattr(2), and the two
/// programs without std, whose memory is paid once for every container and every process.
const UNSAFE_FILES: [&str; 6] = [
    "dadoo/src/bare.rs",
    "dadoo/src/hold/sys.rs",
    "dadoo/src/init.rs",
    "idmgr/src/sys.rs",
    "rootfs/src/sys.rs",
    // A program that is run in a container to see which system calls it may make.
    "tests/tests/garden/inspect/probe.rs",
];

const LONGEST: usize = 400;

fn sources() -> Vec<(String, String)> {
    let root = host::workspace();
    let mut files = Vec::new();
    for directory in ["guardiand", "dadoo", "depot", "idmgr", "netsetup", "rootfs", "tests"] {
        collect(&root.join(directory), &mut files);
    }
    assert!(files.len() > 20, "the sources were not found");
    let name = |path: &Path| path.strip_prefix(&root).unwrap().display().to_string();
    files.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn offenders(is_wrong: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let sources = sources();
    let wrong = sources.into_iter().filter(|(name, text)| is_wrong(name, text));
    wrong.map(|(name, _)| name).collect()
}

#[test]
fn packages_depend_on_the_contract_and_on_no_other_package_of_ours() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let words = ["metadata", "--no-deps", "--format-version", "1", "--offline"];
    let text = host::output(Command::new(cargo).args(words).current_dir(host::workspace()));
    let metadata: Value = serde_json::from_str(&text.unwrap()).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    assert!(ours.contains(&SHARED), "{ours:?}");
    let mut edges = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let needed = package["dependencies"].as_array().unwrap();
        let needed = needed.iter().filter_map(|dependency| dependency["name"].as_str());
        for other in needed.filter(|other| ours.contains(other)) {
            if other != SHARED && !EXEMPT.contains(&name) {
                edges.push(format!("{name} -> {other}"));
            }
        }
    }
    assert_eq!(edges, Vec::<String>::new());
}

#[test]
fn every_file_says_what_it_is() {
    assert_eq!(offenders(|_, text| !text.starts_with("//! ")), Vec::<String>::new());
}

#[test]
fn no_file_is_too_long() {
    assert_eq!(offenders(|_, text| text.lines().count() > LONGEST), Vec::<String>::new());
}

#[test]
fn unsafe_code_is_in_the_named_files_only() {
    let has_unsafe = |text: &str| {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let mut words =
            code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
        words.any(|word| word == concat!("un", "safe"))
    };
    let wrong = offenders(|name, text| !UNSAFE_FILES.contains(&name) && has_unsafe(text));
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn one_file_names_bincode() {
    let word = concat!("bin", "code::");
    let users = offenders(|_, text| text.contains(word));
    assert_eq!(users, ["guardiand/contract/src/frame.rs"]);
}
