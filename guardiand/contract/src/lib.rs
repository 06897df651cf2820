//! All that two executables of this workspace must agree on.
//!
//! Executables never link each other's code; they exec. What they must know of one another is
//! here, one module per agreement:
//!
//! | module | agreement |
//! | --- | --- |
//! | [`run`] | how a program is called: argv, one JSON in, one JSON out, exit code |
//! | [`fault`] | how a failure is told |
//! | [`log`] | how a log line looks |
//! | [`control`] | run and attach with passed descriptors |
//! | [`garden`] | the Garden API's types and its JSON habits |
//! | [`depot`] | handles, bundle paths, what `depot create` reads |
//! | [`process`] | the process directory |
//! | [`image`] | the image plugin |
//! | [`network`] | the network plugin, and what hosts and resolv.conf say |
//! | [`ids`] | id maps |
//! | [`journal`] | the record of what is being done to a handle |
//! | [`file`] | replacing a file, holding a lock |
//! | [`frame`] | private messages on a socket |

pub mod control;
pub mod depot;
pub mod fault;
pub mod file;
pub mod frame;
pub mod garden;
pub mod ids;
pub mod image;
pub mod journal;
pub mod log;
pub mod network;
pub mod process;
pub mod run;
