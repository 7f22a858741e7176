//! A member's page of metrics, read and taken apart.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a member may take to give the page.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The values of one page, by name with labels, as the page spells it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape(HashMap<String, f64>);

impl Scrape {
    /// Asks the member that serves clients at this URL.
    pub async fn of(client_url: &str) -> Result<Self> {
        let page = tokio::time::timeout(TIMEOUT, fetch(client_url)).await;
        Self::parse(&page.with_context(|| format!("no metrics of {client_url} within {TIMEOUT:?}"))??)
    }

    /// Takes a page apart. Lines that are no metric are left out; a page without any is refused.
    pub fn parse(page: &str) -> Result<Self> {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        let values: HashMap<String, f64> = values.collect();
        ensure!(!values.is_empty(), "a page without metrics");
        Ok(Self(values))
    }

    /// One value.
    pub fn value(&self, name: &str) -> Result<f64> {
        self.0.get(name).copied().with_context(|| format!("there is no metric {name}"))
    }

    /// One value that counts something.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be a whole number that a float holds exactly"
    )]
    pub fn count(&self, name: &str) -> Result<u64> {
        let value = self.value(name)?;
        ensure!(
            value >= 0.0 && value.fract() == 0.0 && value < 9e15,
            "{name} is {value}, which counts nothing"
        );
        Ok(value as u64)
    }

    /// Whether the member's dispatcher is in its normal state: no dump, no merge, no install.
    pub fn is_normal(&self) -> Result<bool> {
        Ok(self.count("holdfast_dispatcher_state{state=\"normal\"}")? == 1)
    }

    /// Whether the member does nothing but serve: its stable store has all that readers see, too.
    pub fn is_settled(&self) -> Result<bool> {
        Ok(self.is_normal()? && self.count("holdfast_stable_lag_entries")? == 0)
    }

    /// The buckets of a histogram: upper bounds in ascending order, each with the count of all up to it. Labels other
    /// than the bound have to be given as the page spells them, for example `state="x"`, or be empty.
    pub fn buckets(&self, name: &str, labels: &str) -> Vec<(f64, f64)> {
        let start = if labels.is_empty() {
            format!("{name}_bucket{{le=\"")
        } else {
            format!("{name}_bucket{{{labels},le=\"")
        };
        let mut buckets: Vec<(f64, f64)> = self
            .0
            .iter()
            .filter_map(|(line, count)| {
                let bound = line.strip_prefix(&start)?.strip_suffix("\"}")?;
                Some((if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? }, *count))
            })
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        buckets
    }
}

async fn fetch(client_url: &str) -> Result<String> {
    let endpoint = client_url.strip_prefix("http://").unwrap_or(client_url);
    let mut stream = TcpStream::connect(endpoint).await.context("connecting for metrics")?;
    // In HTTP/1.0 a body comes in one piece and ends with the connection.
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {endpoint}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("asking for metrics")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.context("reading metrics")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "HTTP/1.0 200 OK\r\n\r\n# HELP a b\na 7\nb{le=\"x\"} 1.5\n\
        h_bucket{state=\"s\",le=\"+Inf\"} 9\nh_bucket{state=\"s\",le=\"0.5\"} 4\n";

    #[test]
    fn a_page_is_taken_apart() {
        let page = Scrape::parse(PAGE).unwrap();
        assert_eq!(page.count("a").unwrap(), 7);
        assert_eq!(page.value("b{le=\"x\"}").unwrap(), 1.5);
        assert!(page.count("b{le=\"x\"}").is_err() && page.value("c").is_err());
        assert_eq!(page.buckets("h", "state=\"s\""), [(0.5, 4.0), (f64::INFINITY, 9.0)]);
        assert!(Scrape::parse("nothing\n").is_err());
    }
}
