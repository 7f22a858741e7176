//! Answers of the API as views: those that are a sentence for people and a header for programs.

use holdfast_proto::etcdserverpb as pb;
use prost::Message;

use super::{Format, Look, NO_TABLE, View, json, push};

/// A message that answers a request.
pub(crate) trait Answer: Message {
    /// Its name in the proto files.
    const NAME: &'static str;
    /// Who answered, and where it stands.
    fn header(&self) -> Option<&pb::ResponseHeader>;
}

macro_rules! answers {
    ($($rust:ident = $name:literal),* $(,)?) => {
        $(impl Answer for pb::$rust {
            const NAME: &'static str = concat!("etcdserverpb.", $name);
            fn header(&self) -> Option<&pb::ResponseHeader> {
                self.header.as_ref()
            }
        })*
    };
}

answers! {
    RangeResponse = "RangeResponse",
    PutResponse = "PutResponse",
    DeleteRangeResponse = "DeleteRangeResponse",
    TxnResponse = "TxnResponse",
    LeaseRevokeResponse = "LeaseRevokeResponse",
    MemberAddResponse = "MemberAddResponse",
    MemberRemoveResponse = "MemberRemoveResponse",
    MemberUpdateResponse = "MemberUpdateResponse",
    MemberListResponse = "MemberListResponse",
    MemberPromoteResponse = "MemberPromoteResponse",
    StatusResponse = "StatusResponse",
    HashKvResponse = "HashKVResponse",
    AlarmResponse = "AlarmResponse",
    MoveLeaderResponse = "MoveLeaderResponse",
    DowngradeResponse = "DowngradeResponse",
    AuthStatusResponse = "AuthStatusResponse",
    AuthUserAddResponse = "AuthUserAddResponse",
    AuthUserGetResponse = "AuthUserGetResponse",
    AuthUserListResponse = "AuthUserListResponse",
    AuthUserDeleteResponse = "AuthUserDeleteResponse",
    AuthUserChangePasswordResponse = "AuthUserChangePasswordResponse",
    AuthUserGrantRoleResponse = "AuthUserGrantRoleResponse",
    AuthUserRevokeRoleResponse = "AuthUserRevokeRoleResponse",
    AuthRoleAddResponse = "AuthRoleAddResponse",
    AuthRoleGetResponse = "AuthRoleGetResponse",
    AuthRoleListResponse = "AuthRoleListResponse",
    AuthRoleDeleteResponse = "AuthRoleDeleteResponse",
    AuthRoleGrantPermissionResponse = "AuthRoleGrantPermissionResponse",
    AuthRoleRevokePermissionResponse = "AuthRoleRevokePermissionResponse",
}

/// The header alone, for what stands in messages of its own.
impl Answer for pb::ResponseHeader {
    const NAME: &'static str = "etcdserverpb.ResponseHeader";
    fn header(&self) -> Option<&pb::ResponseHeader> {
        Some(self)
    }
}

impl Answer for holdfast_proto::mvccpb::Event {
    const NAME: &'static str = "mvccpb.Event";
    fn header(&self) -> Option<&pb::ResponseHeader> {
        None
    }
}

/// A sentence for people, the header in the fields format, and the message otherwise.
pub(crate) struct Said<M> {
    /// With the end of its last line.
    pub(crate) text: String,
    /// The answer.
    pub(crate) answer: M,
}

impl<M: Answer> View for Said<M> {
    const FORMATS: &'static [Format] = NO_TABLE;

    fn simple(&self, text: &mut Vec<u8>, _: Look) {
        text.extend_from_slice(self.text.as_bytes());
    }

    fn fields(&self, text: &mut Vec<u8>) {
        header(text, self.answer.header());
    }

    fn json(&self, _: Look) -> String {
        json::message(&self.answer)
    }

    fn protobuf(&self) -> Vec<u8> {
        self.answer.encode_to_vec()
    }
}

/// The same, for what etcdctl does not write as fields.
pub(crate) struct SaidWithoutFields<M>(pub(crate) Said<M>);

impl<M: Answer> View for SaidWithoutFields<M> {
    const FORMATS: &'static [Format] = &[Format::Simple, Format::Json, Format::Protobuf];

    fn simple(&self, text: &mut Vec<u8>, look: Look) {
        self.0.simple(text, look);
    }

    fn json(&self, look: Look) -> String {
        self.0.json(look)
    }

    fn protobuf(&self) -> Vec<u8> {
        self.0.protobuf()
    }
}

/// A header in the fields format; one that is not there is zero.
pub(crate) fn header(text: &mut Vec<u8>, header: Option<&pb::ResponseHeader>) {
    let header = header.copied().unwrap_or_default();
    push(text, &format!("\"ClusterID\" : {}", header.cluster_id));
    push(text, &format!("\"MemberID\" : {}", header.member_id));
    push(text, &format!("\"Revision\" : {}", header.revision));
    push(text, &format!("\"RaftTerm\" : {}", header.raft_term));
}

/// Of a header: the fields that stand beside others in some of etcdctl's JSON.
pub(crate) fn header_json(header: Option<&pb::ResponseHeader>) -> Vec<(&'static str, String)> {
    let header = header.copied().unwrap_or_default();
    let all = [
        ("cluster_id", header.cluster_id.to_string()),
        ("member_id", header.member_id.to_string()),
        ("revision", header.revision.to_string()),
        ("raft_term", header.raft_term.to_string()),
    ];
    all.into_iter().filter(|(_, value)| value != "0").collect()
}
