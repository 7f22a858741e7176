//! Which objects of a repository are wanted.

use super::object::{BadName, Object, ObjectKey, Scope, check_name};
use crate::store::Selector;

/// Which objects are wanted: by their namespace, by their name, by their fields; all of it together.
///
/// ```
/// use holdfast_client::repo::Filter;
/// use holdfast_client::store::Selector;
///
/// let all = Filter::all();
/// let failed = Filter::namespace("default").and(Selector::equals("result", "fail"));
/// let one = Filter::named("default", "my-report");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    namespace: Option<String>,
    name: Option<String>,
    selectors: Vec<Selector>,
}

impl Filter {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// What is in this namespace.
    pub fn namespace(namespace: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), ..Self::default() }
    }

    /// The one object with this name in this namespace, if it is there.
    pub fn named(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), name: Some(name.into()), ..Self::default() }
    }

    /// What has this name: one object of a repository without namespaces, or one in each namespace.
    pub fn name(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// The one object with this key, if it is there.
    pub fn key(key: &ObjectKey) -> Self {
        let namespace = key.namespace().map(str::to_owned);
        Self { namespace, name: Some(key.name().to_owned()), ..Self::default() }
    }

    /// And what this selector matches. A selector sees [`Object::field`].
    #[must_use]
    pub fn and(mut self, selector: Selector) -> Self {
        self.selectors.push(selector);
        self
    }

    /// What is wrong with it in a repository of this scope.
    pub(super) fn check(&self, scope: Scope) -> Result<(), BadFilter> {
        if scope == Scope::Cluster && self.namespace.is_some() {
            return Err(BadFilter::Name(BadName::NamespaceGiven));
        }
        for name in self.namespace.iter().chain(&self.name) {
            check_name(name).map_err(BadFilter::Name)?;
        }
        if self.selectors.len() > crate::store::SELECTORS_MAX {
            return Err(BadFilter::Selectors("a filter has too many selectors"));
        }
        let fault = self.selectors.iter().find_map(Selector::fault);
        fault.map_or(Ok(()), |fault| Err(BadFilter::Selectors(fault)))
    }

    /// The one key that it can find, if it can find one only.
    pub(super) fn only(&self, scope: Scope) -> Option<ObjectKey> {
        let name = self.name.as_deref()?;
        match (scope, self.namespace.as_deref()) {
            (Scope::Cluster, _) => ObjectKey::cluster(name).ok(),
            (Scope::Namespaced, Some(namespace)) => ObjectKey::namespaced(namespace, name).ok(),
            (Scope::Namespaced, None) => None,
        }
    }

    /// What the paths begin with that it can find.
    pub(super) fn prefix(&self) -> String {
        self.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default()
    }

    /// Whether an object with this key can be wanted.
    pub(super) fn finds(&self, key: &ObjectKey) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| key.namespace() == Some(namespace))
            && self.name.as_deref().is_none_or(|name| key.name() == name)
    }

    /// Whether every object under [`Filter::prefix`] is wanted.
    pub(super) fn is_prefix(&self) -> bool {
        self.name.is_none() && self.selectors.is_empty()
    }

    /// Whether the object is wanted.
    pub fn matches<T: Object>(&self, object: &T) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| object.namespace() == Some(namespace))
            && self.name.as_deref().is_none_or(|name| object.name() == name)
            && self
                .selectors
                .iter()
                .all(|selector| selector.matches(object.field(&selector.field).as_deref()))
    }
}

/// Why a filter makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadFilter {
    Name(BadName),
    Selectors(&'static str),
}
