//! The debug server: `/debug/vars` and `/log-level`, as gdn has them; and, for those who can't reach
//! the unix socket, metrics and health.

use std::net::SocketAddr;
use std::sync::Arc;

use guardian_contract::log::{self, Level};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::guardian::Guardian;
use crate::health;
use crate::http::body::Body;
use crate::http::reply::Reply;
use crate::http::wire::Wire;
use crate::telemetry::scrape;

const VARS: &str = "/debug/vars";

/// Serves in the background where the flags say so. An address that is taken is only logged: no
/// container should go without its server for want of a debug port.
pub(crate) async fn serve(guardian: &Arc<Guardian>) {
    let flags = &guardian.settings.flags.listen;
    let Some(ip) = flags.debug_bind_ip else { return };
    let listener = match TcpListener::bind(SocketAddr::new(ip, flags.debug_bind_port)).await {
        Ok(listener) => listener,
        Err(error) => return log::error("debug-server", &json!({"error": error.to_string()})),
    };
    let guardian = Arc::clone(guardian);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let guardian = Arc::clone(&guardian);
            tokio::spawn(async move { answer(&guardian, Wire::new(Box::new(socket))).await });
        }
    });
}

async fn answer(guardian: &Arc<Guardian>, mut wire: Wire) {
    let Ok(Some(head)) = wire.head().await else { return };
    let method = head.method.as_str();
    let reply = match (method, head.path.as_str()) {
        ("GET", path) if path.starts_with(VARS) => Reply::json(&vars(guardian)),
        ("GET", "/metrics") => Reply::text(200, scrape::page(guardian).await),
        ("GET", "/healthz") => health::alive(guardian),
        ("GET", "/readyz") => health::ready(guardian).await,
        (_, "/metrics" | "/healthz" | "/readyz") => Reply::method_not_allowed(&["GET"]),
        (_, path) if path.starts_with(VARS) => Reply::method_not_allowed(&["GET"]),
        (_, "/log-level") => match Body::new(head.framing).whole(&mut wire.reader).await {
            Ok(body) => log_level(method, &String::from_utf8_lossy(&body)),
            Err(error) => Reply::bad_request(&error.to_string()),
        },
        _ => Reply::not_found(),
    };
    if reply.send(&mut wire.writer, true).await.is_ok() {
        wire.linger().await;
    }
}

/// Drops log lines below a level from now on. gdn takes its name, its number or its first letters.
fn log_level(method: &str, body: &str) -> Reply {
    let text = body.trim().to_lowercase();
    let levels = [
        ("debug", Level::Debug),
        ("info", Level::Info),
        ("error", Level::Error),
        ("fatal", Level::Fatal),
    ];
    let numbers = [("0", "debug"), ("1", "info"), ("2", "warn"), ("3", "error"), ("4", "fatal")];
    let name = numbers.iter().find(|(number, _)| *number == text).map_or(&*text, |(_, name)| name);
    // There are no warnings, neither here nor in gdn: the next level is meant.
    let name = if !name.is_empty() && "warn".starts_with(name) { "error" } else { name };
    let level = levels.iter().find(|(level, _)| !name.is_empty() && level.starts_with(name));
    match level {
        Some((name, level)) if matches!(method, "POST" | "PUT") => {
            log::set_level(*level);
            Reply::text(200, format!("log level is {name}\n"))
        }
        _ => Reply::bad_request("POST debug, info, warn, error or fatal"),
    }
}

/// Go's names. Numbers of its memory that no other program has are left out.
fn vars(guardian: &Guardian) -> Value {
    let (resident, private) = memory();
    json!({
        "backingStores": 0,
        "cmdline": std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "depotDirs": guardian.settings.depot.handles().map_or(0, |handles| handles.len()),
        "loopDevices": 0,
        "memstats": {"Alloc": private, "HeapAlloc": private, "HeapSys": resident, "Sys": resident},
        "numCPUS": crate::host::processors(),
        "numGoRoutines": tokio::runtime::Handle::current().metrics().num_alive_tasks(),
    })
}

/// Returns resident and private memory in bytes (proc_pid_statm(5)).
pub(crate) fn memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = text.split_whitespace().map(|word| word.parse::<u64>().unwrap_or(0));
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let (_size, resident, shared) = (pages.next(), pages.next(), pages.next());
    let (resident, shared) = (resident.unwrap_or(0) * page, shared.unwrap_or(0) * page);
    (resident, resident.saturating_sub(shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_taken_as_gdn_takes_them() {
        for (method, body, status) in [
            ("POST", "debug\n", 200),
            ("POST", " INFO ", 200),
            ("POST", "w", 200),
            ("POST", "3", 200),
            ("POST", "", 400),
            ("POST", "loud", 400),
            ("GET", "debug", 400),
        ] {
            assert_eq!(log_level(method, body).status(), status, "{method} {body}");
        }
    }
}
