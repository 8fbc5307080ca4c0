//! The topics inside a consumer's subscription: the front of Kafka's ConsumerProtocolSubscription,
//! which is the same in every version.

use crate::group::store::records::read_topics;

/// The protocol type of Kafka's consumers.
pub const CONSUMER: &str = "consumer";

/// The topics of a subscription; `None` if the bytes are not one.
pub fn topics(metadata: &[u8]) -> Option<Vec<String>> {
    read_topics(metadata).ok()
}

#[cfg(test)]
mod tests {
    use super::topics;

    #[test]
    fn the_topics_of_every_version_are_read_and_garbage_is_not() {
        let version_3 = [0, 3, 0, 0, 0, 2, 0, 1, b'a', 0, 1, b'b', 9, 9, 9];
        assert_eq!(topics(&version_3).unwrap(), ["a", "b"]);
        assert_eq!(topics(&[0, 0, 0, 0, 0, 0]).unwrap(), [""; 0]);
        assert_eq!(topics(b"garbage"), None);
        assert_eq!(topics(&[]), None);
    }
}
