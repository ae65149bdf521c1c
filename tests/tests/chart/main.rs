//! The chart, as its users have it: rendered by helm, refused where a value is wrong, and installed on a real cluster.
//!
//! `cargo test -p e2e --features cluster --test chart -- render` needs helm alone; the rest needs root, and brings up a
//! cluster of its own, because helm must find it as it is before anybody installed Switchboard.

mod life;
mod readme;
mod refusals;
mod render;
mod schemas;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use e2e::chart::Chart;
use e2e::installation::repository;
use e2e::{Cluster, ClusterOptions, Installation, sandbox};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Handle;

/// What the trials on a cluster share.
struct Ctx {
    chart: Chart,
    cluster: Cluster,
    installation: Installation,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One installation after another, on one cluster.
    arguments.test_threads = Some(1);
    let needs_no_cluster = arguments.filter.as_deref().is_some_and(|filter| filter.starts_with("render"));
    if arguments.list || needs_no_cluster {
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    sandbox::run(|sandbox| {
        let cluster = sandbox.block_on(Cluster::up(&sandbox, ClusterOptions::default()))?;
        let scenario = repository().join("tests/simulator/scenarios/demo.yaml");
        let report = |step: &str| eprintln!("installation: {step}");
        let surroundings = Installation::surroundings(&cluster, &scenario, report);
        let installation = sandbox.block_on(surroundings)?;
        let ctx = Arc::new(Ctx { chart: Chart::open()?, cluster, installation });
        Ok(libtest_mimic::run(&arguments, trials(Some((ctx, sandbox.runtime().handle().clone()))))
            .exit_code())
    })
}

fn trials(inside: Option<(Arc<Ctx>, Handle)>) -> Vec<Trial> {
    let mut trials = vec![
        alone("render::1_lint_is_content_with_every_value_set", render::lint),
        alone("render::2_the_plain_manifests_are_current", render::plain_manifests),
        alone("render::3_the_schema_and_the_values_know_the_same_keys", render::same_keys),
        alone("render::4_a_wrong_value_is_refused_by_its_name", refusals::wrong_values),
        alone("render::5_nothing_needs_an_api_that_the_cluster_lacks", render::absent_apis),
        alone("render::6_what_people_set_reaches_the_operator", render::everything),
        alone("render::7_rights_stay_in_the_watched_namespaces", render::namespaced),
        alone("render::8_images_come_from_a_mirror", render::mirror),
        alone("render::9_every_command_of_the_front_page_is_known", readme::known),
        alone("render::10_every_value_is_refused_by_its_name_in_a_wrong_shape", refusals::wrong_shapes),
    ];
    let on_cluster = [
        ("installed::1_every_value_set_is_what_the_api_server_knows", Kind::Schemas),
        ("installed::2_calls_go_on_through_install_upgrade_and_uninstall", Kind::Life),
        ("installed::3_an_installation_after_that_takes_over_what_is_there", Kind::Again),
        ("installed::4_the_commands_of_the_front_page_work_as_they_stand", Kind::FrontPage),
    ];
    for (name, kind) in on_cluster {
        let inside = inside.clone();
        trials.push(Trial::test(name, move || {
            let (ctx, runtime) = inside.ok_or("this is a list of trials, not a run")?;
            let result = runtime.block_on(async {
                match kind {
                    Kind::Schemas => schemas::every_value_set(&ctx).await,
                    Kind::Life => life::of_an_installation(&ctx).await,
                    Kind::Again => life::once_more(&ctx).await,
                    Kind::FrontPage => readme::commands(&ctx).await,
                }
            });
            result.map_err(|error| Failed::from(format!("{error:#}")))
        }));
    }
    trials
}

/// The trials on a cluster.
#[derive(Clone, Copy)]
enum Kind {
    Schemas,
    Life,
    Again,
    FrontPage,
}

/// A trial that needs helm and nothing else.
fn alone(name: &str, test: fn(&Chart) -> Result<()>) -> Trial {
    Trial::test(name, move || {
        let chart = Chart::open()?;
        test(&chart).map_err(|error| Failed::from(format!("{error:#}")))
    })
}
