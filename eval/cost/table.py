"""What was counted, in words: a table of all rows, and two kinds of latents in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eval.cost.geometry import Unpublished
from vidtwin_gen.records import CostRow

# what must agree for two rows to be compared
ALIKE = ("size", "patch_size", "attention", "batch_size", "gradient_checkpointing")


def sentence(first: CostRow, other: CostRow) -> str:
    """`first` against `other` under one transformer: "A needs N times fewer FLOPs and M times less training
    memory than B", or more of either. N is of forward FLOPs, M of predicted memory, and what was measured
    stands beside it."""
    ours, theirs = first.measured_bytes, other.measured_bytes
    beside = "" if ours is None or theirs is None else f" ({_times(ours, theirs, 'less')} as measured)"
    return (
        f"{first.tokenizer} needs {_times(first.forward_flops, other.forward_flops, 'fewer')} FLOPs "
        f"and {_times(first.peak_bytes, other.peak_bytes, 'less')} training memory than {other.tokenizer} "
        f"at the same DiT ({dit(first)}), patch {first.patch_size} and clip "
        f"({_clip(first)}): {first.num_tokens:,} and {other.num_tokens:,} "
        f"tokens, {_gflops(first)} and {_gflops(other)} GFLOPs forward, "
        f"{_mib(first.peak_bytes)} and {_mib(other.peak_bytes)} MiB in training, predicted{beside}"
    )


def sentences(rows: Sequence[CostRow]) -> list[str]:
    """For each transformer its first row against each other that has the same clip."""
    of_a_transformer: dict[str, list[CostRow]] = {}
    for row in rows:
        of_a_transformer.setdefault(str([getattr(row, name) for name in ALIKE]), []).append(row)
    return [
        sentence(first, other)
        for first, *others in of_a_transformer.values()
        for other in others
        if other.tokenizer != first.tokenizer and other.clip_shape == first.clip_shape
    ]


def own_sentence(row: CostRow) -> str:
    """What a pipeline's own DiT costs, with what was measured, or why it was not."""
    text = (
        f"The pipeline's DiT ({dit(row)}), patch {row.patch_size}: {row.num_tokens:,} tokens, {_gflops(row)} "
        f"GFLOPs forward, {_mib(row.peak_bytes)} MiB in training, predicted"
    )
    if row.measured is None:
        return text
    names = {"MiB measured": "MiB as measured", "s forward": "s forward", "s training": "s a training step"}
    cells = _cells(row, measured=True)
    if "reason" in row.measured:
        return f"{text}; not measured: {row.measured['reason']}"
    return f"{text}; {', '.join(f'{cells[column]} {unit}' for column, unit in names.items())}"


def dit(row: CostRow) -> str:
    """The transformer of a row."""
    text = f"{row.num_layers} layers of width {row.hidden_size}, {row.attention} attention"
    if row.gradient_checkpointing:
        text += ", gradient checkpointing"
    return f"{text}, batch {row.batch_size}"


def tables(rows: Sequence[CostRow], left_out: Sequence[Unpublished] = ()) -> str:
    """Markdown: a table for each transformer, with what was measured where something was."""
    blocks = []
    measured = any(row.measured is not None for row in rows)
    for name in dict.fromkeys((row.size, dit(row)) for row in rows):
        cells = [_cells(row, measured) for row in rows if (row.size, dit(row)) == name]
        text = _markdown([list(cells[0]), *(row.values() for row in cells)])
        blocks.append(f"{name[0]}: {name[1]}\n\n{text}")
    blocks += [f"{entry.name} is not counted, it has {entry.missing} ({entry.source})." for entry in left_out]
    return "\n\n".join(blocks)


def sources(rows: Sequence[CostRow]) -> str:
    """Markdown: where the latents of each tokenizer are published, and what is to be known of them."""
    lines = [["tokenizer", "clip", "codes", "bits of a pixel's", "in the paper's Table 1", "source"]]
    for row in {row.tokenizer: row for row in rows}.values():
        clip = _clip(row)
        if row.frames_taken:
            clip += f", takes {row.frames_taken} frames"
        printed = "" if row.printed_rate is None else f"{row.printed_rate:.2%}: {row.verdict}"
        codes = "continuous" if row.num_codes is None else f"{row.num_codes:,}"
        bits = "" if row.bit_rate is None else f"{row.bit_rate:.3%}"
        source = f"{row.source}; {row.remark}" if row.remark else row.source
        lines.append([row.tokenizer, clip, codes, bits, printed, source])
    return _markdown(lines)


def _markdown(lines: Sequence[Iterable[str]]) -> str:
    """A table, its header the first line."""
    header, *rows = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([header, f"|{' --- |' * len(list(lines[0]))}", *rows])


def _cells(row: CostRow, measured: bool) -> dict[str, str]:
    """By column; with `measured` also what was, or the reason why it was not."""
    paper = row.figure_5 or {"num_tokens": {}, "macs": {}}
    cells = {
        "tokenizer": row.tokenizer,
        "clip": _clip(row),
        "patch": str(row.patch_size),
        "elements": f"{row.num_elements:,}",
        "rate": f"{row.compression_rate:.3%}",
        "tokens": f"{row.num_tokens:,}",
        "M parameters": f"{row.num_parameters / 1e6:.1f}",
        "GFLOPs forward": f"{row.forward_flops / 1e9:,.1f}",
        "GFLOPs training": f"{row.training_flops / 1e9:,.1f}",
        "MiB training": _mib(row.peak_bytes),
        "Figure 5's tokens": _either(f"{count:,}" for count in paper["num_tokens"].values()),
        "and its GMACs": _either(f"{macs / 1e9:.2f}" for macs in paper["macs"].values()),
    }
    if not measured:
        return cells
    found = row.measured or {}
    seconds = {name: f"{value['median']:.3g}" for name, value in found.get("seconds", {}).items()}
    return cells | {
        "MiB measured": found["reason"] if "reason" in found else _mib(found["peak_bytes"]),
        "s forward": seconds.get("forward", ""),
        "s training": seconds.get("training_step", ""),
    }


def _either(values: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(values))


def _clip(row: CostRow) -> str:
    return "×".join(map(str, row.clip_shape))


def _gflops(row: CostRow) -> str:
    value = row.forward_flops / 1e9
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f}" if size >= 10 * 2**20 else f"{size / 2**20:.2g}"


def _times(ours: float, theirs: float, fewer: str) -> str:
    return f"{theirs / ours:.2f} times {fewer}" if theirs >= ours else f"{ours / theirs:.2f} times more"
