//! Masks what differs between two correct servers by nature: ids, terms, sizes, hashes, names and addresses.
//!
//! A masked number keeps whether it was zero: an id that should be absent and is there, or the other way round, is a
//! difference.

use prost_reflect::{DynamicMessage, ReflectMessage, Value, text_format::FormatOptions};

/// Fields masked by nature, per message.
const MASKED: &[(&str, &[&str])] = &[
    ("etcdserverpb.ResponseHeader", &["cluster_id", "member_id", "raft_term"]),
    ("etcdserverpb.AuthenticateResponse", &["token"]),
    ("etcdserverpb.HashResponse", &["hash"]),
    ("etcdserverpb.HashKVResponse", &["hash"]),
    ("etcdserverpb.Member", &["ID", "name", "peerURLs", "clientURLs"]),
    // Whether it is below zero is compared, too.
    ("etcdserverpb.LeaseTimeToLiveResponse", &["TTL"]),
    (
        "etcdserverpb.StatusResponse",
        &["version", "dbSize", "dbSizeInUse", "leader", "raftIndex", "raftTerm", "raftAppliedIndex"],
    ),
];

/// Whether only the presence of the field is compared.
pub(super) fn is_masked(message: &str, field: &str) -> bool {
    MASKED.iter().any(|(name, fields)| *name == message && fields.contains(&field))
}

/// Masks `message` and everything in it. Members that look alike after that are listed once, so that clusters of one
/// and of three compare.
pub fn mask(message: &mut DynamicMessage) {
    let descriptor = message.descriptor();
    let masked = MASKED.iter().find(|(name, _)| *name == descriptor.full_name()).map_or(&[][..], |(_, f)| f);
    for field in descriptor.fields().filter(|field| message.has_field(field)).collect::<Vec<_>>() {
        let value = message.get_field_mut(&field);
        if masked.contains(&field.name()) {
            mask_value(value);
        } else if UNORDERED.contains(&(descriptor.full_name(), field.name())) {
            sort(value);
        } else {
            descend(value);
        }
    }
}

/// Lists that clients take for sets, with what they hold. Permissions are sorted by key alone: of several that begin at one key
/// etcd keeps the order in which they were granted.
const UNORDERED: [(&str, &str); 3] = [
    ("etcdserverpb.LeaseTimeToLiveResponse", "keys"),
    ("etcdserverpb.LeaseLeasesResponse", "leases"),
    ("etcdserverpb.AuthRoleGetResponse", "perm"),
];

fn sort(value: &mut Value) {
    if let Value::List(items) = value {
        // By what they look like: keys and ids do not repeat.
        items.sort_by_cached_key(ToString::to_string);
    }
}

fn descend(value: &mut Value) {
    match value {
        Value::Message(message) => mask(message),
        Value::List(items) => {
            items.iter_mut().for_each(descend);
            let members =
                matches!(items.first(), Some(Value::Message(item)) if item.descriptor().name() == "Member");
            if members {
                items.dedup();
            }
        }
        _ => {}
    }
}

/// What is there is replaced by a mark of its type; fields that are absent never come here.
fn mask_value(value: &mut Value) {
    match value {
        Value::U32(number) => *number = 1,
        Value::I32(number) => *number = 1,
        Value::U64(number) => *number = 1,
        Value::I64(number) => *number = number.signum(),
        Value::String(text) => "masked".clone_into(text),
        Value::List(items) => items.iter_mut().for_each(mask_value),
        _ => {}
    }
}

/// Removes the named fields wherever a message of that name stands, and says whether there was one.
pub fn remove_fields(message: &mut DynamicMessage, name: &str, fields: &[String]) -> bool {
    let descriptor = message.descriptor();
    let mut removed = false;
    for field in descriptor.fields().filter(|field| message.has_field(field)).collect::<Vec<_>>() {
        if descriptor.name() == name && fields.iter().any(|unwanted| unwanted == field.name()) {
            message.clear_field(&field);
            removed = true;
            continue;
        }
        match message.get_field_mut(&field) {
            Value::Message(inner) => removed |= remove_fields(inner, name, fields),
            Value::List(items) => {
                for item in items {
                    if let Value::Message(inner) = item {
                        removed |= remove_fields(inner, name, fields);
                    }
                }
            }
            _ => {}
        }
    }
    removed
}

/// One line of protobuf text, fields in the order of their numbers, unknown fields shown.
pub fn render(message: &DynamicMessage) -> String {
    let options = FormatOptions::new().print_message_fields_in_index_order(true).skip_unknown_fields(false);
    message.to_text_format_with_options(&options)
}

#[cfg(test)]
mod tests {
    use super::super::call::descriptors;
    use super::*;

    fn message(name: &str, text: &str) -> DynamicMessage {
        let descriptor = descriptors().get_message_by_name(name).unwrap();
        DynamicMessage::parse_text_format(descriptor, text).unwrap()
    }

    #[test]
    fn ids_are_masked_and_revisions_are_not() {
        let mut put =
            message("etcdserverpb.PutResponse", "header{cluster_id:7 member_id:9 revision:5 raft_term:3}");
        mask(&mut put);
        let same =
            message("etcdserverpb.PutResponse", "header{cluster_id:1 member_id:1 revision:5 raft_term:1}");
        assert_eq!(render(&put), render(&same));
    }

    #[test]
    fn an_absent_id_stays_a_difference() {
        let mut put = message("etcdserverpb.PutResponse", "header{revision:5}");
        mask(&mut put);
        assert_eq!(render(&put), "header{revision:5}");
    }

    #[test]
    fn three_members_look_like_one() {
        let three = "members{ID:4 name:\"a\" peerURLs:\"x\"} members{ID:5 name:\"b\" peerURLs:\"y\"}";
        let mut list = message("etcdserverpb.MemberListResponse", three);
        mask(&mut list);
        assert_eq!(render(&list), "members:[{ID:1,name:\"masked\",peerURLs:[\"masked\"]}]");
    }

    #[test]
    fn named_fields_are_removed_at_any_depth() {
        let text = "responses{response_range{header{revision:4} more:true}}";
        let mut txn = message("etcdserverpb.TxnResponse", text);
        assert!(remove_fields(&mut txn, "RangeResponse", &["more".to_owned()]));
        assert!(!remove_fields(&mut txn, "RangeResponse", &["more".to_owned()]));
        assert_eq!(
            render(&txn),
            render(&message("etcdserverpb.TxnResponse", "responses{response_range{header{revision:4}}}"))
        );
    }
}
