//! As much of HTTP/1.1 as the Garden API needs, written here because no HTTP library can give a
//! connection away after an ordinary 200 or 201, which is what run, attach, stdout and stderr do
//! (docs/decisions/0001-http.md).

pub(crate) mod body;
pub(crate) mod head;
pub(crate) mod reply;
pub(crate) mod wire;
