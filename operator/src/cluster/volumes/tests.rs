use super::super::facts::tests::{add_topic, image};
use super::*;

fn claim(ordinal: i32, asked: &str, has: &str) -> ClaimFacts {
    ClaimFacts {
        name: format!("data-demo-broker-{ordinal}"),
        uid: format!("u{ordinal}"),
        ordinal,
        asked: Some(asked.to_owned()),
        has: Some(has.to_owned()),
        bound: true,
        ..ClaimFacts::default()
    }
}

fn facts(claims: &[ClaimFacts]) -> Facts<'_> {
    Facts {
        namespace: "shop",
        cluster: "demo",
        claims,
        brokers: 2,
        wanted: Some("2Gi"),
        template: Some("1Gi"),
        on_loss: LossPolicy::Hold,
        image: None,
        steady: true,
    }
}

fn grown(decision: &Decision) -> Vec<&str> {
    decision.grow.iter().map(String::as_str).collect()
}

#[test]
fn every_claim_grows_first_and_then_the_stateful_set_is_made_anew() {
    let claims = [claim(0, "1Gi", "1Gi"), claim(1, "2Gi", "1Gi")];
    let decision = decide(&facts(&claims));
    assert_eq!(grown(&decision), ["data-demo-broker-0"]);
    assert!(!decision.renew, "not while a claim may be refused");
    let claims = [claim(0, "2Gi", "2Gi"), claim(1, "2048Mi", "1Gi")];
    let decision = decide(&facts(&claims));
    assert!(decision.grow.is_empty() && decision.renew);
    assert_eq!(
        decision.storage,
        Storage::Growing("waiting for data-demo-broker-1 to have 2Gi".to_owned())
    );
    let done = [claim(0, "2Gi", "2Gi"), claim(1, "2Gi", "2147483648")];
    let made = Facts {
        template: Some("2Gi"),
        ..facts(&done)
    };
    let decision = decide(&made);
    assert!(!decision.renew && decision.storage == Storage::Ready);
}

#[test]
fn nothing_is_made_anew_while_brokers_join_or_leave_or_without_volumes() {
    let claims = [claim(0, "2Gi", "2Gi")];
    let moving = Facts {
        steady: false,
        ..facts(&claims)
    };
    assert!(!decide(&moving).renew);
    let ephemeral = Facts {
        wanted: None,
        template: None,
        ..facts(&[])
    };
    let decision = decide(&ephemeral);
    assert!(!decision.renew && decision.storage == Storage::Ready);
}

#[test]
fn a_claim_that_has_more_or_whose_broker_left_is_left_as_it_is() {
    let claims = [claim(0, "3Gi", "3Gi"), claim(2, "1Gi", "1Gi")];
    let decision = decide(&facts(&claims));
    assert_eq!(grown(&decision), [""; 0]);
    assert_eq!(decision.storage, Storage::Ready);
}

fn lost() -> [ClaimFacts; 1] {
    [ClaimFacts {
        lost: Some("PersistentVolume pv does not exist".to_owned()),
        ..claim(1, "2Gi", "2Gi")
    }]
}

#[test]
fn a_lost_volume_is_held_with_the_commands_that_let_it_go() {
    let claims = lost();
    let decision = decide(&facts(&claims));
    assert_eq!(decision.replace, None);
    let Storage::Lost(told) = decision.storage else {
        panic!("{:?}", decision.storage);
    };
    for part in [
        "pv does not exist",
        "kubectl -n shop delete pvc data-demo-broker-1",
        "kubectl -n shop delete pod demo-broker-1",
        "storage.onLoss: Replace",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn it_is_replaced_where_the_user_says_so_but_never_with_the_last_replica_in_sync() {
    let claims = lost();
    let mut spared = image("0 1f");
    add_topic(&mut spared, "a", &["01/0/0"]);
    let wish = |image| Facts {
        on_loss: LossPolicy::Replace,
        image,
        ..facts(&claims)
    };
    let decision = decide(&wish(Some(&spared)));
    assert_eq!(decision.replace.as_ref(), Some(&claims[0]));
    assert!(matches!(decision.storage, Storage::Replacing(_)));
    let running = [ClaimFacts {
        in_use: true,
        ..claims[0].clone()
    }];
    let decision = decide(&Facts {
        claims: &running,
        ..wish(Some(&spared))
    });
    assert_eq!(decision.replace, None, "it still serves what it has open");
    let mut needed = image("0 1f");
    add_topic(&mut needed, "a", &["01/01/0", "1/1/-"]);
    for image in [None, Some(&needed)] {
        let decision = decide(&wish(image));
        assert_eq!(decision.replace, None, "{decision:?}");
    }
    let Storage::Lost(told) = decide(&wish(Some(&needed))).storage else {
        panic!("it is held");
    };
    assert!(told.contains("last replica in sync of a-1"), "{told}");
}

#[test]
fn every_volume_of_a_broker_grows_and_only_the_one_that_is_lost_is_replaced() {
    let second = |claim: ClaimFacts| ClaimFacts {
        volume: 1,
        name: names::claim("demo", claim.ordinal, 1),
        uid: format!("v{}", claim.ordinal),
        ..claim
    };
    let claims = [
        claim(0, "1Gi", "1Gi"),
        second(claim(0, "1Gi", "1Gi")),
        claim(1, "2Gi", "2Gi"),
        second(claim(1, "1Gi", "1Gi")),
    ];
    let grow = decide(&facts(&claims)).grow;
    assert_eq!(
        grow,
        [
            "data-demo-broker-0",
            "data-1-demo-broker-0",
            "data-1-demo-broker-1"
        ]
    );
    let lost = ClaimFacts {
        lost: Some("gone".to_owned()),
        ..second(claim(1, "2Gi", "2Gi"))
    };
    let claims = [claim(0, "2Gi", "2Gi"), claim(1, "2Gi", "2Gi"), lost.clone()];
    let spared = image("0 1");
    let replacing = Facts {
        on_loss: LossPolicy::Replace,
        image: Some(&spared),
        ..facts(&claims)
    };
    assert_eq!(decide(&replacing).replace, Some(lost));
}

#[test]
fn a_cluster_that_is_made_again_over_its_volumes_must_mount_them_all() {
    let second = ClaimFacts {
        name: names::claim("demo", 1, 1),
        volume: 1,
        ..claim(1, "1Gi", "1Gi")
    };
    let claims = [claim(0, "1Gi", "1Gi"), claim(1, "1Gi", "1Gi"), second];
    let why = unmounted(&claims, 1).unwrap();
    assert!(
        why.contains("data-1-demo-broker-1") && why.contains("set it to 2"),
        "{why}"
    );
    assert_eq!(unmounted(&claims, 2), None);
    assert_eq!(unmounted(&claims[..2], 1), None);
    assert_eq!(
        unmounted(&claims[..2], 3),
        None,
        "an empty volume more is no loss"
    );
}
