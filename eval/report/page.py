"""Everything an evaluation leaves behind in its output folder."""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.names import file_label
from eval.options import EvalOptions
from eval.report import tables, terminal
from eval.report.gallery import Drawn, draw_extremes
from eval.runner import Evaluation
from matcher.files import make_folder, replaced, write_atomically

FILES = ("results.json", "timing.json", "table.md", "table.csv", "pairs.csv", "report.html")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .3em .8em; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% }
figure { margin: 1em 0 }
figcaption, .facts { color: #555 }
.pair { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(30em, 100%), 1fr)) }
.pair { gap: 1em }
.pair figure { margin: 0 }
.pair img { width: 100%; aspect-ratio: 3 / 2; object-fit: contain; background: #fafaf8 }
"""


def write_reports(
    folder: Path, evaluations: Sequence[Evaluation], options: EvalOptions, words: Sequence[str]
) -> list[str]:
    """Write results, tables, figures and the HTML report; returns lines to print.

    ``results.json``, ``table.md``, ``table.csv`` and ``pairs.csv`` and the report are the same in
    every run of the same evaluation; what differs is in ``timing.json`` and ``timing-*.png``.
    """
    make_folder(folder)
    records = [evaluation.record for evaluation in evaluations]
    timings = [evaluation.timing for evaluation in evaluations if evaluation.timing]
    table = tables.markdown(records)
    texts = {
        "results.json": json.dumps(records, indent=1, allow_nan=False) + "\n",
        "timing.json": json.dumps(timings, indent=1, allow_nan=False) + "\n",
        "table.md": table,
        "table.csv": tables.comma_separated(records),
        "pairs.csv": tables.csv_text([row for e in evaluations for row in pair_rows(e)]),
    }
    names = [*(["report.html"] if options.report else []), *texts]
    told = [f"in {folder}: {', '.join(names)}{replaced(folder / 'results.json')}"]
    if not options.report and (folder / "report.html").exists():
        told.append(f"{folder / 'report.html'} and its pictures are of an earlier evaluation")
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    if options.report:
        write_atomically(folder / "report.html", _page(folder, evaluations, options.drawn).encode())
    if options.document:
        body = tables.markdown(records, timings)
        told.append(f"{options.document}{replaced(options.document)}")
        write_atomically(Path(options.document), _document(body, words, timings).encode())
    lines = [line for text in told for line in terminal.wrapped(text)]
    return [*terminal.summary_lines(records, timings), "", *lines]


def pair_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """A row for every pair."""
    origin = {k: evaluation.record[k] for k in ("method", "dataset", "protocol")}
    return [origin | row for row in evaluation.rows]


def _document(body: str, words: Sequence[str], timings: Sequence[tables.Record]) -> str:
    machine = timings[0] if timings else {"machine": "-", "threads": "-"}
    threads = "one thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    return (
        "# Results\n\n"
        "Written by the evaluation itself; do not edit. To make it anew, on one line:\n\n"
        f"```\npython -m eval {shlex.join(words)}\n```\n\n"
        "AUC and shares in percent. P 5e-4: share of matches whose squared symmetric epipolar "
        "distance in normalized units is below 5e-4. Seconds are the median a pair without "
        f"reading images, on {machine['machine']}, {threads} a process, by "
        "the clock and of the processor: the two differ where other programs ran. Peak memory "
        "is that of the whole process. mAA@10 is the mean of the shares of poses within 1, 2, ... "
        "10 degrees. Where depth or a homography tells the truth, MMA@k and precision@k are the "
        "share of matches within k pixels, recall@k the share of visible cells with such a match, "
        "and EPE the median error of the matches.\n\n"
        f"{body}"
    )


def _page(folder: Path, evaluations: Sequence[Evaluation], drawn: int) -> str:
    # Matplotlib is an extra that only reports need.
    from eval.report.figures import method_colors

    parts = ["<h1>Evaluation</h1>"]
    colors = method_colors(e.record["method"] for e in evaluations)
    groups = dict.fromkeys(tables.group_of(e.record) for e in evaluations)
    for group in groups:
        inside = [e for e in evaluations if tables.group_of(e.record) == group]
        parts += _section(folder, file_label("-".join(group)), inside, drawn, colors)
    head = f"<!doctype html><meta charset='utf-8'><title>Evaluation</title><style>{STYLE}</style>"
    return f"{head}\n{chr(10).join(parts)}\n"


def _section(
    folder: Path,
    name: str,
    evaluations: Sequence[Evaluation],
    drawn: int,
    colors: Mapping[str, str],
) -> list[str]:
    from eval.report.figures import error_curves, precision_recall, time_against_auc

    make_folder(folder / "figures")
    make_folder(folder / "pictures")
    measured = [e for e in evaluations if e.record["status"] == "ok"]
    parts = [_html_of(tables.markdown([e.record for e in evaluations]))]
    if not measured:
        return parts
    curves = folder / "figures" / f"{name}-errors.png"
    points = folder / "figures" / f"{name}-precision-recall.png"
    times = folder / f"timing-{name}.png"
    error_curves(curves, measured, colors)
    precision_recall(points, measured, colors)
    time_against_auc(times, measured, colors)
    figures = [Drawn(curves, "Errors"), Drawn(points, "Precision"), Drawn(times, "Time")]
    parts.append(_gallery(folder, figures))
    for evaluation in measured:
        worst, best = draw_extremes(evaluation, folder / "pictures", drawn)
        method = html.escape(evaluation.record["method"])
        for title, pairs in (("Worst", worst), ("Best", best)):
            if pairs:
                parts += [f"<h3>{title} pairs of {method}</h3>", _gallery(folder, pairs)]
    return parts


def _gallery(folder: Path, pictures: Sequence[Drawn]) -> str:
    figures = [
        f"<figure><img loading='lazy' src='{html.escape(str(p.path.relative_to(folder)))}'>"
        f"<figcaption>{html.escape(p.caption)}</figcaption></figure>"
        for p in pictures
    ]
    return f"<div class='pair'>{''.join(figures)}</div>"


def _html_of(markdown: str) -> str:
    """HTML of the few constructs that `tables.markdown` writes."""
    out = []
    for block in markdown.strip().split("\n\n"):
        lines = [html.escape(line) for line in block.splitlines()]
        if lines[0].startswith("## "):
            out.append(f"<h2>{lines[0][3:].replace('`', '')}</h2>")
        elif lines[0].startswith("|"):
            head, _, *rows = [[c.strip() for c in line.strip("| ").split(" | ")] for line in lines]
            body = _html_row("th", head) + "".join(_html_row("td", row) for row in rows)
            out.append(f"<table>{body}</table>")
        elif lines[0].startswith("- "):
            out.append(f"<ul>{''.join(f'<li>{line[2:]}</li>' for line in lines)}</ul>")
        else:
            out.append(f"<p class='facts'>{' '.join(lines)}</p>")
    return "\n".join(out)


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{c}</{tag}>' for c in cells)}</tr>"
