//! The command `differ`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use cluster_tests::differ;

/// Flags of `differ`.
#[derive(Debug, Args)]
pub(crate) struct DifferFlags {
    /// Calls in all, spread over the seeds
    #[arg(long, default_value_t = 50_000)]
    calls: usize,
    /// How many seeds, from 1 on
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// This seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// How many watchers live at any time, about
    #[arg(long, default_value_t = 20)]
    watchers: usize,
    /// Bytes that every value is padded with: with more to write, members dump and read history from disk
    #[arg(long, default_value_t = 0)]
    padding_bytes: usize,
    /// Sizes of the clusters that are compared with one member of etcd
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3])]
    members: Vec<usize>,
    /// What is compared with etcd: etcd itself is the control
    #[arg(long, value_enum, default_value_t = AgainstFlag::Holdfast)]
    against: AgainstFlag,
    /// A flag for every member of both sides, e.g. --member-flag=--max-txn-ops=5; may be repeated
    #[arg(long = "member-flag", allow_hyphen_values = true)]
    member_flags: Vec<String>,
    /// A flag for every member of what is compared with etcd alone, e.g. --subject-flag=--engine=redb; may be repeated
    #[arg(long = "subject-flag", allow_hyphen_values = true)]
    subject_flags: Vec<String>,
    /// Which seeds have users and roles, and switch auth on and off
    #[arg(long, value_enum, default_value_t = AuthFlag::Even)]
    auth: AuthFlag,
    /// How many plays shrinking may take
    #[arg(long, default_value_t = 150)]
    shrink_plays: usize,
    /// Play this file of calls instead of random ones
    #[arg(long)]
    script: Option<PathBuf>,
    /// With --script: print everything etcd answers and sends
    #[arg(long)]
    show: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AgainstFlag {
    Holdfast,
    Etcd,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AuthFlag {
    None,
    All,
    Even,
}

impl DifferFlags {
    fn plan(&self) -> differ::Plan {
        differ::Plan {
            calls: self.calls,
            seeds: self.seed.map_or_else(|| (1..=self.seeds).collect(), |seed| vec![seed]),
            watchers: self.watchers,
            padding_bytes: self.padding_bytes,
            members: self.members.clone(),
            against: match self.against {
                AgainstFlag::Holdfast => differ::Against::Holdfast,
                AgainstFlag::Etcd => differ::Against::Etcd,
            },
            member_flags: self.member_flags.clone(),
            subject_flags: self.subject_flags.clone(),
            auth: match self.auth {
                AuthFlag::None => differ::AuthSeeds::None,
                AuthFlag::All => differ::AuthSeeds::All,
                AuthFlag::Even => differ::AuthSeeds::Even,
            },
            shrink_plays_max: self.shrink_plays,
        }
    }

    /// Plays, and says what differs; whether nothing does.
    pub(crate) async fn run(self) -> Result<bool> {
        let plan = self.plan();
        if let Some(path) = &self.script {
            let shown = if self.show { differ::Shown::Transcript } else { differ::Shown::Differences };
            let (text, is_same) = differ::play_file(&plan, path, shown).await?;
            println!("{text}");
            return Ok(is_same);
        }
        let outcome = differ::run(&plan, |line| println!("{line}")).await?;
        println!("{outcome}");
        Ok(outcome.differences.is_empty())
    }
}
