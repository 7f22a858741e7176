//! `holdfast healthcheck`: asks a member whether it is ready. For container health checks, where there is no curl.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_tls::{ClientFiles, ClientTls, Connector};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::Connect;
use hyper_util::rt::TokioExecutor;

use crate::config::flags::HealthcheckFlags;
use crate::config::{ConfigError, MemberUrl};
use crate::error::innermost;

/// The answer is a few lines.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The member is ready.
    Ready,
    /// It is not, or did not answer; says why.
    NotReady(String),
}

/// Asks `/readyz` once.
///
/// Errors: an endpoint that is no URL.
pub async fn run(flags: &HealthcheckFlags) -> Result<Found, ConfigError> {
    let text = flags.tls.with_scheme(&flags.endpoint);
    let url = MemberUrl::parse("endpoint", &text)?;
    let uri: Uri = format!("{url}/readyz?verbose").parse().map_err(|_| ConfigError::Url {
        flag: "endpoint",
        url: text,
        why: "it is not a URL: write http://host:port",
    })?;
    let asked = async {
        if url.is_tls() {
            get_with_tls(uri, &flags.tls.files(), ANSWER_BYTES_MAX).await
        } else {
            get(uri, ANSWER_BYTES_MAX).await
        }
    };
    Ok(match tokio::time::timeout(flags.timeout, asked).await {
        Ok(Ok((StatusCode::OK, _))) => Found::Ready,
        Ok(Ok((status, body))) => Found::NotReady(format!("{url} answers {status}: {}", body.trim_end())),
        Ok(Err(reason)) => Found::NotReady(format!("{url} does not answer: {reason}")),
        Err(_) => Found::NotReady(format!("{url} does not answer within {:?}", flags.timeout)),
    })
}

/// Asks once, for an answer of at most so many bytes.
///
/// Errors: the innermost cause, as text.
pub(crate) async fn get(uri: Uri, answer_bytes_max: usize) -> Result<(StatusCode, String), String> {
    ask(Client::builder(TokioExecutor::new()).build_http(), uri, answer_bytes_max).await
}

async fn get_with_tls(
    uri: Uri,
    files: &ClientFiles,
    answer_bytes_max: usize,
) -> Result<(StatusCode, String), String> {
    let settings = ClientTls::load(files).map_err(|error| error.to_string())?;
    let connector = Connector::http1(Arc::new(settings));
    ask(Client::builder(TokioExecutor::new()).build(connector), uri, answer_bytes_max).await
}

async fn ask<C: Connect + Clone + Send + Sync + 'static>(
    client: Client<C, Empty<Bytes>>,
    uri: Uri,
    answer_bytes_max: usize,
) -> Result<(StatusCode, String), String> {
    let request = Request::get(uri).body(Empty::new()).map_err(|error| error.to_string())?;
    let response = client.request(request).await.map_err(|error| innermost(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), answer_bytes_max);
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
