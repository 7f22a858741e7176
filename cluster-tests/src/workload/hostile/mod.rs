//! A crowd of clients that mean no good, beside one that works: memory has to stay bounded, and the one that works must
//! hardly notice.
//!
//! Auth is on, and nobody in the crowd has a token. Puts go on at a steady rate, whether or not the last one was answered,
//! in windows without the crowd and with it. The crowd is a process that takes CPUs that nobody else wants: elsewhere it
//! would be other machines, and what is measured is what the members do.
//!
//! Module map: [`crowd`] who comes, [`frames`] HTTP/2 by hand; here the run and its verdict.

pub mod crowd;
pub mod frames;

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_proto::etcdserverpb::auth_client::AuthClient;
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthUserAddRequest, AuthUserGrantRoleRequest, AuthenticateRequest,
    PutRequest,
};
use tokio::task::JoinSet;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::harness::cluster::{Cluster, System};
use crate::judge::latency::Spread;
use crate::workload::watch::calls::{Window, connections};

/// Puts a second.
const RATE: f64 = 500.0;

/// Bytes of each value.
const VALUE_BYTES: usize = 256;

/// The time of the crowd is told in so many parts.
const TENTHS: usize = 10;

/// Keys that are put.
const KEYS: u64 = 10_000;

/// The 99th percentile may grow by this factor.
const FACTOR_MAX: f64 = 2.0;

/// A put that takes longer counts as failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long the cluster may take to start and to choose a leader.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at the members' memory.
const LOOK: Duration = Duration::from_secs(1);

/// What a connection may take in a member at most, beside what all of them may take together.
const CONNECTION_BYTES_MAX: u64 = 96 << 10;

/// What the crowd may take in a member whatever its number: requests that are being received, answers that are not read.
const CROWD_BYTES_MAX: u64 = 384 << 20;

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Connections of the crowd.
    pub connections: usize,
    /// Acts of the crowd, a second.
    pub acts_per_second: f64,
    /// How long it stays.
    pub duration: Duration,
    /// How long puts are measured without it, before and after.
    pub calm: Duration,
    /// Seed of what the crowd does.
    pub seed: u64,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    calm: Spread,
    crowded: Spread,
    /// The 99th percentile of each tenth of the crowd's time: it comes in the first one.
    tenths: Vec<Duration>,
    failed: u64,
    /// Of each member: resident before the crowd came, at most while it was there, and after it had gone.
    memory: Vec<[u64; 3]>,
    crowd: String,
    /// What is wrong.
    pub findings: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let Self { plan, calm, crowded, tenths, failed, memory, crowd, findings } = self;
        writeln!(
            f,
            "{} connections, {} acts a second, for {:?}",
            plan.connections, plan.acts_per_second, plan.duration
        )?;
        writeln!(f, "  the crowd: {crowd}")?;
        writeln!(
            f,
            "  puts at {RATE}/s: p50 {:.2} ms, p99 {:.2} ms without it ({}); p50 {:.2} ms, p99 {:.2} ms with it ({}): {:.2} times; {failed} failed",
            ms(calm.median),
            ms(calm.p99),
            calm.count,
            ms(crowded.median),
            ms(crowded.p99),
            crowded.count,
            factor(*calm, *crowded)
        )?;
        let tenths: Vec<String> = tenths.iter().map(|p99| format!("{:.2}", ms(*p99))).collect();
        writeln!(f, "  p99 of each tenth of its time: {} ms", tenths.join(", "))?;
        for (member, [before, most, after]) in memory.iter().enumerate() {
            let mib = |bytes: &u64| bytes >> 20;
            writeln!(
                f,
                "  member {member}: {} MiB before, at most {}, {} after",
                mib(before),
                mib(most),
                mib(after)
            )?;
        }
        findings.iter().try_for_each(|finding| writeln!(f, "  {finding}"))?;
        write!(f, "  findings: {}", findings.len())
    }
}

fn factor(calm: Spread, crowded: Spread) -> f64 {
    crowded.p99.as_secs_f64() / calm.p99.as_secs_f64()
}

/// Starts a cluster, and measures it with and without the crowd.
pub async fn run(system: System, plan: Plan) -> Result<Report> {
    let mut cluster = Cluster::start(system, 3).await?;
    let leader = cluster.leader(PATIENCE).await?;
    let channels = connections(&cluster.endpoints(), Window::Usual)?;
    let client = Working { channel: channels[leader].clone(), token: log_in(&channels[leader]).await? };
    let mut calm = client.put_for(plan.calm).await?;
    let before = memory(&mut cluster)?;
    let crowd = send_crowd(&cluster, &plan)?;
    let puts = tokio::spawn(async move { (client.put_for(plan.duration).await, client) });
    let mut most = before.clone();
    while !puts.is_finished() {
        tokio::time::sleep(LOOK).await;
        for (most, now) in most.iter_mut().zip(memory(&mut cluster)?) {
            *most = now.max(*most);
        }
    }
    let (crowded, client) = puts.await.context("the puts panicked")?;
    let crowded = crowded?;
    let gone = crowd.wait_with_output().await.context("the crowd is gone")?;
    ensure!(gone.status.success(), "the crowd failed: {}", String::from_utf8_lossy(&gone.stderr));
    let after_it = client.put_for(plan.calm).await?;
    calm.times.extend(after_it.times);
    let after = memory(&mut cluster)?;
    let memory: Vec<[u64; 3]> = before
        .iter()
        .zip(&most)
        .zip(&after)
        .map(|((before, most), after)| [*before, *most, *after])
        .collect();
    let failed = calm.failed + crowded.failed + after_it.failed;
    let tenth = crowded.times.len().div_ceil(TENTHS).max(1);
    let tenths = crowded.times.chunks(tenth).map(|times| Ok(spread(times)?.p99)).collect::<Result<_>>()?;
    let (calm, crowded) = (spread(&calm.times)?, spread(&crowded.times)?);
    let crowd = String::from_utf8_lossy(&gone.stdout).trim().to_owned();
    let mut report = Report { plan, calm, crowded, tenths, failed, memory, crowd, findings: Vec::new() };
    report.judge();
    Ok(report)
}

impl Report {
    fn judge(&mut self) {
        let factor = factor(self.calm, self.crowded);
        if factor > FACTOR_MAX {
            self.findings.push(format!("p99 grew {factor:.2} times, {FACTOR_MAX} are allowed"));
        }
        if self.failed > 0 {
            self.findings.push(format!("{} puts of the client that works failed", self.failed));
        }
        let share = (self.plan.connections / self.memory.len().max(1)) as u64;
        let allowed = CROWD_BYTES_MAX + share * CONNECTION_BYTES_MAX;
        for (member, [before, most, _]) in self.memory.iter().enumerate() {
            if most.saturating_sub(*before) > allowed {
                let (grown, allowed) = ((most - before) >> 20, allowed >> 20);
                self.findings.push(format!("member {member} grew by {grown} MiB, {allowed} are allowed"));
            }
        }
    }
}

fn spread(times: &[Duration]) -> Result<Spread> {
    Spread::of(times).context("no put was answered")
}

/// Has the crowd come, in a process of its own.
fn send_crowd(cluster: &Cluster, plan: &Plan) -> Result<tokio::process::Child> {
    let program = std::env::current_exe().context("looking for this program")?;
    let mut command = tokio::process::Command::new("chrt");
    command.args(["--idle", "0"]).arg(program).arg("crowd");
    for url in cluster.endpoints() {
        command.args(["--member", url.trim_start_matches("http://")]);
    }
    command
        .args(["--connections", &plan.connections.to_string()])
        .args(["--acts-per-second", &plan.acts_per_second.to_string()])
        .args(["--during", &format!("{}s", plan.duration.as_secs())])
        .args(["--seed", &plan.seed.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command.spawn().context("starting the crowd")
}

/// Resident bytes of each member.
fn memory(cluster: &mut Cluster) -> Result<Vec<u64>> {
    (0..cluster.members().len())
        .map(|member| cluster.member(member).process()?.memory_bytes("VmRSS"))
        .collect()
}

/// Switches auth on, and logs in.
async fn log_in(channel: &Channel) -> Result<MetadataValue<Ascii>> {
    let mut auth = AuthClient::new(channel.clone());
    let (name, password) = ("root".to_owned(), "r".to_owned());
    let user = AuthUserAddRequest { name: name.clone(), password: password.clone(), ..Default::default() };
    auth.user_add(user).await?;
    auth.role_add(AuthRoleAddRequest { name: name.clone() }).await?;
    auth.user_grant_role(AuthUserGrantRoleRequest { user: name.clone(), role: name.clone() }).await?;
    auth.auth_enable(AuthEnableRequest {}).await?;
    let token = auth.authenticate(AuthenticateRequest { name, password }).await?.into_inner().token;
    Ok(token.parse()?)
}

/// The client that works.
struct Working {
    channel: Channel,
    token: MetadataValue<Ascii>,
}

/// What its puts came to.
struct Puts {
    /// In the order in which they were due.
    times: Vec<Duration>,
    failed: u64,
}

impl Working {
    /// Puts at the rate; the time of each runs from the moment at which it was due.
    async fn put_for(&self, during: Duration) -> Result<Puts> {
        let every = Duration::from_secs_f64(1.0 / RATE);
        let mut puts = JoinSet::new();
        let (began, mut due, mut number) = (tokio::time::Instant::now(), tokio::time::Instant::now(), 0);
        while due < began + during {
            tokio::time::sleep_until(due).await;
            let mut kv = KvClient::new(self.channel.clone());
            let key = format!("key/{:05}", number % KEYS).into();
            let put = PutRequest { key, value: vec![7; VALUE_BYTES].into(), ..PutRequest::default() };
            let mut request = Request::new(put);
            request.metadata_mut().insert("token", self.token.clone());
            request.set_timeout(TIMEOUT);
            puts.spawn(async move {
                let answer = kv.put(request).await;
                (number, due.elapsed(), answer.is_ok())
            });
            due += every;
            number += 1;
        }
        let (mut times, mut failed) = (Vec::new(), 0);
        while let Some(put) = puts.join_next().await {
            let (number, time, is_ok) = put.context("a put panicked")?;
            times.push((number, time));
            failed += u64::from(!is_ok);
        }
        times.sort_unstable();
        Ok(Puts { times: times.into_iter().map(|(_, time)| time).collect(), failed })
    }
}
