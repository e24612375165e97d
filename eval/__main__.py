"""python -m eval fvd | recon | diagnose | accuracy | cost | report: JSON beside each number."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from eval.accuracy_command import measure_accuracy
from eval.arguments import parser
from eval.cost_command import measure_cost
from eval.diagnose_command import diagnose
from eval.fvd_command import measure_fvd
from eval.recon_command import measure_recon
from eval.report import write_report
from vidtwin_gen.weights import MissingWeightsError


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    run = {
        "fvd": measure_fvd,
        "recon": measure_recon,
        "diagnose": diagnose,
        "accuracy": measure_accuracy,
        "cost": measure_cost,
        "report": report,
    }
    try:
        run[args.verb](args)
    except (ValueError, MissingWeightsError) as error:
        args.error(str(error))


def report(args: argparse.Namespace) -> None:
    print(f"report: {write_report(args.run_dir)}")


if __name__ == "__main__":
    main()
