//! The carrier's REST client of a gateway, with the credentials it refers to.

use crds::{CarrierType, VoiceGateway};
use kube::ResourceExt as _;
use twilio::rest::{Client, Credentials};

use crate::context::Context;
use crate::references::{self, Missing};
use crate::voice_agent::agent_file::Invalid;

/// No client can be made; a person must change something.
#[derive(Debug)]
pub enum NoClient {
    /// The credentials are not there.
    Missing(Missing),
    /// The spec contradicts itself.
    Invalid(Invalid),
}

/// Makes the client of a gateway. The first auth token is the one for REST.
pub async fn client(
    context: &Context,
    gateway: &VoiceGateway,
) -> Result<Result<Client, NoClient>, kube::Error> {
    let CarrierType::Twilio = gateway.spec.carrier.kind;
    let invalid = Invalid::MissingMember { path: "carrier", kind: "Twilio", member: "twilio" };
    let Some(twilio) = &gateway.spec.carrier.twilio else { return Ok(Err(NoClient::Invalid(invalid))) };
    let Some(reference) = twilio.auth_token_secret_refs.first() else {
        return Ok(Err(NoClient::Invalid(invalid)));
    };
    let Ok(account) = twilio.account_sid.parse() else {
        return Ok(Err(NoClient::Invalid(Invalid::AccountSid)));
    };
    let namespace = gateway.namespace().unwrap_or_default();
    Ok(match references::fetch_secret(&context.client, &namespace, reference).await? {
        Err(missing) => Err(NoClient::Missing(missing)),
        Ok(token) => Ok(Client::new(
            context.transport.clone(),
            &twilio.api_base_url,
            account,
            Credentials::AuthToken(token),
        )),
    })
}
