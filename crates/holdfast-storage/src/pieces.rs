//! Long lists, piece by piece: each piece is a read of its own, and nothing is held between two of them.

use bytes::Bytes;
use holdfast_mvcc::command::ReadAt;
use holdfast_mvcc::types::{KeyRange, Revision};
use holdfast_mvcc::{Piece, PieceMax};

use crate::error::ReadError;
use crate::pipeline::shared::Shared;
use crate::read::{Entered, Source, enter, failed};
use crate::view::Keeping;

/// What is wanted of a long list next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceRequest {
    /// The keys of the whole list.
    pub range: KeyRange,
    /// As of when; for all pieces but the first, the revision that the first one was read at.
    pub at: ReadAt,
    /// The keys behind this one.
    pub after: Option<Bytes>,
}

/// A piece, or a count, and as of when it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPiece<T> {
    /// What was read.
    pub found: T,
    /// The revision it was read at.
    pub at: Revision,
    /// The newest revision that was visible when the read began.
    pub newest: Revision,
}

/// The next pairs of a list.
pub(crate) fn piece(
    shared: &Shared,
    request: &PieceRequest,
    max: &PieceMax,
) -> Result<ReadPiece<Piece>, ReadError> {
    read(shared, request, |source, at| {
        holdfast_mvcc::piece(source, &request.range, at, request.after.as_ref(), max)
    })
}

/// How many keys of a list are left.
pub(crate) fn count(shared: &Shared, request: &PieceRequest) -> Result<ReadPiece<u64>, ReadError> {
    read(shared, request, |source, at| {
        holdfast_mvcc::count(source, &request.range, at, request.after.as_ref())
    })
}

fn read<T>(
    shared: &Shared,
    request: &PieceRequest,
    read: impl FnOnce(&mut Source<'_>, Revision) -> Result<T, crate::error::StoreError>,
) -> Result<ReadPiece<T>, ReadError> {
    let Entered { view, pin } = enter(shared, |gate| gate.enter(request.at))?;
    let found = read(&mut Source::new(&view, shared, Keeping::Pairs), pin.at);
    let found = found.map_err(|e| failed(shared, &view, &e))?;
    Ok(ReadPiece { found, at: pin.at, newest: pin.window.newest })
}
