//! Names of topics and of reader groups: `[A-Za-z0-9._-]{1,249}`.

/// Longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 249;

/// One entry a byte value: may it stand in a name? A table, because every `PUT` asks.
static NAME_BYTE: [bool; 256] = name_bytes();

const fn name_bytes() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = byte as u8;
        table[byte] = value.is_ascii_alphanumeric() || matches!(value, b'.' | b'_' | b'-');
        byte += 1;
    }
    table
}

/// Is this a name that a topic or a group can have?
#[inline]
pub fn valid_name(name: &[u8]) -> bool {
    name_end(name) == name.len() && (1..=MAX_NAME_BYTES).contains(&name.len())
}

/// The name as text, if it is a valid one.
pub(super) fn as_name(name: &[u8]) -> Option<&str> {
    let (name, rest) = split_name(name)?;
    rest.is_empty().then_some(name)
}

/// The name at the front of `bytes`, which ends at the first byte that may not stand in one, and
/// what follows it. One scan, because every `PUT` asks.
#[inline]
pub(super) fn split_name(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (name, rest) = bytes.split_at(name_end(bytes));
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return None;
    }
    std::str::from_utf8(name).ok().map(|name| (name, rest))
}

/// Where the run of bytes that may stand in a name ends.
#[inline]
fn name_end(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| !NAME_BYTE[usize::from(byte)]).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_protocol_says() {
        for good in ["a", "logs", "Logs-2026.11_x", &"x".repeat(249)] {
            assert!(valid_name(good.as_bytes()), "{good}");
        }
        for bad in ["", "a b", "a/b", "a\n", "ä", "a=b", &"x".repeat(250)] {
            assert!(!valid_name(bad.as_bytes()), "{bad}");
        }
    }
}
