"""What was counted, in words: a table of all rows, and two kinds of latents in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from eval.cost.geometry import Unpublished
from vidtwin_gen.records import CostRow

# what must agree for two rows to be compared
ALIKE = ("size", "patch_size", "attention", "batch_size", "gradient_checkpointing")
HEADER = (
    "tokenizer",
    "clip",
    "patch",
    "elements",
    "rate",
    "tokens",
    "M parameters",
    "GFLOPs forward",
    "GFLOPs training",
    "MiB training",
    "Figure 5's tokens",
    "and its GMACs",
)


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
    """The first tokenizer against each other that has the same clip, for each transformer."""
    lines = []
    for first in (row for row in rows if row.tokenizer == rows[0].tokenizer):
        for other in rows:
            alike = all(getattr(first, name) == getattr(other, name) for name in (*ALIKE, "clip_shape"))
            if alike and other.tokenizer != first.tokenizer:
                lines.append(sentence(first, other))
    return lines


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
    header = [*HEADER, *(("MiB measured", "s forward", "s training") if measured else ())]
    for name in dict.fromkeys((row.size, dit(row)) for row in rows):
        cells = [_cells(row, measured) for row in rows if (row.size, dit(row)) == name]
        lines = [header, ["---"] * len(header), *cells]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        blocks.append(f"{name[0]}: {name[1]}\n\n{text}")
    blocks += [f"{entry.name} is not counted, it has {entry.missing} ({entry.source})." for entry in left_out]
    return "\n\n".join(blocks)


def sources(rows: Sequence[CostRow]) -> str:
    """Markdown: where the latents of each tokenizer are published, and what is to be known of them."""
    lines = [["tokenizer", "clip", "codes", "bits of a pixel's", "in the paper's Table 1", "source"]]
    lines.append(["---"] * len(lines[0]))
    for row in {row.tokenizer: row for row in rows}.values():
        clip = _clip(row)
        if row.frames_taken:
            clip += f", takes {row.frames_taken} frames"
        printed = "" if row.printed_rate is None else f"{row.printed_rate:.2%}: {row.verdict}"
        codes = "continuous" if row.num_codes is None else f"{row.num_codes:,}"
        bits = "" if row.bit_rate is None else f"{row.bit_rate:.3%}"
        source = f"{row.source}; {row.remark}" if row.remark else row.source
        lines.append([row.tokenizer, clip, codes, bits, printed, source])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: CostRow, measured: bool) -> list[str]:
    paper = row.figure_5 or {"num_tokens": {}, "macs": {}}
    cells = [
        row.tokenizer,
        _clip(row),
        str(row.patch_size),
        f"{row.num_elements:,}",
        f"{row.compression_rate:.3%}",
        f"{row.num_tokens:,}",
        f"{row.num_parameters / 1e6:.1f}",
        f"{row.forward_flops / 1e9:,.1f}",
        f"{row.training_flops / 1e9:,.1f}",
        _mib(row.peak_bytes),
        " or ".join(dict.fromkeys(f"{count:,}" for count in paper["num_tokens"].values())),
        " or ".join(dict.fromkeys(f"{macs / 1e9:.2f}" for macs in paper["macs"].values())),
    ]
    if not measured:
        return cells
    found = row.measured or {}
    if "reason" in found:
        return [*cells, found["reason"], "", ""]
    seconds = (found["seconds"][name]["median"] for name in ("forward", "training_step"))
    return [*cells, _mib(found["peak_bytes"]), *(f"{value:.3g}" for value in seconds)]


def _clip(row: CostRow) -> str:
    return "×".join(map(str, row.clip_shape))


def _gflops(row: CostRow) -> str:
    value = row.forward_flops / 1e9
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f}" if size >= 10 * 2**20 else f"{size / 2**20:.2g}"


def _times(ours: float, theirs: float, fewer: str) -> str:
    return f"{theirs / ours:.2f} times {fewer}" if theirs >= ours else f"{ours / theirs:.2f} times more"
