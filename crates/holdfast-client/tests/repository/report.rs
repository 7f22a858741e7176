//! What the tests keep: a report, as policy engines write them.

use std::borrow::Cow;

use holdfast_client::repo::{Object, ObjectKey};
use serde::{Deserialize, Serialize, Serializer};

/// A report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    pub(crate) result: Option<String>,
    #[serde(serialize_with = "unless_forbidden")]
    pub(crate) text: String,
}

/// A text that has no encoded form.
pub(crate) const FORBIDDEN: &str = "forbidden";

fn unless_forbidden<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    if text == FORBIDDEN {
        return Err(serde::ser::Error::custom("forbidden"));
    }
    serializer.serialize_str(text)
}

impl Object for Report {
    fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "result" => self.result.as_deref().map(Cow::Borrowed),
            "text" => Some(Cow::Borrowed(&self.text)),
            _ => None,
        }
    }
}

impl Report {
    pub(crate) fn with_result(self, result: &str) -> Self {
        Self { result: Some(result.to_owned()), ..self }
    }
}

/// A report in a namespace.
pub(crate) fn report(namespace: &str, name: &str, text: &str) -> Report {
    Report { namespace: Some(namespace.to_owned()), ..cluster_report(name, text) }
}

/// A report in none.
pub(crate) fn cluster_report(name: &str, text: &str) -> Report {
    Report { name: name.to_owned(), namespace: None, result: None, text: text.to_owned() }
}

/// The key of a report in a namespace.
pub(crate) fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::namespaced(namespace, name).unwrap()
}
