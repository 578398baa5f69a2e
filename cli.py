"""``fedpress``: the command line, thin. Every verb reads its words, calls one function and shows what came of it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fedpress import __version__
from fedpress import plan as plans
from fedpress.compression import registry
from fedpress.errors import FedpressError, MissingExtra, PlanError, PrivacyError, closest
from fedpress.plan import Plan
from fedpress.privacy import central
from fedpress.sections import Audit
from fedpress.server.strategies import build as build_strategy

app = typer.Typer(
    name="fedpress",
    help="Federated learning with compressed communication.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
plan_app = typer.Typer(help="Check a plan, explain its keys, print all of it.", no_args_is_help=True)
app.add_typer(plan_app, name="plan")
bench_app = typer.Typer(help="Measure codecs, accuracy against traffic, strategies, privacy.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")
console: Final = Console()
complaints: Final = Console(stderr=True)
#: What --privacy takes where a plan names no codecs: docs/privacy.md has what the usual ones cost on top of noise.
_FINE: Final = {"upload.codec": '"ecsq:1"', "download.codec": '"ecsq:1,ladder=true"'}
wide: Final = console if console.is_terminal else Console(width=140)

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PLAN|TASK] [KEY=VALUE]...",
        help="A plan (.toml), your own task (.py) or a built-in task's name; then any key of the plan, as in "
        "train.lr=0.05. None: the default plan.",
        show_default=False,
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Remove what is in the run's directory first.")]
Guard = Annotated[
    Literal["local", "central"] | None,
    typer.Option(
        "--privacy",
        help="Differential privacy: of examples, by devices (local); of whole clients, by the server (central).",
        show_default=False,
    ),
]
Epsilon = Annotated[
    float | None,
    typer.Option(min=0.0, help="With --privacy: what the run may spend; noise is solved for.", show_default=False),
]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run, such as runs/demo.")]


@app.command()
def simulate(
    words: Words = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the plan's directory.")] = False,
    fresh: Fresh = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the closing table.")] = False,
    privacy: Guard = None,
    epsilon: Epsilon = None,
) -> None:
    """Run a whole federation on this machine, with real processes over gRPC, or inline in one.

    Examples: [bold]fedpress simulate digits run.rounds=10[/bold] ·
    [bold]fedpress simulate my_task.py engine.name=inline upload.codec=int8[/bold] ·
    [bold]fedpress simulate digits --privacy local --epsilon 8[/bold]
    """
    from fedpress.simulations.engines import simulate as run
    from fedpress.simulations.progress import watching

    words = [*(words or ()), *guarded(words, privacy, epsilon)]
    plan = read_plan(words)
    try:
        with watching(plan, quiet) as watch:
            result = run(plan, watch.run, resume=resume, fresh=fresh, listen_baseline=watch.baseline)
    except KeyboardInterrupt:
        again = " ".join(["fedpress simulate", *words, "--resume"])
        complaints.print(f"Stopped; every finished round is kept in {plan.directory}. Go on with:\n  {escape(again)}")
        raise typer.Exit(130) from None
    _show(result.run_dir)
    if plan.audit.gate:
        _attack(result.run_dir, (), plan.audit, plan.run.seed, gate=True)


@app.command()
def server(
    words: Words = None,
    fresh: Fresh = False,
    linger: Annotated[
        float, typer.Option(help="Seconds to stay after the last round, so that devices hear that it is over.")
    ] = 10.0,
    privacy: Guard = None,
    epsilon: Epsilon = None,
) -> None:
    """Serve a run to real devices. Continues the run in the plan's directory, if there is one.

    Example: [bold]fedpress server digits server.host=0.0.0.0 server.port=8440 server.cert=cert.pem server.key=key.pem
    clients.count=4[/bold]
    """
    from fedpress.simulations.engines.serving import serve
    from fedpress.simulations.progress import watching

    plan = read_plan([*(words or ()), *guarded(words, privacy, epsilon)])
    if plan.audit.gate:
        raise PlanError("Expected audit.gate = false: the data that an audit needs are on devices, not on this server.")
    if fresh:
        shutil.rmtree(plan.directory, ignore_errors=True)
    with watching(plan, quiet=False) as watch:
        result = serve(plan, watch.run, lambda text: watch.say(text), linger)
    if result is None:
        complaints.print(f"Stopped; the run in {plan.directory} goes on when the server is started again.")
        raise typer.Exit(130)
    _show(result.run_dir)


@app.command()
def client(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="The server.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PLAN|TASK] [KEY=VALUE]...", help="The task, as for simulate.", show_default=False),
    ] = None,
    name: Annotated[str, typer.Option(help="What people call this device; unique in a run.")] = socket.gethostname(),
    vault: Annotated[Path, typer.Option(help="Where the device keeps what is its own; survives restarts.")] = Path(
        "vault"
    ),
    shard: Annotated[
        int | None,
        typer.Option(
            help="Hold this part (from 0) of the plan's simulated split; else all that the task's data gives."
        ),
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="The server's certificate (PEM), for TLS.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Talk in the clear, on a network you trust.")] = False,
    device_class: Annotated[str, typer.Option(help="phone, pi, laptop, gpu ...")] = "any",
    unmetered: Annotated[
        bool | None,
        typer.Option(
            "--unmetered/--metered", help="Whether the link is free by the byte, for runs that ask.", show_default=False
        ),
    ] = None,
) -> None:
    """Take part in a run as one device, until it is over. Waits for a server that is not there yet.

    Example: [bold]fedpress client 192.0.2.7:8440 my_task.py --ca cert.pem --vault ~/.fedpress[/bold]
    """
    from fedpress.client import conditions
    from fedpress.simulations.join import join
    from fedpress.simulations.problem import Problem

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        reason = join(
            Problem(read_plan(words)),
            address,
            vault,
            name=name,
            shard=shard,
            ca=ca,
            insecure=insecure,
            device_class=device_class,
            condition=partial(conditions.condition, unmetered),
        )
    except KeyboardInterrupt:
        reason = "stopped"
    console.print(f"Done: {escape(reason)}.")


@app.command()
def ship(
    run: RunDir,
    device_class: Annotated[str, typer.Option(help="Which devices it is for.")] = "",
) -> None:
    """Distil a run's model into a smaller one, quantise it to int8, export it to ONNX and check it on real data.

    Devices fetch it from the run's server with [bold]fedpress fetch[/bold].
    """
    from rich.progress import Progress

    from fedpress.simulations.shipping import ship_run
    from fedpress.simulations.units import ratio, share, size

    with Progress(console=console, transient=True) as bar:
        epochs = bar.add_task("distilling", total=plans.load(run / "plan.toml").ship.epochs)
        place, shipped, _ = ship_run(run, device_class, lambda *_: bar.advance(epochs))
    m = shipped.metrics
    table = Table("", "size", "accuracy", title=f"shipped: {place}")
    table.add_row("the run's model, fp32", size(m["teacher_bytes"]), share(m["teacher_accuracy"]))
    table.add_row("student, fp32", size(4 * m["student_parameters"]), share(m["student_accuracy"]))
    against = ratio(m["teacher_bytes"], m["bytes"])
    table.add_row(f"student, int8 ONNX ({against} smaller)", size(m["bytes"]), share(m["int8_accuracy"]))
    console.print(table)
    console.print(f"Measured on {m['measured_examples']:.0f} examples that neither distilling nor calibrating saw.")


@app.command()
def audit(
    run: RunDir,
    attack: Annotated[
        list[str] | None, typer.Option(help="loss, lira, inversion or mechanism; repeat for more. Default: all.")
    ] = None,
    shadows: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Shadow models for lira, each a run like this one; an even number. Default: audit.shadows.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that the audit draws.")] = 0,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 1 where more is found than is allowed.")] = False,
    max_auc: Annotated[
        float | None, typer.Option(min=0, max=1, help="For --gate. Default: audit.max_auc.", show_default=False)
    ] = None,
    max_epsilon: Annotated[
        float | None, typer.Option(min=0, help="For --gate. Default: audit.max_epsilon.", show_default=False)
    ] = None,
) -> None:
    """Attack a finished simulation: who was in its training data, what its uploads show, whether its noise holds.

    [bold]loss[/bold] and [bold]lira[/bold] guess who was a member, and prove an epsilon from below, to be held against
    the one that the run claims. [bold]inversion[/bold] rebuilds examples from uploads at the run's compression.
    [bold]mechanism[/bold] sends canaries through the run's noise. Writes audit.json and audit.png into the run's
    directory, and a picture into its report. What they say is about real members: it is not private itself.

    Examples: [bold]fedpress audit runs/demo[/bold] ·
    [bold]fedpress audit runs/demo --attack loss --gate --max-auc 0.6[/bold]
    """
    limits = plans.load(run / "plan.toml").audit if (run / "plan.toml").is_file() else Audit()
    given = {"max_auc": max_auc, "max_epsilon": max_epsilon, "shadows": shadows}
    limits = limits.model_copy(update={key: value for key, value in given.items() if value is not None})
    _attack(run, attack or (), limits, seed, gate=gate)


@app.command()
def fetch(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="The server of a run that was shipped.")],
    to: Annotated[Path, typer.Option("--to", help="Where to write the model.")] = Path("model.onnx"),
    vault: Annotated[Path, typer.Option(help="The device's vault.")] = Path("vault"),
    device_class: Annotated[str, typer.Option(help="Which kind of device asks.")] = "any",
    ca: Annotated[Path | None, typer.Option(help="The server's certificate (PEM), for TLS.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Talk in the clear.")] = False,
) -> None:
    """Fetch the shipped model as a device that took part in the run."""
    from fedpress.client.grpc_link import GrpcLink
    from fedpress.client.release import fetch_release
    from fedpress.client.vault import Vault

    link = GrpcLink(address, ca, insecure)
    with Vault(vault) as kept:
        release = fetch_release(link, kept, device_class, to)
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in sorted(release.metrics.items()))
    console.print(f"{to}: {release.size} bytes of {release.format} for '{release.device_class}' ({metrics}).")


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="A data set to get; none: list them all.")] = "",
    data_dir: Annotated[Path | None, typer.Option(help="Default: $FEDPRESS_DATA, or ~/.cache/fedpress.")] = None,
) -> None:
    """List the data sets, or download one and verify its checksum."""
    from fedpress.simulations import data as sets
    from fedpress.simulations.units import size

    if name:
        console.print(f"{name}: complete in {sets.ensure(name, data_dir)}")
        return
    table = Table("data set", "here", "size", "natural clients", "licence", title=f"in {sets.located(data_dir)}")
    for row in sets.status(data_dir):
        table.add_row(row.name, row.state, size(row.nbytes), row.clients, row.licence)
    console.print(table)


@app.command()
def report(run: RunDir) -> None:
    """Write a run's report.html anew and print its closing table."""
    _show(run)


@app.command("privacy")
def show_privacy(
    run: RunDir,
    rounds: Annotated[int, typer.Option(min=0, help="What would so many more rounds like the last cost?")] = 0,
    every: Annotated[bool, typer.Option("--all", help="All of the ledger, not its last ten releases.")] = False,
    head: Annotated[str, typer.Option(help="A hash kept from before: is all that led to it still there?")] = "",
) -> None:
    """What a run has spent of its privacy budget, on whom, and what is left; checks that the ledger is as written.

    Example: [bold]fedpress privacy runs/demo --rounds 20[/bold]
    """
    from fedpress.simulations import spending

    found = spending.read(run, head)
    wide.print(spending.entries_table(found, None if every else 10))
    wide.print(spending.spent_table(found, rounds))
    for remark in spending.remarks(found, rounds):
        console.print(remark, markup=False, highlight=False, soft_wrap=True)


@app.command()
def codecs() -> None:
    """List the codecs that update and download chains are made of, with their laws."""
    table = Table("codec", "what it does", "options", "unbiased", "summable", "contractive", "has memory")
    for row in registry.describe():
        options = "\n".join(f"{o.name}={o.default} ({o.expected})" for o in row.options)
        table.add_row(row.id, row.about, options, row.unbiased, row.summable, row.contractive, row.stateful)
    console.print(table)
    console.print(
        "Chains are joined by +, as in [bold]ef+topk:0.01+int8[/bold]; ef, ef21 and dgc wrap all to their right.\n"
        "Laws hold with the default options, or as said. Unbiased: right in the mean. Summable: payloads add up.\n"
        "Contractive: never loses more than there was, so that it can stand behind ef, ef21 and dgc."
    )


@app.command()
def strategies() -> None:
    """List the strategies: global, personalized and asynchronous, with their papers, options and needs."""
    from fedpress.server.strategies import describe

    table = Table("strategy", "what it is", "options (strategy.…)", "needs")
    for row in describe():
        table.add_row(row.id, Text(row.about), Text("\n".join(row.options)), Text("\n".join(row.needs) or "nothing"))
    wide.print(table)
    console.print(
        "All have strategy.weighting and strategy.lr too. Example: "
        "[bold]fedpress simulate digits strategy.name=fedprox strategy.mu=0.1[/bold]\n"
        "docs/strategies.md says what each asks of a device, and how to add one."
    )


@plan_app.command()
def check(words: Words = None) -> None:
    """Refuse a plan that cannot run, naming the key; load its task and model too, where torch is there."""
    from fedpress.simulations.problem import Problem

    plan = read_plan(words)
    problem = Problem(plan)
    problem.check()
    parameters = sum(array.size for array in problem.initial.values())
    console.print(f"Fine: task '{problem.task.name}', {parameters} parameters, {len(problem.names)} clients.")


@plan_app.command()
def show(words: Words = None) -> None:
    """Print a whole plan with all its defaults, as TOML."""
    console.print(plans.to_toml(read_plan(words)), markup=False, highlight=False)


@plan_app.command()
def explain(section: Annotated[str, typer.Argument(help="A section; none: all.")] = "") -> None:
    """Say what every key of a plan means, and its default."""
    known = plans.sections()
    if section and section not in known:
        raise PlanError(f"Unknown section '{section}'. {closest(section, known)}")
    for name, model in known.items():
        if section in ("", name):
            table = Table("key", "default", "meaning", title=f"\\[{name}] {(model.__doc__ or '').strip()}")
            for key, field in model.model_fields.items():
                table.add_row(f"{name}.{key}", str(field.default), field.description)
            console.print(table)


@bench_app.command("codecs")
def bench_codecs(
    chains: Annotated[
        list[str] | None,
        typer.Argument(help="Codecs, such as ef+ecsq:4; none: all there are, at several rates.", show_default=False),
    ] = None,
    task: Annotated[str, typer.Option(help="Whose updates: a built-in task, or your task.py.")] = "digits",
    on: Annotated[
        Literal["loop", "raw"], typer.Option(help="loop: what codecs see in a run; raw: deltas as training left them.")
    ] = "loop",
    rounds: Annotated[int, typer.Option(min=2, help="Rounds recorded.")] = 16,
    clients: Annotated[int, typer.Option(min=1, max=10, help="Clients recorded, of ten.")] = 3,
    size: Annotated[int, typer.Option(help="Also bytes a second at so many parameters; 0: not.")] = 0,
    out: Annotated[Path, typer.Option(help="Where recorded updates and results are kept.")] = Path("runs/bench"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Record the updates anew.")] = False,
) -> None:
    """Bits, error, distance from the rate-distortion bound, and speed of codecs on recorded real updates.

    Example: [bold]fedpress bench codecs ecsq:4 topk:0.01+int8 --task har --size 4000000[/bold]
    """
    from fedpress.simulations.benchmarks import codecs as bench
    from fedpress.simulations.benchmarks.steps import Steps
    from fedpress.simulations.benchmarks.updates import recorded

    texts = chains or bench.chains()
    with Steps(console, f"updates of {task}", rounds) as steps:
        updates = recorded(out, task, rounds, clients, steps.hear, fresh=fresh)
    with Steps(console, "measuring", len(texts) + 1) as steps:
        rows, shared = bench.measure(texts, updates, on, steps.step)
    wide.print(bench.table(rows, updates, on))
    found = []
    if size:
        with Steps(console, "timing", len(chains or bench.FAST)) as steps:
            found = bench.throughput(chains or bench.FAST, updates, size, steps.step)
        wide.print(bench.throughput_table(found))
    for path in bench.save(rows, shared, updates, on, out, found):
        console.print(str(path))


@bench_app.command("traffic")
def bench_traffic(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Tasks with settings; none: all that have.", show_default=False)
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="An arm to compare with fp32; repeat for more. Default: all.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Repeat for more. Default: 0, 1 and 2.")] = None,
    keys: Annotated[list[str] | None, typer.Option("--set", help="A key of the plan for all runs, KEY=VALUE.")] = None,
    out: Annotated[Path, typer.Option(help="Where runs are kept; finished ones are not run again.")] = Path(
        "runs/traffic"
    ),
) -> None:
    """Accuracy, bits per parameter and total traffic of compressed runs beside uncompressed ones.

    Example: [bold]fedpress bench traffic digits har --seed 0 --set run.rounds=10[/bold]
    """
    from fedpress.simulations.benchmarks import comparison, traffic
    from fedpress.simulations.benchmarks.settings import SETTINGS
    from fedpress.simulations.benchmarks.steps import Steps

    names, arms = tasks or list(SETTINGS), arm or list(traffic.ARMS)
    with Steps(console, "running") as steps:
        lines = traffic.run(names, arms, seed or [0, 1, 2], out, keys or [], steps.run)
    wide.print(comparison.table(lines))
    console.print(f"{out / 'traffic.json'}, and a drawing per task beside it.")


@bench_app.command("strategies")
def bench_strategies(
    study: Annotated[Literal["global", "personalized", "asynchronous"], typer.Argument(help="What is compared.")],
    setting: Annotated[list[str] | None, typer.Option(help="A setting; repeat for more. Default: all.")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="An arm; repeat for more. Default: all.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Repeat for more. Default: 0, 1 and 2.")] = None,
    out: Annotated[Path, typer.Option(help="Where runs are kept. Finished ones are not run again.")] = Path(
        "runs/bench"
    ),
    keys: Annotated[list[str] | None, typer.Option("--set", help="A key of all plans, as section.key=value.")] = None,
) -> None:
    """Strategies side by side on real data, with the default compressed codecs: accuracy, rounds, bytes, time.

    Example: [bold]fedpress bench strategies personalized --setting har --arm fedper --arm ditto --seed 0[/bold]
    """
    from fedpress.simulations.benchmarks import studies
    from fedpress.simulations.benchmarks.steps import Steps

    with Steps(console, "running") as steps:
        rows = studies.run(study, setting or [], arm or [], seed or [0, 1, 2], out, keys or [], steps.run)
    wide.print(studies.table(rows, studies.STUDIES[study].shows))
    console.print(str(studies.save(rows, out)))


@bench_app.command("privacy")
def bench_privacy(
    settings: Annotated[
        list[str] | None, typer.Argument(help='As "femnist / local"; none: all there are.', show_default=False)
    ] = None,
    epsilon: Annotated[
        list[float] | None,
        typer.Option(min=0.0, help="Repeat for more; 0: without privacy. Default: 1, 3, 8 and 0.", show_default=False),
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Repeat for more. Default: 0, 1 and 2.")] = None,
    keys: Annotated[list[str] | None, typer.Option("--set", help="A key of the plan for all runs, KEY=VALUE.")] = None,
    out: Annotated[Path, typer.Option(help="Where runs are kept; finished ones are not run again.")] = Path(
        "runs/privacy"
    ),
) -> None:
    """What privacy costs in accuracy, and what compression costs on top of its noise.

    Example: [bold]fedpress bench privacy "fashion-mnist / central" --epsilon 3 --seed 0[/bold]
    """
    from fedpress.simulations.benchmarks import privacy
    from fedpress.simulations.benchmarks.steps import Steps

    with Steps(console, "running") as steps:
        rows = privacy.run(settings or [], epsilon or [], seed or [0, 1, 2], out, keys or [], steps.run)
    wide.print(privacy.table(rows))
    console.print(str(out / "privacy.json"))


def read_plan(words: list[str] | None) -> Plan:
    """The plan that words on the command line describe: a file, or a task by name or path, then overrides."""
    plan = _read(list(words or ()))
    build_strategy(plan)  # refuses what does not go together, before anything starts
    if plan.privacy.mode == "central":
        central.check(plan)
    return plan


def guarded(words: list[str] | None, mode: str | None, epsilon: float | None) -> list[str]:
    """The overrides that --privacy and --epsilon stand for: finer codecs, since noise is not sparse, and for central
    privacy the keys it cannot do without; unless ``words``, or the plan that they name, give them."""
    if mode is None:
        if epsilon is not None:
            raise PlanError("Expected --privacy local or --privacy central with --epsilon.")
        return []
    said = [f"privacy.mode={mode}"]
    if epsilon is not None:
        if any(word.partition("=")[0].strip() == "privacy.epsilon" for word in words or ()):
            raise PlanError("Expected --epsilon or privacy.epsilon, got both.")
        said.append(f"privacy.epsilon={epsilon}")
    plan = _read([*(words or ()), *said])
    keys = dict(_FINE)
    if mode == "central":
        keys["strategy.weighting"] = "uniform"
        if not plan.privacy.metrics_noise:
            keys["evaluate.clients_every"] = "0"
    for key, value in keys.items():
        section, _, name = key.partition(".")
        if name not in getattr(plan, section).model_fields_set:
            said.append(f"{key}={value}")
    return said


def _read(words: list[str]) -> Plan:
    target = words.pop(0) if words and "=" not in words[0] else None
    if target is None or target.endswith(".toml"):
        return plans.load(Path(target) if target else None, words)
    named = [] if any(w.startswith("run.name=") for w in words) else [f'run.name="{Path(target).stem}"']
    return plans.load(None, [f'task.name="{target}"', *named, *words])


def _show(run: Path) -> None:
    """The closing table, and the report where its libraries are installed."""
    from fedpress.simulations.report import write_report
    from fedpress.simulations.results import Result, table

    try:
        write_report(run, run / "baseline" if (run / "baseline").is_dir() else None)
    except MissingExtra as missing:
        complaints.print(f"No report.html: {escape(str(missing))}")
    console.print(table(Result.read(run)))


def _attack(run: Path, attacks: Sequence[str], limits: Audit, seed: int, *, gate: bool) -> None:
    """Audit a run and show what was found. Raises PrivacyError where it does not pass the ``gate``."""
    from fedpress.simulations.audit import findings as audits
    from fedpress.simulations.audit.run import audit_run
    from fedpress.simulations.benchmarks.steps import Steps
    from fedpress.simulations.report import write_report

    with Steps(console, "audit") as steps:
        found = audit_run(run, steps, attacks, limits.shadows, seed)
    wide.print(audits.table(found))
    try:
        from fedpress.simulations.audit.plots import draw

        if found.membership:
            draw(found, run)
        write_report(run, run / "baseline" if (run / "baseline").is_dir() else None)
    except MissingExtra as missing:
        complaints.print(f"No audit.png: {escape(str(missing))}")
    if gate and (faults := audits.faults(found, limits)):
        raise PrivacyError("The audit does not pass: " + "; ".join(faults) + ".")
    console.print(f"{run / audits.AUDIT_FILE}, and what it shows in {run / 'audit.png'} and the report.")


def _version(asked: bool) -> None:
    if asked:
        console.print(f"fedpress {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Federated learning with compressed communication."""


def main() -> None:
    """Entry point: errors that fedpress raises on purpose are a line on stderr, not a traceback."""
    try:
        app()
    except FedpressError as error:
        complaints.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, PlanError) else 1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)


if __name__ == "__main__":
    main()
