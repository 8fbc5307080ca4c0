//! Client quotas: judged here once more, as any broker (or the operator) may ask.

use super::Controller;
use crate::features::Level;
use crate::quotas::{QuotaEntity, QuotaLimit};
use crate::records::Record;
use crate::rpc::{Outcome, QuotaChanges, codes};

impl Controller {
    pub(super) fn alter_client_quotas(
        &mut self,
        wanted: &QuotaChanges,
        validate_only: bool,
    ) -> Outcome {
        if let Err(refused) = self.permits(Level::ADMINISTERED, "client quotas") {
            return refused;
        }
        if wanted.entity == QuotaEntity::default() {
            let message = "Invalid empty client quota entity";
            return Outcome::refused(codes::INVALID_REQUEST, message);
        }
        for change in &wanted.changes {
            let Some(limit) = change.limit else { continue };
            if let Err(message) = QuotaLimit::new(&change.key, limit.get()) {
                return Outcome::refused(codes::INVALID_REQUEST, message);
            }
        }
        if validate_only {
            return Outcome::ok();
        }
        for change in &wanted.changes {
            let limits = self.image.client_quotas.get(&wanted.entity);
            let present = limits.and_then(|limits| limits.get(&change.key)).copied();
            if present != change.limit {
                self.emit(Record::ClientQuota {
                    entity: wanted.entity.clone(),
                    key: change.key.clone(),
                    limit: change.limit,
                });
            }
        }
        Outcome::ok()
    }
}
