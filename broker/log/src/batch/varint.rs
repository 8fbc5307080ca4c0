//! Kafka's zigzag varints, bounded: a hostile one ends in `None`, after ten bytes at most.

/// Takes a varint off the front of `bytes`.
pub fn take_long(bytes: &mut &[u8]) -> Option<i64> {
    let mut raw = 0u64;
    for (i, &byte) in bytes.iter().enumerate().take(10) {
        raw |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return Some((raw >> 1) as i64 ^ -((raw & 1) as i64));
        }
    }
    None
}

/// Takes a varint that must fit an `i32`.
pub fn take_int(bytes: &mut &[u8]) -> Option<i32> {
    take_long(bytes).and_then(|value| i32::try_from(value).ok())
}

/// Appends `value`.
pub fn put(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_varint_without_end_is_refused() {
        let mut bytes = &[0xff; 11][..];
        assert_eq!(take_long(&mut bytes), None);
        assert_eq!(take_long(&mut &[0x80][..]), None);
        assert_eq!(take_long(&mut &[][..]), None);
    }

    proptest! {
        #[test]
        fn every_number_survives(value: i64) {
            let mut out = Vec::new();
            put(&mut out, value);
            let mut rest = &out[..];
            prop_assert_eq!(take_long(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }
    }
}
