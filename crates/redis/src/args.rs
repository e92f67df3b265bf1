//! Arguments of a script, as Redis takes them: bytes. Must not know what they mean.

use std::{io::Write as _, time::Duration};

/// A list of arguments in one buffer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Args {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// A century: what is longer is as good as for ever, and stays exact in a double, with the time added.
const LONGEST: u64 = 100 * 365 * 24 * 60 * 60 * 1_000_000;

/// A duration as scripts take it: microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(LONGEST)
}

impl Args {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn bytes(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.bytes.extend_from_slice(bytes.as_ref());
        self.ends.push(self.bytes.len());
        self
    }

    /// Empty if there is none.
    pub(crate) fn maybe(self, bytes: Option<impl AsRef<[u8]>>) -> Self {
        match bytes {
            Some(bytes) => self.bytes(bytes),
            None => self.bytes([]),
        }
    }

    /// Whatever shows itself as text: numbers, ids, names.
    pub(crate) fn text(mut self, value: impl std::fmt::Display) -> Self {
        // Writing to memory does not fail.
        let _ = write!(self.bytes, "{value}");
        self.ends.push(self.bytes.len());
        self
    }

    pub(crate) fn duration(self, duration: Duration) -> Self {
        self.text(micros(duration))
    }

    pub(crate) fn append(&mut self, other: &Self) {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| before + end));
    }

    /// How many bytes they are.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_out_as_they_went_in() {
        let mut args = Args::new().bytes(b"a\0b").maybe(None::<&str>).text(7);
        args.append(&Args::new().duration(Duration::from_millis(2)).bytes(""));
        assert_eq!(args.iter().collect::<Vec<_>>(), [&b"a\0b"[..], b"", b"7", b"2000", b""]);
        assert_eq!((args.len(), args.size()), (5, 8));
    }

    #[test]
    fn for_ever_is_a_century() {
        let now = 1_900_000_000_000_000;
        assert!(micros(Duration::MAX) * 2 + now < 1 << 53);
    }
}
