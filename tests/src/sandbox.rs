//! A place of the calling program's own: network, mounts and processes, gone without a trace when it ends.
//!
//! [`run`] starts the program a second time inside new namespaces and stays outside as its guardian:
//! - the **network** namespace makes 10.240.0.1, the pods' and the Services' addresses plain addresses for everything
//!   the inner program does (Kubernetes client, simulator, redis), and equal ranges of two clusters no conflict;
//! - the **pid** namespace makes its end complete: the kernel kills whatever is in it, daemonised or not, with its
//!   first process, also after a panic or a SIGKILL, of the guardian too;
//! - the **mount** namespace takes every mount with it, and hides the folders that containerd, CNI and the kubelet
//!   insist on writing to (`/run`, `/var/lib`, `/var/log`) behind copies in memory.
//!
//! What the kernel does not remove, control groups and the state folder, the guardian does; what a killed guardian
//! leaves, the next one does, or [`state::sweep`].

pub(crate) mod cgroup;
pub mod state;

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    process::{run as run_command, send_signal},
    tools::Tools,
    wait::wait_for,
};
use state::State;

/// Tells the inner program which state folder is its own, and by its presence that it is the inner one.
const STATE_VARIABLE: &str = "SWITCHBOARD_SANDBOX_STATE";

/// Says where a failed run's logs are kept.
const LOGS_VARIABLE: &str = "SWITCHBOARD_LOGS";

/// The inside of the namespaces. That a value exists means that the caller is in there.
#[derive(Debug)]
pub struct Sandbox {
    name: String,
    directory: PathBuf,
    runtime: tokio::runtime::Runtime,
}

/// Runs `main` inside a sandbox, and everything around it; to be called first in a program's `main`.
///
/// # Flow
/// Outside it makes a state folder, starts this program again inside, waits for its end, and cleans up. Inside it
/// calls `main`, whose error is printed.
///
/// # Guarantees
/// When it returns, no process, mount, control group or file of the sandbox is left.
///
/// # Caveats
/// What the program does before this call it does twice. Needs root.
pub fn run(main: impl FnOnce(Sandbox) -> Result<ExitCode>) -> ExitCode {
    let result = match env::var_os(STATE_VARIABLE) {
        Some(directory) => Sandbox::prepare(directory.into()).and_then(main),
        None => guard(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

impl Sandbox {
    /// A name unlike that of any other live sandbox on this machine.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder for all its files; removed with the sandbox.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The runtime for asynchronous work; it lives as long as the sandbox.
    #[must_use]
    pub fn runtime(&self) -> &tokio::runtime::Runtime {
        &self.runtime
    }

    /// Runs one future to its end.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    fn prepare(directory: PathBuf) -> Result<Self> {
        let name =
            directory.file_name().context("the state folder has no name")?.to_string_lossy().into_owned();
        hide_host_folders(&directory.join("private")).context("the host's folders cannot be hidden")?;
        pin_kernel_settings(&directory.join("sysctl"))
            .context("the host's kernel settings cannot be hidden")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        Ok(Self { name, directory, runtime })
    }
}

/// The outer program's whole life: see the module's header.
fn guard() -> Result<ExitCode> {
    // The owner of one's own /proc entry is one's effective user.
    ensure!(
        fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0),
        "root is needed for namespaces, mounts and containers; run this with sudo"
    );
    // Here and not inside, where there is no network to download sources from.
    Tools::locate()?;
    for (name, error) in state::sweep()?.failed {
        eprintln!("warning: {name}, left by a crashed run, cannot be removed: {error:#}");
    }
    let state = State::create()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(watch_over(&state));
    if !matches!(ended, Ok(0)) {
        keep_logs(&state);
    }
    let removed = state.remove();
    let code = ended?;
    removed?;
    Ok(ExitCode::from(code))
}

/// Copies a failed run's logs to where `SWITCHBOARD_LOGS` says, if it does; CI keeps them from there.
fn keep_logs(state: &State) {
    let Some(target) = env::var_os(LOGS_VARIABLE).map(PathBuf::from) else { return };
    let copied = fs::create_dir_all(&target).map_err(Into::into).and_then(|()| {
        let logs = ["logs", "pod-logs"].map(|folder| state.directory().join(folder));
        let logs = logs.iter().filter(|folder| folder.exists());
        run_command(Command::new("cp").arg("-r").args(logs).arg(&target))
    });
    match copied {
        Ok(_) => eprintln!("the logs are in {}", target.display()),
        Err(error) => eprintln!("warning: the logs cannot be kept: {error:#}"),
    }
}

/// Runs the inner program until it ends or a signal says that it should, and returns the exit code to pass on.
async fn watch_over(state: &State) -> Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;

    let mut outermost = tokio::process::Command::from(inner_command(state)?)
        .spawn()
        .context("setpriv and unshare (package util-linux) cannot be started")?;
    let id = outermost.id().context("the inner program has no process id")?;

    let mut status: Option<ExitStatus> = None;
    let init = wait_for("the sandbox's first process", Duration::from_secs(10), async || {
        status = outermost.try_wait()?;
        Ok(if status.is_some() { Some(None) } else { child_of(id)?.map(Some) })
    })
    .await?;
    let Some(init) = init else {
        return Ok(status.map_or(1, exit_code));
    };
    state.record_init(init)?;

    let code = tokio::select! {
        status = outermost.wait() => exit_code(status?),
        Some(()) = interrupt.recv() => 128 + 2,
        Some(()) = terminate.recv() => 128 + 15,
        Some(()) = hang_up.recv() => 128 + 1,
    };
    // All else in the namespace dies with its first process, and that is gone only after the last of them. Of no use,
    // and no harm, when it has ended by itself.
    let _ = send_signal("KILL", init);
    outermost.wait().await?;
    // Had `unshare` been killed, its end would not mean that of the namespace.
    wait_for("the sandbox's processes to end", Duration::from_secs(30), async || {
        Ok(is_gone(init).then_some(()))
    })
    .await?;
    Ok(code)
}

/// This program once more, in namespaces that end with it and with the guardian.
///
/// The shell is the namespace's first process: it reaps orphans, which a program of tests does not.
fn inner_command(state: &State) -> Result<Command> {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .args(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .args(["sh", "-c", "\"$@\"; exit $?", "sandbox"])
        .arg(env::current_exe().context("this program's own path is unknown")?)
        .args(env::args_os().skip(1))
        .env(STATE_VARIABLE, state.directory());
    Ok(command)
}

/// The only child of a process, if it has one yet.
fn child_of(parent: u32) -> Result<Option<u32>> {
    let wanted = format!("PPid:\t{parent}");
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end between the listing and the look at it.
        let Ok(status) = fs::read_to_string(format!("/proc/{id}/status")) else { continue };
        if status.lines().any(|line| line == wanted) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Whether a process has ended, be it that nobody has asked for its exit code yet.
fn is_gone(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/status")).map_or(true, |status| status.contains("State:\tZ"))
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Mounts over what Kubernetes' programs write to at paths that cannot be configured.
fn hide_host_folders(memory: &Path) -> Result<()> {
    mount(&["-t", "tmpfs", "tmpfs", "/run"])?;
    fs::create_dir_all("/run/lock")?;
    fs::create_dir_all(memory)?;
    mount(&["-t", "tmpfs", "tmpfs", &memory.to_string_lossy()])?;
    for folder in ["/var/lib", "/var/log"] {
        // What is there stays readable, and what is written goes to memory.
        let upper = memory.join(folder.trim_start_matches('/').replace('/', "-"));
        let work = upper.with_extension("work");
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(&work)?;
        let options = format!("lowerdir={folder},upperdir={},workdir={}", upper.display(), work.display());
        mount(&["-t", "overlay", "overlay", "-o", &options, folder])?;
    }
    Ok(())
}

/// Shows the kubelet the kernel settings it wants, in place of the machine's own, which it would otherwise change:
/// they are the kernel's, not the namespace's, and would outlive the cluster.
fn pin_kernel_settings(folder: &Path) -> Result<()> {
    // What `setupKernelTunables` of the kubelet's container manager asks for.
    const WANTED: [(&str, &str); 6] = [
        ("vm/overcommit_memory", "1"),
        ("vm/panic_on_oom", "0"),
        ("kernel/panic", "10"),
        ("kernel/panic_on_oops", "1"),
        ("kernel/keys/root_maxkeys", "1000000"),
        ("kernel/keys/root_maxbytes", "25000000"),
    ];
    fs::create_dir_all(folder)?;
    for (setting, value) in WANTED {
        let stand_in = folder.join(setting.replace('/', "."));
        fs::write(&stand_in, format!("{value}\n"))?;
        mount(&["--bind", &stand_in.to_string_lossy(), &format!("/proc/sys/{setting}")])?;
    }
    Ok(())
}

fn mount(arguments: &[&str]) -> Result<()> {
    run_command(Command::new("mount").args(arguments.iter().map(OsString::from))).map(drop)
}
