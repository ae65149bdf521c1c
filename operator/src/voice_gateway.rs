//! VoiceGateway: the credentials are checked at the carrier, and the stream keyring exists.

pub mod carrier;
pub mod keyring;
pub mod status;

use std::sync::Arc;

use crds::conditions::Reason;
use crds::{VoiceGateway, VoiceGatewayStatus};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, watcher};
use kube::{Api, Resource as _, ResourceExt as _};
use twilio::rest::AccountStatus;

use crate::apply::{self, FIELD_MANAGER};
use crate::context::{Context, spread};
use crate::finding::Finding;
use crate::references::{self, Missing};
use crate::report::{self, Error, Kind};
use crate::voice_agent::agent_file::gateway_secret_keys;
use carrier::NoClient;
use keyring::KeyringError;
use status::Findings;

type Guarded = DeserializeGuard<VoiceGateway>;

/// Runs until `stop`.
pub async fn run(context: Arc<Context>, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let client = context.client.clone();
    let controller = Controller::new(Api::<Guarded>::all(client.clone()), watcher::Config::default());
    let store = controller.store();
    controller
        .watches(Api::<PartialObjectMeta<Secret>>::all(client), watcher::Config::default(), move |secret| {
            users_of_secret(&store, &secret)
        })
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
            && (keyring::secret_name(&gateway.name_any()) == name
                || gateway_secret_keys(&gateway.spec).iter().any(|r| r.name == name))
    };
    let gateways = store.state();
    gateways
        .iter()
        .filter(|g| g.0.as_ref().is_ok_and(uses))
        .map(|g| ObjectRef::from_obj(g.as_ref()))
        .collect()
}

/// Checks and makes, then says so.
async fn reconcile(gateway: Arc<VoiceGateway>, context: Arc<Context>) -> Result<Action, Error> {
    if gateway.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let keys = ensure_keys(&gateway, &context).await?;
    let (credentials, unavailable) = check_credentials(&gateway, &context).await?;
    let status = status::compute(&gateway, Findings { credentials, keys }, Timestamp::now());
    write_status(&gateway, &status, &context).await?;
    match unavailable {
        // The condition is written; now wait as the carrier wishes.
        Some(error) => Err(error.into()),
        None => Ok(Action::requeue(spread(context.resync, &gateway.name_any(), 0))),
    }
}

async fn ensure_keys(
    gateway: &VoiceGateway,
    context: &Context,
) -> Result<Result<crds::StreamKeys, Finding>, Error> {
    match keyring::ensure(&context.client, gateway).await {
        Ok(keys) => Ok(Ok(keys)),
        Err(KeyringError::Cluster(error)) => Err(Error::Cluster(error)),
        Err(error @ (KeyringError::Unreadable(_) | KeyringError::Random)) => {
            Ok(Err(Finding::no(Reason::KeyringInvalid, error.to_string())))
        }
    }
}

/// What the carrier says, and the error to wait for if it says nothing.
async fn check_credentials(
    gateway: &VoiceGateway,
    context: &Context,
) -> Result<(Finding, Option<twilio::rest::Error>), Error> {
    let namespace = gateway.namespace().unwrap_or_default();
    let keys = gateway_secret_keys(&gateway.spec);
    let missing = references::fetch_missing_secrets(&context.client, &namespace, keys).await?;
    if !missing.is_empty() {
        return Ok((not_found(&missing), None));
    }
    let client = match carrier::client(context, gateway).await? {
        Ok(client) => client,
        Err(NoClient::Missing(missing)) => return Ok((not_found(&[missing]), None)),
        Err(NoClient::Invalid(invalid)) => {
            return Ok((Finding::no(Reason::InvalidSpec, invalid.to_string()), None));
        }
    };
    Ok(match client.fetch_account().await {
        Ok(account) if account.status == AccountStatus::Active => {
            (Finding::yes(Reason::CredentialsVerified), None)
        }
        Ok(_) => {
            let message =
                "Twilio says that the account is suspended or closed: see the Twilio console".to_owned();
            (Finding::no(Reason::CredentialsRejected, message), None)
        }
        Err(error) => refusal(error),
    })
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
