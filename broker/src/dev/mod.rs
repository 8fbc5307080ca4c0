//! `leasehold-broker dev`: a whole cluster on one machine, each broker a process of its own, so that
//! killing one is the real thing. The brokers share the `directory` store in place of Kubernetes.
//!
//! Promises: everything stays below `--data`; a second `dev` on it is refused; a killed broker is
//! started again (at once, or when asked to with `--no-restart`); Ctrl-C stops all of them cleanly;
//! no broker outlives `dev`.

mod child;
mod layout;
mod news;
mod recover;
mod watch;

pub use recover::recover;

use crate::cli::DevArgs;
use crate::config::BrokerConfig;
use anyhow::{Context as _, bail, ensure};
use child::Broker;
use futures::stream::{FuturesUnordered, StreamExt as _};
use layout::Layout;
use leasehold_metadata::head::genesis;
use leasehold_metadata::image::Image;
use leasehold_metadata::store::directory::DirectoryStore;
use leasehold_types::{BrokerId, ClusterId};
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// A broker that ends sooner than this after its start is started again only after this long.
const CRASH_LOOP: Duration = Duration::from_secs(2);

/// Runs the cluster until Ctrl-C or SIGTERM.
pub async fn dev(args: DevArgs) -> anyhow::Result<()> {
    ensure!(
        args.brokers > 0,
        "--brokers 0: a cluster needs at least one broker"
    );
    for (flag, first) in [("--port", args.port), ("--http-port", args.http_port)] {
        ensure!(
            first.checked_add(args.brokers - 1).is_some(),
            "{flag} {first}: no room for {} ports",
            args.brokers
        );
    }
    std::fs::create_dir_all(&args.data)
        .with_context(|| format!("cannot create {}", args.data.display()))?;
    let root = args.data.canonicalize()?;
    let no_restart = args.no_restart;
    let _lock = lock(&root)?;
    let user_config = args.config.clone();
    let layout = Layout::new(args, root);
    write_config(&layout, user_config.as_deref())?;
    let store = DirectoryStore::open(layout.store_dir())?;
    recover::refuse_to_forget(&layout, &store).await?;
    genesis(&store, &ClusterId::random()).await?;
    let watch = watch::Watch::new(store, &layout.store_dir())?;
    let cluster = Cluster::start(layout, no_restart, watch)?;
    cluster.run().await
}

/// Holds the directory for this process. The file says which process that is.
fn lock(root: &std::path::Path) -> anyhow::Result<File> {
    use std::io::Write as _;
    let path = root.join("dev.lock");
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let holder = std::fs::read_to_string(&path).unwrap_or_default();
        bail!(
            "another `leasehold-broker dev` (process {}) runs on {}: stop it, or choose another --data, --port and --http-port",
            holder.trim(),
            root.display()
        );
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// The user's configuration over `dev`'s own defaults, checked here so that a mistake is reported
/// once, at the terminal, and not by every broker into its log.
fn write_config(layout: &Layout, user: Option<&std::path::Path>) -> anyhow::Result<()> {
    let mut values: serde_yaml::Mapping = match user {
        None => serde_yaml::Mapping::new(),
        Some(path) => {
            let config = crate::config::load(Some(path))?;
            refuse_shared_directories(&config)?;
            let text = std::fs::read_to_string(path)?;
            serde_yaml::from_str::<Option<serde_yaml::Mapping>>(&text)?.unwrap_or_default()
        }
    };
    for (key, value) in layout.defaults() {
        values.entry(key.into()).or_insert(value.into());
    }
    let path = layout.config_file();
    std::fs::write(&path, serde_yaml::to_string(&values)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// All brokers have the same configuration, so log directories must be found from each one's own.
fn refuse_shared_directories(config: &BrokerConfig) -> anyhow::Result<()> {
    for directory in config.log_directories(std::path::Path::new("")) {
        ensure!(
            directory.is_relative(),
            "log.dirs: {} would be one directory for all brokers; a relative path is below each broker's own",
            directory.display()
        );
    }
    Ok(())
}

struct Cluster {
    layout: Layout,
    no_restart: bool,
    brokers: Vec<Option<Broker>>,
    watch: watch::Watch,
    image: Option<Arc<Image>>,
    /// Brokers that have not joined since `dev` started; empty once the cluster was announced.
    awaited: BTreeSet<i32>,
    started: Instant,
}

/// What happened.
enum Event {
    Stop,
    StartKilled,
    Ended(usize, std::io::Result<std::process::ExitStatus>),
    Image(Arc<Image>),
    WatchFailed(anyhow::Error),
    StartLate(usize),
}

impl Cluster {
    fn start(layout: Layout, no_restart: bool, watch: watch::Watch) -> anyhow::Result<Self> {
        let started = Instant::now();
        let brokers: anyhow::Result<Vec<_>> = layout
            .ids()
            .map(|id| Broker::start(id, &layout).map(Some))
            .collect();
        let awaited = layout.ids().map(i32::from).collect();
        Ok(Self {
            layout,
            no_restart,
            brokers: brokers?,
            watch,
            image: None,
            awaited,
            started,
        })
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut user = signal(SignalKind::user_defined1())?;
        let mut input = Some(tokio::io::stdin());
        let mut late = FuturesUnordered::new();
        loop {
            let Self { brokers, watch, .. } = &mut self;
            let mut ends: FuturesUnordered<_> = brokers
                .iter_mut()
                .enumerate()
                .filter_map(|(index, broker)| broker.as_mut().map(|broker| (index, broker)))
                .map(|(index, broker)| async move { (index, broker.ended().await) })
                .collect();
            let event = tokio::select! {
                _ = interrupt.recv() => Event::Stop,
                _ = terminate.recv() => Event::Stop,
                _ = user.recv() => Event::StartKilled,
                enter = next_line(&mut input) => if enter { Event::StartKilled } else { continue },
                Some((index, status)) = ends.next() => Event::Ended(index, status),
                image = watch.next() => image.map_or_else(Event::WatchFailed, Event::Image),
                Some(index) = late.next() => Event::StartLate(index),
            };
            drop(ends);
            match event {
                Event::Stop => return self.stop(&mut interrupt, &mut terminate).await,
                Event::StartKilled => self.start_killed()?,
                Event::Image(image) => self.tell(image),
                Event::WatchFailed(error) => {
                    println!("cannot read the metadata, no more news of elections: {error:#}");
                    bail!(
                        "the metadata in {} is unreadable: {error:#}",
                        self.layout.store_dir().display()
                    );
                }
                Event::StartLate(index) => self.start_one(index)?,
                Event::Ended(index, status) => {
                    let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                    let Some(broker) = self.brokers[index].take() else {
                        continue;
                    };
                    println!("broker {} ended: {status}", broker.id);
                    if self.no_restart {
                        println!(
                            "press Enter, or send SIGUSR1 to {}, to start it again",
                            std::process::id()
                        );
                    } else if broker.started.elapsed() < CRASH_LOOP {
                        let log = self.layout.broker_dir(broker.id).join("broker.log");
                        println!("it had just been started: see {}", log.display());
                        let at = broker.started + CRASH_LOOP;
                        late.push(async move {
                            tokio::time::sleep_until(at).await;
                            index
                        });
                    } else {
                        self.start_one(index)?;
                    }
                }
            }
        }
    }

    fn start_killed(&mut self) -> anyhow::Result<()> {
        for index in 0..self.brokers.len() {
            self.start_one(index)?;
        }
        Ok(())
    }

    fn start_one(&mut self, index: usize) -> anyhow::Result<()> {
        if self.brokers[index].is_none() {
            let id = index as u16;
            println!("starting broker {id}");
            self.brokers[index] = Some(Broker::start(id, &self.layout)?);
        }
        Ok(())
    }

    fn tell(&mut self, image: Arc<Image>) {
        if let Some(old) = &self.image {
            for line in news::between(old, &image) {
                println!("{line}");
            }
        } else if let Some(claim) = image.claims.last().filter(|claim| claim.broker.0 >= 0) {
            println!(
                "broker {} was controller last, epoch {}",
                claim.broker, claim.epoch
            );
        }
        let registered_now = |id: i32| {
            image.brokers.get(&BrokerId(id)).is_some_and(|broker| {
                // A registration of an earlier run is not one of this run.
                let before = self
                    .image
                    .as_ref()
                    .and_then(|old| old.brokers.get(&BrokerId(id)));
                !broker.fenced
                    && before.is_some_and(|before| {
                        before.changed_at != broker.changed_at || before.fenced
                    })
            })
        };
        let waiting = !self.awaited.is_empty();
        let joined: Vec<i32> = self
            .awaited
            .iter()
            .copied()
            .filter(|id| registered_now(*id))
            .collect();
        for id in joined {
            self.awaited.remove(&id);
        }
        self.image = Some(image);
        if waiting && self.awaited.is_empty() {
            println!(
                "ready after {:.0?}; bootstrap.servers={}",
                self.started.elapsed(),
                self.layout.bootstrap()
            );
            println!(
                "data in {}; Ctrl-C stops the cluster",
                self.layout.root().display()
            );
        }
    }

    /// Stops every broker cleanly; a second signal ends them at once.
    async fn stop(mut self, interrupt: &mut Signal, terminate: &mut Signal) -> anyhow::Result<()> {
        println!("stopping; once more to stop at once");
        let mut running: Vec<Broker> = self.brokers.iter_mut().filter_map(Option::take).collect();
        running.iter().for_each(Broker::terminate);
        let mut hurried = false;
        while !running.is_empty() {
            let mut ends: FuturesUnordered<_> = running
                .iter_mut()
                .enumerate()
                .map(|(index, broker)| async move { (index, broker.ended().await) })
                .collect();
            let ended = tokio::select! {
                _ = interrupt.recv() => None,
                _ = terminate.recv() => None,
                Some(ended) = ends.next() => Some(ended),
            };
            drop(ends);
            match ended {
                Some((index, status)) => {
                    let broker = running.swap_remove(index);
                    if !status.is_ok_and(|status| status.success()) && !hurried {
                        println!("broker {} did not end cleanly", broker.id);
                    }
                }
                None => {
                    hurried = true;
                    running.iter().for_each(Broker::terminate);
                }
            }
        }
        Ok(())
    }
}

/// Waits for a line of input; after the end of input, for ever.
async fn next_line(input: &mut Option<tokio::io::Stdin>) -> bool {
    let mut byte = [0];
    match input {
        Some(stdin) => match stdin.read(&mut byte).await {
            Ok(0) | Err(_) => {
                *input = None;
                false
            }
            Ok(_) => byte[0] == b'\n',
        },
        None => std::future::pending().await,
    }
}
