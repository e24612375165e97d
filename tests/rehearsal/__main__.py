"""What a training step asks of a GPU, counted without one: python -m tests.rehearsal

Kernels are operations of torch that compute; attention counts as its parts, as this device has no fused one.
"""

from collections import Counter

from tests.rehearsal.steps import SIZED, watched

KINDS = ("synchronisation", "copy to the host", "copy from the host", "host tensor", "float64")

if __name__ == "__main__":
    print("| step | operations |", " | ".join(KINDS), "|")
    print("|---|" + "---|" * (1 + len(KINDS)))
    for name in SIZED:
        watch = watched(name)
        kinds = Counter(fault.kind for fault in watch.faults)
        counts = [sum(watch.kernels.values()), *(kinds[kind] for kind in KINDS)]
        print(f"| {name} |", " | ".join(f"{count:,}" for count in counts), "|")
