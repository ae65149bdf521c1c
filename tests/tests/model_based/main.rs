//! Random applies, edits, deletes, faults of Twilio's REST API and deaths of operators; whenever all is quiet again, cluster
//! and Twilio must be what a pure model says the user asked for: no orphan, no webhook lost, no number released.
//!
//! No node is needed: nothing here depends on pods. `SWITCHBOARD_MODEL_SECONDS` says how long (`make model-test`: ten
//! minutes), `SWITCHBOARD_MODEL_SEED` repeats a run's operations: they depend on nothing else, though what they meet does.

mod model;
mod verdict;
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, ClusterOptions, sandbox, wait_for};
use fastrand::Rng;
use libtest_mimic::{Arguments, Failed, Trial};

use model::{Fault, Model, Operation};
use world::{PATIENCE, World};

/// Without `SWITCHBOARD_MODEL_SECONDS`: a few rests, for every run of the tests.
const SECONDS: u64 = 60;
/// Nothing is written for this long at rest: longer than the operator's schedule here, which looks at Twilio anew.
const QUIET: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trial = |test: Box<dyn FnOnce() -> Result<(), Failed> + Send>| {
        vec![Trial::test("model_based::cluster_and_twilio_are_what_the_user_asked_for", test)]
    };
    if arguments.list {
        return libtest_mimic::run(&arguments, trial(Box::new(|| Ok(())))).exit_code();
    }
    sandbox::run(|sandbox| {
        let seed = setting("SWITCHBOARD_MODEL_SEED")?.map_or_else(arbitrary_seed, Ok)?;
        let seconds = setting("SWITCHBOARD_MODEL_SECONDS")?.unwrap_or(SECONDS);
        eprintln!("model: seed {seed}, {seconds} s");
        let options = ClusterOptions { nodes: 0, ..ClusterOptions::default() };
        let cluster = sandbox.block_on(Cluster::up(&sandbox, options))?;
        let world = sandbox.block_on(World::begin(cluster))?;
        let runtime = Arc::new(sandbox);
        let test = move || {
            let ended = runtime.block_on(run(world, seed, Duration::from_secs(seconds)));
            ended.map_err(|error| Failed::from(format!("seed {seed}: {error:#}")))
        };
        Ok(libtest_mimic::run(&arguments, trial(Box::new(test))).exit_code())
    })
}

/// A run: operations, and a rest after every few of them.
struct Run {
    world: World,
    model: Model,
    began: Instant,
    /// Since the last rest, for the error.
    recent: Vec<String>,
    done: usize,
    rests: usize,
}

async fn run(world: World, seed: u64, length: Duration) -> Result<()> {
    let mut rng = Rng::with_seed(seed);
    let mut run =
        Run { world, model: Model::new(), began: Instant::now(), recent: Vec::new(), done: 0, rests: 0 };
    let result = run.go(&mut rng, length).await;
    eprintln!("model: {} operations, {} rests", run.done, run.rests);
    result.with_context(|| {
        format!(
            "operations since the last rest:\n{}\noperators:\n{}",
            run.recent.join("\n"),
            run.world.logs()
        )
    })
}

impl Run {
    async fn go(&mut self, rng: &mut Rng, length: Duration) -> Result<()> {
        while self.began.elapsed() < length {
            for _ in 0..rng.usize(5..40) {
                let operation = self.model.choose(rng);
                self.perform(operation).await?;
                // How close operations follow each other is a part of what is tried.
                let pause = if rng.u8(0..3) == 0 { rng.u64(0..1500) } else { rng.u64(0..50) };
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            self.rest().await?;
        }
        // The way back: everything that was claimed is put back, everything that was made goes.
        for name in self.model.numbers.keys().copied().collect::<Vec<_>>() {
            self.perform(Operation::DeleteNumber(name)).await?;
        }
        for name in self.model.agents.keys().copied().collect::<Vec<_>>() {
            self.perform(Operation::DeleteAgent(name)).await?;
        }
        self.rest().await
    }

    async fn perform(&mut self, operation: Operation) -> Result<()> {
        let at = self.began.elapsed().as_secs_f64();
        self.recent.push(format!("{:4} {at:7.1} s {operation:?}", self.done));
        self.done += 1;
        self.model.apply(&operation);
        self.world.perform(&operation).await.with_context(|| format!("{operation:?}"))
    }

    /// Ends all faults, and waits until everything is as the model says and nothing is written any more.
    async fn rest(&mut self) -> Result<()> {
        self.perform(Operation::Fault(Fault::None)).await?;
        if !self.model.has_token {
            self.perform(Operation::Token(true)).await?;
        }
        self.world.led().await?;
        self.converged().await?;
        self.quiet().await?;
        let seen = self.converged().await?;
        self.model.rested(seen);
        self.rests += 1;
        self.recent.clear();
        Ok(())
    }

    async fn converged(&self) -> Result<model::Seen> {
        let seen = wait_for("cluster and Twilio to be what was asked for", PATIENCE, async || {
            let observed = self.world.observe().await?;
            let seen = verdict::compare(&self.model, &observed);
            seen.map(Some).map_err(|differences| anyhow::anyhow!(differences.join("\n")))
        })
        .await?;
        let violations = self.world.violations().await?;
        ensure!(violations.is_empty(), "rules of Twilio's API were broken: {violations:#?}");
        Ok(seen)
    }

    /// Waits until nothing has been written for a while; looks at the carrier go on.
    async fn quiet(&self) -> Result<()> {
        let mut last = (self.world.writes().await?, Instant::now());
        wait_for("the operator to write nothing more", PATIENCE, async || {
            let now = self.world.writes().await?;
            if now != last.0 {
                last = (now, Instant::now());
            }
            Ok((last.1.elapsed() >= QUIET).then_some(()))
        })
        .await?;
        let (_, at_twilio) = &last.0;
        let released = at_twilio.iter().find(|request| request["method"] == "DELETE");
        ensure!(released.is_none(), "a number was released: {released:?}");
        Ok(())
    }
}

fn setting(name: &str) -> Result<Option<u64>> {
    let value = std::env::var(name).ok();
    value.map(|text| text.parse().with_context(|| format!("{name} is a number, not {text:?}"))).transpose()
}

fn arbitrary_seed() -> Result<u64> {
    Ok(u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()))
}
