//! Between objects and bytes.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// Why an object has no bytes, or bytes are no object. Those of the codecs here never quote the object.
#[derive(Debug, thiserror::Error)]
#[error("{format}: {source}")]
pub struct CodecError {
    /// Which format: `json`, `protobuf`.
    pub format: &'static str,
    /// What is wrong, in the words of who reads the format.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl CodecError {
    /// An error of a format.
    pub fn new(format: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { format, source: source.into() }
    }
}

/// A way to write objects down. What was encoded decodes to an equal object.
pub trait Codec<T>: Send + Sync + 'static {
    /// The object's bytes.
    ///
    /// Errors: it has none.
    fn encode(&self, object: &T) -> Result<Bytes, CodecError>;

    /// The object that these bytes are.
    ///
    /// Errors: they are none.
    fn decode(&self, bytes: &Bytes) -> Result<T, CodecError>;
}

/// JSON, through serde. Readable by everybody, and the usual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, object: &T) -> Result<Bytes, CodecError> {
        serde_json::to_vec(object)
            .map(Bytes::from)
            .map_err(|error| CodecError::new("json", JsonError::of(&error)))
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, CodecError> {
        serde_json::from_slice(bytes).map_err(|error| CodecError::new("json", JsonError::of(&error)))
    }
}

/// Where something is no JSON, or another than was expected. The parser's own words quote what is there, which may be
/// secret, so they are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at line {line}, column {column}")]
pub(crate) struct JsonError {
    what: &'static str,
    line: usize,
    column: usize,
}

impl JsonError {
    pub(crate) fn of(error: &serde_json::Error) -> Self {
        let what = match error.classify() {
            Category::Io => "it cannot be read or written",
            Category::Syntax => "it is no JSON",
            Category::Data => "it is JSON of another shape",
            Category::Eof => "it is cut",
        };
        Self { what, line: error.line(), column: error.column() }
    }
}

/// Protocol buffers, for messages that prost made. No bytes at all are a message, too: the empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prost;

impl<T: prost::Message + Default> Codec<T> for Prost {
    fn encode(&self, object: &T) -> Result<Bytes, CodecError> {
        Ok(Bytes::from(object.encode_to_vec()))
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, CodecError> {
        T::decode(bytes.clone()).map_err(|error| CodecError::new("protobuf", error))
    }
}

/// Bytes that are what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Raw;

impl Codec<Bytes> for Raw {
    fn encode(&self, object: &Bytes) -> Result<Bytes, CodecError> {
        Ok(object.clone())
    }

    fn decode(&self, bytes: &Bytes) -> Result<Bytes, CodecError> {
        Ok(bytes.clone())
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::mvccpb::KeyValue;

    use super::*;

    /// AW7: JSON, protocol buffers and raw bytes.
    #[test]
    fn aw7_what_was_encoded_decodes_to_the_same() {
        let text = vec!["a".to_owned(), "ü".to_owned()];
        assert_eq!(Codec::<Vec<String>>::decode(&Json, &Json.encode(&text).unwrap()).unwrap(), text);
        let message = KeyValue { key: "k".into(), version: 7, ..Default::default() };
        assert_eq!(Codec::<KeyValue>::decode(&Prost, &Prost.encode(&message).unwrap()).unwrap(), message);
        let raw = Bytes::from_static(b"\0\xff");
        assert_eq!(Raw.decode(&Raw.encode(&raw).unwrap()).unwrap(), raw);
    }

    #[test]
    fn what_is_no_object_is_an_error_that_names_the_format_and_quotes_nothing() {
        let error = Codec::<u32>::decode(&Json, &Bytes::from_static(b"{")).unwrap_err();
        assert!(error.to_string().starts_with("json: "), "{error}");
        let of_words =
            Codec::<Vec<u32>>::decode(&Json, &Bytes::from_static(b"[1,\n\"pass-word\"]")).unwrap_err();
        let told = format!("{of_words} {of_words:?}");
        assert!(told.contains("another shape at line 2") && !told.contains("pass-word"), "{told}");
        let error = Codec::<KeyValue>::decode(&Prost, &Bytes::from_static(b"\xff")).unwrap_err();
        assert!(error.to_string().starts_with("protobuf: "), "{error}");
    }
}
