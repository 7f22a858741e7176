//! The plain HTTP side of the client port: health, version, metrics.
//!
//! Module map: [`health`] runs the checks, [`pages`] bounds what nobody reads; here are the routes and the forms of the answers.

pub mod health;
pub mod pages;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use crate::frontend::Frontend;
use crate::limits::PAGES_MAX;
use crate::version;
use health::{Check, Probe, Query};
use pages::Pages;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All HTTP routes.
pub fn routes(frontend: Arc<Frontend>) -> Router {
    let pages = Pages::default();
    Router::new()
        .route("/health", any(health))
        .route("/livez", any(livez))
        .route("/livez/{check}", any(livez_one))
        .route("/readyz", any(readyz))
        .route("/readyz/{check}", any(readyz_one))
        .route("/version", any(version))
        .route("/metrics", any(move |frontend, method| metrics(frontend, method, pages.clone())))
        .with_state(frontend)
}

/// An answer that must not be kept by anything on the way.
fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body.into()).into_response()
}

fn only_get() -> Response {
    (
        StatusCode::METHOD_NOT_ALLOWED,
        [(header::ALLOW, HeaderValue::from_static("GET"))],
        "Method Not Allowed\n",
    )
        .into_response()
}

async fn health(
    State(frontend): State<Arc<Frontend>>,
    method: Method,
    RawQuery(query): RawQuery,
) -> Response {
    if method != Method::GET {
        return only_get();
    }
    let problem = health::overall(&frontend, &Query::parse(query.as_deref())).await;
    let (status, counter) = match problem {
        None => (StatusCode::OK, &frontend.metrics.health_success),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, &frontend.metrics.health_failures),
    };
    counter.inc();
    // The value is a string, not a bool: clients compare it so.
    let body = serde_json::json!({
        "health": if problem.is_none() { "true" } else { "false" },
        "reason": problem.unwrap_or_default(),
    });
    answer(status, JSON, body.to_string())
}

async fn livez(state: State<Arc<Frontend>>, method: Method, query: RawQuery) -> Response {
    probe(state, method, query, Probe::Live, None).await
}

async fn readyz(state: State<Arc<Frontend>>, method: Method, query: RawQuery) -> Response {
    probe(state, method, query, Probe::Ready, None).await
}

async fn livez_one(
    state: State<Arc<Frontend>>,
    check: Path<String>,
    method: Method,
    query: RawQuery,
) -> Response {
    probe(state, method, query, Probe::Live, Some(check.0)).await
}

async fn readyz_one(
    state: State<Arc<Frontend>>,
    check: Path<String>,
    method: Method,
    query: RawQuery,
) -> Response {
    probe(state, method, query, Probe::Ready, Some(check.0)).await
}

async fn probe(
    State(frontend): State<Arc<Frontend>>,
    method: Method,
    RawQuery(query): RawQuery,
    probe: Probe,
    only: Option<String>,
) -> Response {
    if method != Method::GET {
        return only_get();
    }
    let query = Query::parse(query.as_deref());
    let checks: Vec<Check> = match only {
        None => probe.checks().iter().copied().filter(|check| !query.excludes(check.name())).collect(),
        Some(name) => match probe.checks().iter().find(|check| check.name() == name) {
            Some(check) => vec![*check],
            None => return answer(StatusCode::NOT_FOUND, TEXT, "404 page not found\n".to_owned()),
        },
    };
    let mut lines = String::new();
    let mut failed = false;
    for check in checks {
        match check.run(&frontend).await {
            Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name())),
            Err(reason) => {
                failed = true;
                lines.push_str(&format!("[-]{} failed: {reason}\n", check.name()));
            }
        }
    }
    match (failed, query.verbose) {
        (true, _) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines),
        (false, true) => answer(StatusCode::OK, TEXT, format!("{lines}ok\n")),
        (false, false) => answer(StatusCode::OK, TEXT, "ok\n".to_owned()),
    }
}

async fn version(State(frontend): State<Arc<Frontend>>, method: Method) -> Response {
    if method != Method::GET {
        return only_get();
    }
    let cluster = if frontend.is_ready() { version::ETCD_API } else { "not_decided" };
    let body = serde_json::json!({
        "etcdserver": version::ETCD_API,
        "etcdcluster": cluster,
        "storage": version::ETCD_API,
        "holdfast": version::HOLDFAST,
    });
    answer(StatusCode::OK, JSON, body.to_string())
}

async fn metrics(State(frontend): State<Arc<Frontend>>, method: Method, pages: Pages) -> Response {
    if method != Method::GET {
        return only_get();
    }
    match pages.get(frontend.now(), || frontend.metrics.render(&frontend.scrape())) {
        Ok(Some(page)) => answer(StatusCode::OK, METRICS, page),
        Ok(None) => {
            let told =
                format!("{PAGES_MAX} pages are on their way to clients that have not read them; try again\n");
            answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, told)
        }
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}
