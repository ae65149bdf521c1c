//! What all trials share: the cluster, and the few things every trial does on it.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use e2e::{Cluster, Installation, wait_for};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use libtest_mimic::{Failed, Trial};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
};

/// How long a trial waits for anything: seconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

const NOT_A_RUN: &str = "this is a list of trials, not a run";

/// Handed to every trial. The default has no cluster, and is for listing the trials' names.
#[derive(Default)]
pub(crate) struct Ctx {
    inside: Option<(Cluster, Installation, Handle)>,
    /// Namespaces of the trial that runs.
    namespaces: Mutex<Vec<String>>,
}

impl Ctx {
    pub(crate) fn of(cluster: Cluster, installation: Installation, runtime: Handle) -> Self {
        Self { inside: Some((cluster, installation, runtime)), namespaces: Mutex::default() }
    }

    /// The cluster.
    pub(crate) fn cluster(&self) -> Result<&Cluster> {
        let (cluster, _, _) = self.inside.as_ref().context(NOT_A_RUN)?;
        Ok(cluster)
    }

    /// Switchboard on it.
    pub(crate) fn installation(&self) -> Result<&Installation> {
        let (_, installation, _) = self.inside.as_ref().context(NOT_A_RUN)?;
        Ok(installation)
    }

    /// A trial of an asynchronous function. However it ends, its namespaces go: agents that wait for something that will
    /// never be would be looked at by every operator of every later trial.
    pub(crate) fn trial<F>(
        self: &Arc<Self>,
        name: &str,
        test: impl FnOnce(Arc<Self>) -> F + Send + 'static,
    ) -> Trial
    where
        F: Future<Output = Result<()>>,
    {
        let ctx = Arc::clone(self);
        Trial::test(name, move || {
            let Some((_, _, runtime)) = &ctx.inside else { return Err(Failed::without_message()) };
            let tidied = async {
                let result = test(Arc::clone(&ctx)).await;
                result.and(ctx.delete_namespaces().await)
            };
            runtime.block_on(tidied).map_err(|error| Failed::from(format!("{error:#}")))
        })
    }

    /// Makes a namespace that takes restricted pods only, and returns its name when pods can be created in it. It goes
    /// with the trial.
    pub(crate) async fn namespace(&self, name: &str) -> Result<String> {
        let client = self.cluster()?.client();
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let namespace = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))?;
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
        let accounts: Api<ServiceAccount> = Api::namespaced(client, name);
        wait_for("the namespace's service account", PATIENCE, async || {
            Ok(accounts.get_opt("default").await?)
        })
        .await?;
        Ok(name.to_owned())
    }

    /// Nobody waits until they are gone.
    async fn delete_namespaces(&self) -> Result<()> {
        let made = mem::take(&mut *self.namespaces.lock().unwrap_or_else(PoisonError::into_inner));
        for name in made {
            let namespaces: Api<Namespace> = Api::all(self.cluster()?.client());
            match namespaces.delete(&name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until a pod is ready, and returns it; the error has what the cluster says of it.
    pub(crate) async fn ready_pod(&self, namespace: &str, name: &str) -> Result<Pod> {
        let cluster = self.cluster()?;
        let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace);
        let waited = wait_for(&format!("pod {name} to be ready"), PATIENCE, async || {
            Ok(pods.get_opt(name).await?.filter(is_ready))
        })
        .await;
        match waited {
            Ok(pod) => Ok(pod),
            Err(error) => {
                Err(error.context(cluster.kubectl(&["describe", "pod", "-n", namespace, name]).await?))
            }
        }
    }
}

/// The body of an HTTP server's answer.
pub(crate) async fn http_get(address: &str, path: &str) -> Result<String> {
    let exchange = async {
        let mut stream =
            TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream
            .write_all(
                format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes(),
            )
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer =
        tokio::time::timeout(Duration::from_secs(10), exchange).await.context("no answer in 10 s")??;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => bail!("{address}{path} answered {answer:?}"),
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
