//! What a cluster is asked to do: `alarm`, `move-leader`, `defrag`, `downgrade`.

use clap::{Args, Subcommand};
use holdfast_proto::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use pb::downgrade_request::DowngradeAction;
use prost::Message;

use crate::client::{Client, service};
use crate::endpoint::{endpoints, in_short, status};
use crate::error::{CtlError, Done};
use crate::member::member_id;
use crate::output::answer::{self, Said, SaidWithoutFields};
use crate::output::{self, Format, Look, NO_TABLE, Out, View, json, push, tell};

/// The commands of `alarm`.
#[derive(Debug, Subcommand)]
pub(crate) enum AlarmCommand {
    /// All alarms that are raised
    List {
        #[arg(hide = true)]
        words: Vec<String>,
    },
    /// Clears all alarms
    Disarm {
        #[arg(hide = true)]
        words: Vec<String>,
    },
}

/// Flags of `move-leader`.
#[derive(Debug, Args)]
pub(crate) struct MoveLeader {
    /// Who is to lead: a member's id, in hexadecimal
    #[arg(value_name = "MEMBER")]
    words: Vec<String>,
}

/// Flags of `defrag`.
#[derive(Debug, Args)]
pub(crate) struct Defrag {
    /// All members that the endpoints know, and not the endpoints alone
    #[arg(long)]
    cluster: bool,
}

/// The commands of `downgrade`.
#[derive(Debug, Subcommand)]
pub(crate) enum DowngradeCommand {
    /// Whether the cluster can go down to a version
    Validate(Version),
    /// Lets members of that version join
    Enable(Version),
    /// Takes that back
    Cancel,
}

/// The version of `downgrade`.
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// Such as 3.5
    #[arg(value_name = "VERSION")]
    words: Vec<String>,
}

/// `alarm`.
pub(crate) async fn alarm(client: &Client, out: Out, command: &AlarmCommand) -> Done {
    let (AlarmCommand::List { words } | AlarmCommand::Disarm { words }) = command;
    if !words.is_empty() {
        return Err(CtlError::Arguments(
            "alarms are listed and disarmed all at once: give no words".to_owned(),
        ));
    }
    out.has::<pb::AlarmResponse>()?;
    let raised = alarms(client).await?;
    if matches!(command, AlarmCommand::List { .. }) {
        return out.show(&raised);
    }
    // As etcd's Go client has it: several answers, and the header of none.
    let mut disarmed = pb::AlarmResponse::default();
    for pb::AlarmMember { member_id, alarm } in raised.alarms {
        let request = pb::AlarmRequest { action: AlarmAction::Deactivate.into(), member_id, alarm };
        let answer = client.write(async |conn| service::maintenance(conn).alarm(request).await).await?;
        disarmed.alarms.extend(answer.alarms);
    }
    out.show(&disarmed)
}

/// All alarms.
pub(crate) async fn alarms(client: &Client) -> Result<pb::AlarmResponse, CtlError> {
    let request = pb::AlarmRequest { action: AlarmAction::Get.into(), ..Default::default() };
    client.read(async |conn| service::maintenance(conn).alarm(request).await).await
}

impl View for pb::AlarmResponse {
    const FORMATS: &'static [Format] = NO_TABLE;

    fn simple(&self, text: &mut Vec<u8>, _: Look) {
        for alarm in &self.alarms {
            // The message as protobuf text: what is zero is left out, and each field has a blank behind it.
            let member =
                if alarm.member_id == 0 { String::new() } else { format!("memberID:{} ", alarm.member_id) };
            let kind = if alarm.alarm == 0 {
                String::new()
            } else {
                format!("alarm:{} ", alarm.alarm().as_str_name())
            };
            push(text, &format!("{member}{kind}"));
        }
    }

    fn fields(&self, text: &mut Vec<u8>) {
        answer::header(text, self.header.as_ref());
        for alarm in &self.alarms {
            push(text, &format!("\"MemberID\" : {}", alarm.member_id));
            push(text, &format!("\"AlarmType\" : {}", alarm.alarm().as_str_name()));
            push(text, "");
        }
    }

    fn json(&self, _: Look) -> String {
        json::message(self)
    }

    fn protobuf(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

/// `move-leader`: asks the endpoint that leads.
pub(crate) async fn move_leader(client: &Client, out: Out, flags: &MoveLeader) -> Done {
    let [target] = &flags.words[..] else {
        return Err(CtlError::Arguments("move-leader takes the id of one member".to_owned()));
    };
    let target = member_id(target)?;
    out.has::<SaidWithoutFields<pb::MoveLeaderResponse>>()?;
    let mut last = None;
    for endpoint in client.endpoints() {
        let one = client.of(endpoint);
        let status = match status(&one).await {
            Ok(status) => status,
            Err(error) => {
                tell(&format!("holdfastctl: {endpoint} cannot be asked: {}", in_short(&error)));
                last = Some(CtlError::Exit(error.exit_code()));
                continue;
            }
        };
        let leader = status.leader;
        if status.header.is_none_or(|header| header.member_id != leader) {
            continue;
        }
        let request = pb::MoveLeaderRequest { target_id: target };
        let answer = one.write(async |conn| service::maintenance(conn).move_leader(request).await).await?;
        let text = format!("Leadership transferred from {leader:x} to {target:x}\n");
        return out.show(&SaidWithoutFields(Said { text, answer }));
    }
    let all = client.endpoints().join(", ");
    Err(last.unwrap_or(CtlError::Arguments(format!(
        "none of {all} leads: give the leader's endpoint, or all of them"
    ))))
}

/// `defrag`: one endpoint after the other.
pub(crate) async fn defrag(client: &Client, flags: &Defrag) -> Done {
    let mut ended = Ok(());
    for endpoint in endpoints(client, flags.cluster).await? {
        let one = client.of(&endpoint);
        let request = pb::DefragmentRequest {};
        match one.write(async |conn| service::maintenance(conn).defragment(request).await).await {
            Ok(_) => output::line(&format!("Finished defragmenting etcd member[{endpoint}]"))?,
            Err(error) => {
                tell(&format!("holdfastctl: {endpoint} is not defragmented: {}", in_short(&error)));
                ended = Err(CtlError::Exit(error.exit_code()));
            }
        }
    }
    ended
}

/// `downgrade`.
pub(crate) async fn downgrade(client: &Client, out: Out, command: &DowngradeCommand) -> Done {
    let (action, version, what) = match command {
        DowngradeCommand::Validate(version) => (DowngradeAction::Validate, Some(version), "validate"),
        DowngradeCommand::Enable(version) => (DowngradeAction::Enable, Some(version), "enable"),
        DowngradeCommand::Cancel => (DowngradeAction::Cancel, None, "cancel"),
    };
    let version = match version.map(|version| &version.words[..]) {
        None => String::new(),
        Some([version]) => version.clone(),
        Some(_) => return Err(CtlError::Arguments("this takes one version, such as 3.5".to_owned())),
    };
    out.has::<SaidWithoutFields<pb::DowngradeResponse>>()?;
    let request = pb::DowngradeRequest { action: action.into(), version };
    let answer =
        client.write(async |conn| service::maintenance(conn).downgrade(request.clone()).await).await?;
    let text = format!("Downgrade {what} success, cluster version {}\n", answer.version);
    out.show(&SaidWithoutFields(Said { text, answer }))
}
