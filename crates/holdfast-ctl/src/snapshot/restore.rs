//! `snapshot restore`: a data directory from a file.

use std::ffi::OsString;
use std::sync::Arc;

use holdfast_env::{Env, NoNet};
use holdfast_server::backup::file::Checksum;
use holdfast_server::backup::history::Bump;
use holdfast_server::backup::restore::{self, Request, Restored, Rights};
use holdfast_server::config::{Config, flags};

use crate::cli::RestoreFlags;

/// Restores; what is to be said then.
pub(crate) fn restore(flags: &RestoreFlags) -> anyhow::Result<String> {
    let config = config(flags)?;
    // No connection is made.
    let env = Env::real(tokio::runtime::Handle::current(), Arc::new(NoNet));
    let request = Request {
        snapshot: &flags.file,
        checksum: if flags.skip_hash_check { Checksum::Ignored } else { Checksum::Required },
        bump: flags.bump_revision.map(|by| Bump { by }),
        rights: if flags.without_auth { Rights::LeftOut } else { Rights::Kept },
    };
    Ok(told(&restore::restore(&env, &config, &request)?, config.initial_cluster.len()))
}

/// The configuration of the member that is to be, read as the server reads its own flags, so that the two agree on who it
/// is. The environment counts for nothing here.
fn config(flags: &RestoreFlags) -> anyhow::Result<Config> {
    let mut args: Vec<OsString> = vec!["holdfastctl".into(), "--name".into(), (&flags.name).into()];
    let token = Some(&flags.initial_cluster_token);
    for (name, value) in [
        ("--initial-cluster", flags.initial_cluster.as_ref()),
        ("--initial-advertise-peer-urls", flags.initial_advertise_peer_urls.as_ref()),
        ("--initial-cluster-token", token),
    ] {
        args.extend(value.into_iter().flat_map(|value| [name.into(), value.into()]));
    }
    if let Some(dir) = &flags.data_dir {
        args.extend(["--data-dir".into(), dir.into()]);
    }
    let given = flags::parse(args, &|_| None)?;
    Ok(Config::without_ports(&given.server)?)
}

fn told(restored: &Restored, members: usize) -> String {
    let Restored { member_id, cluster_id, revision, records, leases, orphans, data_dir } = restored;
    let mut text = format!(
        "Restored revision {revision} ({records} records, {leases} leases) to {} as member {member_id:x} of cluster \
         {cluster_id:x}\n",
        data_dir.display()
    );
    if *orphans > 0 {
        text.push_str(&format!(
            "{orphans} keys were attached to leases that are not in the file: they have none now\n"
        ));
    }
    let others = match members {
        1 => "",
        _ => ", when the other members are restored from the same file",
    };
    text.push_str(&format!(
        "Start holdfast with the same --name, --data-dir and --initial-* flags{others}\n"
    ));
    text
}
