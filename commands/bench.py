"""``fedpress bench``: what codecs, compressed runs, strategies and privacy come to on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fedpress.commands.screen import console, wide

Seeds = Annotated[list[int] | None, typer.Option(help="Repeat for more. Default: 0, 1 and 2.")]
Keys = Annotated[list[str] | None, typer.Option("--set", help="A key of the plan for all runs, KEY=VALUE.")]
Out = Annotated[Path, typer.Option(help="Where runs are kept; finished ones are not run again.")]

app = typer.Typer(help="Measure codecs, accuracy against traffic, strategies, privacy.", no_args_is_help=True)


@app.command("codecs")
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


@app.command("traffic")
def bench_traffic(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Tasks with settings; none: all that have.", show_default=False)
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="An arm to compare with fp32; repeat for more. Default: all.")
    ] = None,
    seed: Seeds = None,
    keys: Keys = None,
    out: Out = Path("runs/traffic"),
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


@app.command("strategies")
def bench_strategies(
    study: Annotated[Literal["global", "personalized", "asynchronous"], typer.Argument(help="What is compared.")],
    setting: Annotated[list[str] | None, typer.Option(help="A setting; repeat for more. Default: all.")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="An arm; repeat for more. Default: all.")] = None,
    seed: Seeds = None,
    out: Out = Path("runs/bench"),
    keys: Keys = None,
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


@app.command("privacy")
def bench_privacy(
    settings: Annotated[
        list[str] | None, typer.Argument(help='As "femnist / local"; none: all there are.', show_default=False)
    ] = None,
    epsilon: Annotated[
        list[float] | None,
        typer.Option(min=0.0, help="Repeat for more; 0: without privacy. Default: 1, 3, 8 and 0.", show_default=False),
    ] = None,
    seed: Seeds = None,
    keys: Keys = None,
    out: Out = Path("runs/privacy"),
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


@app.command("zoo")
def bench_zoo(
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="What is compared with raw; repeat for more. default: the default codecs. A new arm is its name, a "
            'colon and keys of the plan, divided by semicolons: "fine:upload.codec=ef+ecsq:2;download.codec=int8".',
            show_default="default",
        ),
    ] = None,
    half: Annotated[
        Literal["tuned", "unseen", "all"],
        typer.Option(help="tuned: to choose by; unseen: to report, never to choose by."),
    ] = "all",
    cell: Annotated[
        list[str] | None, typer.Option(help="A cell; repeat for more. Default: all of the half.", show_default=False)
    ] = None,
    small: Annotated[bool, typer.Option("--small", help="Only the cells that run in CI.")] = False,
    strategies: Annotated[
        bool, typer.Option("--strategies", help="In place of the cells: every strategy in two cells.")
    ] = False,
    seed: Seeds = None,
    keys: Keys = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that measure, each one run at a time.")] = 1,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run all again. Kept runs know their plan, not the code that ran it.")
    ] = False,
    fresh_arm: Annotated[
        list[str] | None,
        typer.Option(help="Run this arm again, as after a change of codecs; repeat for more.", show_default=False),
    ] = None,
    out: Out = Path("runs/zoo"),
) -> None:
    """Compressed runs beside raw ones over kinds of models, optimisers and data that no default was fitted to.

    Example: [bold]fedpress bench zoo --half tuned --seed 0 --arm default --arm "c1:upload.codec=ef+ecsq:2"[/bold]
    """
    from fedpress.simulations.benchmarks.steps import Steps
    from fedpress.simulations.benchmarks.zoo import cells, measures, runs, tables
    from fedpress.simulations.benchmarks.zoo import strategies as zoo_strategies
    from fedpress.simulations.benchmarks.zoo.arms import parse

    arms, seeds, more = parse(arm or []), seed or [0, 1, 2], keys or []
    if strategies:
        planned = zoo_strategies.planned(arms, seeds, out, more)
    else:
        planned = runs.planned(cell or cells.chosen(half, small), arms, seeds, out, more)
    again = list(arms) if fresh else fresh_arm or []
    with Steps(console, "running") as steps:
        lines = runs.lines(planned, workers, again, steps.run)
    for name in dict.fromkeys(line.half for line in lines):
        wide.print(tables.table(name, lines))
    wide.print(tables.summary(measures.totals(lines)))
    for path in runs.save(lines, arms, out / ("zoo-strategies" if strategies else "zoo")):
        console.print(str(path))
