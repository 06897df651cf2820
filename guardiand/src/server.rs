//! The server from start to stop: listen first, then clean up behind, serve, end in good order.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use guardian_contract::file::replace_json;
use guardian_contract::log;
use interprocess::local_socket::tokio::prelude::*;
use interprocess::local_socket::{GenericFilePath, ListenerOptions};
use nix::sys::signal::SigSet;
use serde_json::json;
use tokio::net::{TcpListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::connection::{self, Context};
use crate::guardian::Guardian;
use crate::http::wire::{Socket, Wire};
use crate::settings::Settings;
use crate::{apparmor, cgroup, claim, cli, control, debug, throttle};

/// Where requests come from.
enum Listener {
    Unix(LocalSocketListener),
    Tcp(TcpListener),
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When a program, a directory or an address is not to be had.
pub(crate) async fn serve(flags: cli::Server) -> anyhow::Result<()> {
    // Whoever started us may have them blocked, and that is inherited.
    SigSet::all().thread_unblock().context("unblock signals")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    throttle::check(&flags.throttling)?;
    let settings = Settings::resolve(flags).await?;
    if !settings.flags.listen.skip_setup {
        cgroup::hierarchies::mount_missing().context("set up control groups")?;
    }
    let depot = settings.depot.path();
    guardian_contract::file::private_dir(depot)
        .with_context(|| format!("depot {}", depot.display()))?;
    let _claim = claim::claim(depot).await?;
    let listener = listen(&settings.flags.listen).await?;
    let controls = listen_for_control(&settings.flags.listen)?;
    let external_ip = settings.flags.network.external_ip.map(|ip| ip.to_string());
    let host = settings.network.set_up(external_ip).await.context("set up the network")?;
    let guardian = Guardian::new(settings, host);
    let doomed = guardian.restore().context("restore containers")?;
    // Those that live answer at once; those that do not are taken away behind.
    let cleaning = Arc::clone(&guardian);
    tokio::spawn(async move { cleaning.take_away(doomed).await });
    throttle::start(&guardian).context("set up CPU throttling")?;
    debug::serve(&guardian).await;

    let (stop, stopping) = watch::channel(false);
    let (busy, mut idle) = mpsc::channel::<()>(1);
    let context = Context { guardian: Arc::clone(&guardian), stopping };
    if let Some(controls) = controls {
        tokio::spawn(control::serve(context.clone(), controls, busy.clone()));
    }
    apparmor::tell_if_missing(guardian.settings.flags.lifecycle.apparmor.as_deref());
    log::info("started", &address(&guardian.settings.flags.listen));
    loop {
        let socket = tokio::select! {
            socket = listener.accept() => socket,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        match socket {
            Ok(socket) => {
                let (context, busy) = (context.clone(), busy.clone());
                tokio::spawn(async move {
                    connection::serve(context, Wire::new(socket)).await;
                    drop(busy);
                });
            }
            Err(error) => accept_failed(&error).await,
        }
    }
    log::info("stopping", &json!({}));
    drop(listener);
    let _ = stop.send(true);
    drop((context, busy));
    // Ends when the last connection has dropped its end.
    let _ = idle.recv().await;
    say_goodbye(&guardian);
    Ok(())
}

/// Waits a moment: out of descriptors, most likely, and others must be closed first.
pub(crate) async fn accept_failed(error: &io::Error) {
    log::error("accept", &json!({"error": error.to_string()}));
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Socket>> {
        match self {
            Self::Unix(listener) => {
                // interprocess's stream has no way to end one direction, which an answer needs.
                let LocalSocketStream::UdSocket(socket) = listener.accept().await?;
                let socket = OwnedFd::try_from(socket)?;
                let socket = std::os::unix::net::UnixStream::from(socket);
                socket.set_nonblocking(true)?;
                Ok(Box::new(UnixStream::from_std(socket)?))
            }
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                socket.set_nodelay(true)?;
                Ok(Box::new(socket))
            }
        }
    }
}

async fn listen(flags: &cli::Listen) -> anyhow::Result<Listener> {
    if let Some(ip) = flags.bind_ip {
        if !ip.is_loopback() && !flags.allow_unauthenticated_tcp {
            bail!(
                "refusing to serve on {ip}: whoever reaches it is root here. \
                 Say --allow-unauthenticated-tcp if that is meant"
            );
        }
        let address = SocketAddr::new(ip, flags.bind_port);
        let listener = TcpListener::bind(address).await;
        return listener.map(Listener::Tcp).with_context(|| format!("listen on {address}"));
    }
    let path = &flags.bind_socket;
    let context = || format!("listen on {}", path.display());
    if claim::is_answered(path).await {
        bail!("{}: a server listens there already", context());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(context);
        }
        _ => {}
    }
    let name = path.as_path().to_fs_name::<GenericFilePath>().with_context(context)?;
    let listener = ListenerOptions::new().name(name).create_tokio().with_context(context)?;
    let mode = std::fs::Permissions::from_mode(flags.bind_socket_mode);
    std::fs::set_permissions(path, mode).with_context(context)?;
    Ok(Listener::Unix(listener))
}

/// Only who comes over a unix socket can pass descriptors.
fn listen_for_control(flags: &cli::Listen) -> anyhow::Result<Option<control::Listener>> {
    match flags.bind_ip {
        Some(_) => Ok(None),
        None => {
            control::Listener::open(guardian_contract::control::path(&flags.bind_socket)).map(Some)
        }
    }
}

fn address(flags: &cli::Listen) -> serde_json::Value {
    match flags.bind_ip {
        Some(ip) => json!({"network": "tcp", "addr": SocketAddr::new(ip, flags.bind_port)}),
        None => json!({"network": "unix", "addr": flags.bind_socket}),
    }
}

/// Leaves the properties where a gdn would look for them, and nothing that is empty.
fn say_goodbye(guardian: &Guardian) {
    let containers = guardian.all();
    if let Some(path) = &guardian.settings.flags.lifecycle.properties_path {
        save_properties(guardian, path);
    }
    if containers.is_empty() {
        cgroup::remove_parents(&guardian.settings.flags.listen.tag);
    }
    if guardian.settings.flags.listen.bind_ip.is_none() {
        let _ = std::fs::remove_file(&guardian.settings.flags.listen.bind_socket);
    }
    log::info("stopped", &json!({"containers": containers.len()}));
}

fn save_properties(guardian: &Guardian, path: &Path) {
    let all: std::collections::BTreeMap<String, _> =
        guardian.all().iter().map(|c| (c.handle().to_string(), c.properties.all())).collect();
    if let Err(error) = replace_json(path, &all) {
        log::error("save-properties", &json!({"error": format!("{error:#}")}));
    }
}
