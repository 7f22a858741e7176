//! What is collected from.

use std::cmp::Ordering;
use std::future::Future;

use futures::Stream;

use super::origin::{ObjectName, OriginObject, OriginVersion, SourceId};

/// Where the next page of a list begins, in the source's words.
pub type PageToken = String;

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePage {
    /// Some objects.
    pub objects: Vec<OriginObject>,
    /// Where the next page begins; none behind the last.
    pub next: Option<PageToken>,
    /// The version that the list shows, as far as is known with this page; that of the last one counts. A watch from it
    /// tells each change behind the list.
    pub version: OriginVersion,
}

/// What a source tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceEvent {
    /// An object is new, or another one.
    Put(OriginObject),
    /// An object is gone.
    Deleted {
        /// Its name.
        name: ObjectName,
        /// The version of the deletion, or that of what was deleted.
        origin: OriginVersion,
    },
    /// All up to this version was told.
    Progress(OriginVersion),
}

/// Why a source does not answer.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The version, or what is left of the list, is not known any more: all has to be listed anew.
    #[error("the source does not go back so far")]
    Expired,
    /// Something else, that passes.
    #[error("the source does not answer")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A system that objects are collected from, each with a version of the system's own.
pub trait Source: Send + Sync {
    /// The changes behind a version.
    type Watch: Stream<Item = Result<SourceEvent, SourceError>> + Send + Unpin;

    /// Its name: where its objects lie.
    fn id(&self) -> &SourceId;

    /// A page of its objects: the first one, or the one that a token says.
    ///
    /// Errors: [`SourceError`].
    fn list(&self, page: Option<PageToken>) -> impl Future<Output = Result<SourcePage, SourceError>> + Send;

    /// The changes behind a version, in order, for each object and, if it can be said so, for all of them. When it ends it
    /// is asked for again.
    ///
    /// Errors: [`SourceError`].
    fn watch(&self, from: &OriginVersion) -> impl Future<Output = Result<Self::Watch, SourceError>> + Send;

    /// How two of its versions stand to each other; `None` when they are just names. Then a direct write does not change
    /// what is there: that is left to the watch.
    fn compare(&self, a: &OriginVersion, b: &OriginVersion) -> Option<Ordering>;
}
