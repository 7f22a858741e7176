//! A grid of styled characters: what is drawn on, compared in tests, and sent to the terminal.

use std::fmt::Write;

/// How many columns and rows there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// A place; counted from the top left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub column: usize,
    pub row: usize,
}

/// How a character looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Style {
    #[default]
    Plain,
    Dim,
    Bold,
    Good,
    Warn,
    Bad,
    Accent,
    /// The row that is selected.
    Selected,
}

impl Style {
    /// The parameters of its escape sequence: the terminal's own sixteen colours, which its user has chosen.
    fn parameters(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Dim => "0;90",
            Self::Bold => "0;1",
            Self::Good => "0;1;32",
            Self::Warn => "0;1;33",
            Self::Bad => "0;1;31",
            Self::Accent => "0;36",
            Self::Selected => "0;1;7",
        }
    }
}

/// The grid. Everything outside of it is cut off.
#[derive(Debug, Clone)]
pub(super) struct Canvas {
    size: Size,
    cells: Vec<(char, Style)>,
}

impl Canvas {
    /// An empty one.
    pub(super) fn new(size: Size) -> Self {
        Self { size, cells: vec![(' ', Style::Plain); size.columns * size.rows] }
    }

    pub(super) fn size(&self) -> Size {
        self.size
    }

    /// Writes text from left to right; each character counts one column. Returns the column behind it.
    pub(super) fn text(&mut self, at: At, style: Style, text: &str) -> usize {
        let mut column = at.column;
        for character in text.chars() {
            if column < self.size.columns && at.row < self.size.rows {
                self.cells[at.row * self.size.columns + column] = (character, style);
            }
            column += 1;
        }
        column
    }

    /// Writes text that ends before this column.
    pub(super) fn text_before(&mut self, end: At, style: Style, text: &str) {
        let column = end.column.saturating_sub(text.chars().count());
        self.text(At { column, row: end.row }, style, text);
    }

    /// Gives a whole row a style.
    pub(super) fn restyle(&mut self, row: usize, style: Style) {
        let columns = self.size.columns;
        if let Some(cells) = self.cells.get_mut(row * columns..(row + 1) * columns) {
            cells.iter_mut().for_each(|cell| cell.1 = style);
        }
    }

    fn rows(&self) -> impl Iterator<Item = &[(char, Style)]> {
        self.cells.chunks(self.size.columns.max(1))
    }

    /// The characters alone, without blanks at the ends of lines.
    #[cfg(test)]
    pub(super) fn to_text(&self) -> String {
        let row = |cells: &[(char, Style)]| cells.iter().map(|cell| cell.0).collect::<String>();
        self.rows().map(|cells| format!("{}\n", row(cells).trim_end())).collect()
    }

    /// The whole picture for a terminal, over whatever was there.
    pub(super) fn to_ansi(&self) -> String {
        let mut out = String::with_capacity(self.cells.len() * 2);
        for (row, cells) in self.rows().enumerate() {
            let mut current = None;
            write!(out, "\x1b[{};1H", row + 1).expect("writing to a string succeeds");
            for (character, style) in cells {
                if current != Some(*style) {
                    write!(out, "\x1b[{}m", style.parameters()).expect("writing to a string succeeds");
                    current = Some(*style);
                }
                out.push(*character);
            }
        }
        out.push_str("\x1b[0m");
        out
    }
}
