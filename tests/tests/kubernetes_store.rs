//! The promises of a store, and of the head upon it, on a real API server and etcd.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use leasehold_metadata::head::{ControllerRef, Failed, HeadWriter, Limits, genesis, load};
use leasehold_metadata::lease::{DURATION, Elector, Holder};
use leasehold_metadata::records::{ConfigResource, Record};
use leasehold_metadata::store::kubernetes::KubernetesStore;
use leasehold_metadata::store::{Store, suite};
use leasehold_types::{BrokerId, ClusterId, Incarnation};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A namespace that goes when the test ends.
struct Place {
    config: kube::Config,
    namespace: String,
}

impl Place {
    async fn new(purpose: &str) -> Self {
        let own = std::env::var_os("KUBECONFIG").map(PathBuf::from);
        let file = own.unwrap_or_else(|| {
            let state = std::env::var("LEASEHOLD_STATE");
            let state = state.unwrap_or_else(|_| "/var/lib/leasehold-kubernetes".to_owned());
            Path::new(&state).join("admin.kubeconfig")
        });
        let file = kube::config::Kubeconfig::read_from(file).expect("tests/kubernetes/up was run");
        let config = kube::Config::from_custom_kubeconfig(file, &Default::default())
            .await
            .expect("a usable kubeconfig");
        let namespace = format!("store-{purpose}-{:08x}", rand::random::<u32>());
        let namespaces: Api<Namespace> = Api::all(kube::Client::try_from(config.clone()).unwrap());
        let object = Namespace {
            metadata: ObjectMeta {
                name: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        namespaces
            .create(&PostParams::default(), &object)
            .await
            .expect("a namespace");
        Self { config, namespace }
    }

    fn store(&self) -> Arc<KubernetesStore> {
        Arc::new(KubernetesStore::new(self.config.clone(), &self.namespace, "demo").unwrap())
    }

    async fn remove(self) {
        let namespaces: Api<Namespace> = Api::all(kube::Client::try_from(self.config).unwrap());
        let _ = namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await;
    }
}

fn set(key: &str, value: String) -> Vec<Record> {
    vec![Record::Config {
        resource: ConfigResource::Cluster,
        key: key.to_owned(),
        value: Some(value),
    }]
}

async fn claim(store: Arc<dyn Store>, broker: i32) -> Result<HeadWriter, Failed> {
    let loaded = load(&*store).await.expect("the metadata loads");
    let me = ControllerRef {
        broker: BrokerId(broker),
        incarnation: Incarnation::random(),
        address: "127.0.0.1:1".to_owned(),
    };
    let claimed = HeadWriter::claim(store, loaded, me, Limits::default(), Arc::new(|| true)).await;
    claimed.map(|(writer, _)| writer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_keeps_every_promise_of_a_store() {
    let place = Place::new("suite").await;
    let result = suite::run(place.store()).await;
    place.remove().await;
    result.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_controllers_late_write_is_refused_and_large_batches_read_back() {
    let place = Place::new("head").await;
    let store = place.store();
    genesis(&*store, &ClusterId::random()).await.unwrap();
    let mut old = claim(store.clone(), 0).await.unwrap();
    let begun = Instant::now();
    for number in 0..50 {
        old.commit(set("k", format!("{number}"))).await.unwrap();
    }
    println!("50 commits in {:?}", begun.elapsed());
    let begun = Instant::now();
    let noise: String = (0..40_000)
        .map(|_| format!("{:016x}", rand::random::<u64>()))
        .collect();
    old.commit(set("large", noise)).await.unwrap();
    println!("a batch of 640 KB in {:?}", begun.elapsed());
    let begun = Instant::now();
    let new = claim(store.clone(), 1).await.unwrap();
    println!("loaded and claimed in {:?}", begun.elapsed());
    let late = old.commit(set("k", "late".to_owned())).await;
    assert!(matches!(late, Err(Failed::NotApplied(_))), "{late:?}");
    let loaded = load(&*store).await.unwrap();
    place.remove().await;
    assert_eq!(loaded.head.epoch, new.our_claim().epoch);
    assert_eq!(*loaded.image, **new.image());
    assert_eq!(loaded.image.cluster_configs["k"], "49");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_passes_by_release_at_once_and_by_silence_only_in_time() {
    let place = Place::new("lease").await;
    let candidate = |broker: i32| {
        let me = Holder {
            broker: BrokerId(broker),
            incarnation: Incarnation::random(),
        };
        Elector::new(place.store(), me, "127.0.0.1:1".to_owned())
    };
    let (mut first, mut second, mut third) = (candidate(0), candidate(1), candidate(2));
    let tenure = first.acquire().await;
    let waiting = tokio::spawn(async move { second.acquire().await });
    tokio::time::sleep(DURATION + Duration::from_secs(1)).await;
    let held = !waiting.is_finished() && tenure.may_act();
    let begun = Instant::now();
    tenure.release().await;
    let second = waiting.await.unwrap();
    println!("taken {:?} after its release", begun.elapsed());
    let released = begun.elapsed();
    // The second dies without a word.
    drop(second);
    let begun = Instant::now();
    let third = third.acquire().await;
    let silent = begun.elapsed();
    println!("taken {silent:?} after the holder fell silent");
    let acts = third.may_act();
    drop(third);
    place.remove().await;
    assert!(held && acts);
    assert!(released < Duration::from_secs(1), "{released:?}");
    assert!(
        silent >= DURATION - Duration::from_secs(1) && silent < DURATION * 2,
        "{silent:?}"
    );
}
