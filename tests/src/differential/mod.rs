//! Leasehold and Apache Kafka get the same requests over the wire; their answers are compared field by field.
//!
//! Promises: one seed gives one sequence of requests; bytes are read and written by Kafka's own definitions of its
//! messages, not by the codec of Leasehold; every difference is either in `intended.rs` with a reason, or reported.

mod batch;
mod codec;
mod compare;
mod exchange;
pub mod intended;
mod mutate;
mod names;
mod normal;
mod peers;
mod report;
mod scenes;
mod schema;

use anyhow::Context as _;
use exchange::{Request, Side, exchange};
use peers::{Line, Peers};
use rand::Rng as _;
use report::Report;
use scenes::{Ask, Episode};
use schema::{Schemas, Versions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// How many requests one world sees before the next one is made.
const EPISODE: u32 = 80;

/// One request in so many is made odd.
const ODD: u32 = 3;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub requests: u32,
    /// Only this episode of the seed.
    pub episode: Option<u32>,
    /// Kafka's definitions of its messages.
    pub schemas: PathBuf,
    /// Prints each request with both answers.
    pub verbose: bool,
}

/// Runs it, prints the report, and gives whether all was equal or intended.
pub fn run(plan: &Plan) -> anyhow::Result<bool> {
    let schemas = Schemas::load(&plan.schemas)?;
    let peers = Peers::start();
    let mut sides = [peers.kafka, peers.leasehold].map(|address| Side::new(Line::new(address)));
    let served = served(&schemas, &mut sides[1])?;
    lower(&schemas, &mut sides[1])?;
    let (mut report, mut asked) = (Report::default(), 0);
    for number in 0.. {
        if asked >= plan.requests || plan.episode.is_some_and(|only| number > only) {
            break;
        }
        let this = plan.episode.is_none_or(|only| number == only);
        if !this {
            continue;
        }
        let episode = Episode::new(plan.seed, number);
        asked += play(plan, &schemas, &served, episode, &mut sides, &mut report)?;
    }
    println!("seed {}, {asked} requests\n\n{}", plan.seed, report.text());
    Ok(!report.unexplained())
}

/// Lowers what [`Peers::start`] could not tell Leasehold.
fn lower(schemas: &Schemas, leasehold: &mut Side) -> anyhow::Result<()> {
    let request = Request {
        key: 57,
        version: 1,
        body: json!({"timeoutMs": 10_000, "ValidateOnly": false,
            "FeatureUpdates": [{"Feature": "transaction.version", "MaxVersionLevel": 1, "UpgradeType": 2}]}),
        bind: None,
    };
    let answer = leasehold.ask(schemas, &request, "");
    anyhow::ensure!(answer["ErrorCode"] == 0, "UpdateFeatures: {answer}");
    Ok(())
}

/// What Leasehold advertises.
fn served(schemas: &Schemas, leasehold: &mut Side) -> anyhow::Result<BTreeMap<i16, Versions>> {
    let request = Request {
        key: 18,
        version: 3,
        body: json!({"ClientSoftwareName": "differential", "ClientSoftwareVersion": "1"}),
        bind: None,
    };
    let answer = leasehold.ask(schemas, &request, "");
    let keys = answer["ApiKeys"]
        .as_array()
        .context("ApiVersions has no answer")?;
    let number = |one: &Value, field: &str| {
        one[field]
            .as_i64()
            .and_then(|number| i16::try_from(number).ok())
    };
    let one = |one: &Value| {
        let (min, max) = (number(one, "MinVersion")?, number(one, "MaxVersion")?);
        Some((number(one, "ApiKey")?, Versions { min, max }))
    };
    Ok(keys.iter().filter_map(one).collect())
}

fn play(
    plan: &Plan,
    schemas: &Schemas,
    served: &BTreeMap<i16, Versions>,
    mut episode: Episode,
    sides: &mut [Side; 2],
    report: &mut Report,
) -> anyhow::Result<u32> {
    let era = episode.era();
    let mut asks = episode.prologue();
    let mut asked = 0;
    let [kafka, leasehold] = sides;
    while asked < EPISODE {
        for ask in std::mem::take(&mut asks) {
            let Some(request) = choose(schemas, served, &mut episode, ask.clone())? else {
                continue;
            };
            let (left, right) = exchange(schemas, &request, &era, kafka, leasehold);
            let differences = compare::compare(&left, &right);
            if plan.verbose {
                println!(
                    "{era}{asked} {} {} {}\n  K {left}\n  L {right}",
                    ask.api, request.version, request.body
                );
            }
            report.add(ask.api, &format!("{era}{asked}"), &request, &differences);
            asked += 1;
            settle(schemas, ask.api, &era, kafka, leasehold);
        }
        asks = episode.scene();
    }
    Ok(asked)
}

/// Chooses a version, and sometimes makes a field odd. `None` for what Leasehold does not advertise.
fn choose(
    schemas: &Schemas,
    served: &BTreeMap<i16, Versions>,
    episode: &mut Episode,
    ask: Ask,
) -> anyhow::Result<Option<Request>> {
    let key = schemas
        .key_of(ask.api)
        .with_context(|| format!("no API {}", ask.api))?;
    let Some(versions) = served.get(&key) else {
        return Ok(None);
    };
    let version = episode
        .rng
        .random_range(versions.min.max(ask.at_least)..=versions.max);
    let mut body = ask.body;
    let odd = episode.rng.random_range(0..ODD) == 0;
    if let (true, true, Some((message, _))) = (odd, ask.odd, schemas.get(key)) {
        mutate::mutate(&mut episode.rng, message, version, &mut body);
    }
    Ok(Some(Request {
        key,
        version,
        body,
        bind: ask.bind,
    }))
}

/// Waits until the leaders that were told of know of it themselves: in Kafka that is a little later.
fn lead(schemas: &Schemas, metadata: &Value, era: &str, kafka: &mut Side, leasehold: &mut Side) {
    let topics = metadata["Topics"].as_array().into_iter().flatten();
    let topics: Vec<Value> = topics
        .map(|topic| {
            let all = topic["Partitions"].as_array().into_iter().flatten();
            let all = all.map(|one| {
                json!({"PartitionIndex": one["PartitionIndex"], "CurrentLeaderEpoch": -1, "Timestamp": -1})
            });
            json!({"Name": topic["Name"], "Partitions": all.collect::<Vec<_>>()})
        })
        .collect();
    let request = Request {
        key: 2,
        version: 7,
        body: json!({"ReplicaId": -1, "IsolationLevel": 0, "Topics": topics}),
        bind: None,
    };
    for side in [kafka, leasehold] {
        for _ in 0..20 {
            if !exchange::in_a_moment(&side.ask(schemas, &request, era)) {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// After what changes the world: waits until both show the same topics, and learns their ids.
fn settle(schemas: &Schemas, api: &str, era: &str, kafka: &mut Side, leasehold: &mut Side) {
    let changes = [
        "CreateTopics",
        "DeleteTopics",
        "CreatePartitions",
        "Metadata",
        "FindCoordinator",
        "AlterPartitionReassignments",
        "IncrementalAlterConfigs",
        "AlterConfigs",
    ];
    if !changes.contains(&api) {
        return;
    }
    let request = Request {
        key: 3,
        version: 12,
        body: json!({"Topics": null, "AllowAutoTopicCreation": false}),
        bind: None,
    };
    let mut last = Value::Null;
    for _ in 0..20 {
        let (left, right) = exchange(schemas, &request, era, kafka, leasehold);
        let shape = |answer: &Value| {
            let mut topics: Vec<(String, usize, bool)> = answer["Topics"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|topic| {
                    let partitions = topic["Partitions"].as_array().cloned().unwrap_or_default();
                    let led = partitions.iter().all(|one| one["ErrorCode"] == 0);
                    (topic["Name"].to_string(), partitions.len(), led)
                })
                .collect();
            topics.sort();
            topics
        };
        // The same twice: nothing is on its way any more, even where the peers are not of one mind.
        if shape(&left) == shape(&right) || last == json!([left.clone(), right.clone()]) {
            return lead(schemas, &left, era, kafka, leasehold);
        }
        last = json!([left, right]);
        thread::sleep(Duration::from_millis(100));
    }
}
