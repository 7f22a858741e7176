//! A server's metrics page, fetched and read.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::Error;

/// A page is far smaller; a server that sends more is not ours to read.
const PAGE_BYTES_MAX: u64 = 16 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

/// The metrics of one server at one moment.
#[derive(Debug)]
pub(crate) struct Page(String);

impl Page {
    /// Asks the server at `authority`, host:port.
    pub(crate) async fn fetch(authority: &str) -> Result<Self, Error> {
        let asked = tokio::time::timeout(PATIENCE, fetch(authority)).await;
        let text =
            asked.map_err(|_| Error::Late { what: format!("metrics of {authority}"), patience: PATIENCE })?;
        Ok(Self(text?))
    }

    /// The value of a metric. `name` is the whole name, with its labels.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }

    /// The value of a counter.
    pub(crate) fn counter(&self, name: &str) -> Option<u64> {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a counter is a whole number from zero on, printed as a float"
        )]
        self.value(name).filter(|value| *value >= 0.0).map(|value| value.round() as u64)
    }
}

async fn fetch(authority: &str) -> Result<String, Error> {
    let action = || format!("ask {authority} for its metrics");
    let mut socket = TcpStream::connect(authority).await.map_err(Error::io(action()))?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {authority}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.map_err(Error::io(action()))?;
    let mut text = String::new();
    socket.take(PAGE_BYTES_MAX).read_to_string(&mut text).await.map_err(Error::io(action()))?;
    match text.lines().next() {
        Some(status) if status.contains(" 200 ") => Ok(text),
        _ => Err(Error::Answer("no metrics page")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let page = Page(
            "HTTP/1.0 200 OK\r\n\r\n# HELP a_count x\na_count_total 9\na_count 1.5e+03\nstate{of=\"x y\"} 1\n"
                .to_owned(),
        );
        assert_eq!(page.value("a_count"), Some(1500.0));
        assert_eq!(page.counter("a_count_total"), Some(9));
        assert_eq!(page.counter("state{of=\"x y\"}"), Some(1));
        assert_eq!(page.counter("a"), None);
    }
}
