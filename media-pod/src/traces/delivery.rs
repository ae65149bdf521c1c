//! Sends spans to an OTLP receiver, in batches, beside the calls.
//!
//! *Guarantees*: at most one request at a time, each bounded by the exporter's timeout (10 s); what cannot be delivered is
//! counted and forgotten. On the way out what is queued is sent once more, within [`LAST`].

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::settings::Settings;
use crate::metrics::Metrics;

/// Spans of one request; OpenTelemetry's own default.
const BATCH: usize = 512;

/// How long the first span of a batch waits for others. OpenTelemetry's default is 5 s; people look at a call as it ends.
const GATHERING: Duration = Duration::from_secs(1);

/// Time for the last batches of a pod that leaves.
const LAST: Duration = Duration::from_secs(2);

/// The exporter cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Its HTTP client.
    #[error("the HTTP client for traces cannot be set up: {0}")]
    Http(#[from] reqwest::Error),
    /// Itself.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// The way to the receiver.
#[derive(Debug)]
pub struct Delivery {
    exporter: opentelemetry_otlp::SpanExporter,
}

impl Delivery {
    /// A way that trusts what `tls` trusts, for the pod of this name.
    ///
    /// # Errors
    /// [`DeliveryError`].
    pub fn new(settings: &Settings, tls: rustls::ClientConfig, pod: &str) -> Result<Self, DeliveryError> {
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls).build()?;
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(http)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&settings.endpoint)
            .build()?;
        let resource = Resource::builder()
            .with_service_name(settings.service.clone())
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", pod.to_owned()),
                KeyValue::new("k8s.pod.name", pod.to_owned()),
            ])
            .build();
        exporter.set_resource(&resource);
        Ok(Self { exporter })
    }

    /// Sends what comes out of the queue, until `stop`.
    pub async fn run(
        self,
        mut spans: mpsc::Receiver<SpanData>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) {
        let mut batch = Vec::new();
        let mut was_down = false;
        while let Some(()) = tokio::select! {
            () = stop.cancelled() => None,
            first = spans.recv() => first.map(|first| batch.push(first)),
        } {
            let gathering = async {
                while batch.len() < BATCH {
                    let Some(next) = spans.recv().await else { return };
                    batch.push(next);
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                _ = tokio::time::timeout(GATHERING, gathering) => {}
            }
            self.send(std::mem::take(&mut batch), &metrics, &mut was_down).await;
        }
        spans.close();
        let last = async {
            while spans.recv_many(&mut batch, BATCH).await > 0 {
                self.send(std::mem::take(&mut batch), &metrics, &mut was_down).await;
            }
        };
        if tokio::time::timeout(LAST, last).await.is_err() {
            tracing::warn!("the last spans were not delivered in time");
        }
    }

    async fn send(&self, batch: Vec<SpanData>, metrics: &Metrics, was_down: &mut bool) {
        let count = batch.len();
        let sent = self.exporter.export(batch).await;
        match &sent {
            Ok(()) if *was_down => tracing::info!("traces are delivered again"),
            Ok(()) => {}
            Err(error) => {
                metrics.spans_dropped.inc_by(count as u64);
                if !*was_down {
                    tracing::warn!(%error, spans = count, "traces cannot be delivered; calls are not affected");
                }
            }
        }
        *was_down = sent.is_err();
    }
}
