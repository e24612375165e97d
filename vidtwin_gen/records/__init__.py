"""Results: what a measurement writes as JSON and a report, a model card or a table reads again.

Every kind of result is a dataclass that knows its `kind`, so that no reader guesses from keys. All of them
are imported here, so that `read_result` knows every kind.
"""

from vidtwin_gen.records.autoencoder import DiagnoseResult, ReconResult
from vidtwin_gen.records.cost import AutoencoderCostResult, CostResult, CostRow, Crossover
from vidtwin_gen.records.fvd import (
    FVDProtocol,
    FVDResult,
    SelftestResult,
    SensitivityResult,
    distance_json,
    kvd_text,
    not_measured,
)
from vidtwin_gen.records.generation import AccuracyResult, GeneratedRecord, NearestResult, wilson_interval
from vidtwin_gen.records.result import Result, read_result

__all__ = [
    "AccuracyResult",
    "AutoencoderCostResult",
    "CostResult",
    "CostRow",
    "Crossover",
    "DiagnoseResult",
    "FVDProtocol",
    "FVDResult",
    "GeneratedRecord",
    "NearestResult",
    "ReconResult",
    "Result",
    "SelftestResult",
    "SensitivityResult",
    "distance_json",
    "kvd_text",
    "not_measured",
    "read_result",
    "wilson_interval",
]
