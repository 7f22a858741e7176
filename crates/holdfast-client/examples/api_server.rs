//! A small API server: objects are created, read, replaced, deleted and watched over HTTP.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /widgets` | 201 and the version; 409 when there is one |
//! | `GET /widgets/{namespace}/{name}?version=N` | the widget, at least as new as N |
//! | `GET /widgets?namespace=S&version=N` | all of them, at least as new as N, with the version of the list |
//! | `PUT /widgets/{namespace}/{name}?version=N` | the new version; 409 with the version that is there, unless that is N |
//! | `DELETE /widgets/{namespace}/{name}?version=N` | the version of the deletion |
//! | `GET /watch?namespace=S&version=N` | a line for each change behind N, as long as the caller stays; 410 when N is too old |
//!
//! Writes and watches go to a [`Repository`]; reads come from an informer's cache, and are as new as the caller wants: who
//! has written something shows the version that the write gave.
//!
//! ```text
//! cargo run -p holdfast-client --example api_server -- --listen 127.0.0.1:8080
//! curl -d '{"namespace":"default","name":"w","size":3}' http://127.0.0.1:8080/widgets
//! curl -N http://127.0.0.1:8080/watch
//! ```
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::Parser;
use futures::stream;
use holdfast_client::informer::{Informer, InformerOptions, Object as Cached, Snapshot, WaitError};
use holdfast_client::repo::{
    BadName, ClusterRepository, Event, Filter, Object, ObjectKey, Place, RepoError, Repository,
    RepositoryWatch, Scope, Stored,
};
use holdfast_client::store::{Codec, Json};
use holdfast_client::{Client, KeyRange};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// How long a read waits until the cache is as new as the caller wants.
const FRESH_MAX: Duration = Duration::from_secs(3);

/// What the server keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Widget {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How large it is.
    pub size: u32,
}

impl Object for Widget {
    fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self) -> Option<&str> {
        Some(&self.namespace)
    }
}

/// What all requests use.
struct Widgets {
    repository: ClusterRepository<Widget>,
    /// The same widgets, kept here.
    cache: Informer<Widget>,
}

/// Serves until `shutdown` completes.
pub async fn run(
    client: Client,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let place = Place::new("example", "widgets");
    let repository = ClusterRepository::new(client.clone(), place, Scope::Namespaced)?;
    let decode = InformerOptions::decode_with(|kv| {
        let widget: Widget = Json.decode(&kv.value)?;
        Ok(widget)
    });
    let cache = client.informer(KeyRange::prefix(repository.prefix().clone()), decode);
    let routes = Router::new()
        .route("/widgets", post(create).get(list))
        .route("/widgets/{namespace}/{name}", get(read).put(update).delete(delete))
        .route("/watch", get(watch))
        .with_state(Arc::new(Widgets { repository, cache }));
    axum::serve(listener, routes).with_graceful_shutdown(shutdown).await?;
    Ok(())
}

/// What callers may add to a path.
#[derive(Debug, Deserialize)]
struct Wanted {
    namespace: Option<String>,
    version: Option<u64>,
}

type Widgetry = State<Arc<Widgets>>;
type Named = Path<(String, String)>;

async fn create(State(widgets): Widgetry, body: Bytes) -> Result<Response, Failure> {
    let widget: Widget = parsed(&body)?;
    let created = widgets.repository.create(widget).await?;
    Ok((StatusCode::CREATED, shown(&created)).into_response())
}

async fn read(
    State(widgets): Widgetry,
    Path((namespace, name)): Named,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Failure> {
    let key = ObjectKey::namespaced(&namespace, &name)?;
    let snapshot = widgets.fresh(wanted.version).await?;
    let stored = [&widgets.repository.prefix()[..], key.path().as_bytes()].concat();
    match snapshot.get(&stored) {
        Ok(Some(object)) => Ok(line(&cached(object)).into_response()),
        Ok(None) => Err(RepoError::<Widget>::NotFound { key }.into()),
        Err(unreadable) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, &unreadable.to_string())),
    }
}

async fn list(State(widgets): Widgetry, Query(wanted): Query<Wanted>) -> Result<Response, Failure> {
    let snapshot = widgets.fresh(wanted.version).await?;
    let namespace = wanted.namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let prefix = [&widgets.repository.prefix()[..], namespace.as_bytes()].concat();
    let items: Vec<Value> = snapshot.prefix(&prefix).map(|object| cached(object)).collect();
    Ok(line(&json!({ "version": snapshot.revision(), "items": items })).into_response())
}

async fn update(
    State(widgets): Widgetry,
    Path((namespace, name)): Named,
    Query(wanted): Query<Wanted>,
    body: Bytes,
) -> Result<Response, Failure> {
    let widget: Widget = parsed(&body)?;
    if (&widget.namespace, &widget.name) != (&namespace, &name) {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "the widget has another name"));
    }
    let updated = widgets.repository.update(widget, wanted.version).await?;
    Ok(shown(&updated).into_response())
}

async fn delete(
    State(widgets): Widgetry,
    Path((namespace, name)): Named,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Failure> {
    let key = ObjectKey::namespaced(&namespace, &name)?;
    let deleted = widgets.repository.delete(&key, wanted.version).await?;
    Ok(line(&json!({ "version": deleted.at })).into_response())
}

async fn watch(State(widgets): Widgetry, Query(wanted): Query<Wanted>) -> Result<Response, Failure> {
    let filter = wanted.namespace.map_or_else(Filter::all, Filter::namespace);
    let watch = widgets.repository.watch(&filter, wanted.version).await?;
    // Nothing is kept for a caller that does not read: the watch waits for it, and changes wait on the server.
    let lines = stream::unfold(watch, |mut watch| async move {
        let told = match watch.next().await? {
            Ok(event) => event_line(&event),
            Err(error) => line(&json!({ "error": error.to_string() })),
        };
        Some((Ok::<_, Infallible>(told), watch))
    });
    Ok(Body::from_stream(lines).into_response())
}

impl Widgets {
    /// The cache, at least as new as a version.
    async fn fresh(&self, version: Option<u64>) -> Result<Arc<Snapshot<Widget>>, WaitError> {
        // At 0 there is nothing yet, because the first list is not complete.
        self.cache.reader().wait_for(version.unwrap_or(0).max(1), FRESH_MAX).await
    }
}

fn parsed(body: &[u8]) -> Result<Widget, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::new(StatusCode::BAD_REQUEST, &error.to_string()))
}

fn shown(stored: &Stored<Widget>) -> String {
    line(&json!({ "version": stored.version, "widget": *stored.object }))
}

fn cached(object: &Cached<Widget>) -> Value {
    json!({ "version": object.mod_revision(), "widget": object.value() })
}

fn event_line(event: &Event<Widget>) -> String {
    let current = event.current.as_ref().map(|stored| &*stored.object);
    line(&json!({
        "kind": format!("{:?}", event.kind),
        "key": event.key.path(),
        "version": event.version,
        "widget": current,
    }))
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

/// Why a request has no other answer.
struct Failure {
    status: StatusCode,
    body: Value,
}

impl Failure {
    fn new(status: StatusCode, error: &str) -> Self {
        Self { status, body: json!({ "error": error }) }
    }
}

impl From<RepoError<Widget>> for Failure {
    fn from(error: RepoError<Widget>) -> Self {
        let status = match &error {
            RepoError::NotFound { .. } => StatusCode::NOT_FOUND,
            RepoError::AlreadyExists { .. } | RepoError::Conflict { .. } => StatusCode::CONFLICT,
            RepoError::Invalid(_) => StatusCode::BAD_REQUEST,
            RepoError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            RepoError::Compacted { .. } => StatusCode::GONE,
            RepoError::Refused { .. } => StatusCode::FORBIDDEN,
            RepoError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            // Of these the caller has to find out what became of them.
            RepoError::Unknown { .. } => StatusCode::GATEWAY_TIMEOUT,
            RepoError::Decode { .. } | RepoError::Gone { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut failure = Self::new(status, &error.to_string());
        if let RepoError::Conflict { current, .. } = &error {
            failure.body["version"] = current.version.into();
        }
        failure
    }
}

impl From<BadName> for Failure {
    fn from(error: BadName) -> Self {
        RepoError::<Widget>::from(error).into()
    }
}

impl From<WaitError> for Failure {
    fn from(error: WaitError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, line(&self.body)).into_response()
    }
}

#[derive(Parser)]
struct Args {
    /// Client URLs of the members.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// Where the server listens.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let listener = TcpListener::bind(&args.listen).await?;
    println!("http://{}/widgets", listener.local_addr()?);
    run(Client::new(args.endpoints)?, listener, std::future::pending()).await
}
