//! One broker process with several listeners beside a laptop cluster: clients of each are told its endpoints, and
//! one that is learnt while the broker runs is in the next answer, without a restart.

use anyhow::Context as _;
use leasehold_metadata::Image;
use leasehold_metadata::head::load::load;
use leasehold_metadata::image::Endpoint;
use leasehold_metadata::rpc::*;
use leasehold_metadata::store::directory::DirectoryStore;
use leasehold_tests::dev::{Dev, PATIENCE};
use leasehold_tests::load::Load;
use leasehold_tests::{http, readback, wait};
use leasehold_types::{BrokerId, ListenerName};
use leasehold_wire::{Client, ClientOptions};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

/// The key of controller calls on the internal listener.
const CONTROLLER_CALL: i16 = 20_000;
const JOINED: i32 = 1;

/// Two ports that are free now.
fn free() -> [u16; 2] {
    let bound = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    bound.map(|listener| listener.local_addr().expect("its address").port())
}

/// The brokers that clients of `bootstrap` are told, and how they are reached.
fn brokers(bootstrap: &str) -> anyhow::Result<BTreeMap<i32, String>> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("log_level", "0")
        .create()?;
    let metadata = client.fetch_metadata(None, Duration::from_secs(5))?;
    let brokers = metadata.brokers().iter();
    Ok(brokers
        .map(|b| (b.id(), format!("{}:{}", b.host(), b.port())))
        .collect())
}

async fn image(dev: &Dev) -> anyhow::Result<Image> {
    let store = DirectoryStore::open(dev.data().join("metadata"))?;
    Ok((*load(&store).await?.image).clone())
}

/// Tells the controller, as the operator does, how a listener of the broker that joined is reached.
async fn tell(dev: &Dev, listener: &ListenerName, port: u16) -> anyhow::Result<()> {
    let image = image(dev).await?;
    let endpoint = Endpoint {
        host: "127.0.0.1".to_owned(),
        port,
    };
    let told = BrokerEndpoints {
        broker: BrokerId(JOINED),
        listeners: [(listener.clone(), Some(endpoint))].into(),
    };
    let request = AdminRequest::SetEndpoints {
        brokers: vec![told],
    };
    let call = Call {
        cluster_id: image.cluster_id.clone(),
        request: Request::Admin {
            request,
            timeout_ms: 5_000,
        },
    };
    let body = serde_json::to_vec(&call)?;
    for broker in image.brokers.values() {
        let options = ClientOptions {
            client_id: Some(image.cluster_id.0.clone()),
            ..ClientOptions::default()
        };
        let client = Client::connect(&broker.internal.to_string(), options).await?;
        let limit = Duration::from_secs(6);
        let reply = client.call_raw(CONTROLLER_CALL, 0, body.clone().into(), limit);
        match serde_json::from_slice(&reply.await?)? {
            Response::Admin(AdminResponse::SetEndpoints(outcomes)) => {
                let outcome = &outcomes.first().context("an outcome")?.1;
                anyhow::ensure!(outcome.is_ok(), "{outcome:?}");
                return Ok(());
            }
            Response::NotController { .. } => {}
            other => anyhow::bail!("{other:?}"),
        }
    }
    anyhow::bail!("no controller")
}

/// A topic of one partition, on the broker that joined alone.
async fn create(bootstrap: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .expect("a client");
    let on_joined = [&[JOINED][..]];
    let wanted = NewTopic::new(topic, 1, TopicReplication::Variable(&on_joined));
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
    let created = admin.create_topics([&wanted], &options).await;
    assert_eq!(created.expect("an answer"), [Ok(topic.to_owned())]);
}

#[test]
fn clients_of_each_listener_are_told_its_endpoints_and_a_new_one_without_a_restart() {
    let dev = Dev::start(1, &[]);
    let [fixed, public] = free();
    let name = ListenerName::parse("public").expect("a name");
    let arguments = [
        format!("--listener=fixed=127.0.0.1:{fixed},localhost:{fixed}"),
        // As with a port of a node: how it is reached is known to others alone.
        format!("--listener=public=127.0.0.1:{public}"),
    ];
    let joined = dev.join_with(JOINED as u16, &arguments);
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let (main, fixed, public_at) = (
        dev.bootstrap(),
        format!("localhost:{fixed}"),
        format!("127.0.0.1:{public}"),
    );
    let of_main = wait::until("both brokers in the answers", PATIENCE, || {
        let told = brokers(&main)?;
        anyhow::ensure!(told.len() == 2, "{told:?}");
        anyhow::Ok(told)
    });
    assert!(
        of_main.values().all(|at| at.starts_with("127.0.0.1:")),
        "{of_main:?}"
    );
    // The first broker does not listen there, so it is not named there.
    let only = BTreeMap::from([(JOINED, fixed.clone())]);
    assert_eq!(brokers(&fixed).expect("metadata"), only);
    // librdkafka takes an answer without brokers for none.
    let nobody = brokers(&public_at).unwrap_or_default();
    assert!(nobody.is_empty(), "{nobody:?}");
    let listeners = || http::get_json(joined.http, "/status").map(|s| s["listeners"].clone());
    let shown = listeners().expect("status");
    assert_eq!(shown[0]["advertised"], fixed.as_str());
    let waits = shown[1]["waiting"].as_str().expect("a reason");
    assert!(waits.contains("not known how clients reach"), "{waits}");
    let metric = |is: u8| format!("leasehold_listener_addressed{{listener=\"public\"}} {is}");
    let metrics = || http::get(joined.http, "/metrics").expect("metrics");
    assert!(metrics().contains(&metric(0)));

    let incarnation = || {
        let status = http::get_json(joined.http, "/status").expect("status");
        status["incarnation"].clone()
    };
    let before = incarnation();
    runtime
        .block_on(tell(&dev, &name, public))
        .expect("the controller takes it");
    let now = BTreeMap::from([(JOINED, public_at.clone())]);
    wait::until("the new endpoint in the answers", PATIENCE, || {
        let told = brokers(&public_at)?;
        anyhow::ensure!(told == now, "{told:?}");
        anyhow::Ok(())
    });
    assert!(metrics().contains(&metric(1)));
    assert_eq!(
        listeners().expect("status")[1]["waiting"],
        serde_json::Value::Null
    );
    assert_eq!(incarnation(), before, "it is the same process");
    assert_eq!(brokers(&main).expect("metadata"), of_main);
    assert_eq!(brokers(&fixed).expect("metadata"), only);

    // Records go through each of them.
    for (topic, bootstrap) in [("a", &fixed), ("b", &public_at), ("c", &main)] {
        runtime.block_on(create(bootstrap, topic));
        let load = Load::start(bootstrap, topic, 1, 200, &[]);
        load.wait_flowing(PATIENCE);
        let history = load.stop();
        assert!(history.failed.is_empty(), "{:?}", history.failed);
        readback::check(bootstrap, topic, &history);
    }
}
