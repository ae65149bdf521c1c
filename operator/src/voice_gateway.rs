//! VoiceGateway: the credentials are checked at the carrier, and the stream keyring exists and is rotated.

pub mod carrier;
pub mod keyring;
mod pods;
pub mod status;

use std::sync::Arc;
use std::time::Duration;

use crds::conditions::Reason;
use crds::{SecretKeyRef, VoiceGateway, VoiceGatewayStatus};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource as _, ResourceExt as _};
use twilio::rest::AccountStatus;

use crate::apply::{self, FIELD_MANAGER};
use crate::cache::{GatewayFeeds, contents};
use crate::context::{Context, spread};
use crate::finding::Finding;
use crate::references::{self, Missing};
use crate::report::{self, Error, Kind};
use crate::voice_agent::agent_file::gateway_secret_keys;
use carrier::NoCarrier;
use keyring::{KeyringError, Keys};
use status::Findings;

type Guarded = DeserializeGuard<VoiceGateway>;

/// Runs until `stop`.
pub async fn run(
    context: Arc<Context>,
    feeds: GatewayFeeds,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let GatewayFeeds { own, secrets } = feeds;
    let store = context.cache.gateways.clone();
    let by_secret = store.clone();
    Controller::for_stream(own, store)
        .watches_stream(secrets, move |secret| users_of_secret(&by_secret, &secret))
        .graceful_shutdown_on(stop)
        .run(
            |object, context| report::observe(Kind::VoiceGateway, object, context, reconcile),
            |object, error, context| report::error_policy(Kind::VoiceGateway, &object, error, &context),
            context.clone(),
        )
        .for_each(|result| report::follow(Kind::VoiceGateway, result, &context))
        .await;
}

/// The gateways that name a Secret, or whose keyring it is.
fn users_of_secret(store: &Store<Guarded>, secret: &PartialObjectMeta<Secret>) -> Vec<ObjectRef<Guarded>> {
    let (namespace, name) = (secret.namespace(), secret.name_any());
    let uses = |gateway: &VoiceGateway| {
        gateway.namespace() == namespace
            && (keyring::secret_name(&gateway.name_any()) == name || has_key_in(gateway, &name))
    };
    let gateways = store.state_filter(|g| g.0.as_ref().is_ok_and(uses));
    gateways.iter().map(|g| ObjectRef::from_obj(g.as_ref())).collect()
}

/// The names of the gateways that name a Secret.
pub fn names_secret(store: &Store<Guarded>, secret: &PartialObjectMeta<Secret>) -> Vec<String> {
    let (namespace, name) = (secret.namespace(), secret.name_any());
    let uses = |gateway: &VoiceGateway| gateway.namespace() == namespace && has_key_in(gateway, &name);
    store.state_filter(|g| g.0.as_ref().is_ok_and(uses)).iter().map(|g| g.name_any()).collect()
}

fn has_key_in(gateway: &VoiceGateway, secret: &str) -> bool {
    secret_keys(gateway).iter().any(|r| r.name == secret)
}

/// Everything secret that a gateway names: what its agents' pods get, and what is the operator's alone.
fn secret_keys(gateway: &VoiceGateway) -> Vec<SecretKeyRef> {
    let api_key = gateway.spec.carrier.twilio.as_ref().and_then(|twilio| twilio.api_key.as_ref());
    let mut keys = gateway_secret_keys(&gateway.spec);
    keys.extend(api_key.map(|key| key.secret_ref.clone()));
    keys
}

/// Checks and makes, then says so.
async fn reconcile(gateway: Arc<VoiceGateway>, context: Arc<Context>) -> Result<Action, Error> {
    if gateway.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    context.cache.wait_until_complete().await;
    let keys = tend_keys(&gateway, &context).await?;
    let key_look = keys.as_ref().map_or(context.resync, |keys| keys.look_again);
    let Checked { credentials, again } = check_credentials(&gateway, &context).await?;
    let status = status::compute(&gateway, Findings { credentials, keys }, Timestamp::now());
    write_status(&gateway, &status, &context).await?;
    // Without the carrier: the condition is written; now wait as it wishes.
    Ok(Action::requeue(again?.min(key_look)))
}

/// What is known of a gateway's credentials.
struct Checked {
    credentials: Finding,
    /// How long that counts, or the error to wait for.
    again: Result<Duration, twilio::rest::Error>,
}

async fn tend_keys(gateway: &VoiceGateway, context: &Context) -> Result<Result<Keys, Finding>, Error> {
    match keyring::tend(context, gateway).await {
        Ok(keys) => Ok(Ok(keys)),
        Err(KeyringError::Cluster(error)) => Err(Error::Cluster(error)),
        Err(error @ (KeyringError::Unreadable(_) | KeyringError::Random)) => {
            Ok(Err(Finding::no(Reason::KeyringInvalid, error.to_string())))
        }
    }
}

/// What the carrier says. It is asked when the credentials change, and on a schedule.
async fn check_credentials(gateway: &VoiceGateway, context: &Context) -> Result<Checked, Error> {
    let namespace = gateway.namespace().unwrap_or_default();
    let key = gateway.uid().unwrap_or_default();
    let told = |credentials| Checked { credentials, again: Ok(spread(context.resync, &key, 0)) };
    let keys = secret_keys(gateway);
    let missing = contents::missing_secrets(&context.client, &context.cache, &namespace, keys).await?;
    if !missing.is_empty() {
        return Ok(told(not_found(&missing)));
    }
    let carrier = match carrier::reach(context, gateway).await? {
        Ok(carrier) => carrier,
        Err(NoCarrier::Missing(missing)) => return Ok(told(not_found(&[missing]))),
        Err(NoCarrier::Invalid(invalid)) => {
            return Ok(told(Finding::no(Reason::InvalidSpec, invalid.to_string())));
        }
    };
    let question = carrier.made_of();
    if let Some((credentials, left)) = context.gateway_looks.recall(&key, question) {
        return Ok(Checked { credentials, again: Ok(left) });
    }
    context.standing.check()?;
    let answer = match carrier.turn().await {
        Ok(turn) => turn.client.fetch_account().await,
        Err(error) => Err(error),
    };
    let (credentials, error) = match answer {
        Ok(account) if account.status == AccountStatus::Active => {
            (Finding::yes(Reason::CredentialsVerified), None)
        }
        Ok(_) => {
            let message = "Twilio says that the account is suspended or closed: see the Twilio console";
            (Finding::no(Reason::CredentialsRejected, message), None)
        }
        Err(error) => {
            context.carriers.heed(&namespace, &gateway.name_any(), &error)?;
            refusal(error)
        }
    };
    let again = match error {
        None => Ok(context.gateway_looks.remember(&key, question, credentials.clone())),
        Some(error) => {
            context.gateway_looks.forget(&key);
            Err(error)
        }
    };
    Ok(Checked { credentials, again })
}

fn refusal(error: twilio::rest::Error) -> (Finding, Option<twilio::rest::Error>) {
    match error.fault() {
        twilio::rest::Fault::User => {
            let message = format!(
                "{error}: check accountSid and the auth token in the Secret that authTokenSecretRefs names first"
            );
            (Finding::no(Reason::CredentialsRejected, message), None)
        }
        twilio::rest::Fault::Twilio | twilio::rest::Fault::Us => {
            (Finding::unknown(Reason::CarrierUnavailable, error.to_string()), Some(error))
        }
    }
}

fn not_found(missing: &[Missing]) -> Finding {
    Finding::no(Reason::SecretNotFound, references::sentence(missing))
}

async fn write_status(
    gateway: &VoiceGateway,
    status: &VoiceGatewayStatus,
    context: &Context,
) -> Result<(), Error> {
    if gateway.status.as_ref() == Some(status) {
        return Ok(());
    }
    apply::apply_status(&context.client, gateway, status, FIELD_MANAGER, None).await?;
    let before = gateway.status.as_ref().map_or(&[][..], |s| &s.conditions);
    report::tell_transition(context, gateway, before, &status.conditions).await;
    Ok(())
}
