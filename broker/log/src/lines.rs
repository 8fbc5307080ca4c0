//! Lines of the small text files, each with its own checksum: `<text> crc32c=<8 hex digits>`.
//!
//! They say where a log begins, how far it is flushed, where its epochs start: a flipped bit in one of
//! those numbers would be believed, and records be lost or cut off by it. A line without a checksum, as
//! an earlier release wrote them, is taken as it is; no single flipped bit makes one of the other.

const MARK: &str = " crc32c=";

/// The line for `text`, its end included.
pub(crate) fn seal(text: &str) -> String {
    format!("{text}{MARK}{:08x}\n", crc32c::crc32c(text.as_bytes()))
}

/// Whether a line carries a checksum, right or wrong.
pub(crate) fn is_sealed(line: &[u8]) -> bool {
    line.windows(MARK.len()).any(|part| part == MARK.as_bytes())
}

/// The text of a line, its end left out; `None` if it is damaged.
pub(crate) fn unseal(line: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(line).ok()?;
    let Some((text, sum)) = line.rsplit_once(MARK) else {
        return Some(line);
    };
    (sum == format!("{:08x}", crc32c::crc32c(text.as_bytes()))).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_and_one_without_a_checksum_taken_as_it_is() {
        let line = seal("5 30");
        assert_eq!(unseal(line.trim_end().as_bytes()), Some("5 30"));
        assert_eq!(unseal(b"5 30"), Some("5 30"));
    }

    #[test]
    fn no_flipped_bit_gives_another_number() {
        let line = seal("5 30");
        let line = line.trim_end().as_bytes();
        for bit in 0..line.len() * 8 {
            let mut flipped = line.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // What lost its mark is no number any more.
            let text = unseal(&flipped).and_then(|text| text.split_once(' '));
            let start = text.and_then(|(_, start)| start.parse::<i64>().ok());
            assert_eq!(start, None, "bit {bit}");
        }
    }
}
