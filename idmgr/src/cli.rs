//! The command line, and what answers it.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use guardian_contract::run::Answer;

use crate::request::Request;
use crate::store::Store;
use crate::{call, serve, userns};

/// Give host ids to containers, and tell what this host can do about ownership
#[derive(Debug, Parser)]
#[command(name = "idmgr", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    store: Store,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(flatten)]
    Request(Request),
    /// Answer the other verbs on a unix socket, until killed
    Serve {
        #[command(flatten)]
        socket: Socket,
    },
    /// Let the server on a unix socket answer a verb
    Call {
        #[command(flatten)]
        socket: Socket,
        #[command(subcommand)]
        request: Request,
    },
    /// Keep a new user namespace until stdin ends
    #[command(hide = true)]
    KeepUserns,
}

#[derive(Debug, clap::Args)]
struct Socket {
    /// Path of the socket
    #[arg(long, value_name = "PATH", default_value = "/run/idmgr/idmgr.sock")]
    socket: PathBuf,
}

/// Answers the command line.
pub(crate) fn run(cli: Cli) -> anyhow::Result<Answer> {
    match cli.verb {
        Verb::Request(request) => Ok(Answer::Json(request.answer(&cli.store)?)),
        Verb::Serve { socket } => serve::serve(&socket.socket, &cli.store),
        Verb::Call { socket, request } => Ok(Answer::Text(call::call(&socket.socket, request)?)),
        Verb::KeepUserns => userns::keep(),
    }
}
