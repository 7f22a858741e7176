//! Which objects are wanted: requirements on their fields, each of three parts.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::item::Item;

/// Requirements of one selection.
pub const SELECTORS_MAX: usize = 16;
/// Values of one requirement.
pub const VALUES_MAX: usize = 256;

/// How a field's value relates to the values of a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// It is one of them. Not when there is no such field.
    In,
    /// It is none of them. Also when there is no such field.
    NotIn,
    /// There is such a field, be it empty. Takes no value.
    Exists,
    /// There is no such field. Takes no value.
    Missing,
    /// It begins with one of them. Not when there is no such field.
    Prefix,
    /// It is below the one value, by bytes. Not when there is no such field.
    Less,
    /// It is above the one value, by bytes. Not when there is no such field.
    Greater,
}

/// One requirement: an operator, a field, and values. A field that is missing is not one that is empty.
///
/// ```
/// use holdfast_client::store::Selector;
///
/// let selector = Selector::equals("spec.node", "n1");
/// assert!(selector.matches(Some("n1")));
/// assert!(!selector.matches(None));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector {
    /// The relation.
    pub operator: Operator,
    /// The name of the field, in the words of who reads fields.
    pub field: String,
    /// What it is compared with.
    pub values: Vec<String>,
}

impl Selector {
    /// A requirement of these three parts.
    pub fn new<S: Into<String>>(
        operator: Operator,
        field: impl Into<String>,
        values: impl IntoIterator<Item = S>,
    ) -> Self {
        Self { operator, field: field.into(), values: values.into_iter().map(Into::into).collect() }
    }

    /// The field is there and has this value.
    pub fn equals(field: impl Into<String>, value: impl Into<String>) -> Self {
        Self::new(Operator::In, field, [value])
    }

    /// Whether a field with this value, or a field that is missing, is what is wanted.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let Some(value) = value else {
            return matches!(self.operator, Operator::NotIn | Operator::Missing);
        };
        let mut values = self.values.iter().map(String::as_str);
        match self.operator {
            Operator::In => values.any(|wanted| wanted == value),
            Operator::NotIn => values.all(|wanted| wanted != value),
            Operator::Exists => true,
            Operator::Missing => false,
            Operator::Prefix => values.any(|wanted| value.starts_with(wanted)),
            Operator::Less => values.any(|wanted| value < wanted),
            Operator::Greater => values.any(|wanted| value > wanted),
        }
    }

    /// What is wrong with it, if anything is.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let wanted = match self.operator {
            Operator::Exists | Operator::Missing => 0..=0,
            Operator::Less | Operator::Greater => 1..=1,
            Operator::In | Operator::NotIn | Operator::Prefix => 1..=VALUES_MAX,
        };
        if self.field.is_empty() {
            return Some("a selector names no field");
        }
        (!wanted.contains(&self.values.len())).then_some("a selector has too few or too many values")
    }
}

/// Reads the fields of objects: the value of the field with this name, or `None` when the object has no such field.
pub type FieldOf<V> = dyn Fn(&str, &Item<V>) -> Option<Cow<'static, str>> + Send + Sync;

/// Selectors that all have to match, with what reads the fields.
pub struct Selection<V> {
    parts: Option<Parts<V>>,
}

struct Parts<V> {
    selectors: Arc<[Selector]>,
    field_of: Arc<FieldOf<V>>,
}

impl<V> Selection<V> {
    /// Everything.
    pub fn all() -> Self {
        Self { parts: None }
    }

    /// What matches all of the selectors, at most [`SELECTORS_MAX`]. `field_of` gives the value of a field of an object,
    /// and `None` when it has no such field.
    pub fn new(
        selectors: impl IntoIterator<Item = Selector>,
        field_of: impl Fn(&str, &Item<V>) -> Option<Cow<'static, str>> + Send + Sync + 'static,
    ) -> Self {
        let selectors: Arc<[Selector]> = selectors.into_iter().collect();
        Self { parts: Some(Parts { selectors, field_of: Arc::new(field_of) }) }
    }

    /// Whether the object is wanted.
    pub fn matches(&self, item: &Item<V>) -> bool {
        self.parts.as_ref().is_none_or(|Parts { selectors, field_of }| {
            selectors.iter().all(|selector| selector.matches(field_of(&selector.field, item).as_deref()))
        })
    }

    /// Whether every object is wanted, without a look at it.
    pub fn is_all(&self) -> bool {
        self.parts.as_ref().is_none_or(|parts| parts.selectors.is_empty())
    }

    /// What is wrong with it, if anything is.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let parts = self.parts.as_ref()?;
        if parts.selectors.len() > SELECTORS_MAX {
            return Some("a selection has too many selectors");
        }
        parts.selectors.iter().find_map(Selector::fault)
    }
}

impl<V> Clone for Selection<V> {
    fn clone(&self) -> Self {
        let parts = self.parts.as_ref().map(|Parts { selectors, field_of }| Parts {
            selectors: Arc::clone(selectors),
            field_of: Arc::clone(field_of),
        });
        Self { parts }
    }
}

impl<V> Default for Selection<V> {
    fn default() -> Self {
        Self::all()
    }
}

impl<V> fmt::Debug for Selection<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Selection").field(&self.parts.as_ref().map(|parts| &parts.selectors)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NS12, NS13: a field that is missing is not one that is empty, in every operator.
    #[test]
    fn ns12_a_missing_field_is_not_an_empty_one() {
        let cases: [(Operator, &[&str], bool, bool); 7] = [
            (Operator::In, &[""], false, true),
            (Operator::NotIn, &[""], true, false),
            (Operator::Exists, &[], false, true),
            (Operator::Missing, &[], true, false),
            (Operator::Prefix, &[""], false, true),
            (Operator::Less, &["a"], false, true),
            (Operator::Greater, &["a"], false, false),
        ];
        for (operator, values, missing, empty) in cases {
            let selector = Selector::new(operator, "f", values.iter().copied());
            assert_eq!(selector.fault(), None);
            assert_eq!(
                (selector.matches(None), selector.matches(Some(""))),
                (missing, empty),
                "{operator:?}"
            );
        }
    }

    #[test]
    fn a_selector_with_a_wrong_number_of_values_is_a_fault() {
        let faults = [
            Selector::new(Operator::Exists, "f", ["x"]),
            Selector::new(Operator::Less, "f", ["a", "b"]),
            Selector::new(Operator::In, "f", [""; 0]),
            Selector::new(Operator::In, "f", vec!["x"; VALUES_MAX + 1]),
            Selector::equals("", "x"),
        ];
        for selector in faults {
            assert!(selector.fault().is_some(), "{selector:?}");
        }
        let many = (0..=SELECTORS_MAX).map(|n| Selector::equals("f", n.to_string()));
        assert!(Selection::<()>::new(many, |_, _| None).fault().is_some());
    }
}
