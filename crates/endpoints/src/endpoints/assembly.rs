//! Assembles the endpoints from the parts that the builder has checked.

use std::sync::{Arc, atomic::AtomicBool};

use async_endpoints_core::{JobName, Store, store::WorkerId};
use uuid::Uuid;

#[cfg(feature = "dashboard")]
use super::MakeDashboard;
use super::{AsyncEndpoints, Inner, MakeRoutes, OwnerOf};
use crate::{
    acceptor::StoreAcceptor,
    alerts::{CountedStore, Engine, EngineParts, Plan},
    audit::Trail,
    bulk::Bulk,
    fleet::Fleet,
    health::{self, Check, Health, Sources},
    hub::Hub,
    job_type::{Policy, Rules},
    middleware::Middleware,
    options::Options,
    request::RedactionRule,
    series::SeriesCache,
    stats_cache::StatsCache,
    sync::Mutex,
    telemetry::{Measured, OutageLog},
    types::SharedControls,
    worker::{RegisteredType, Worker, WorkerParts, describe},
};

/// The parts that the builder has checked.
pub(crate) struct Assembly {
    pub(crate) types: Vec<(JobName, Policy)>,
    pub(crate) routes: MakeRoutes,
    #[cfg(feature = "dashboard")]
    pub(crate) dashboard: MakeDashboard,
    pub(crate) owner: OwnerOf,
    pub(crate) registered: Vec<RegisteredType>,
    pub(crate) middlewares: Vec<Arc<dyn Middleware>>,
    pub(crate) measured: Measured,
    pub(crate) health: Vec<(String, Check)>,
    pub(crate) alerts: Option<Plan>,
    pub(crate) redaction: Option<RedactionRule>,
}

impl AsyncEndpoints {
    pub(crate) fn assemble(store: Arc<dyn Store>, options: Options, parts: Assembly) -> Self {
        let Assembly {
            types,
            routes,
            #[cfg(feature = "dashboard")]
            dashboard,
            owner,
            registered,
            middlewares,
            measured,
            health,
            alerts,
            redaction,
        } = parts;
        let cutoffs = types.iter().map(|(name, policy)| policy.cutoffs(name, &options)).collect();
        let depths = types.iter().map(|(name, policy)| (name.clone(), policy.queue_depth)).collect();
        let names: Vec<JobName> = types.into_iter().map(|(name, _)| name).collect();
        let store: Arc<dyn Store> = Arc::new(OutageLog::new(store));
        let (store, counts) = if alerts.is_some() { CountedStore::around(store) } else { (store, Arc::default()) };
        let store = measured.store(store);
        let id = WorkerId(measured.telemetry.take_instance_id().unwrap_or_else(Uuid::new_v4));
        let version = measured.telemetry.service_version().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
        let info = describe(id, version);
        let measured = Arc::new(measured);
        let hub = Arc::<Hub>::default();
        let for_handlers = StoreAcceptor {
            hub: hub.clone(),
            store: store.clone(),
            measured: measured.clone(),
            options: options.clone(),
            stopping: None,
        };
        let controls = SharedControls::new(store.clone());
        let parts = WorkerParts {
            store: store.clone(),
            options: options.clone(),
            types: registered.into(),
            middlewares: middlewares.into(),
            observed: measured.running(),
            acceptor: Arc::new(for_handlers.clone()),
            controls: controls.clone(),
        };
        let worker = Worker::new(info, parts);
        let acceptor = StoreAcceptor { stopping: Some(worker.stopping().clone()), ..for_handlers };
        let (rules, defaults) = (Rules::default(), options.clone());
        let undeclared = move |name: &JobName| rules.resolve(&defaults).cutoffs(name, &defaults);
        let stats_cache = StatsCache::new(store.clone(), controls.clone(), cutoffs, undeclared);
        let declared = Arc::from(names.as_slice());
        let (stats, lease) = (&stats_cache, options.lease);
        let parts = EngineParts { stats, store: &store, controls: &controls, id, lease, declared, counts };
        let alerts = alerts.map(|plan| Engine::new(plan, parts, &measured));
        let sources = Sources {
            store: &store,
            stats: &stats_cache,
            controls: &controls,
            worker: worker.vitals(),
            options: &options,
            types: depths,
            alerts: alerts.as_ref().map(Engine::vitals),
        };
        let checks = health::checks(sources, health);
        let on_change = measured.health_changes(checks.iter().map(|(name, _)| name.as_str()));
        let health = Arc::new(Health::new(checks, worker.vitals().clone(), on_change));
        let statuses = Arc::downgrade(&health);
        measured.health_gauge(move |observe| {
            if let Some(health) = statuses.upgrade() {
                health.statuses().into_iter().for_each(|(check, status)| observe(check, status));
            }
        });
        let (cached, slots) = (Arc::downgrade(&stats_cache), Arc::downgrade(&worker));
        let decided = Arc::downgrade(&controls);
        measured.gauges(
            move || cached.upgrade()?.latest(),
            move |name| decided.upgrade().is_some_and(|controls| controls.latest().pause(name).is_some()),
            move || slots.upgrade().map(|worker| worker.status().slots),
        );
        Self(Arc::new(Inner {
            types: names.into_iter().map(|name| (name.to_string(), name)).collect(),
            worker,
            routes,
            #[cfg(feature = "dashboard")]
            dashboard,
            owner,
            trail: Trail::new(store.clone()),
            bulk: Bulk::new(store.clone(), id, options.lease),
            store,
            options,
            hub,
            background: Mutex::default(),
            started: AtomicBool::new(false),
            fleet: Fleet::default(),
            controls,
            stats_cache,
            series: SeriesCache::default(),
            measured,
            acceptor,
            health,
            alerts,
            redaction,
        }))
    }
}
