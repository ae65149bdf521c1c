//! The pod's word that it is alive: its capacity and the leases of its calls, in one request every two seconds.
//!
//! What comes back is passed on: somebody asked another pod to hang up, a newer leg took over, the carrier said the call
//! is over. The gauges that other parts only read are kept here.

use std::sync::Arc;
use std::time::Duration;

use crate::calls::Notice;
use crate::clock::UnixMs;
use crate::pod::Pod;
use crate::store::{Renewal, Standing, StoreError};
use crate::stream::own_key;

/// A pod that said nothing for this long is taken for dead: seven renewals, or a garbage-collecting Redis.
pub(crate) const LEASE: Duration = Duration::from_secs(15);

/// How often leases are renewed. A hang-up asked for at another pod takes this long to arrive.
const INTERVAL: Duration = Duration::from_secs(2);

/// Renews until it is dropped.
pub(crate) async fn keep(pod: Arc<Pod>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if let Err(error) = renew(&pod, (pod.clock)()).await {
            pod.metrics.store_failures.inc();
            tracing::warn!(%error, "leases could not be renewed");
        }
    }
}

async fn renew(pod: &Pod, now: UnixMs) -> Result<(), StoreError> {
    let agent = pod.agent();
    pod.metrics.call_capacity.set(i64::from(agent.max_calls_per_pod));
    let key = own_key(&agent);
    let legs = pod.calls.legs();
    // A leaving pod offers nothing new: its capacity is what it still carries.
    let carried = u32::try_from(legs.len()).unwrap_or(u32::MAX);
    let capacity = if pod.phase.borrow().admits() { agent.max_calls_per_pod } else { carried };
    let until = now.plus(LEASE);
    let renewal = Renewal { agent: &key, owner: &pod.owner, capacity, now, until, legs: &legs };
    let standings = pod.store.renew(&renewal).await?;
    for (leg, standing) in legs.iter().zip(standings) {
        let notice = match standing {
            Standing::Held => continue,
            Standing::HangUpRequested => Notice::HangUp,
            Standing::Superseded => Notice::Superseded,
            Standing::Over => Notice::Over,
        };
        pod.calls.tell(&leg.call, leg.epoch, notice);
    }
    let slots = pod.store.count_slots(&key, now).await?;
    let gauge = |count| i64::try_from(count).unwrap_or(i64::MAX);
    pod.metrics.waiting_calls.set(gauge(slots.waiting));
    // Who waits needs a pod as much as who has a slot: the number of pods follows the sum.
    pod.metrics.reserved_slots.set(gauge(slots.reserved + slots.waiting));
    Ok(())
}
