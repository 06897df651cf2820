//! The process directory: how guardiand, dadoo and a person at a shell meet one process.
//!
//! gdn's layout to the letter: five FIFOs (`stdin stdout stderr winsz exit`), `pidfile` written by
//! the runtime, `exitcode` written by dadoo before anything closes, and for a pea its own
//! `config.json`. Somebody reading `exit` sees end of file when dadoo is gone.
//!
//! A process that was given its standard streams as open descriptors has no FIFOs for them, only
//! `winsz` and `exit`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The paths of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessDir(PathBuf);

impl ProcessDir {
    /// Returns the process directory at `path`; nothing is touched yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Returns the directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// FIFO: caller → process.
    pub fn stdin(&self) -> PathBuf {
        self.0.join("stdin")
    }

    /// FIFO: process → caller; with a terminal, all output.
    pub fn stdout(&self) -> PathBuf {
        self.0.join("stdout")
    }

    /// FIFO: process → caller; silent with a terminal.
    pub fn stderr(&self) -> PathBuf {
        self.0.join("stderr")
    }

    /// FIFO: caller → dadoo, [`WindowSize`] objects, one JSON per line.
    pub fn winsz(&self) -> PathBuf {
        self.0.join("winsz")
    }

    /// FIFO that nobody writes: dadoo holding it open means that the process runs.
    pub fn exit(&self) -> PathBuf {
        self.0.join("exit")
    }

    /// The three FIFOs of the standard streams.
    pub fn streams(&self) -> [PathBuf; 3] {
        [self.stdin(), self.stdout(), self.stderr()]
    }

    /// The two FIFOs that there always are.
    pub fn signals(&self) -> [PathBuf; 2] {
        [self.winsz(), self.exit()]
    }

    /// The host pid, decimal, written by the runtime.
    pub fn pidfile(&self) -> PathBuf {
        self.0.join("pidfile")
    }

    /// The exit code, decimal, written by dadoo.
    pub fn exitcode(&self) -> PathBuf {
        self.0.join("exitcode")
    }

    /// The cgroup directory of a process that counts as running as long as anything runs in there,
    /// written by dadoo. Any other process has no such file.
    pub fn cgroup(&self) -> PathBuf {
        self.0.join("cgroup")
    }

    /// Says that the latest output is to be kept for whoever attaches; empty.
    pub fn keep_output(&self) -> PathBuf {
        self.0.join("keep-output")
    }

    /// The latest standard output and standard error of a process that has ended, where
    /// [`ProcessDir::keep_output`] asked for it.
    pub fn kept_output(&self) -> [PathBuf; 2] {
        [self.0.join("stdout.tail"), self.0.join("stderr.tail")]
    }

    /// A pea's OCI configuration.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Width; 0 means 80.
    #[serde(default)]
    pub columns: u16,
    /// Height; 0 means 24.
    #[serde(default)]
    pub rows: u16,
}

impl WindowSize {
    /// What a terminal is where nobody said its size.
    pub const DEFAULT: Self = Self { columns: 80, rows: 24 };

    /// Returns the size with its zeros replaced by the default's.
    pub fn or_default(self) -> Self {
        let or = |value, default| if value == 0 { default } else { value };
        Self {
            columns: or(self.columns, Self::DEFAULT.columns),
            rows: or(self.rows, Self::DEFAULT.rows),
        }
    }
}

/// The descriptors that dadoo inherits beside 0, 1 and 2 (gdn's numbers).
pub mod descriptor {
    /// Write end: one byte, the runtime's exit status.
    pub const RUNTIME_EXIT: i32 = 3;
    /// Write end: the runtime's JSON log; the runtime gets it as `/proc/<dadoo>/fd/4`.
    pub const RUNTIME_LOG: i32 = 4;
    /// Write end: one zero byte once dadoo holds the FIFOs.
    pub const SYNC: i32 = 5;
    /// With `--pass-stdio`: what the process gets as its standard input, output and error.
    pub const PASSED: [i32; 3] = [6, 7, 8];
}

/// Returns how gladly the kernel is to kill a container's processes when the whole host is out of
/// memory (proc_pid_oom_score_adj(5)), given how gladly it would kill their keeper: a tenth of all
/// memory more, which no program of ours comes near. It takes no right, unlike protecting a keeper; and
/// one that is protected does not protect its containers.
pub fn oom_score_adj(keeper: i32) -> i32 {
    const MORE: i32 = 100;
    const MOST: i32 = 1000;
    (keeper.max(0) + MORE).min(MOST)
}
