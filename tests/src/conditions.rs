//! What an object's status tells by its conditions.

use serde_json::Value;

/// Reason and message of one condition of an object; both empty if it has no such condition.
pub fn condition(object: &Value, kind: &str) -> (String, String) {
    let all = object["status"]["conditions"].as_array();
    let found = all.into_iter().flatten().find(|c| c["type"] == kind);
    let text = |field: &str| {
        let value = found.and_then(|c| c[field].as_str());
        value.unwrap_or_default().to_owned()
    };
    (text("reason"), text("message"))
}
