//! Links the programs without std. They are static: `init` is bind-mounted into root filesystems
//! that have no loader and no libc of ours.

fn main() {
    let arguments = [
        // A program at a fixed address has nothing to relocate, so none of its pages is written at
        // start. rustc's `-pie` comes before and loses. No library is named: the C compiler adds
        // crt1, and libc's part of it is `bare.rs`.
        "-static",
        "-no-pie",
        // Core was compiled to unwind, and its debug information names this. Nothing here unwinds.
        "-Wl,--defsym=rust_eh_personality=0",
    ];
    for program in ["dadoo-hold", "init"] {
        for argument in arguments {
            println!("cargo:rustc-link-arg-bin={program}={argument}");
        }
    }
    println!("cargo:rerun-if-changed=build.rs");
}
