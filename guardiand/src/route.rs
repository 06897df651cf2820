//! The ordinary routes: decode, call the server, encode.

use std::collections::BTreeMap;
use std::sync::Arc;

use guardian_contract::garden::{
    ApiError, BulkInfo, BulkMetrics, Capacity, ContainerSpec, DiskLimits, LimitsChange, NetIn,
    NetOutRule, decode, decode_list,
};
use serde::{Deserialize, Serialize};

use crate::connection::Request;
use crate::container::grace::{self, Hold};
use crate::container::properties::GRACE_TIME;
use crate::container::{Container, stop};
use crate::guardian::{Guardian, api_error};
use crate::health;
use crate::host;
use crate::http::reply::Reply;
use crate::router::Route;
use crate::telemetry::scrape;

type Answer = Result<Reply, ApiError>;

/// `{"Handle":…}`
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    handle: String,
}

/// `{"Handles":…}`
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Handles {
    handles: Vec<String>,
}

/// `{"kill":…}`
#[derive(Default, Deserialize)]
#[serde(default)]
struct Stop {
    kill: bool,
}

/// `{"value":…}`
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Value {
    value: String,
}

/// Answers a request.
pub(crate) async fn answer(guardian: &Arc<Guardian>, request: &Request, body: &[u8]) -> Reply {
    try_answer(guardian, request, body).await.unwrap_or_else(|error| Reply::error(&error))
}

async fn try_answer(guardian: &Arc<Guardian>, request: &Request, body: &[u8]) -> Answer {
    match request.route {
        Route::Ping => Ok(Reply::empty()),
        Route::Capacity => Ok(Reply::json(&capacity(guardian).await)),
        Route::List => Ok(Reply::json(&Handles { handles: guardian.list(&filter(request)) })),
        Route::Create => create(guardian, body).await,
        Route::Destroy => guardian.destroy(request.value(0)).await.map(|()| Reply::empty()),
        Route::BulkInfo => Ok(bulk_info(guardian, request)),
        Route::BulkMetrics => Ok(bulk_metrics(guardian, request).await),
        Route::SetGraceTime => set_grace_time(guardian, request, body),
        Route::Scrape => Ok(Reply::text(200, scrape::page(guardian).await)),
        Route::Alive => Ok(health::alive(guardian)),
        Route::Ready => Ok(health::ready(guardian).await),
        _ => of_container(guardian, request, body).await,
    }
}

/// The routes that use one container, and keep it from being reaped meanwhile.
async fn of_container(guardian: &Arc<Guardian>, request: &Request, body: &[u8]) -> Answer {
    // Garden decodes the body before it looks for the container; so the order of errors.
    let json = |error: String| ApiError::other(error);
    let failed = |error: anyhow::Error| api_error(&error);
    let found = || {
        let container = guardian.find(request.value(0))?;
        Ok::<_, ApiError>((Hold::new(guardian, &container), container))
    };
    match request.route {
        Route::Stop => {
            let ask: Stop = decode(body).map_err(json)?;
            let (_hold, container) = found()?;
            stop::stop(&container, ask.kill).await.map_err(failed)?;
            guardian.save_volumes(&container).await;
            Ok(Reply::empty())
        }
        Route::NetIn => {
            let ask: NetIn = decode(body).map_err(json)?;
            let (_hold, container) = found()?;
            let made = guardian.net_in(&container, ask).await.map_err(failed)?;
            Ok(Reply::json(&OmitZero::from(made)))
        }
        Route::NetOut => {
            let rule: NetOutRule = decode(body).map_err(json)?;
            let (_hold, container) = found()?;
            guardian.net_out(&container, rule).await.map_err(failed)?;
            Ok(Reply::empty())
        }
        Route::BulkNetOut => {
            let rules: Vec<NetOutRule> = decode_list(body).map_err(json)?;
            let (_hold, container) = found()?;
            guardian.bulk_net_out(&container, rules).await.map_err(failed)?;
            Ok(Reply::empty())
        }
        Route::ChangeLimits => {
            let change: LimitsChange = decode(body).map_err(json)?;
            let (_hold, container) = found()?;
            let limits = guardian.change_limits(&container, &change).await.map_err(failed)?;
            Ok(Reply::json(&limits))
        }
        Route::ChangePeaLimits => {
            let change: LimitsChange = decode(body).map_err(json)?;
            let (_hold, container) = found()?;
            let changed = guardian.change_pea_limits(&container, request.value(1), &change).await;
            Ok(Reply::json(&changed.map_err(failed)?))
        }
        Route::SetProperty => {
            let Value { value } = decode(body).map_err(json)?;
            let (_hold, container) = found()?;
            let name = request.value(1).to_owned();
            container.properties.change(|map| drop(map.insert(name, value))).map_err(failed)?;
            Ok(Reply::empty())
        }
        _ => {
            let (_hold, container) = found()?;
            read(guardian, request, &container).await
        }
    }
}

/// The routes of one container that have no body.
async fn read(guardian: &Arc<Guardian>, request: &Request, container: &Container) -> Answer {
    let failed = |error: anyhow::Error| api_error(&error);
    match request.route {
        Route::Info => Ok(Reply::json(&container.info())),
        Route::BandwidthLimits => Ok(Reply::json(&container.bandwidth_limits())),
        // gdn tells of none, whatever there is; GET limits, which is ours, tells what there is.
        Route::DiskLimits => Ok(Reply::json(&DiskLimits::default())),
        Route::CpuLimits => Ok(Reply::json(&container.cpu_limits().map_err(failed)?)),
        Route::MemoryLimits => Ok(Reply::json(&container.memory_limits().map_err(failed)?)),
        Route::Metrics => metrics(guardian, request.value(0)).await,
        Route::Top => Ok(Reply::json(&container.top().map_err(failed)?)),
        Route::Limits => Ok(Reply::json(&container.limits().map_err(failed)?)),
        Route::PeaLimits => {
            let limits = guardian.pea_limits(container, request.value(1)).map_err(failed)?;
            Ok(Reply::json(&limits))
        }
        Route::Properties => Ok(Reply::json(&container.properties.all())),
        Route::Property => {
            let name = request.value(1);
            let value = container.properties.get(name);
            let missing = || ApiError::other(format!("property does not exist: {name}"));
            Ok(Reply::json(&Value { value: value.ok_or_else(missing)? }))
        }
        Route::RemoveProperty => {
            let name = request.value(1);
            container.properties.change(|map| drop(map.remove(name))).map_err(failed)?;
            Ok(Reply::empty())
        }
        // The router sends nothing else here.
        _ => Err(ApiError::other("no such route")),
    }
}

async fn create(guardian: &Arc<Guardian>, body: &[u8]) -> Answer {
    let spec: ContainerSpec = decode(body).map_err(ApiError::other)?;
    // A task of its own: the client going away must not leave half a container.
    let guardian = Arc::clone(guardian);
    let work = tokio::spawn(async move { guardian.create(spec).await });
    match work.await {
        Ok(result) => Ok(Reply::json(&Created { handle: result?.to_string() })),
        Err(error) => Err(ApiError::other(format!("create was cut off: {error}"))),
    }
}

/// Unknown handles succeed, as in Garden.
fn set_grace_time(guardian: &Arc<Guardian>, request: &Request, body: &[u8]) -> Answer {
    let countdown: i64 = decode(body).map_err(ApiError::other)?;
    if let Ok(container) = guardian.find(request.value(0)) {
        let changed = container
            .properties
            .change(|map| drop(map.insert(GRACE_TIME.into(), countdown.to_string())));
        changed.map_err(|error| api_error(&error))?;
        grace::set(guardian, &container, countdown);
    }
    Ok(Reply::empty())
}

async fn capacity(guardian: &Guardian) -> Capacity {
    let disk = host::disk_bytes(guardian.settings.depot.path()).unwrap_or(0);
    let max = guardian.settings.flags.limits.max_containers;
    let network = guardian.host.capacity;
    Capacity {
        memory_in_bytes: host::memory_bytes().unwrap_or(0),
        disk_in_bytes: disk,
        schedulable_disk_in_bytes: guardian.settings.images.capacity().await.unwrap_or(disk),
        max_containers: if max > 0 { max.min(network) } else { network },
    }
}

fn filter(request: &Request) -> BTreeMap<String, String> {
    let mut filter = BTreeMap::new();
    for (name, value) in &request.query {
        filter.entry(name.clone()).or_insert_with(|| value.clone());
    }
    filter
}

fn handles(request: &Request) -> impl Iterator<Item = &str> {
    request.parameter("handles").split(',').filter(|handle| !handle.is_empty())
}

fn bulk_info(guardian: &Guardian, request: &Request) -> Reply {
    let entry = |handle: &str| match guardian.find(handle) {
        Ok(container) => BulkInfo { info: container.info(), err: None },
        Err(error) => BulkInfo { err: Some(untyped(error)), ..BulkInfo::default() },
    };
    let all: BTreeMap<_, _> = handles(request).map(|handle| (handle, entry(handle))).collect();
    Reply::json(&all)
}

async fn bulk_metrics(guardian: &Arc<Guardian>, request: &Request) -> Reply {
    let measured = guardian.bulk_metrics(handles(request)).await;
    let entry = |result| match result {
        Ok(metrics) => BulkMetrics { metrics, err: None },
        Err(error) => BulkMetrics { err: Some(untyped(error)), ..BulkMetrics::default() },
    };
    let all = measured.into_iter().map(|(name, result)| (name, entry(result)));
    Reply::json(&all.collect::<BTreeMap<_, _>>())
}

async fn metrics(guardian: &Arc<Guardian>, handle: &str) -> Answer {
    let measured = guardian.bulk_metrics(std::iter::once(handle)).await.remove(handle);
    let metrics = measured.unwrap_or_else(|| Err(ApiError::container_not_found(handle)))?;
    Ok(Reply::json(&metrics))
}

/// Garden loses the type of an error in a bulk answer; clients compare its words.
fn untyped(error: ApiError) -> ApiError {
    ApiError::other(error.message)
}

/// A net-in answer; Go leaves zeros out.
#[derive(Serialize)]
struct OmitZero {
    #[serde(skip_serializing_if = "is_zero")]
    host_port: u32,
    #[serde(skip_serializing_if = "is_zero")]
    container_port: u32,
}

impl From<NetIn> for OmitZero {
    fn from(made: NetIn) -> Self {
        Self { host_port: made.host_port, container_port: made.container_port }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
