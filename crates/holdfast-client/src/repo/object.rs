//! What repositories keep, and the names of it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// Bytes of a name or of a namespace.
pub const NAME_BYTES_MAX: usize = 253;

/// What a repository can keep: something with a name.
///
/// ```
/// use holdfast_client::repo::Object;
///
/// struct Report {
///     name: String,
///     namespace: String,
/// }
///
/// impl Object for Report {
///     fn name(&self) -> &str {
///         &self.name
///     }
///     fn namespace(&self) -> Option<&str> {
///         Some(&self.namespace)
///     }
/// }
/// ```
pub trait Object: Send + Sync + 'static {
    /// Its name: not empty, without slashes and control characters, at most [`NAME_BYTES_MAX`] bytes. Of all objects in
    /// one namespace one has it.
    fn name(&self) -> &str;

    /// The namespace that it is in, which is named as objects are. Objects of a repository either all have one or none.
    fn namespace(&self) -> Option<&str> {
        None
    }

    /// The value of a field or label, for selectors; `None` when it has no such field. None has any, unless written.
    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        let _ = name;
        None
    }
}

/// Whether the objects of a repository are in namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Each is in one.
    Namespaced,
    /// None is.
    Cluster,
}

/// The name of an object with its namespace, if it has one. Ordered as lists are: by the bytes of what it is written as,
/// `namespace/name` or `name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    path: Arc<str>,
}

/// Why something is no name, or not one for this repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// It is empty.
    #[error("a name is empty")]
    Empty,
    /// It is longer than [`NAME_BYTES_MAX`].
    #[error("a name has {bytes} bytes of at most {NAME_BYTES_MAX}")]
    Long {
        /// How long it is.
        bytes: usize,
    },
    /// It has a slash.
    #[error("a name has a slash")]
    Slash,
    /// It has a control character.
    #[error("a name has a control character")]
    Control,
    /// It has no namespace, and should have one.
    #[error("an object of this repository is in a namespace")]
    NamespaceMissing,
    /// It has a namespace, and should have none.
    #[error("an object of this repository is in no namespace")]
    NamespaceGiven,
}

/// Errors: it is no name.
pub(crate) fn check_name(name: &str) -> Result<(), BadName> {
    if name.is_empty() {
        return Err(BadName::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(BadName::Long { bytes: name.len() });
    }
    match name.chars().find(|c| *c == '/' || c.is_control()) {
        Some('/') => Err(BadName::Slash),
        Some(_) => Err(BadName::Control),
        None => Ok(()),
    }
}

impl ObjectKey {
    /// An object in no namespace.
    ///
    /// Errors: it is no name.
    pub fn cluster(name: &str) -> Result<Self, BadName> {
        check_name(name)?;
        Ok(Self { path: name.into() })
    }

    /// An object in a namespace.
    ///
    /// Errors: one of them is no name.
    pub fn namespaced(namespace: &str, name: &str) -> Result<Self, BadName> {
        check_name(namespace)?;
        check_name(name)?;
        Ok(Self { path: [namespace, "/", name].concat().into() })
    }

    /// An object, in a namespace or in none.
    ///
    /// Errors: one of them is no name.
    pub fn new(namespace: Option<&str>, name: &str) -> Result<Self, BadName> {
        match namespace {
            Some(namespace) => Self::namespaced(namespace, name),
            None => Self::cluster(name),
        }
    }

    /// The key of an object.
    ///
    /// Errors: its name or namespace is no name, or it has a namespace where it should have none, or none where it should.
    pub fn of<T: Object>(object: &T, scope: Scope) -> Result<Self, BadName> {
        let key = Self::new(object.namespace(), object.name())?;
        key.check(scope)?;
        Ok(key)
    }

    /// Errors: it has a namespace where it should have none, or none where it should.
    pub(super) fn check(&self, scope: Scope) -> Result<(), BadName> {
        match (scope, self.namespace()) {
            (Scope::Namespaced, None) => Err(BadName::NamespaceMissing),
            (Scope::Cluster, Some(_)) => Err(BadName::NamespaceGiven),
            (Scope::Namespaced, Some(_)) | (Scope::Cluster, None) => Ok(()),
        }
    }

    /// The key that was written so; `None` when it is none.
    pub(super) fn parse(path: &[u8]) -> Option<Self> {
        let path = std::str::from_utf8(path).ok()?;
        let key = match path.split_once('/') {
            Some((namespace, name)) => Self::namespaced(namespace, name),
            None => Self::cluster(path),
        };
        key.ok()
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.path.split_once('/').map_or(&*self.path, |(_, name)| name)
    }

    /// The namespace.
    pub fn namespace(&self) -> Option<&str> {
        self.path.split_once('/').map(|(namespace, _)| namespace)
    }

    /// `namespace/name` or `name`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn behind(&self, prefix: &[u8]) -> Bytes {
        [prefix, self.path.as_bytes()].concat().into()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.path, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rs9_a_name_has_no_slash_and_no_control_character_and_a_bounded_length() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let cases = [
            ("", BadName::Empty),
            ("a/b", BadName::Slash),
            ("/", BadName::Slash),
            ("a\0", BadName::Control),
            ("a\n", BadName::Control),
            (&long, BadName::Long { bytes: NAME_BYTES_MAX + 1 }),
        ];
        for (name, bad) in cases {
            assert_eq!(ObjectKey::cluster(name).unwrap_err(), bad, "{name:?}");
            assert_eq!(ObjectKey::namespaced("n", name).unwrap_err(), bad, "{name:?}");
            assert_eq!(ObjectKey::namespaced(name, "n").unwrap_err(), bad, "{name:?}");
        }
        for name in ["a", ".", "..", "ü", "a b", "@x", &long[1..]] {
            assert!(ObjectKey::namespaced(name, name).is_ok(), "{name:?}");
        }
    }

    proptest! {
        /// RS9: `a/b` + `c` cannot be the same key as `a` + `b/c`, nor any other two pairs.
        #[test]
        fn rs9_two_pairs_of_names_are_never_one_key(
            one in ("[a-c/@.]{0,4}", "[a-c/@.]{0,4}"),
            other in ("[a-c/@.]{0,4}", "[a-c/@.]{0,4}"),
        ) {
            let key = |(namespace, name): &(String, String)| ObjectKey::namespaced(namespace, name);
            if let (Ok(a), Ok(b)) = (key(&one), key(&other)) {
                prop_assert_eq!(a == b, one == other);
                prop_assert_eq!(a.namespace(), Some(one.0.as_str()));
                prop_assert_eq!(a.name(), one.1.as_str());
                prop_assert_eq!(ObjectKey::parse(a.path().as_bytes()), Some(a));
            }
        }

        /// RS9: what has a slash is refused on either side, so that nothing is left to collide.
        #[test]
        fn rs9_what_has_a_slash_is_no_name(before in "[a-z]{0,3}", after in "[a-z]{0,3}") {
            let name = format!("{before}/{after}");
            prop_assert_eq!(ObjectKey::namespaced(&name, "c").unwrap_err(), BadName::Slash);
            prop_assert_eq!(ObjectKey::namespaced("a", &name).unwrap_err(), BadName::Slash);
            prop_assert_eq!(ObjectKey::cluster(&name).unwrap_err(), BadName::Slash);
        }
    }
}
