//! Where an import stands: one key of the target.
//!
//! It is written in the same transaction as the data that it tells of: it is never ahead of them nor behind, whatever is
//! killed when.

use anyhow::{Context, bail};
use bytes::Bytes;
use holdfast_proto::etcdserverpb as pb;
use serde_json::{Value, json};

use super::fault::Fault;
use super::ranges::{RESERVED, Ranges};
use super::remote::Remote;

/// The form of the value.
const FORMAT: u64 = 1;

/// Where an import stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    /// The source.
    pub(crate) cluster_id: u64,
    /// The source's revision that the target has; 0 while it has none whole: a copy is not at its end.
    pub(crate) revision: i64,
    /// What is imported; empty for everything.
    pub(crate) prefixes: Vec<String>,
}

impl Position {
    /// The key.
    pub(crate) fn key() -> Bytes {
        Bytes::from(format!("{RESERVED}position"))
    }

    /// The key that stays when an import is finished: one that is started again by mistake would undo what clients have written
    /// since.
    pub(crate) fn finished_key() -> Bytes {
        Bytes::from(format!("{RESERVED}finished"))
    }

    /// The same at another revision.
    pub(crate) fn at(&self, revision: i64) -> Self {
        Self { revision, ..self.clone() }
    }

    /// JSON, so that an operator can read it.
    pub(crate) fn encode(&self) -> Bytes {
        let Self { cluster_id, revision, prefixes } = self;
        // An id has more digits than some readers of JSON keep.
        let value = json!({
            "format": FORMAT,
            "source_cluster": format!("{cluster_id:x}"),
            "revision": revision,
            "prefixes": prefixes,
        });
        value.to_string().into()
    }

    fn decode(value: &[u8]) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_slice(value)?;
        if value["format"] != FORMAT {
            bail!("its format is {}, and this program knows {FORMAT}", value["format"]);
        }
        let cluster = value["source_cluster"].as_str().context("it names no source_cluster")?;
        let prefixes = value["prefixes"].as_array().context("it has no prefixes")?;
        let prefixes = prefixes.iter().map(|prefix| Some(prefix.as_str()?.to_owned())).collect::<Option<_>>();
        Ok(Self {
            cluster_id: u64::from_str_radix(cluster, 16)?,
            revision: value["revision"].as_i64().context("it has no revision")?,
            prefixes: prefixes.context("a prefix is no text")?,
        })
    }

    /// What the target says.
    pub(crate) async fn read(target: &Remote) -> Result<Option<Self>, Fault> {
        Self::read_at(target, Self::key()).await
    }

    /// Where an import stood that was finished.
    pub(crate) async fn read_finished(target: &Remote) -> Result<Option<Self>, Fault> {
        Self::read_at(target, Self::finished_key()).await
    }

    async fn read_at(target: &Remote, key: Bytes) -> Result<Option<Self>, Fault> {
        let answer = target.range(pb::RangeRequest { key: key.clone(), ..Default::default() }).await?;
        let Some(kv) = answer.kvs.first() else { return Ok(None) };
        let position = Self::decode(&kv.value).with_context(|| {
            let key = key.escape_ascii();
            format!("the target's key {key} is not one of an import; delete it if nothing imports there")
        });
        position.map(Some).map_err(Fault::Refused)
    }

    /// Whether an import of these keys from this source may go on here.
    pub(crate) fn check(&self, cluster_id: u64, ranges: &Ranges) -> anyhow::Result<()> {
        let hint = format!(
            "to begin anew, delete the key {RESERVED}position on the target and give --overwrite; what is there then counts as its own"
        );
        if self.cluster_id != cluster_id {
            bail!(
                "the target belongs to an import from cluster {:x}, and the source is cluster {cluster_id:x}; {hint}",
                self.cluster_id
            );
        }
        if self.prefixes != ranges.prefixes() {
            let told = |prefixes: &[String]| match prefixes {
                [] => "everything".to_owned(),
                some => some.join(", "),
            };
            bail!(
                "the target belongs to an import of {}, and this one is of {}; {hint}",
                told(&self.prefixes),
                told(ranges.prefixes())
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let position =
            Position { cluster_id: u64::MAX - 5, revision: 77, prefixes: vec!["a/".into(), "b \"c".into()] };
        assert_eq!(Position::decode(&position.encode()).unwrap(), position);
        let text = String::from_utf8(position.at(8).encode().to_vec()).unwrap();
        assert!(text.contains("\"revision\":8") && text.contains("\"fffffffffffffffa\""), "{text}");
        for wrong in ["", "{}", r#"{"format":2}"#, r#"{"format":1,"source_cluster":"x","prefixes":[]}"#] {
            assert!(Position::decode(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_import_goes_on_from_its_own_source_with_its_own_keys() {
        let ranges = Ranges::new(&["a/".to_owned()]).unwrap();
        let position = Position { cluster_id: 5, revision: 7, prefixes: vec!["a/".into()] };
        position.check(5, &ranges).unwrap();
        assert!(position.check(6, &ranges).unwrap_err().to_string().contains("from cluster 5"));
        let everything = Ranges::new(&[]).unwrap();
        let said = position.check(5, &everything).unwrap_err().to_string();
        assert!(said.contains("an import of a/, and this one is of everything"), "{said}");
    }
}
