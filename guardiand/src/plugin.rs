//! The programs that do the work: a typed call for each verb.

pub(crate) mod depot;
pub(crate) mod idmgr;
pub(crate) mod image;
pub(crate) mod network;
pub(crate) mod runtime;
