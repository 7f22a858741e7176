//! What a certificate says: two fields of it, read from DER (X.690) as RFC 5280, 4.1 has them.
//!
//! rustls judges certificates, and does not tell these. A crate that does brings a parser of everything with it; here whatever
//! is not as expected is no fact.

use rustls_pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
/// `[0] EXPLICIT`, which only the version has here.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// UTF8String, PrintableString, TeletexString and IA5String: all of them ASCII, or UTF-8.
const TEXTS: [u8; 4] = [0x0c, 0x13, 0x14, 0x16];

/// 2.5.4.3
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// The subject's common name; of several the last one, as in etcd.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let mut names = Fields::of(certificate)?.subject;
    let mut found = None;
    while let Some(mut relative) = names.take(SET) {
        while let Some(mut attribute) = relative.take(SEQUENCE) {
            if attribute.take(OBJECT_ID)?.0 == COMMON_NAME {
                let (tag, value) = attribute.next()?;
                found = TEXTS.contains(&tag).then(|| std::str::from_utf8(value).ok()).flatten();
            }
        }
    }
    found.map(str::to_owned)
}

/// When the first of these certificates expires, in seconds since 1970.
pub(crate) fn first_expiry<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> Option<i64> {
    certificates.into_iter().filter_map(|certificate| Fields::of(certificate)?.expires()).min()
}

/// What is read of a certificate.
struct Fields<'a> {
    validity: Der<'a>,
    subject: Der<'a>,
}

impl<'a> Fields<'a> {
    fn of(certificate: &'a [u8]) -> Option<Self> {
        let mut signed = Der(certificate).take(SEQUENCE)?.take(SEQUENCE)?;
        if signed.0.first() == Some(&VERSION) {
            signed.next()?;
        }
        // Serial number, algorithm, issuer.
        for _ in 0..3 {
            signed.next()?;
        }
        Some(Self { validity: signed.take(SEQUENCE)?, subject: signed.take(SEQUENCE)? })
    }

    fn expires(mut self) -> Option<i64> {
        self.validity.next()?;
        let (tag, text) = self.validity.next()?;
        let text = std::str::from_utf8(text).ok()?;
        match tag {
            // Two digits of the year, up to 2049.
            UTC_TIME => {
                let year = number(text, 0, 2)?;
                seconds(if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
            }
            GENERALIZED_TIME => seconds(number(text, 0, 4)?, text.get(4..)?),
            _ => None,
        }
    }
}

/// Values, one behind the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value's tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // The length has so many bytes; four are more than any certificate needs.
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next value, if it has this tag.
    fn take(&mut self, expected: u8) -> Option<Der<'a>> {
        let (tag, content) = self.next()?;
        (tag == expected).then_some(Der(content))
    }
}

fn number(text: &str, from: usize, digits: usize) -> Option<i64> {
    text.get(from..from + digits)?.parse().ok()
}

/// Since 1970, of a year and the `MMDDhhmmss` behind it.
fn seconds(year: i64, rest: &str) -> Option<i64> {
    let (month, day) = (number(rest, 0, 2)?, number(rest, 2, 2)?);
    let (hour, minute, second) = (number(rest, 4, 2)?, number(rest, 6, 2)?, number(rest, 8, 2)?);
    // Years that begin in March have their leap day at the end: H. Hinnant, "chrono-compatible low-level date algorithms".
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32, name: Option<&str>) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["host".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 3, 1);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "someone");
        if let Some(name) = name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn names_and_times_are_read() {
        for (year, at) in
            [(1999, 920_246_400), (2024, 1_709_251_200), (2049, 2_498_169_600), (2100, 4_107_542_400)]
        {
            let certificate = certificate(year, Some("alice \u{e9}"));
            assert_eq!(first_expiry([&certificate]), Some(at), "{year}");
            assert_eq!(common_name(&certificate).as_deref(), Some("alice \u{e9}"));
        }
        assert_eq!(common_name(&certificate(2100, None)), None);
        let (early, late) = (certificate(2024, None), certificate(2100, None));
        assert_eq!(first_expiry([&late, &early]), Some(1_709_251_200));
    }

    #[test]
    fn a_certificate_that_is_cut_has_no_facts_and_does_no_harm() {
        let whole = certificate(2100, Some("alice"));
        for length in 0..whole.len() {
            let cut = CertificateDer::from(whole[..length].to_vec());
            assert_eq!(common_name(&cut), None);
            assert_eq!(first_expiry([&cut]), None);
        }
        for at in 0..whole.len() {
            let mut changed = whole.to_vec();
            changed[at] = 0xff;
            let changed = CertificateDer::from(changed);
            drop((common_name(&changed), first_expiry([&changed])));
        }
    }
}
