//! Where what is collected lies.
//!
//! ```text
//!   /c/<resource>/<source>                           the cursor of a source, Cursor as JSON
//!   /c/<resource>/<source>/<namespace>/<name>        an object, Envelope
//!   /c.gone/<resource>/<source>/<namespace>/<name>   what is gone, Envelope, for some minutes
//!   /c.since/<resource>/<source>/<lease>             since when all that is gone is known, JSON, for as long
//!   /c.removing/<resource>/<source>                  is there while the source is being removed; its revision says by whom
//!   /c.prefix                                        the prefix of versions
//! ```
//! A cursor and the objects of its source lie in one range, so that who watches that sees them in one order. No part has a
//! slash, so no object's key is a cursor's.

use super::origin::{ObjectName, Resource, SourceId};

/// The key of the prefix of versions.
pub(super) const PREFIX: &str = "/c.prefix";

/// What a key of a resource is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Cursor(SourceId),
    Object(SourceId, ObjectName),
}

/// All of a resource: cursors and objects.
pub(super) fn resource(resource: &Resource) -> String {
    format!("/c/{}/", resource.as_str())
}

pub(super) fn cursor(of: &Resource, source: &SourceId) -> String {
    format!("{}{source}", resource(of))
}

/// All objects of a source.
pub(super) fn objects(of: &Resource, source: &SourceId) -> String {
    format!("{}/", cursor(of, source))
}

pub(super) fn object(of: &Resource, source: &SourceId, name: &ObjectName) -> String {
    format!("{}{name}", objects(of, source))
}

/// All that is gone of a source.
pub(super) fn gone_objects(of: &Resource, source: &SourceId) -> String {
    format!("/c.gone/{}/{source}/", of.as_str())
}

pub(super) fn gone(of: &Resource, source: &SourceId, name: &ObjectName) -> String {
    format!("{}{name}", gone_objects(of, source))
}

/// Since when all that is gone of a source is known: what all such keys begin with.
pub(super) fn gone_since(of: &Resource, source: &SourceId) -> String {
    format!("/c.since/{}/{source}/", of.as_str())
}

/// Is there while a source is being removed.
pub(super) fn removing(of: &Resource, source: &SourceId) -> String {
    format!("{}{source}", all_removing(of))
}

/// What the keys of all sources that are being removed begin with.
pub(super) fn all_removing(of: &Resource) -> String {
    format!("/c.removing/{}/", of.as_str())
}

/// What lies under a key of a resource; `None` when nobody here has made the key.
pub(super) fn place(of: &Resource, key: &[u8]) -> Option<Place> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(resource(of).as_str())?;
    let parts: Vec<&str> = rest.split('/').collect();
    match parts.as_slice() {
        [source] => Some(Place::Cursor(SourceId::new(source).ok()?)),
        [source, namespace, name] => {
            Some(Place::Object(SourceId::new(source).ok()?, ObjectName::new(namespace, name).ok()?))
        }
        _ => None,
    }
}

/// The name of what is gone, by its key.
pub(super) fn gone_name(of: &Resource, source: &SourceId, key: &[u8]) -> Option<ObjectName> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(gone_objects(of, source).as_str())?;
    let (namespace, name) = rest.split_once('/')?;
    ObjectName::new(namespace, name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_what_it_is_of() {
        let pods = Resource::new("pods").unwrap();
        let (source, other) = (SourceId::new("a").unwrap(), SourceId::new("a-b").unwrap());
        for source in [source, other] {
            assert_eq!(place(&pods, cursor(&pods, &source).as_bytes()), Some(Place::Cursor(source.clone())));
            for (namespace, name) in [("ns", "n"), ("", "n"), ("a", "a")] {
                let name = ObjectName::new(namespace, name).unwrap();
                let key = object(&pods, &source, &name);
                assert_eq!(place(&pods, key.as_bytes()), Some(Place::Object(source.clone(), name.clone())));
                let key = gone(&pods, &source, &name);
                assert_eq!(gone_name(&pods, &source, key.as_bytes()), Some(name));
            }
        }
        for key in ["/c/pods/", "/c/pods/a/b", "/c/pods/a/b/", "/c/pods/a/b/c/d", "/c/nodes/a", "x"] {
            assert_eq!(place(&pods, key.as_bytes()), None, "{key}");
        }
    }

    #[test]
    fn what_would_be_another_key_is_refused() {
        assert!(SourceId::new("").is_err() && SourceId::new("a/b").is_err() && SourceId::new("a\0").is_err());
        assert!(ObjectName::new("", "").is_err() && ObjectName::new("a/b", "c").is_err());
        assert!(ObjectName::new("", &"x".repeat(254)).is_err() && Resource::new("a/b").is_err());
    }
}
