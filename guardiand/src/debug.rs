//! The debug server: `/debug/vars`, for the dashboards that read gdn's.

use std::net::SocketAddr;
use std::sync::Arc;

use guardian_contract::log;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::guardian::Guardian;
use crate::http::reply::Reply;
use crate::http::wire::Wire;

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

async fn answer(guardian: &Guardian, mut wire: Wire) {
    let Ok(Some(head)) = wire.head().await else { return };
    let reply = match (head.method.as_str(), head.path.starts_with("/debug/vars")) {
        ("GET", true) => Reply::json(&vars(guardian)),
        (_, true) => Reply::method_not_allowed(&["GET"]),
        _ => Reply::not_found(),
    };
    if reply.send(&mut wire.writer, true).await.is_ok() {
        wire.linger().await;
    }
}

fn vars(guardian: &Guardian) -> Value {
    let (resident, private) = memory();
    json!({
        "backingStores": 0,
        "depotDirs": guardian.settings.depot.handles().map_or(0, |handles| handles.len()),
        "loopDevices": 0,
        "memstats": {"Alloc": private, "Sys": resident},
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
