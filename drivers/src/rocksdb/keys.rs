//! Keys that sort by topic, producer and sequence.

/// How keys are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyForm {
    /// `[topic u32][producer u32][sequence u64]`, big-endian.
    Binary,
    /// `topic:producer:sequence`, the original benchmark's form, padded so that it sorts.
    Text,
}

/// The key space of one producer in one topic.
#[derive(Debug, Clone)]
pub(super) struct KeySpace {
    form: KeyForm,
    /// What all keys start with; then the last key that was asked for.
    key: Vec<u8>,
    prefix_bytes: usize,
}

impl KeySpace {
    pub(super) fn new(form: KeyForm, topic: usize, name: &str, producer: u32) -> KeySpace {
        let key = match form {
            KeyForm::Binary => [(topic as u32).to_be_bytes(), producer.to_be_bytes()].concat(),
            KeyForm::Text => format!("{name}:{producer:04}:").into_bytes(),
        };
        KeySpace { form, prefix_bytes: key.len(), key }
    }

    /// The key of a record.
    pub(super) fn key(&mut self, sequence: u64) -> &[u8] {
        self.key.truncate(self.prefix_bytes);
        match self.form {
            KeyForm::Binary => self.key.extend_from_slice(&sequence.to_be_bytes()),
            KeyForm::Text => push_decimal(&mut self.key, sequence),
        }
        &self.key
    }

    /// The sequence of a key, if it is one of this space.
    pub(super) fn sequence(&self, key: &[u8]) -> Option<u64> {
        let digits = key.strip_prefix(&self.key[..self.prefix_bytes])?;
        match self.form {
            KeyForm::Binary => digits.try_into().ok().map(u64::from_be_bytes),
            KeyForm::Text => std::str::from_utf8(digits).ok()?.parse().ok(),
        }
    }
}

/// Twelve digits are enough for a trillion records.
const DIGITS: usize = 12;

fn push_decimal(key: &mut Vec<u8>, sequence: u64) {
    let mut digits = [b'0'; DIGITS];
    let mut rest = sequence;
    for digit in digits.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    key.extend_from_slice(&digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_and_read_back() {
        for form in [KeyForm::Binary, KeyForm::Text] {
            let mut space = KeySpace::new(form, 7, "topic-7", 3);
            let mut last = Vec::new();
            for sequence in [0, 1, 9, 10, 255, 256, 99_999_999] {
                let key = space.key(sequence).to_vec();
                assert!(key > last, "{form:?} {sequence}");
                assert_eq!(space.sequence(&key), Some(sequence));
                last = key;
            }
            let mut other = KeySpace::new(form, 7, "topic-7", 4);
            assert!(other.key(0) > last.as_slice());
            assert_eq!(space.sequence(other.key(0)), None);
        }
    }
}
