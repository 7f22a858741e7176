//! Fills the placeholders of a script in: `@head`, `@head-3`, `@compacted+1`.
//!
//! A script that counts from where the store is keeps its meaning when calls above are taken away, which is what
//! shrinking does.

use anyhow::Context;

/// Where a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revisions {
    /// The newest revision that an answer has named.
    pub head: i64,
    /// The revision of the last compaction that was accepted; zero for none.
    pub compacted: i64,
}

impl Default for Revisions {
    /// A new store.
    fn default() -> Self {
        Self { head: 1, compacted: 0 }
    }
}

/// Writes numbers in place of the placeholders. None lies below zero.
pub fn fill_in(text: &str, revisions: Revisions) -> anyhow::Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        out.push_str(&rest[..at]);
        let word = &rest[at + 1..];
        let named = [("head", revisions.head), ("compacted", revisions.compacted)];
        let Some((base, after)) =
            named.iter().find_map(|(name, base)| Some((base, word.strip_prefix(name)?)))
        else {
            out.push('@');
            rest = word;
            continue;
        };
        let (offset, after) = offset(after)?;
        out.push_str(&(base + offset).max(0).to_string());
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// A sign with digits, if the text begins so, and what follows.
fn offset(text: &str) -> anyhow::Result<(i64, &str)> {
    if !text.starts_with(['+', '-']) {
        return Ok((0, text));
    }
    let end = text[1..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |end| end + 1);
    let number = text[..end].parse().with_context(|| format!("no number: {}", &text[..end]))?;
    Ok((number, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_where_placeholders_stood() {
        let revisions = Revisions { head: 12, compacted: 4 };
        let filled =
            fill_in("a: @head b: @head-3}c: @compacted+1 d: @head-30 e: \"x@y\"", revisions).unwrap();
        assert_eq!(filled, "a: 12 b: 9}c: 5 d: 0 e: \"x@y\"");
        assert!(fill_in("@head+", revisions).is_err());
    }
}
