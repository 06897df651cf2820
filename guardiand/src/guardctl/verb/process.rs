//! run, exec and attach: a process, and the caller's terminal or pipes.

use guardian_contract::garden::{ContainerSpec, ProcessSpec};

use crate::cli::{AttachArgs, ExecArgs, RunArgs};
use crate::client::Client;
use crate::process::{Events, Join, Outcome, Process};
use crate::stdio;

/// Creates a container, runs one process in it, and removes it, come what may.
pub(super) fn run(client: &Client, args: RunArgs) -> anyhow::Result<u8> {
    let events = Events::open()?;
    let mut spec = args.container.spec();
    if spec.handle.is_empty() {
        // Ours, so that it can be named even when the answer never comes.
        spec.handle = uuid::Uuid::new_v4().to_string();
    }
    let process = args.process.spec(&args.command, &[]);
    let handle = spec.handle.clone();
    let interrupted = create(client, spec, &events)?;
    let outcome = match interrupted {
        true => Err(anyhow::anyhow!("interrupted")),
        false => start(client, &handle, process, args.process.join(), &events),
    };
    match outcome {
        Ok(Outcome::Detached) => stdio::complain(&format!("left running; container {handle}")),
        _ if args.keep => stdio::complain(&format!("container {handle} is kept")),
        _ => destroy(client, &handle, &events),
    }
    outcome.map(Outcome::code)
}

/// Tells whether a signal came meanwhile.
fn create(client: &Client, spec: ContainerSpec, events: &Events) -> anyhow::Result<bool> {
    let (client, handle) = (client.clone(), spec.handle.clone());
    let ((), interrupted) = events
        .complete(move || client.create(&spec).map(drop))
        .map_err(|error| error.context(format!("create container {handle}")))?;
    Ok(interrupted)
}

fn start(
    client: &Client,
    handle: &str,
    spec: ProcessSpec,
    join: Join,
    events: &Events,
) -> anyhow::Result<Outcome> {
    let (client, handle) = (client.clone(), handle.to_owned());
    let (process, interrupted) =
        events.complete(move || Process::run(&client, &handle, &spec, join))?;
    if interrupted {
        events.interrupt();
    }
    process.interact(join, events)
}

/// A container that stays is worth a line, but the process's exit code is what was asked for.
fn destroy(client: &Client, handle: &str, events: &Events) {
    let (client, name) = (client.clone(), handle.to_owned());
    if let Err(error) = events.complete(move || client.destroy(&name)) {
        stdio::complain(&format!("remove container {handle}: {error:#}"));
    }
}

/// Runs a process in a container that exists.
pub(super) fn exec(client: &Client, args: &ExecArgs) -> anyhow::Result<u8> {
    let spec = args.spec();
    if args.detach {
        // Nobody waits for the end: a control connection that closes leaves the process alone.
        let join = Join { passes: false, ..args.process.join() };
        let process = Process::run(client, &args.handle, &spec, join)?;
        stdio::line(process.id())?;
        return Ok(0);
    }
    let events = Events::open()?;
    let outcome = start(client, &args.handle, spec, args.process.join(), &events)?;
    if outcome == Outcome::Detached {
        stdio::complain("left running");
    }
    Ok(outcome.code())
}

/// Joins a process.
pub(super) fn attach(client: &Client, args: &AttachArgs) -> anyhow::Result<u8> {
    let events = Events::open()?;
    let join = args.join();
    let process = Process::attach(client, &args.handle, &args.process, join)?;
    Ok(process.interact(join, &events)?.code())
}
