//! Where traces go and which: OpenTelemetry's own environment variables, and no others.
//!
//! Spec: *OpenTelemetry Environment Variable Specification* and *OTLP Exporter*. Here are those that decide something
//! here; the exporter itself reads `OTEL_EXPORTER_OTLP_[TRACES_]HEADERS`, `…_TIMEOUT`, and the resource
//! `OTEL_RESOURCE_ATTRIBUTES`.

use clap::Args;
use opentelemetry::trace::{SpanKind, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample as _};

use crate::config::ConfigError;

/// Flags and environment. Empty values count as none, as the specification says.
#[derive(Args, Clone, Debug)]
pub(crate) struct TraceArguments {
    /// OTLP receiver; traces go to /v1/traces below it.
    #[arg(long, env = ENDPOINT)]
    otlp_endpoint: Option<String>,
    /// OTLP receiver of traces alone, as it is.
    #[arg(long, env = TRACES_ENDPOINT)]
    otlp_traces_endpoint: Option<String>,
    /// Protocol of the receiver; http/protobuf is the only one.
    #[arg(long, env = PROTOCOL)]
    otlp_protocol: Option<String>,
    /// The same for traces alone.
    #[arg(long, env = TRACES_PROTOCOL)]
    otlp_traces_protocol: Option<String>,
    /// Which calls are traced: always_on, always_off, traceidratio, or one of them after parentbased_.
    #[arg(long, env = SAMPLER)]
    traces_sampler: Option<String>,
    /// The share of calls for traceidratio, 0 to 1.
    #[arg(long, env = SAMPLER_ARG)]
    traces_sampler_arg: Option<String>,
    /// Name of the service in traces.
    #[arg(long, env = SERVICE_NAME, default_value = "switchboard-media")]
    service_name: String,
    /// true: no traces, whatever else is set.
    #[arg(long, env = DISABLED)]
    otel_sdk_disabled: Option<String>,
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// Traces are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where batches are posted.
    pub endpoint: String,
    /// Which calls are traced.
    pub sampling: Sampling,
    /// `service.name`.
    pub service: String,
}

/// Which calls are traced. Decided by the trace id alone, so that all pods choose the same calls.
#[derive(Clone, Debug)]
pub struct Sampling(Sampler);

impl Default for Sampling {
    fn default() -> Self {
        Self(Sampler::AlwaysOn)
    }
}

impl PartialEq for Sampling {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}") // the sampler has no equality of its own
    }
}

impl Eq for Sampling {}

impl Sampling {
    /// Whether a call is traced.
    pub(super) fn chooses(&self, trace: TraceId) -> bool {
        let result = self.0.should_sample(None, trace, "call", &SpanKind::Server, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    fn parse(name: &str, share: Option<&str>) -> Result<Self, ConfigError> {
        // A call has no parent: nobody traced it before it came in.
        let sampler = match name.strip_prefix("parentbased_").unwrap_or(name) {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => {
                let share = share.unwrap_or("1");
                let parsed = share.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
                Sampler::TraceIdRatioBased(
                    parsed.ok_or_else(|| wrong(SAMPLER_ARG, format!("expected 0 to 1, got {share:?}")))?,
                )
            }
            _ => {
                let reason = format!("expected always_on, always_off or traceidratio, got {name:?}");
                return Err(wrong(SAMPLER, reason));
            }
        };
        Ok(Self(sampler))
    }
}

impl TraceArguments {
    /// What is to be done; `None`: traces are off.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with the variable's name. Nothing is checked while traces are off.
    pub(crate) fn settings(self) -> Result<Option<Settings>, ConfigError> {
        let Self {
            otlp_endpoint,
            otlp_traces_endpoint,
            otlp_protocol,
            otlp_traces_protocol,
            traces_sampler,
            traces_sampler_arg,
            service_name,
            otel_sdk_disabled,
        } = self;
        let given = |value: Option<String>| value.filter(|value| !value.is_empty());
        if otel_sdk_disabled.is_some_and(|disabled| disabled.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let endpoint = match (given(otlp_traces_endpoint), given(otlp_endpoint)) {
            (Some(endpoint), _) => url(TRACES_ENDPOINT, endpoint)?,
            (None, Some(base)) => format!("{}/v1/traces", url(ENDPOINT, base)?.trim_end_matches('/')),
            (None, None) => return Ok(None),
        };
        let protocol = given(otlp_traces_protocol).map(|protocol| (TRACES_PROTOCOL, protocol));
        let protocol = protocol.or_else(|| given(otlp_protocol).map(|protocol| (PROTOCOL, protocol)));
        if let Some((variable, protocol)) = protocol.filter(|(_, protocol)| protocol != "http/protobuf") {
            let reason = format!("only http/protobuf is spoken (port 4318), got {protocol:?}");
            return Err(wrong(variable, reason));
        }
        let sampling = match given(traces_sampler) {
            None => Sampling::default(),
            Some(name) => Sampling::parse(&name, given(traces_sampler_arg).as_deref())?,
        };
        Ok(Some(Settings { endpoint, sampling, service: service_name }))
    }
}

fn url(variable: &'static str, text: String) -> Result<String, ConfigError> {
    let is_http = text.starts_with("http://") || text.starts_with("https://");
    let has_host = text.parse::<http::Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    if is_http && has_host { Ok(text) } else { Err(wrong(variable, "expected an http:// or https:// URL")) }
}

fn wrong(variable: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value { variable, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Process {
        #[command(flatten)]
        arguments: TraceArguments,
    }

    fn settings(arguments: &[&str]) -> Result<Option<Settings>, ConfigError> {
        let arguments = std::iter::once("switchboard-media").chain(arguments.iter().copied());
        Process::try_parse_from(arguments).unwrap().arguments.settings()
    }

    fn endpoint(arguments: &[&str]) -> String {
        settings(arguments).unwrap().unwrap().endpoint
    }

    #[test]
    fn traces_are_off_without_an_endpoint_and_when_told_so() {
        for off in [
            &[][..],
            &["--otlp-endpoint", ""],
            &["--traces-sampler", "nonsense"],
            &["--otlp-endpoint", "http://otel:4318", "--otel-sdk-disabled", "true"],
        ] {
            assert_eq!(settings(off).unwrap(), None, "{off:?}");
        }
    }

    #[test]
    fn the_general_endpoint_is_a_base_and_the_one_of_traces_is_taken_as_it_is() {
        assert_eq!(endpoint(&["--otlp-endpoint", "http://otel:4318/"]), "http://otel:4318/v1/traces");
        let both = ["--otlp-endpoint", "http://otel:4318", "--otlp-traces-endpoint", "https://tempo/otlp"];
        assert_eq!(endpoint(&both), "https://tempo/otlp");
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        let on = "--otlp-endpoint=http://otel:4318";
        for (arguments, variable) in [
            (["--otlp-endpoint=otel:4317", ""], ENDPOINT),
            (["--otlp-traces-endpoint=grpc://otel", ""], TRACES_ENDPOINT),
            ([on, "--otlp-protocol=grpc"], PROTOCOL),
            ([on, "--otlp-traces-protocol=http/json"], TRACES_PROTOCOL),
            ([on, "--traces-sampler=jaeger_remote"], SAMPLER),
        ] {
            let arguments: Vec<_> = arguments.into_iter().filter(|argument| !argument.is_empty()).collect();
            let error = settings(&arguments).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{variable}: ")), "{error}");
        }
        let share = settings(&[on, "--traces-sampler=traceidratio", "--traces-sampler-arg=10"]).unwrap_err();
        assert!(share.to_string().starts_with(&format!("{SAMPLER_ARG}: ")), "{share}");
    }

    #[test]
    fn a_share_of_calls_is_the_same_calls_on_every_pod() {
        let share = |share: &str| Sampling::parse("parentbased_traceidratio", Some(share)).unwrap();
        let calls =
            (0..1000_u128).map(|n| TraceId::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)));
        let chosen: Vec<_> = calls.clone().filter(|call| share("0.25").chooses(*call)).collect();
        assert!((150..350).contains(&chosen.len()), "{}", chosen.len());
        assert!(chosen.iter().all(|call| share("0.25").chooses(*call) && share("0.5").chooses(*call)));
        assert!(calls.clone().all(|call| share("1").chooses(call) && Sampling::default().chooses(call)));
        assert!(!calls.clone().any(|call| share("0").chooses(call)));
    }
}
