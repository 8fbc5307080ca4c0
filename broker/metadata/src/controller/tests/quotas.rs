//! Client quotas.

use super::bench::*;
use crate::quotas::{QuotaEntity, QuotaLimit, Who};
use crate::rpc::*;

fn alter(
    bench: &mut Bench,
    entity: &QuotaEntity,
    key: &str,
    value: Option<f64>,
    only: bool,
) -> i16 {
    let change = QuotaChange {
        key: key.to_owned(),
        limit: value.map(|value| QuotaLimit::new("request_percentage", value).unwrap()),
    };
    let request = AdminRequest::AlterClientQuotas {
        entities: vec![QuotaChanges {
            entity: entity.clone(),
            changes: vec![change],
        }],
        validate_only: only,
    };
    match bench.admin(request) {
        AdminResponse::AlterClientQuotas(outcomes) => outcomes[0].code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_quota_is_kept_until_it_is_taken_away_and_a_senseless_one_never() {
    let mut bench = Bench::new(1);
    let client = QuotaEntity {
        client_id: Some(Who::Named("a".into())),
        ..QuotaEntity::default()
    };
    let rate = "producer_byte_rate";
    assert_eq!(alter(&mut bench, &client, rate, Some(5.0), true), 0);
    assert!(
        bench.image.client_quotas.is_empty(),
        "that was only a question"
    );
    assert_eq!(alter(&mut bench, &client, rate, Some(5.0), false), 0);
    assert_eq!(bench.image.client_quotas[&client][rate].get(), 5.0);
    let bad = codes::INVALID_REQUEST;
    assert_eq!(
        alter(&mut bench, &client, "no_such_rate", Some(5.0), false),
        bad
    );
    assert_eq!(
        alter(&mut bench, &client, "no_such_rate", None, false),
        0,
        "it is not there, as was asked"
    );
    assert_eq!(alter(&mut bench, &client, rate, Some(5.5), false), bad);
    assert_eq!(
        alter(&mut bench, &QuotaEntity::default(), rate, Some(5.0), false),
        bad
    );
    assert_eq!(alter(&mut bench, &client, rate, None, false), 0);
    assert!(bench.image.client_quotas.is_empty());
}
