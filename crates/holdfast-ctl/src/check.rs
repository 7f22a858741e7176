//! `check perf`: writes at a given rate for a minute, and says whether the cluster kept up, with etcdctl's loads and bounds.

use std::rc::Rc;
use std::time::Duration;

use clap::{Args, Subcommand};
use holdfast_env::{Clock, Monotonic, RealClock};
use holdfast_proto::etcdserverpb as pb;
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinSet, spawn_local};

use crate::client::{Client, service};
use crate::error::{CtlError, Done};
use crate::output;
use crate::range::Keys;

/// How long it writes.
const LASTS: Duration = Duration::from_secs(60);

/// What is written: keys and values of so many bytes.
const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 1024;

/// What has to be kept to: of the rate, and in seconds.
const RATE_MIN: f64 = 0.9;
const SLOWEST_MAX: f64 = 0.5;
const DEVIATION_MAX: f64 = 0.1;

/// The commands of `check`.
#[derive(Debug, Subcommand)]
pub(crate) enum CheckCommand {
    /// Writes for a minute at a rate, and says whether the cluster kept up; ends with 1 when not
    Perf(Perf),
}

/// Flags of `check perf`.
#[derive(Debug, Args)]
pub(crate) struct Perf {
    /// s: 150 writes a second of 50 clients; m: 1000 of 200; l: 8000 of 500; xl: 15000 of 1000
    #[arg(long, default_value = "s")]
    load: String,
    /// Where the keys are written, and deleted afterwards; there must be none before
    #[arg(long, default_value = "/holdfastctl-check-perf/")]
    prefix: String,
    /// Compact afterwards, up to the newest revision
    #[arg(long)]
    auto_compact: bool,
    /// Have the endpoints give room back afterwards
    #[arg(long)]
    auto_defrag: bool,
}

/// Writes a second, and who writes.
struct Load {
    rate: u32,
    clients: usize,
}

/// What came of the writes.
#[derive(Default)]
struct Measured {
    seconds: Vec<f64>,
    errors: Vec<String>,
}

/// `check`.
pub(crate) async fn check(client: &Client, command: &CheckCommand) -> Done {
    let CheckCommand::Perf(flags) = command;
    let (rate, clients) = match flags.load.as_str() {
        "s" | "small" => (150, 50),
        "m" | "medium" => (1000, 200),
        "l" | "large" => (8000, 500),
        "xl" | "xLarge" => (15_000, 1000),
        other => return Err(CtlError::Feature(format!("--load is s, m, l or xl, and not {other}"))),
    };
    let load = Load { rate, clients };
    let Keys { key, end } = Keys::with_prefix(flags.prefix.clone().into());
    let request =
        pb::RangeRequest { key: key.clone(), range_end: end.clone(), count_only: true, ..Default::default() };
    let found = client.read(async |conn| service::kv(conn).range(request.clone()).await).await?;
    if found.count > 0 {
        let prefix = &flags.prefix;
        return Err(CtlError::Input(format!(
            "there are keys below {prefix}: holdfastctl del --prefix {prefix}"
        )));
    }
    let measured = measure(client, &load, &flags.prefix).await?;
    let delete = pb::DeleteRangeRequest { key, range_end: end, prev_kv: false };
    let deleted = client.write(async |conn| service::kv(conn).delete_range(delete.clone()).await).await?;
    if flags.auto_compact {
        let revision = deleted.header.map_or(0, |header| header.revision);
        let request = pb::CompactionRequest { revision, physical: true };
        client.write(async |conn| service::kv(conn).compact(request).await).await?;
    }
    if flags.auto_defrag {
        for endpoint in client.endpoints() {
            let one = client.of(endpoint);
            let ask = async |conn| service::maintenance(conn).defragment(pb::DefragmentRequest {}).await;
            one.write(ask).await?;
        }
    }
    let (lines, is_good) = judge(&measured, &load);
    lines.iter().try_for_each(|line| output::line(line))?;
    if is_good { Ok(()) } else { Err(CtlError::Exit(1)) }
}

/// Writes at the rate, or as fast as it goes.
async fn measure(client: &Client, load: &Load, prefix: &str) -> Result<Measured, CtlError> {
    let clock = Rc::new(RealClock::new(tokio::runtime::Handle::current()));
    let (send, turns) = mpsc::channel::<u64>(load.clients);
    let turns = Rc::new(Mutex::new(turns));
    let mut writers = JoinSet::new();
    for at in 0..load.clients {
        let one = Rc::new(client.of(&client.endpoints()[at % client.endpoints().len()]));
        let (turns, clock, prefix) = (Rc::clone(&turns), Rc::clone(&clock), prefix.to_owned());
        writers.spawn_local(async move { write(&one, &turns, &clock, &prefix).await });
    }
    let begin = clock.now();
    let paced = spawn_local(pace(send, load.rate, begin, Rc::clone(&clock)));
    paced.await.map_err(anyhow::Error::from)?;
    let mut all = Measured::default();
    while let Some(measured) = writers.join_next().await {
        let measured = measured.map_err(anyhow::Error::from)?;
        all.seconds.extend(measured.seconds);
        all.errors.extend(measured.errors);
    }
    Ok(all)
}

/// Gives out turns at the rate; no more than there are writers ahead of them.
async fn pace(turns: mpsc::Sender<u64>, rate: u32, begin: Monotonic, clock: Rc<RealClock>) {
    for turn in 0_u32.. {
        let due = Duration::from_secs_f64(f64::from(turn) / f64::from(rate));
        if due >= LASTS {
            return;
        }
        tokio::time::sleep(due.saturating_sub(clock.now().since(begin))).await;
        let is_over = clock.now().since(begin) >= LASTS;
        if is_over || turns.send(u64::from(turn)).await.is_err() {
            return;
        }
    }
}

/// One writer: turn after turn.
async fn write(
    client: &Client,
    turns: &Mutex<mpsc::Receiver<u64>>,
    clock: &RealClock,
    prefix: &str,
) -> Measured {
    let mut measured = Measured::default();
    loop {
        let turn = turns.lock().await.recv().await;
        let Some(turn) = turn else { return measured };
        let width = KEY_BYTES.saturating_sub(prefix.len());
        let key = format!("{prefix}{turn:0width$}").into();
        let request = pb::PutRequest { key, value: vec![0; VALUE_BYTES].into(), ..Default::default() };
        let begin = clock.now();
        let put = client.write(async |conn| service::kv(conn).put(request.clone()).await).await;
        match put {
            Ok(_) => measured.seconds.push(clock.now().since(begin).as_secs_f64()),
            Err(error) => measured.errors.push(error.to_string()),
        }
    }
}

/// The verdict, in etcdctl's lines.
fn judge(measured: &Measured, load: &Load) -> (Vec<String>, bool) {
    let mut lines = Vec::new();
    let mut is_good = true;
    let mut say = |holds: bool, good: String, bad: String| {
        lines.push(if holds { format!("PASS: {good}") } else { format!("FAIL: {bad}") });
        is_good &= holds;
    };
    if let Some(error) = measured.errors.first() {
        say(false, String::new(), format!("{} errors, the first: {error}", measured.errors.len()));
    }
    #[expect(clippy::cast_precision_loss, reason = "some millions at most")]
    let count = measured.seconds.len() as f64;
    let rate = count / LASTS.as_secs_f64();
    let told = format!("{rate:.0} writes/s");
    let has_rate = rate / f64::from(load.rate) > RATE_MIN;
    say(has_rate, format!("Throughput is {told}"), format!("Throughput too low: {told}"));
    let slowest = measured.seconds.iter().copied().fold(0.0, f64::max);
    let told = format!("Slowest request took {slowest:.6}s");
    say(slowest <= SLOWEST_MAX, told.clone(), told);
    let mean = measured.seconds.iter().sum::<f64>() / count.max(1.0);
    let variance = measured.seconds.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / count.max(1.0);
    let told = format!("Stddev is {:.6}s", variance.sqrt());
    say(variance.sqrt() <= DEVIATION_MAX, told.clone(), told);
    lines.push(if is_good { "PASS" } else { "FAIL" }.to_owned());
    (lines, is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_rate_and_steadiness() {
        let load = Load { rate: 1, clients: 1 };
        let judged = |seconds: Vec<f64>, errors: &[&str]| {
            let errors = errors.iter().map(|error| (*error).to_owned()).collect();
            judge(&Measured { seconds, errors }, &load)
        };
        let (lines, is_good) = judged(vec![0.01; 60], &[]);
        assert_eq!(
            (lines[0].as_str(), lines[3].as_str(), is_good),
            ("PASS: Throughput is 1 writes/s", "PASS", true)
        );
        assert!(!judged(vec![0.01; 50], &[]).1);
        assert!(!judged([vec![0.01; 60], vec![0.6]].concat(), &[]).1);
        assert!(!judged(vec![0.01; 60], &["x"]).1);
    }
}
