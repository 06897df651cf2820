//! A program of its own, compiled by the test and run inside a container. `calls NUMBER[:FIRST]…` makes
//! system calls by number and prints what the kernel, or the filter before it, answers: an errno, or 0.
//! All arguments but the first are -1, which none of the calls asked for can use, so that what the
//! filter lets through fails in the kernel. `writable DIR…` prints the files below that this user may
//! write, without opening any.

#![expect(unsafe_code, reason = "std has neither system calls by number nor access(2)")]

use std::ffi::{CString, c_char, c_int, c_long};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn access(path: *const c_char, mode: c_int) -> c_int;
}

/// unistd.h
const W_OK: c_int = 2;

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("calls") => arguments.for_each(|word| call(&word)),
        Some("writable") => arguments.for_each(|dir| writable(Path::new(&dir))),
        _ => std::process::exit(2),
    }
}

fn call(word: &str) {
    let none: c_long = -1;
    let (number, first) = word.split_once(':').unwrap_or((word, "-1"));
    let (Ok(number), Ok(first)) = (number.parse::<c_long>(), first.parse::<c_long>()) else {
        return;
    };
    // SAFETY: -1 is no address that could be read or written, no descriptor and no set of flags, so
    // nothing of this process changes; the caller names no call that ends or replaces it.
    let answer = unsafe { syscall(number, first, none, none, none, none, none) };
    let errno = std::io::Error::last_os_error().raw_os_error().filter(|_| answer == -1);
    println!("{}", errno.unwrap_or(0));
}

fn writable(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            writable(&path);
        } else if kind.is_file() {
            let Ok(name) = CString::new(path.as_os_str().as_bytes()) else { continue };
            // SAFETY: the name ends with a NUL and lives longer than the call.
            if unsafe { access(name.as_ptr(), W_OK) } == 0 {
                println!("{}", path.display());
            }
        }
    }
}
