//! `dadoo relay`: copies between a server's pipes and the standard streams of a client who has
//! passed them and is not the process's first: the server has the output, and must not wait for
//! every client's terminal.

use std::fs::File;
use std::io::{self, Stderr, Stdin, Stdout};
use std::os::fd::AsFd;
use std::thread;

use anyhow::{Context, anyhow};
use nix::unistd::close;

/// Write end: the process's standard input. May be missing: then stdin is left alone.
const INPUT: i32 = 3;
/// Read ends: its standard output and standard error.
const OUTPUTS: [i32; 2] = [4, 5];

/// Copies until both outputs have ended. Input goes on until then, or until its own end.
///
/// # Errors
/// When an output can't be copied, other than because nobody reads it any more.
pub(crate) fn relay() -> anyhow::Result<()> {
    let input = take(INPUT, File::options().write(true));
    let [stdout, stderr] = OUTPUTS.map(|number| take(number, File::options().read(true)));
    if let Ok(input) = input {
        let own = own::<Stdin>(&io::stdin())?;
        thread::spawn(move || copy(own, input));
    }
    let copies =
        [(stdout?, own::<Stdout>(&io::stdout())?), (stderr?, own::<Stderr>(&io::stderr())?)];
    // The copies of our own streams are the only ones left: who reads them must see their end.
    for number in 0..3 {
        let _ = close(number);
    }
    let copies = copies.map(|(from, to)| thread::spawn(move || copy(from, to)));
    for done in copies {
        done.join().map_err(|_| anyhow!("a thread failed"))??;
    }
    Ok(())
}

/// Opens what is behind an inherited number again, and closes the number.
fn take(number: i32, options: &mut std::fs::OpenOptions) -> anyhow::Result<File> {
    let file = options.open(format!("/proc/self/fd/{number}"));
    let _ = close(number);
    file.with_context(|| format!("descriptor {number}"))
}

fn own<T: AsFd>(stream: &T) -> anyhow::Result<File> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

/// The standard library lets the kernel move the bytes where it can (splice(2)).
fn copy(mut from: File, mut to: File) -> anyhow::Result<()> {
    match io::copy(&mut from, &mut to) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("copy"),
        _ => Ok(()),
    }
}
