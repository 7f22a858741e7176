//! Lines of standard input as words, divided as etcdctl divides them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::error::CtlError;
use crate::output::quote::unquoted;

/// The words of a line: between blanks, or in double quotes with escapes, or in single quotes. A quote without an end is
/// left out.
///
/// Errors: a wrong escape.
pub(crate) fn words(line: &[u8]) -> Result<Vec<OsString>, CtlError> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.first() {
        let taken = match first {
            b'"' => double_end(rest),
            b'\'' => rest[1..].iter().position(|byte| *byte == b'\'').map_or(0, |at| at + 2),
            blank if blank.is_ascii_whitespace() => 0,
            _ => rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len()),
        };
        let (word, behind) = rest.split_at(taken.max(1));
        rest = behind;
        if taken == 0 {
            continue;
        }
        words.push(OsString::from_vec(match first {
            b'"' => unquoted(word).map_err(CtlError::Input)?.0,
            b'\'' => word[1..word.len() - 1].to_vec(),
            _ => word.to_vec(),
        }));
    }
    Ok(words)
}

/// How many bytes the text in double quotes takes, both quotes included; 0 when it has no end.
fn double_end(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_divided_as_etcdctl_divides_them() {
        for (line, expected) in [
            ("put a b", &["put", "a", "b"][..]),
            ("  put \"a b\"  'c \\n d' ", &["put", "a b", "c \\n d"]),
            (r#"put "a\"b\x41\n" c"#, &["put", "a\"bA\n", "c"]),
            (r#"get a"b c"#, &["get", "a\"b", "c"]),
            (r#"get "a b"#, &["get", "a", "b"]),
            ("put a \"\" ''", &["put", "a", "", ""]),
            ("", &[]),
        ] {
            let expected: Vec<OsString> = expected.iter().map(Into::into).collect();
            assert_eq!(words(line.as_bytes()).unwrap(), expected, "{line}");
        }
        assert!(words(br#"put "\q""#).is_err());
    }
}
