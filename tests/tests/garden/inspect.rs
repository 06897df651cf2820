//! What a container is from inside, as a curious program sees it: identity, rights, namespaces, mounts,
//! devices, descriptors, what it may write, which system calls it may make; beside a table of what it
//! must see, exactly.

#[path = "inspect/look.rs"]
mod look;
#[path = "inspect/table.rs"]
mod table;

use guardian_tests::daemon::Daemon;
use guardian_tests::{host, probe};

use crate::with_each_runtime;
use look::Look;
use table::Case;

#[test]
fn an_unprivileged_container_sees_what_the_table_says() {
    with_each_runtime("inspection from inside", |daemon| compare(daemon, false));
}

#[test]
fn a_privileged_container_sees_what_the_table_says() {
    with_each_runtime("inspection of a privileged container", |daemon| compare(daemon, true));
}

/// Init's streams are nobody else's: whoever is given them may change their mode.
#[test]
fn init_holds_nothing_of_the_host() {
    with_each_runtime("descriptors of init", |daemon| {
        let handle = daemon.handle("init");
        daemon.ctl(&["create", "--handle", &handle]).unwrap();
        let pid = std::fs::read_to_string(daemon.depot().join(&handle).join("pidfile")).unwrap();
        let mut held: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", pid.trim()))
            .unwrap()
            .flatten()
            .map(|entry| {
                let target = std::fs::read_link(entry.path()).unwrap();
                format!("{} {}", entry.file_name().display(), target.display())
            })
            .collect();
        held.sort();
        let nothing = "/memfd:nothing (deleted)";
        assert_eq!(held, [0, 1, 2].map(|number| format!("{number} {nothing}")));
    });
}

fn compare(daemon: &Daemon, privileged: bool) {
    let case = Case::here(host::program(daemon.runtime()).unwrap().as_path(), privileged);
    let handle = daemon.handle(if privileged { "free" } else { "confined" });
    let volume = daemon.path("probe");
    std::fs::create_dir(&volume).unwrap();
    std::fs::copy(probe::make().unwrap(), volume.join("probe")).unwrap();
    let mount = format!("{}:/probe:ro", volume.display());
    let mut create = vec!["create", "--handle", &handle, "-v", &mount];
    create.extend(privileged.then_some("--privileged"));
    daemon.ctl(&create).unwrap();
    let seen = Look { daemon, handle: &handle }.all(&case);
    let wanted = case.table();
    // One line of difference says more than two tables.
    let missing: Vec<&String> = wanted.iter().filter(|line| !seen.contains(line)).collect();
    let besides: Vec<&String> = seen.iter().filter(|line| !wanted.contains(line)).collect();
    assert!(
        missing.is_empty() && besides.is_empty(),
        "{}, privileged: {privileged}\nnot seen: {missing:#?}\nseen besides: {besides:#?}",
        daemon.runtime()
    );
    assert_eq!(seen.len(), wanted.len(), "a line is there twice");
}
