use super::*;
use proptest::prelude::*;

fn topic(n: u8) -> TopicId {
    TopicId(uuid::Uuid::from_bytes([n; 16]))
}

fn question(topics: &[i32], members: &[(&str, &[u8])]) -> Question {
    let number = |(n, count): (usize, &i32)| (topic(n as u8), *count);
    let subscriber = |(id, topics): &(&str, &[u8])| {
        let member = Subscriber {
            topics: topics.iter().map(|n| topic(*n)).collect(),
            ..Subscriber::default()
        };
        (Arc::from(*id), member)
    };
    Question {
        members: members.iter().map(subscriber).collect(),
        topics: topics.iter().enumerate().map(number).collect(),
    }
}

fn sizes(shares: &Shares) -> Vec<usize> {
    let size = |share: &Partitions| share.values().map(BTreeSet::len).sum();
    shares.values().map(size).collect()
}

/// Everyone's partitions, each once, and only where it is wanted.
fn check(question: &Question, shares: &Shares) {
    let mut seen = BTreeSet::new();
    for (id, share) in shares {
        for (topic, partitions) in share {
            for partition in partitions {
                assert!(question.wants(&question.members[id], topic, *partition));
                assert!(
                    seen.insert((*topic, *partition)),
                    "two have {topic} {partition}"
                );
            }
        }
    }
    let wanted: BTreeSet<TopicId> = question
        .members
        .values()
        .flat_map(|m| m.topics.clone())
        .collect();
    let all: i32 = wanted.iter().map(|topic| question.partitions(topic)).sum();
    assert_eq!(seen.len(), all as usize, "everything wanted is assigned");
}

fn keep(question: &mut Question, shares: &Shares) {
    for (id, member) in &mut question.members {
        member.before = shares.get(id).cloned().unwrap_or_default();
    }
}

#[test]
fn range_deals_neighbours_and_gives_the_first_ones_more() {
    let question = question(&[3, 3], &[("a", &[0, 1]), ("b", &[0, 1])]);
    let shares = Assignor::Range.assign(&question);
    let of = |id: &str| shares[id].clone();
    assert_eq!(
        of("a"),
        Partitions::from([(topic(0), [0, 1].into()), (topic(1), [0, 1].into())])
    );
    assert_eq!(
        of("b"),
        Partitions::from([(topic(0), [2].into()), (topic(1), [2].into())])
    );
}

#[test]
fn range_gives_a_topic_only_to_those_who_want_it_and_nothing_to_those_who_come_too_late() {
    let question = question(
        &[2, 3],
        &[("a", &[0, 1]), ("b", &[1]), ("c", &[0]), ("d", &[0])],
    );
    let shares = Assignor::Range.assign(&question);
    assert_eq!(
        shares["a"],
        Partitions::from([(topic(0), [0].into()), (topic(1), [0, 1].into())])
    );
    assert_eq!(shares["b"], Partitions::from([(topic(1), [2].into())]));
    assert_eq!(shares["c"], Partitions::from([(topic(0), [1].into())]));
    assert_eq!(shares["d"], Partitions::new());
}

#[test]
fn range_puts_static_members_first_by_their_instance() {
    let mut question = question(&[3], &[("a", &[0]), ("z1", &[0]), ("z2", &[0])]);
    question.members.get_mut("z1").unwrap().instance = Some("2".into());
    question.members.get_mut("z2").unwrap().instance = Some("1".into());
    let shares = Assignor::Range.assign(&question);
    assert_eq!(shares["z2"][&topic(0)], [0].into());
    assert_eq!(shares["z1"][&topic(0)], [1].into());
    assert_eq!(shares["a"][&topic(0)], [2].into());
}

#[test]
fn uniform_leaves_with_a_newcomer_what_need_not_move() {
    let mut three = question(&[6], &[("a", &[0]), ("b", &[0])]);
    let before = Assignor::Uniform.assign(&three);
    keep(&mut three, &before);
    let newcomer = Subscriber {
        topics: [topic(0)].into(),
        ..Subscriber::default()
    };
    three.members.insert("0".into(), newcomer);
    let after = Assignor::Uniform.assign(&three);
    assert_eq!(sizes(&after), [2, 2, 2]);
    for id in ["a", "b"] {
        assert!(after[id][&topic(0)].is_subset(&before[id][&topic(0)]));
    }
}

fn any_question(same: bool) -> impl Strategy<Value = Question> {
    let topics = prop::collection::vec(0..9i32, 1..5);
    let members = prop::collection::vec(prop::collection::btree_set(0..5u8, 0..5), 1..8);
    (topics, members).prop_map(move |(topics, members)| {
        let mut question = question(&topics, &[]);
        for (n, wanted) in members.iter().enumerate() {
            let wanted = if same { &members[0] } else { wanted };
            let exists = |t: &TopicId| question.topics.contains_key(t);
            let member = Subscriber {
                topics: wanted.iter().map(|n| topic(*n)).filter(exists).collect(),
                ..Subscriber::default()
            };
            question.members.insert(format!("m{n}").into(), member);
        }
        question
    })
}

proptest! {
    #[test]
    fn every_assignor_gives_each_partition_to_one_who_wants_it(question in any_question(false)) {
        for assignor in [Assignor::Uniform, Assignor::Range] {
            check(&question, &assignor.assign(&question));
        }
    }

    #[test]
    fn uniform_is_even_within_one_and_moves_only_what_it_must(
        mut question in any_question(true),
        gone in 0..8usize,
        more in 0..5i32,
    ) {
        let before = Assignor::Uniform.assign(&question);
        check(&question, &before);
        let size = sizes(&before);
        prop_assert!(size.iter().max().unwrap() - size.iter().min().unwrap() <= 1);
        keep(&mut question, &before);
        // Nothing changes: nothing moves.
        prop_assert_eq!(&Assignor::Uniform.assign(&question), &before);
        // One goes, and a topic grows: whoever stays keeps what its new share has room for.
        let ids: Vec<Arc<str>> = question.members.keys().cloned().collect();
        if ids.len() > 1 {
            question.members.remove(&ids[gone % ids.len()]);
        }
        if let Some(count) = question.topics.values_mut().next() {
            *count += more;
        }
        let after = Assignor::Uniform.assign(&question);
        check(&question, &after);
        let size = sizes(&after);
        prop_assert!(size.iter().max().unwrap() - size.iter().min().unwrap() <= 1);
        for (id, share) in &after {
            let count = |p: &Partitions| p.values().map(BTreeSet::len).sum::<usize>();
            let had = count(&before[id]);
            let kept: usize = share.iter().map(|(topic, now)| {
                before[id].get(topic).map_or(0, |then| then.intersection(now).count())
            }).sum();
            prop_assert_eq!(kept, had.min(count(share)), "{} lost what it could have kept", id);
        }
    }

    #[test]
    fn uniform_is_sticky_and_as_even_as_single_moves_make_it(mut question in any_question(false)) {
        let shares = Assignor::Uniform.assign(&question);
        let count = |id: &str| shares[id].values().map(BTreeSet::len).sum::<usize>();
        for (from, share) in &shares {
            for (to, member) in &question.members {
                let movable = share.iter().any(|(topic, all)| {
                    all.iter().any(|p| question.wants(member, topic, *p))
                });
                prop_assert!(!movable || count(from) <= count(to) + 1, "{} could give to {}", from, to);
            }
        }
        keep(&mut question, &shares);
        prop_assert_eq!(Assignor::Uniform.assign(&question), shares);
    }
}
