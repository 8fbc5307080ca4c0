//! What administrators were told: "done" only of what is committed and stays, "not applied" only of what
//! never will be (C1, C2).

use super::Checker;
use leasehold_metadata::rpc::{AdminResponse, Response, codes};

impl Checker {
    /// The creation of topic `name` was answered. What is not known for certain promises nothing.
    pub fn answered(&mut self, name: &str, response: &Response) -> String {
        let created = self.topics.values().any(|topic| topic.name == name);
        let refused = match response {
            Response::Admin(AdminResponse::CreateTopics(created)) => match created.first() {
                Some(one) if one.outcome.is_ok() => None,
                Some(one) => Some(format!("{:?}", one.outcome)),
                None => return "nothing".to_owned(),
            },
            Response::NotController { .. } => Some("not the controller".to_owned()),
            Response::Error(outcome) if outcome.code != codes::REQUEST_TIMED_OUT => {
                Some(format!("{outcome:?}"))
            }
            _ => return "unknown".to_owned(),
        };
        match refused {
            Some(why) => {
                if created {
                    self.broke(format!("C1 topic {name} was created, but its creation was said not to be applied: {why}"));
                }
                self.denied.insert(name.to_owned(), why.clone());
                why
            }
            None => {
                if !created {
                    self.broke(format!(
                        "C2 topic {name} is said to be created, but is not committed"
                    ));
                }
                self.granted.insert(name.to_owned());
                "done".to_owned()
            }
        }
    }
}
