//! What is written to standard output, in etcdctl's formats and shapes.
//!
//! A [`View`] is one answer in all formats that it has. [`answer`] has the answers that are a sentence for people,
//! [`pair`] keys and values, [`json`] messages as Go writes them, [`quote`] Go's quotes, [`mod@table`] tables and sizes.

pub(crate) mod answer;
pub(crate) mod duration;
pub(crate) mod json;
pub(crate) mod pair;
pub(crate) mod quote;
pub(crate) mod table;

use std::io::{ErrorKind, Write};

use crate::error::{CtlError, Done};
use crate::global::Global;

pub(crate) use table::{bytes, table};

/// What a shell has for a program that wrote to a pipe without a reader.
const BROKEN_PIPE: u8 = 141;

/// How something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Simple,
    /// One field a line.
    Fields,
    /// JSON, one object a line.
    Json,
    /// A table.
    Table,
    /// The message in protobuf.
    Protobuf,
    /// Values alone, with nothing between them.
    Raw,
}

impl Format {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Simple, "simple"),
        (Self::Fields, "fields"),
        (Self::Json, "json"),
        (Self::Table, "table"),
        (Self::Protobuf, "protobuf"),
        (Self::Raw, "raw"),
    ];

    /// By its name.
    pub(crate) fn named(name: &str) -> Result<Self, CtlError> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(format, _)| *format).ok_or_else(|| {
            CtlError::Feature(format!(
                "there is no format {name}: give simple, fields, json, table or protobuf"
            ))
        })
    }

    fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(format, _)| *format == self);
        found.map_or("", |(_, name)| name)
    }
}

/// What most answers have.
pub(crate) const NO_TABLE: &[Format] = &[Format::Simple, Format::Fields, Format::Json, Format::Protobuf];

/// How what is asked for about a list of endpoints can be written.
pub(crate) const NO_PROTOBUF: &[Format] = &[Format::Simple, Format::Fields, Format::Json, Format::Table];

/// Details of the simple format, and of JSON for members.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    /// Keys, values and ids in hexadecimal.
    pub(crate) hex: bool,
    /// Values without their keys.
    pub(crate) values_only: bool,
}

/// An answer, in all formats that it has.
pub(crate) trait View {
    /// Those.
    const FORMATS: &'static [Format];
    /// For people, whole lines.
    fn simple(&self, text: &mut Vec<u8>, look: Look);
    /// Whole lines.
    fn fields(&self, _text: &mut Vec<u8>) {}
    /// Without the end of the line.
    fn json(&self, look: Look) -> String;
    /// With the end of its last line.
    fn table(&self) -> String {
        String::new()
    }
    /// The message.
    fn protobuf(&self) -> Vec<u8> {
        Vec::new()
    }
    /// Values alone.
    fn raw(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// Standard output, and the format that is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    /// The one that is wanted.
    pub(crate) format: Format,
    /// With these details.
    pub(crate) look: Look,
}

impl Out {
    /// As the flags say.
    pub(crate) fn new(global: &Global) -> Result<Self, CtlError> {
        let format = Format::named(&global.write_out)?;
        Ok(Self { format, look: Look { hex: global.hex, values_only: false } })
    }

    /// Refuses a format that an answer does not have: before it is asked for, so that nothing is done for an answer that
    /// cannot be shown.
    pub(crate) fn has<V: View>(self) -> Done {
        if V::FORMATS.contains(&self.format) {
            return Ok(());
        }
        let formats: Vec<&str> = V::FORMATS.iter().map(|format| format.name()).collect();
        let wanted = self.format.name();
        Err(CtlError::Feature(format!("this command does not write {wanted}: it has {}", formats.join(", "))))
    }

    /// Writes an answer.
    pub(crate) fn show<V: View>(self, view: &V) -> Done {
        self.has::<V>()?;
        let mut text = Vec::new();
        match self.format {
            Format::Simple => view.simple(&mut text, self.look),
            Format::Fields => view.fields(&mut text),
            Format::Json => {
                text.extend(view.json(self.look).into_bytes());
                text.push(b'\n');
            }
            Format::Table => text.extend(view.table().into_bytes()),
            Format::Protobuf => text = view.protobuf(),
            Format::Raw => text = view.raw(),
        }
        write(&text)
    }
}

/// Writes to standard output at once: whoever reads may be waiting.
pub(crate) fn write(text: &[u8]) -> Done {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        // Whoever reads has had enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(CtlError::Exit(BROKEN_PIPE)),
        written => Ok(written?),
    }
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> Done {
    write(format!("{text}\n").as_bytes())
}

/// Tells people something that is no data.
pub(crate) fn tell(text: &str) {
    // Without a standard error the exit code alone has to say it.
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Adds a line to a text.
pub(crate) fn push(text: &mut Vec<u8>, line: &str) {
    text.extend_from_slice(line.as_bytes());
    text.push(b'\n');
}
