"""python -m eval VERB: measure a run and write JSON beside each number."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from eval.accuracy_command import measure_accuracy
from eval.arguments import parser
from eval.cost_command import measure_cost
from eval.diagnose_command import diagnose
from eval.fvd_command import measure_fvd
from eval.recon_command import measure_recon
from eval.reference_command import measure_reference
from eval.report import write_report
from eval.selftest_command import run_selftest
from eval.sensitivity_command import measure_sensitivity
from vidtwin_gen.weights import MissingWeightsError


def main(argv: Sequence[str] | None = None) -> None:
    words = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(words)
    args.command = shlex.join(["python", "-m", "eval", *words])
    run = {
        "fvd": measure_fvd,
        "reference": measure_reference,
        "sensitivity": measure_sensitivity,
        "recon": measure_recon,
        "diagnose": diagnose,
        "accuracy": measure_accuracy,
        "cost": measure_cost,
        "report": report,
        "selftest": run_selftest,
    }
    try:
        run[args.verb](args)
    except (ValueError, MissingWeightsError) as error:
        args.error(str(error))


def report(args: argparse.Namespace) -> None:
    print(f"report: {write_report(args.runs, args.out, args.baseline)}")


if __name__ == "__main__":
    main()
