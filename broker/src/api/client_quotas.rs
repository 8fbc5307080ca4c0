//! DescribeClientQuotas and AlterClientQuotas (KIP-546): limits of users and client ids.
//!
//! All brokers enforce them ([`crate::quota`]). Quotas of IP addresses are not kept, and refused.

use super::call::Call;
use super::context::{READ_YOUR_WRITES, Shared, mismatch};
use super::convert::{message_of, opt_text, refused, text};
use leasehold_metadata::Image;
use leasehold_metadata::quotas::{QuotaEntity, QuotaLimit, Who};
use leasehold_metadata::rpc::{AdminRequest, AdminResponse, Outcome, QuotaChange, QuotaChanges};
use leasehold_wire::kafka::messages::alter_client_quotas_request::EntryData as AlterEntry;
use leasehold_wire::kafka::messages::alter_client_quotas_response::{
    EntityData as AlteredEntity, EntryData as Altered,
};
use leasehold_wire::kafka::messages::describe_client_quotas_request::ComponentData;
use leasehold_wire::kafka::messages::describe_client_quotas_response::{
    EntityData, EntryData, ValueData,
};
use leasehold_wire::kafka::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
};
use leasehold_wire::{ErrorCode, StrBytes};
use std::sync::Arc;

const USER: &str = "user";
const CLIENT_ID: &str = "client-id";
const IP: &str = "ip";
/// The request has no timeout of its own.
const TIMEOUT_MS: i32 = 30_000;

pub(super) fn describe(
    shared: &Shared,
    _: &Call,
    request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    let reply = DescribeClientQuotasResponse::default();
    match Filter::of(&request) {
        Err(outcome) => reply
            .with_error_code(outcome.code)
            .with_error_message(message_of(&outcome))
            .with_entries(None),
        Ok(filter) => {
            let image = shared.image();
            let fit = image
                .client_quotas
                .iter()
                .filter(|(entity, _)| filter.fits(entity));
            let entries = fit.map(|(entity, limits)| {
                let values = limits.iter().map(|(key, limit)| {
                    ValueData::default()
                        .with_key(text(key))
                        .with_value(limit.get())
                });
                let parts = parts(entity).map(|(kind, name)| {
                    EntityData::default()
                        .with_entity_type(text(kind))
                        .with_entity_name(name)
                });
                EntryData::default()
                    .with_entity(parts.collect())
                    .with_values(values.collect())
            });
            reply.with_entries(Some(entries.collect()))
        }
    }
}

/// The parts of an entity that there are, as the protocol names them.
fn parts(entity: &QuotaEntity) -> impl Iterator<Item = (&'static str, Option<StrBytes>)> {
    [(USER, &entity.user), (CLIENT_ID, &entity.client_id)]
        .into_iter()
        .filter_map(|(kind, who)| Some((kind, opt_text(who.as_ref()?.name()))))
}

/// What of one part is wanted.
enum Wanted {
    Is(Who),
    /// Whoever it is, but there must be one.
    Any,
}

impl Wanted {
    fn fits(&self, who: &Option<Who>) -> bool {
        match (self, who) {
            (Self::Is(wanted), Some(who)) => wanted == who,
            (Self::Any, Some(_)) => true,
            (_, None) => false,
        }
    }
}

#[derive(Default)]
struct Filter {
    user: Option<Wanted>,
    client_id: Option<Wanted>,
    /// Quotas of addresses are asked for: there are none.
    ip: bool,
    strict: bool,
}

impl Filter {
    fn of(request: &DescribeClientQuotasRequest) -> Result<Self, Outcome> {
        let mut filter = Self {
            strict: request.strict,
            ..Self::default()
        };
        for component in &request.components {
            let wanted = wanted(component)?;
            let twice = match component.entity_type.as_str() {
                USER => filter.user.replace(wanted).is_some(),
                CLIENT_ID => filter.client_id.replace(wanted).is_some(),
                IP => std::mem::replace(&mut filter.ip, true),
                "" => return Err(invalid("Unexpected empty entity type")),
                other => {
                    let message = format!("Custom entity type {other} not supported");
                    return Err(refused(ErrorCode::UnsupportedVersion, message));
                }
            };
            if twice {
                let kind = &component.entity_type;
                return Err(invalid(format!(
                    "Entity type {} cannot appear more than once in the filter",
                    kind.as_str()
                )));
            }
        }
        if filter.ip && (filter.user.is_some() || filter.client_id.is_some()) {
            return Err(invalid(
                "Invalid entity filter component combination, IP filter component should not be used with user or clientId filter component.",
            ));
        }
        Ok(filter)
    }

    fn fits(&self, entity: &QuotaEntity) -> bool {
        let fits = |wanted: &Option<Wanted>, who: &Option<Who>| match wanted {
            Some(wanted) => wanted.fits(who),
            None => !self.strict || who.is_none(),
        };
        !self.ip && fits(&self.user, &entity.user) && fits(&self.client_id, &entity.client_id)
    }
}

fn wanted(component: &ComponentData) -> Result<Wanted, Outcome> {
    match (component.match_type, &component._match) {
        (0, Some(name)) => Ok(Wanted::Is(Who::of(Some(name)))),
        (0, None) => Err(invalid("Unexpected null match name for an exact match")),
        (1, None) => Ok(Wanted::Is(Who::Default)),
        (2, None) => Ok(Wanted::Any),
        (1 | 2, Some(_)) => Err(invalid("Unexpected match name without an exact match")),
        (other, _) => Err(invalid(format!("Unexpected match type: {other}"))),
    }
}

fn invalid(message: impl Into<String>) -> Outcome {
    refused(ErrorCode::InvalidRequest, message)
}

pub(super) async fn alter(
    shared: Arc<Shared>,
    _: Call,
    request: AlterClientQuotasRequest,
) -> AlterClientQuotasResponse {
    let judged: Vec<Result<QuotaChanges, Outcome>> = request.entries.iter().map(changes).collect();
    let wanted: Vec<QuotaChanges> = judged.iter().flatten().cloned().collect();
    let mut outcomes = match wanted.is_empty() {
        true => Vec::new(),
        false => apply(&shared, wanted, request.validate_only).await,
    }
    .into_iter();
    let rows = request.entries.iter().zip(judged).map(|(entry, judged)| {
        let outcome = match judged {
            Ok(_) => outcomes.next().unwrap_or_else(mismatch),
            Err(outcome) => outcome,
        };
        let entity = entry.entity.iter().map(|part| {
            AlteredEntity::default()
                .with_entity_type(part.entity_type.clone())
                .with_entity_name(part.entity_name.clone())
        });
        Altered::default()
            .with_error_code(outcome.code)
            .with_error_message(message_of(&outcome))
            .with_entity(entity.collect())
    });
    AlterClientQuotasResponse::default().with_entries(rows.collect())
}

/// Outcomes in the order of `wanted`.
async fn apply(shared: &Shared, wanted: Vec<QuotaChanges>, validate_only: bool) -> Vec<Outcome> {
    let wish = AdminRequest::AlterClientQuotas {
        entities: wanted.clone(),
        validate_only,
    };
    let outcomes = match shared.admin(wish, TIMEOUT_MS).await {
        Ok(AdminResponse::AlterClientQuotas(outcomes)) => outcomes,
        failed => vec![failed.err().unwrap_or_else(mismatch); wanted.len()],
    };
    if !validate_only {
        let shows = |image: &Image| {
            wanted.iter().zip(&outcomes).all(|(wanted, outcome)| {
                let limits = image.client_quotas.get(&wanted.entity);
                let shown = |change: &QuotaChange| {
                    limits.and_then(|limits| limits.get(&change.key)) == change.limit.as_ref()
                };
                !outcome.is_ok() || wanted.changes.iter().all(shown)
            })
        };
        shared.image_shows(READ_YOUR_WRITES, shows).await;
    }
    outcomes
}

fn changes(entry: &AlterEntry) -> Result<QuotaChanges, Outcome> {
    let mut entity = QuotaEntity::default();
    for part in &entry.entity {
        let name = part.entity_name.as_ref().map(StrBytes::as_str);
        if name == Some("") {
            return Err(invalid("An entity's name must not be empty"));
        }
        let slot = match part.entity_type.as_str() {
            USER => &mut entity.user,
            CLIENT_ID => &mut entity.client_id,
            IP => return Err(invalid("Quotas of IP addresses are not supported")),
            other => {
                return Err(invalid(format!(
                    "Unhandled client quota entity type: {other}"
                )));
            }
        };
        if slot.replace(Who::of(name)).is_some() {
            return Err(invalid("Duplicate client quota entity type"));
        }
    }
    if entity == QuotaEntity::default() {
        return Err(invalid("Invalid empty client quota entity"));
    }
    let mut changes: Vec<QuotaChange> = Vec::new();
    for op in &entry.ops {
        let key = op.key.to_string();
        if changes.iter().any(|change| change.key == key) {
            return Err(invalid(format!("{key} is named twice")));
        }
        // As in Kafka, of what cannot be limited nothing is there to be taken away.
        let limit = match op.remove {
            true => None,
            false => Some(QuotaLimit::new(&key, op.value).map_err(invalid)?),
        };
        changes.push(QuotaChange { key, limit });
    }
    Ok(QuotaChanges { entity, changes })
}
