//! What the text of a flag means.

use std::fmt;
use std::time::Duration as Time;

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// true or false; without a value it means true.
    Switch,
    /// A whole number, also below zero.
    Number,
    /// A whole number from 0.
    Count,
    /// Bytes, or a number with KiB, MiB or GiB.
    Bytes,
    /// Milliseconds, or a duration with a unit.
    Millis,
    /// A duration with a unit.
    Duration,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any text.
    Text,
}

/// A value that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Of a switch.
    Switch(bool),
    /// Of a number.
    Number(i64),
    /// Of a count or of bytes.
    Count(u64),
    /// Of a duration.
    Time(Time),
    /// Of a choice or a text.
    Text(String),
}

impl Kind {
    /// Reads a text.
    ///
    /// Errors: what to write instead.
    pub fn read(self, text: &str) -> Result<Value, String> {
        let advice = || format!("write {self}");
        match self {
            Self::Switch => switch(text).map(Value::Switch).ok_or_else(advice),
            Self::Number => text.parse().map(Value::Number).map_err(|_| advice()),
            Self::Count => text.parse().map(Value::Count).map_err(|_| advice()),
            Self::Bytes => bytes(text).map(Value::Count).ok_or_else(advice),
            Self::Millis => match text.parse() {
                Ok(milliseconds) => Ok(Value::Time(Time::from_millis(milliseconds))),
                Err(_) => humantime::parse_duration(text).map(Value::Time).map_err(|_| advice()),
            },
            Self::Duration => duration(text).map(Value::Time),
            Self::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Self::Choice(_) => Err(advice()),
            Self::Text => Ok(Value::Text(text.to_owned())),
        }
    }

    /// What stands for the value in help texts.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Switch => "BOOL",
            Self::Number | Self::Count => "N",
            Self::Bytes => "BYTES",
            Self::Millis => "MS",
            Self::Duration => "DURATION",
            Self::Choice(_) => "WORD",
            Self::Text => "TEXT",
        }
    }
}

/// What to write.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch => f.write_str("true or false"),
            Self::Number => f.write_str("a whole number"),
            Self::Count => f.write_str("a whole number, 0 or more"),
            Self::Bytes => f.write_str("bytes, or a number with KiB, MiB or GiB"),
            Self::Millis => f.write_str("milliseconds, e.g. 1000, or 1s"),
            Self::Duration => f.write_str("a duration, e.g. 500ms, 20s or 2h"),
            Self::Choice(words) => f.write_str(&words.join(", ")),
            Self::Text => f.write_str("text"),
        }
    }
}

/// As Go reads a bool.
fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A duration with a unit, or 0.
///
/// Errors: what to write instead.
pub fn duration(text: &str) -> Result<Time, String> {
    if text == "0" {
        return Ok(Time::ZERO);
    }
    humantime::parse_duration(text).map_err(|_| format!("write {}", Kind::Duration))
}

/// A number of bytes, or one with KiB, MiB, GiB (also K, M, G; all powers of 1024).
fn bytes(text: &str) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}
