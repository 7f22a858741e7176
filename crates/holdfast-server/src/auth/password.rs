//! Passwords: bcrypt, in the text form that etcd and others store: `$2a$<cost>$<salt and hash>`.
//!
//! The salt comes from the caller: nothing here has a source of randomness. As everywhere with bcrypt, what is longer
//! than 72 bytes counts up to there.

/// Bytes of a password that count.
const COUNTED_BYTES: usize = 72;
const SALT_BYTES: usize = 16;
const SALT_CHARS: usize = 22;
/// Of the 24 bytes that come out all implementations drop the last one.
const HASH_BYTES: usize = 23;

/// The costs that bcrypt knows; etcd's bounds.
pub const COSTS: std::ops::RangeInclusive<u32> = 4..=31;

/// What a password is stored as. Takes a time that doubles with each step of `cost`: to be called where blocking is fine.
pub fn hash(password: &str, cost: u32, salt: [u8; SALT_BYTES]) -> String {
    let hash = raw(password, cost, salt);
    format!("$2a${cost:02}${}{}", encode(&salt), encode(&hash[..HASH_BYTES]))
}

/// True when the password is the one that was hashed. False also for what is no hash. Takes as long as [`hash`] did.
pub fn fits(password: &str, stored: &str) -> bool {
    let Some((cost, salt, expected)) = parse(stored) else { return false };
    let hash = raw(password, cost, salt);
    // All bytes are looked at, whatever the first ones say.
    hash[..HASH_BYTES].iter().zip(expected).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}

fn raw(password: &str, cost: u32, salt: [u8; SALT_BYTES]) -> [u8; 24] {
    let mut counted = password.as_bytes().to_vec();
    counted.push(0);
    counted.truncate(COUNTED_BYTES);
    bcrypt::bcrypt(cost, salt, &counted)
}

fn parse(stored: &str) -> Option<(u32, [u8; SALT_BYTES], [u8; HASH_BYTES])> {
    let mut parts = stored.split('$');
    let ("", "2a" | "2b" | "2y", cost, text, None) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next())
    else {
        return None;
    };
    let cost = cost.parse().ok().filter(|cost| COSTS.contains(cost))?;
    let (salt, hash) = text.split_at_checked(SALT_CHARS)?;
    Some((cost, decode(salt)?, decode(hash)?))
}

/// bcrypt's own base 64.
const ALPHABET: &[u8; 64] = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_usize, |word, byte| word << 8 | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(char::from(ALPHABET[word >> (18 - 6 * at) & 63]));
        }
    }
    text
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (mut word, mut bits, mut at) = (0_usize, 0, 0);
    for byte in text.bytes() {
        word = (word << 6 | ALPHABET.iter().position(|known| *known == byte)?) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            *bytes.get_mut(at)? = u8::try_from(word >> bits & 0xff).ok()?;
            at += 1;
        }
    }
    (at == N && bits < 6).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_hash_and_no_other() {
        let stored = hash("pw", 4, [7; 16]);
        assert_eq!(stored.len(), 60);
        assert!(fits("pw", &stored) && !fits("pW", &stored) && !fits("", &stored));
        assert_ne!(stored, hash("pw", 4, [8; 16]));
        let empty = hash("", 4, [7; 16]);
        assert!(fits("", &empty) && !fits("x", &empty));
    }

    /// A vector of OpenBSD's, as others carry it: hashes that were made elsewhere are understood.
    #[test]
    fn hashes_are_those_of_others() {
        let stored = "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.";
        assert!(fits("", stored));
        assert!(fits("a", "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"));
    }

    #[test]
    fn what_is_no_hash_fits_nothing() {
        let good = hash("pw", 4, [7; 16]);
        for bad in [
            "",
            "pw",
            "$2a$04$",
            &good[..59],
            &good.replace("$04$", "$03$"),
            &good.replace("2a", "2x"),
            &format!("{good}x"),
        ] {
            assert!(!fits("pw", bad), "{bad}");
        }
    }
}
