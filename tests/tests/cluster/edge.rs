//! The public edge: a real nginx with TLS between the carrier and the pods. Every other trial's calls go through it too;
//! here it is reloaded in mid-call, cuts calls off, and is asked for what it must not pass.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use e2e::caller::events;
use e2e::edge::PUBLIC_HOST;
use e2e::wait_for;
use libtest_mimic::Trial;
use reqwest::{Certificate, Client, StatusCode};
use simulator::carrier::signature::sign;

use crate::context::{Ctx, PATIENCE};
use crate::interruptions::{call_in_mid_sentence, survived};
use crate::main_job::{CALLER, NUMBER, ready};

const ACCOUNT: &str = "AC00000000000000000000000000000001";
const TOKEN: &str = "simulated-auth-token";
const STATUS: &str = "/moving/sales/twilio/status";

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![
        ctx.trial("edge::a_call_outlives_a_reload_in_mid_sentence_on_its_one_stream", reloaded),
        ctx.trial("edge::a_call_that_a_reload_cuts_off_goes_on_with_a_second_stream", cut_off),
        ctx.trial("edge::what_is_not_signed_for_the_public_url_is_refused", signatures),
        ctx.trial("edge::other_paths_and_larger_bodies_do_not_pass", bounds),
    ]
}

async fn reloaded(ctx: Arc<Ctx>) -> Result<()> {
    ready(&ctx).await?;
    let (edge, simulator) = (ctx.installation()?.edge(), ctx.installation()?.simulator());
    let sid = call_in_mid_sentence(&ctx).await?;
    edge.reload(None).await?;
    // It stays for the call; without one it would be gone.
    wait_for("the call's worker to be asked to leave", PATIENCE, async || {
        Ok((!edge.leaving_workers()?.is_empty()).then_some(()))
    })
    .await?;
    let call = simulator.finished_call(&sid, 2 * PATIENCE).await?;
    survived(&ctx, &call).await?;
    assert_eq!(events(&call, "streamStarted").len(), 1, "{call:#}");
    edge.wait_for_old_workers(PATIENCE).await?;

    let requests = edge.requests()?;
    for passed in [" 200 POST /moving/sales/twilio/voice ", " 101 GET /moving/sales/twilio/stream "] {
        ensure!(requests.contains(passed), "no{passed}in the edge's log:\n{requests}");
    }
    ensure!(!requests.contains(CALLER) && !requests.contains(NUMBER), "a number is in the edge's log");
    Ok(())
}

async fn cut_off(ctx: Arc<Ctx>) -> Result<()> {
    ready(&ctx).await?;
    let (edge, simulator) = (ctx.installation()?.edge(), ctx.installation()?.simulator());
    // Workers obey the limit they were started with, so it takes a reload to have it and another one to feel it.
    edge.reload(Some(("worker_shutdown_timeout", "1s"))).await?;
    let sid = call_in_mid_sentence(&ctx).await?;
    edge.reload(None).await?;
    let call = simulator.finished_call(&sid, 2 * PATIENCE).await?;
    survived(&ctx, &call).await?;
    assert_eq!(events(&call, "streamStarted").len(), 2, "cut off once, and opened again: {call:#}");
    edge.wait_for_old_workers(PATIENCE).await
}

async fn signatures(ctx: Arc<Ctx>) -> Result<()> {
    ready(&ctx).await?;
    let form = form("");
    let public = format!("https://{PUBLIC_HOST}{STATUS}");
    assert_eq!(post(&ctx, STATUS, &form, &public).await?, StatusCode::NO_CONTENT);
    for other in [
        format!("http://{PUBLIC_HOST}{STATUS}"),
        format!("http://sales-media.moving.svc.cluster.local:8080{STATUS}"),
        format!("https://elsewhere.example.com{STATUS}"),
        format!("{public}?more=1"),
    ] {
        assert_eq!(post(&ctx, STATUS, &form, &other).await?, StatusCode::FORBIDDEN, "signed for {other}");
    }
    Ok(())
}

async fn bounds(ctx: Arc<Ctx>) -> Result<()> {
    ready(&ctx).await?;
    let http = client(&ctx).await?;
    for path in
        ["/", "/metrics", "/moving/sales", "/moving/sales/twilio", "/moving/sales/v1/calls", "/v1/calls"]
    {
        let answer = http.get(format!("https://{PUBLIC_HOST}{path}")).send().await?;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        // The edge's own word: nothing of ours was asked.
        assert_eq!(answer.headers()["server"], "nginx", "{path}");
        ensure!(answer.text().await?.contains("<center>nginx</center>"), "{path} was passed on");
    }
    // Up to its own limit a pod takes what the edge lets through; beyond it the edge answers.
    let public = format!("https://{PUBLIC_HOST}{STATUS}");
    let large = form(&"x".repeat(60 * 1024));
    assert_eq!(post(&ctx, STATUS, &large, &public).await?, StatusCode::NO_CONTENT);
    let larger = form(&"x".repeat(70 * 1024));
    assert_eq!(post(&ctx, STATUS, &larger, &public).await?, StatusCode::PAYLOAD_TOO_LARGE);
    Ok(())
}

/// A status callback about a call nobody knows, which changes nothing that others see.
fn form(padding: &str) -> Vec<(String, String)> {
    [
        ("AccountSid", ACCOUNT),
        ("CallSid", "CA000000000000000000000000000ed6e1"),
        ("CallStatus", "completed"),
        ("From", CALLER),
        ("To", NUMBER),
        ("Padding", padding),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Posts a form through the edge, signed for `signed_url`.
async fn post(ctx: &Ctx, path: &str, form: &[(String, String)], signed_url: &str) -> Result<StatusCode> {
    let request = client(ctx).await?.post(format!("https://{PUBLIC_HOST}{path}"));
    let request = request.header("x-twilio-signature", sign(TOKEN, signed_url, form));
    Ok(request.form(form).send().await?.status())
}

/// A client that finds the public host at the edge, and believes its authority only.
async fn client(ctx: &Ctx) -> Result<Client> {
    let edge = ctx.installation()?.edge();
    let authority = tokio::fs::read(edge.authority()).await.context("the edge has an authority")?;
    let client = Client::builder().no_proxy().tls_certs_only([Certificate::from_pem(&authority)?]);
    Ok(client.resolve(PUBLIC_HOST, edge.address()).build()?)
}
