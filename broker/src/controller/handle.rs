//! How the rest of the process reaches the controller that may run in it.

use crate::session::find::hint_of;
use leasehold_metadata::rpc::{ControllerHint, Outcome, Request, Response, codes};
use leasehold_metadata::store::LeaseRecord;
use leasehold_types::ControllerEpoch;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// What this broker is to the cluster's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Another is controller, or nobody.
    Standby,
    /// It holds the Lease and is about to claim the head.
    Claiming,
    /// It is the controller.
    Controller {
        epoch: ControllerEpoch,
        frozen: bool,
    },
}

impl Role {
    /// Whether it decides.
    pub fn is_controller(self) -> bool {
        matches!(self, Self::Controller { .. })
    }
}

/// A question to the controller of this process.
#[derive(Debug)]
pub(super) struct Question {
    pub request: Request,
    pub arrived: Instant,
    pub reply: oneshot::Sender<Response>,
}

/// How long a question waits for a claim that is under way.
const CLAIM_WAIT: Duration = Duration::from_secs(1);
/// How many questions may wait for the controller's task.
pub(super) const QUEUE: usize = 4_096;

/// Reaches the controller of this process. Cheap to clone.
#[derive(Clone)]
pub struct ControllerHandle {
    pub(super) questions: mpsc::Sender<Question>,
    pub(super) role: watch::Receiver<Role>,
    pub(super) lease: watch::Receiver<Option<LeaseRecord>>,
}

impl ControllerHandle {
    /// What this broker is now.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// The Lease as this broker last saw it.
    pub fn lease(&self) -> watch::Receiver<Option<LeaseRecord>> {
        self.lease.clone()
    }

    /// Who is controller, as far as this broker knows.
    pub fn hint(&self) -> Option<ControllerHint> {
        hint_of(self.lease.borrow().as_ref())
    }

    /// Asks the controller of this process; says [`Response::NotController`] if it is none.
    pub async fn call(&self, request: Request) -> Response {
        // A frozen controller says so itself.
        let frozen = matches!(*self.role.borrow(), Role::Controller { frozen: true, .. });
        if matches!(request, Request::WhoIsController) && !frozen {
            return Response::Controller(self.hint());
        }
        let mut role = self.role.clone();
        let settled = role.wait_for(|role| *role != Role::Claiming);
        let _ = tokio::time::timeout(CLAIM_WAIT, async { settled.await.is_ok() }).await;
        if !self.role.borrow().is_controller() {
            return Response::NotController { hint: self.hint() };
        }
        let (reply, answer) = oneshot::channel();
        let question = Question {
            request,
            arrived: Instant::now(),
            reply,
        };
        match self.questions.try_send(question) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                let why = "the controller has too much to do";
                return Response::Error(Outcome::refused(codes::REQUEST_TIMED_OUT, why));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Response::NotController { hint: None };
            }
        }
        // A term that ends drops the question unanswered: nothing of it was applied.
        answer
            .await
            .unwrap_or_else(|_| Response::NotController { hint: self.hint() })
    }
}
