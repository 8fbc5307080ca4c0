//! The simulated API server, in calm weather, keeps what every store promises.

use leasehold_metadata::store::suite;
use leasehold_simulation::api::ApiClient;
use leasehold_simulation::core::{Core, STEP};
use leasehold_types::Incarnation;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn the_simulated_api_keeps_every_promise_of_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let core = Arc::new(Mutex::new(Core::new(1, 1, folder.path()).unwrap()));
    let world = core.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(STEP)).await;
            let mut core = world.lock();
            core.now += STEP;
            core.deliver();
        }
    });
    let life = Incarnation(1);
    let client = ApiClient {
        core,
        node: 0,
        life,
    };
    suite::run(Arc::new(client)).await.unwrap();
}
