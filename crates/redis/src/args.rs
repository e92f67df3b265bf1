//! Arguments of a script as bytes. Knows nothing of their meaning.

use std::{io::Write as _, time::Duration};

/// A list of arguments in one buffer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Args {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// A century in microseconds. Longer durations are cut to it, so that now plus a duration stays exact in a double.
const LONGEST: u64 = 100 * 365 * 24 * 60 * 60 * 1_000_000;

/// A duration in microseconds, at most a century.
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

    /// Appends the bytes, or an empty argument for `None`.
    pub(crate) fn maybe(self, bytes: Option<impl AsRef<[u8]>>) -> Self {
        match bytes {
            Some(bytes) => self.bytes(bytes),
            None => self.bytes([]),
        }
    }

    /// Appends a number, id or name as text.
    pub(crate) fn text(mut self, value: impl std::fmt::Display) -> Self {
        // Writing to memory does not fail.
        let _ = write!(self.bytes, "{value}");
        self.ends.push(self.bytes.len());
        self
    }

    pub(crate) fn duration(self, duration: Duration) -> Self {
        self.text(micros(duration))
    }

    /// Appends the number of fields per item, and then the fields that `write` appends for each item, as many for each.
    pub(crate) fn items<T>(self, items: impl IntoIterator<Item = T>, mut write: impl FnMut(Self, T) -> Self) -> Self {
        let (mut fields, mut count) = (Self::new(), 0);
        for item in items {
            fields = write(fields, item);
            count += 1;
        }
        self.text((fields.len() / count.max(1)).max(1)).append(&fields)
    }

    pub(crate) fn append(mut self, other: &Self) -> Self {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| before + end));
        self
    }

    /// Bytes of all arguments.
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
    fn iter_returns_the_arguments() {
        let args = Args::new().bytes(b"a\0b").maybe(None::<&str>).text(7);
        let args = args.append(&Args::new().duration(Duration::from_millis(2)).bytes(""));
        assert_eq!(args.iter().collect::<Vec<_>>(), [&b"a\0b"[..], b"", b"7", b"2000", b""]);
        assert_eq!((args.len(), args.size()), (5, 8));
    }

    #[test]
    fn items_begin_with_their_stride() {
        let items = |list: &[u8]| Args::new().items(list, |args, number| args.text(number).bytes("x"));
        assert_eq!(items(&[5, 6]).iter().collect::<Vec<_>>(), [&b"2"[..], b"5", b"x", b"6", b"x"]);
        // A loop in Lua with a step of 0 does not end.
        assert_eq!(items(&[]).iter().collect::<Vec<_>>(), [b"1"]);
    }

    #[test]
    fn longest_duration_is_exact_in_a_double() {
        let now = 1_900_000_000_000_000;
        assert!(micros(Duration::MAX) * 2 + now < 1 << 53);
    }
}
