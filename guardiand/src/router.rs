//! Which request means what: the 28 routes of the Garden API, in Garden's own order, and ours.

use percent_encoding::percent_decode_str;

/// The name of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Ping,
    Capacity,
    List,
    Create,
    Info,
    BulkInfo,
    BulkMetrics,
    Destroy,
    Stop,
    StreamIn,
    StreamOut,
    BandwidthLimits,
    CpuLimits,
    DiskLimits,
    MemoryLimits,
    NetIn,
    NetOut,
    BulkNetOut,
    Stdout,
    Stderr,
    Run,
    Attach,
    SetGraceTime,
    Properties,
    Property,
    SetProperty,
    RemoveProperty,
    Metrics,
    // Ours.
    Limits,
    ChangeLimits,
    PeaLimits,
    ChangePeaLimits,
    Events,
    Scrape,
    Alive,
    Ready,
    Top,
    Pull,
}

impl Route {
    /// Returns the route's name in lower case, as metrics have it.
    pub(crate) fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

#[rustfmt::skip]
const ROUTES: [(&str, &str, Route); 28] = [
    ("GET",    "/ping",                                                    Route::Ping),
    ("GET",    "/capacity",                                                Route::Capacity),
    ("GET",    "/containers",                                              Route::List),
    ("POST",   "/containers",                                              Route::Create),
    ("GET",    "/containers/:handle/info",                                 Route::Info),
    ("GET",    "/containers/bulk_info",                                    Route::BulkInfo),
    ("GET",    "/containers/bulk_metrics",                                 Route::BulkMetrics),
    ("DELETE", "/containers/:handle",                                      Route::Destroy),
    ("PUT",    "/containers/:handle/stop",                                 Route::Stop),
    ("PUT",    "/containers/:handle/files",                                Route::StreamIn),
    ("GET",    "/containers/:handle/files",                                Route::StreamOut),
    ("GET",    "/containers/:handle/limits/bandwidth",                     Route::BandwidthLimits),
    ("GET",    "/containers/:handle/limits/cpu",                           Route::CpuLimits),
    ("GET",    "/containers/:handle/limits/disk",                          Route::DiskLimits),
    ("GET",    "/containers/:handle/limits/memory",                        Route::MemoryLimits),
    ("POST",   "/containers/:handle/net/in",                               Route::NetIn),
    ("POST",   "/containers/:handle/net/out",                              Route::NetOut),
    ("POST",   "/containers/:handle/net/out/bulk",                         Route::BulkNetOut),
    ("GET",    "/containers/:handle/processes/:pid/attaches/:stream/stdout", Route::Stdout),
    ("GET",    "/containers/:handle/processes/:pid/attaches/:stream/stderr", Route::Stderr),
    ("POST",   "/containers/:handle/processes",                            Route::Run),
    ("GET",    "/containers/:handle/processes/:pid",                       Route::Attach),
    ("PUT",    "/containers/:handle/grace_time",                           Route::SetGraceTime),
    ("GET",    "/containers/:handle/properties",                           Route::Properties),
    ("GET",    "/containers/:handle/properties/:key",                      Route::Property),
    ("PUT",    "/containers/:handle/properties/:key",                      Route::SetProperty),
    ("DELETE", "/containers/:handle/properties/:key",                      Route::RemoveProperty),
    ("GET",    "/containers/:handle/metrics",                              Route::Metrics),
];

/// Routes that Garden does not have.
const OURS: [(&str, &str, Route); 10] = [
    ("GET", "/events", Route::Events),
    ("POST", "/images/pull", Route::Pull),
    ("GET", "/metrics", Route::Scrape),
    ("GET", "/healthz", Route::Alive),
    ("GET", "/readyz", Route::Ready),
    ("GET", "/containers/:handle/top", Route::Top),
    ("GET", "/containers/:handle/limits", Route::Limits),
    ("PUT", "/containers/:handle/limits", Route::ChangeLimits),
    ("GET", "/containers/:handle/processes/:pid/limits", Route::PeaLimits),
    ("PUT", "/containers/:handle/processes/:pid/limits", Route::ChangePeaLimits),
];

/// What a request was found to mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// This route, with the values of its parameters in order, unescaped.
    Route(Route, Vec<String>),
    /// No such path.
    Nothing,
    /// The path is there, with these methods.
    WrongMethod(Vec<&'static str>),
}

/// Looks a request up; the first route that matches wins.
pub(crate) fn find(method: &str, path: &str) -> Found {
    let mut allowed = Vec::new();
    for (route_method, pattern, route) in ROUTES.into_iter().chain(OURS) {
        let Some(values) = values(pattern, path) else { continue };
        if route_method == method {
            return Found::Route(route, values);
        }
        if !allowed.contains(&route_method) {
            allowed.push(route_method);
        }
    }
    if allowed.is_empty() { Found::Nothing } else { Found::WrongMethod(allowed) }
}

/// Returns the parameters' values if the path fits the pattern. A value may be empty when
/// something follows it (`/containers//info`), but not at the end.
fn values(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut patterns, mut words) = (pattern.split('/'), path.split('/'));
    let mut values = Vec::new();
    loop {
        match (patterns.next(), words.next()) {
            (None, None) => return Some(values),
            (Some(pattern), Some(word)) if pattern.starts_with(':') => {
                if word.is_empty() && words.clone().next().is_none() {
                    return None;
                }
                values.push(percent_decode_str(word).decode_utf8_lossy().into_owned());
            }
            (Some(pattern), Some(word)) if pattern == word => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        assert_eq!((Route::BulkInfo.name(), Route::Top.name()), ("bulk_info".into(), "top".into()));
    }

    #[test]
    fn requests_are_routed_as_garden_routes_them() {
        let of = |route, values: &[&str]| {
            Found::Route(route, values.iter().map(|v| (*v).to_owned()).collect())
        };
        for (method, path, want) in [
            ("GET", "/ping", of(Route::Ping, &[])),
            ("GET", "/containers//info", of(Route::Info, &[""])),
            ("GET", "/containers/bulk_info", of(Route::BulkInfo, &[])),
            ("DELETE", "/containers/bulk_info", of(Route::Destroy, &["bulk_info"])),
            ("GET", "/containers/a%20b+c/info", of(Route::Info, &["a b+c"])),
            ("GET", "/containers/x%2Fy/info", of(Route::Info, &["x/y"])),
            (
                "GET",
                "/containers/h/processes/p/attaches/7/stdout",
                of(Route::Stdout, &["h", "p", "7"]),
            ),
            ("PUT", "/containers/h/properties/k", of(Route::SetProperty, &["h", "k"])),
            ("GET", "/readyz", of(Route::Ready, &[])),
            ("GET", "/", Found::Nothing),
            ("GET", "/ping/", Found::Nothing),
            ("DELETE", "/containers/", Found::Nothing),
            ("PUT", "/containers/h/limits/cpu", Found::WrongMethod(vec!["GET"])),
            ("HEAD", "/containers", Found::WrongMethod(vec!["GET", "POST"])),
            (
                "HEAD",
                "/containers/h/properties/k",
                Found::WrongMethod(vec!["GET", "PUT", "DELETE"]),
            ),
        ] {
            assert_eq!(find(method, path), want, "{method} {path}");
        }
    }
}
