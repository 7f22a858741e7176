//! Which fields of which method were there, in a request of a script, or in an answer to one; and which refusals.

use std::collections::BTreeSet;

use prost_reflect::{DynamicMessage, MethodDescriptor, ReflectMessage, Value};

/// One field, of a message that is part of a method's request or response.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    /// The full name of the method.
    pub method: String,
    /// The full name of the message that has the field.
    pub message: String,
    /// The field's name.
    pub field: String,
}

/// Fields that had a value, and refusals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// All of them.
    pub fields: BTreeSet<Field>,
    /// Codes and texts of refusals.
    pub errors: BTreeSet<(String, String)>,
}

impl Seen {
    /// Adds the fields that have a value in a request or response of the method, at any depth.
    pub fn add(&mut self, method: &MethodDescriptor, message: &DynamicMessage) {
        let descriptor = message.descriptor();
        for field in descriptor.fields().filter(|field| message.has_field(field)) {
            self.fields.insert(Field {
                method: method.full_name().to_owned(),
                message: descriptor.full_name().to_owned(),
                field: field.name().to_owned(),
            });
            match message.get_field(&field).as_ref() {
                Value::Message(inner) => self.add(method, inner),
                Value::List(items) => {
                    items.iter().filter_map(Value::as_message).for_each(|inner| self.add(method, inner));
                }
                _ => {}
            }
        }
    }
}
