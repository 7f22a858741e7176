//! Keys, from the bytes that a terminal sends.

/// A key that means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    Letter(char),
    /// Escape, alone.
    Escape,
    /// Ctrl-C.
    Interrupt,
}

/// Reads what came at once. Sequences of keys that mean nothing here are left out whole.
pub(super) fn read(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let [first, behind @ ..] = rest {
        rest = behind;
        match first {
            0x03 => keys.push(Key::Interrupt),
            0x1b => match behind {
                [b'[' | b'O', sequence @ ..] => {
                    let end = sequence.iter().position(|byte| (0x40..=0x7e).contains(byte));
                    let Some(end) = end else { break };
                    match sequence[..=end] {
                        [b'A'] => keys.push(Key::Up),
                        [b'B'] => keys.push(Key::Down),
                        _ => {}
                    }
                    rest = &sequence[end + 1..];
                }
                _ => keys.push(Key::Escape),
            },
            byte if byte.is_ascii_graphic() => keys.push(Key::Letter(char::from(*byte))),
            _ => {}
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_arrows_and_ctrl_c_are_read_and_other_sequences_left_out() {
        assert_eq!(read(b"kq"), [Key::Letter('k'), Key::Letter('q')]);
        assert_eq!(read(b"\x1b[A\x1b[Bk"), [Key::Up, Key::Down, Key::Letter('k')]);
        assert_eq!(read(b"\x1bOA"), [Key::Up]);
        assert_eq!(read(b"\x1b[15~\x1b[1;5Cp"), [Key::Letter('p')]);
        assert_eq!(read(b"\x1b"), [Key::Escape]);
        assert_eq!(read(b"\x03\x1a\r "), [Key::Interrupt]);
        assert_eq!(read(b"\x1b[1;5"), []);
        assert_eq!(read("ä".as_bytes()), []);
    }
}
