"""`accelerate launch --config_file docs/fsdp.yaml tests/fsdp_on_cpu.py SCRIPT FLAGS`: FSDP on the CPU.

torch shards there as elsewhere, over gloo; accelerate leaves it out of the devices on which it does. So this
starts accelerate's process group on the CPU and calls it by the name of the GPUs' one. All the rest is
accelerate's and the script's.
"""

import os
import runpy
import sys

from accelerate import PartialState
from accelerate.utils import DistributedType

PartialState(cpu=True)
PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
sys.path[0] = os.getcwd()  # not tests/, whose folders have the names of our packages
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
