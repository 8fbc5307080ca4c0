//! Which partition of `__consumer_offsets` a group belongs to: the same that Kafka would choose, so
//! that a group keeps its coordinator and its offsets whoever serves them.

/// Java's `String.hashCode`: over UTF-16 units, in 32 bits that wrap.
pub fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

/// The partition of `group_id` among `partitions`; 0 if there are none.
pub fn partition_of(group_id: &str, partitions: i32) -> i32 {
    match partitions {
        ..=0 => 0,
        _ => (java_hash(group_id) & i32::MAX) % partitions,
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
    }
}
