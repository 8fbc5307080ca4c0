//! Which partition of its internal topic a group or a transactional id belongs to: the same that Kafka
//! would choose, so that it keeps its coordinator and its state whoever serves them.

/// Java's `String.hashCode`: over UTF-16 units, in 32 bits that wrap.
pub fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

/// The partition of `id` among `partitions`; 0 if there are none. Kafka takes the absolute value of the
/// hash (0 for the one that has none), not the hash without its sign bit.
pub fn partition_of(id: &str, partitions: i32) -> i32 {
    match partitions {
        ..=0 => 0,
        _ => java_hash(id).checked_abs().unwrap_or(0) % partitions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_javas() {
        for (text, hash) in [
            ("", 0),
            ("a", 97),
            ("hello", 99_162_322),
            ("console-consumer-12345", 158_455_506),
            ("polygenelubricants", i32::MIN),
            ("группа", java_hash_by_definition("группа")),
        ] {
            assert_eq!(java_hash(text), hash, "{text}");
        }
    }

    fn java_hash_by_definition(text: &str) -> i32 {
        let units: Vec<u16> = text.encode_utf16().collect();
        let mut hash = 0i64;
        for unit in units {
            hash = (hash * 31 + i64::from(unit)) & 0xffff_ffff;
        }
        hash as u32 as i32
    }

    #[test]
    fn every_group_has_a_partition_even_with_the_most_negative_hash() {
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        assert!((0..50).contains(&partition_of("console-consumer-12345", 50)));
        assert_eq!(partition_of("any", 0), 0);
        // A negative hash: without its sign bit it would be partition 17.
        assert_eq!(java_hash("orders"), -1_008_770_331);
        assert_eq!(partition_of("orders", 50), 31);
    }
}
