//! Bytes in double quotes as Go writes and reads them: what is no UTF-8 is `\xff`.

/// In double quotes, fit for a terminal.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push(&mut text, character);
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text.push('"');
    text
}

fn push(text: &mut String, character: char) {
    match character {
        '"' => text.push_str("\\\""),
        '\\' => text.push_str("\\\\"),
        '\u{7}' => text.push_str("\\a"),
        '\u{8}' => text.push_str("\\b"),
        '\u{c}' => text.push_str("\\f"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\u{b}' => text.push_str("\\v"),
        _ if is_printable(character) => text.push(character),
        _ if u32::from(character) < 0x80 => text.push_str(&format!("\\x{:02x}", u32::from(character))),
        _ if u32::from(character) < 0x1_0000 => text.push_str(&format!("\\u{:04x}", u32::from(character))),
        _ => text.push_str(&format!("\\U{:08x}", u32::from(character))),
    }
}

/// Letters, marks, numbers, punctuation, symbols, and the plain blank.
fn is_printable(character: char) -> bool {
    // Behind a letter, where the library leaves marks as they are.
    let escaped: String = format!("x{character}").escape_debug().collect();
    character == '\'' || escaped.chars().nth(1) == Some(character) && escaped.chars().count() == 2
}

/// What a text begins with in double quotes or backquotes, unquoted, and what is behind it.
///
/// Errors: when it does not begin so, or an escape is wrong.
pub(crate) fn unquoted(text: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    match text.first() {
        Some(b'"') => double(&text[1..]),
        Some(b'`') => {
            let end = text[1..].iter().position(|byte| *byte == b'`').ok_or("the closing ` is missing")?;
            Ok((text[1..=end].to_vec(), &text[end + 2..]))
        }
        _ => Err("a text in double quotes is expected".to_owned()),
    }
}

fn double(text: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    loop {
        let (first, behind) = rest.split_first().ok_or("the closing \" is missing")?;
        rest = behind;
        match first {
            b'"' => return Ok((bytes, rest)),
            b'\\' => rest = escape(rest, &mut bytes)?,
            b'\n' => return Err("the closing \" is missing".to_owned()),
            plain => bytes.push(*plain),
        }
    }
}

/// Reads what is behind a backslash.
fn escape<'a>(text: &'a [u8], bytes: &mut Vec<u8>) -> Result<&'a [u8], String> {
    let (kind, rest) = text.split_first().ok_or("an escape has no end")?;
    let simple = match kind {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'\\' | b'"' => *kind,
        b'x' => return number(rest, 2, 16, bytes),
        b'u' => return number(rest, 4, 16, bytes),
        b'U' => return number(rest, 8, 16, bytes),
        b'0'..=b'7' => return number(text, 3, 8, bytes),
        other => return Err(format!("there is no escape \\{}", char::from(*other))),
    };
    bytes.push(simple);
    Ok(rest)
}

/// A byte of two or three digits, or a character of more.
fn number<'a>(text: &'a [u8], digits: usize, radix: u32, bytes: &mut Vec<u8>) -> Result<&'a [u8], String> {
    let wrong = || "an escape has a wrong number".to_owned();
    let (number, rest) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number = std::str::from_utf8(number).map_err(|_| wrong())?;
    let value = u32::from_str_radix(number, radix).map_err(|_| wrong())?;
    if digits <= 3 {
        bytes.push(u8::try_from(value).map_err(|_| wrong())?);
    } else {
        let character = char::from_u32(value).ok_or_else(wrong)?;
        bytes.extend(character.encode_utf8(&mut [0; 4]).bytes());
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_quoted_as_go_does() {
        for (bytes, text) in [
            (&b"a b"[..], r#""a b""#),
            (b"it's \"x\"\\", r#""it's \"x\"\\""#),
            (b"\x00\x07\n\t\x7f", r#""\x00\a\n\t\x7f""#),
            (b"\xff\xc3", r#""\xff\xc3""#),
            (
                "é\u{a0}\u{301}\u{feff}\u{1f600}\u{e0001}".as_bytes(),
                "\"é\\u00a0\u{301}\\ufeff😀\\U000e0001\"",
            ),
        ] {
            assert_eq!(quoted(bytes), text);
        }
    }

    #[test]
    fn what_is_quoted_is_read_back() {
        for bytes in [&b"plain"[..], b"\x00\xff\"\\\n", "é\u{2028}".as_bytes(), b""] {
            let text = format!("{} rest", quoted(bytes));
            assert_eq!(unquoted(text.as_bytes()), Ok((bytes.to_vec(), &b" rest"[..])));
        }
        assert_eq!(unquoted(br#""\101\u00e9""#).unwrap().0, "Aé".as_bytes());
        assert_eq!(unquoted(b"`a\\n`").unwrap().0, b"a\\n");
        for wrong in [&b"a"[..], b"\"a", b"\"\\q\"", b"\"\\x1\"", b"\"\\777\""] {
            assert!(unquoted(wrong).is_err(), "{wrong:?}");
        }
    }
}
