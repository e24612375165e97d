"""The sizes of the DiT by name."""

from __future__ import annotations

from typing import Any

# S to XL: DiT (arXiv 2212.09748, Table 1). paper: VidTwin (arXiv 2412.17726, appendix D.3), which does not
# tell the number of heads; 16 is DiT-XL's at this width.
SIZES: dict[str, dict[str, Any]] = {
    "S": {"hidden_size": 384, "num_layers": 12, "num_heads": 6},
    "B": {"hidden_size": 768, "num_layers": 12, "num_heads": 12},
    "L": {"hidden_size": 1024, "num_layers": 24, "num_heads": 16},
    "XL": {"hidden_size": 1152, "num_layers": 28, "num_heads": 16},
    "paper": {"hidden_size": 1152, "num_layers": 18, "num_heads": 16, "conditioning": "cross_attention"},
}
