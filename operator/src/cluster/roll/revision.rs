//! What a pod is made from, as a short text that tells afterwards in what two differ.
//!
//! Membership is no part of it: scaling restarts nobody. Nor is what brokers take while they run.

use std::fmt;

/// Digests of the parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    pub image: String,
    pub resources: String,
    pub configuration: String,
    pub template: String,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            image,
            resources,
            configuration,
            template,
        } = self;
        write!(f, "{image}.{resources}.{configuration}.{template}")
    }
}

/// The parts in the order in which they are written.
const PARTS: [&str; 4] = ["image", "resources", "configuration", "pod template"];

impl Revision {
    /// What became different, for people; `None` if nothing.
    pub fn difference(old: Option<&str>, new: &str) -> Option<String> {
        if old == Some(new) {
            return None;
        }
        let olds: Vec<&str> = old.unwrap_or_default().split('.').collect();
        let news: Vec<&str> = new.split('.').collect();
        // A release that wrote it otherwise: something is different, no one knows what.
        if olds.len() != PARTS.len() || news.len() != PARTS.len() {
            return Some("specification".to_owned());
        }
        let differing: Vec<&str> = (0..PARTS.len())
            .filter(|&i| olds[i] != news[i])
            .map(|i| PARTS[i])
            .collect();
        Some(differing.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::Revision;

    #[test]
    fn the_difference_names_what_changed() {
        let tell = |old, new| Revision::difference(old, new);
        assert_eq!(tell(Some("a.b.c.d"), "a.b.c.d"), None);
        assert_eq!(tell(Some("a.b.c.d"), "x.b.c.d").unwrap(), "image");
        assert_eq!(
            tell(Some("a.b.c.d"), "a.x.y.d").unwrap(),
            "resources and configuration"
        );
        assert_eq!(tell(Some("older"), "a.b.c.d").unwrap(), "specification");
        assert_eq!(tell(None, "a.b.c.d").unwrap(), "specification");
    }
}
