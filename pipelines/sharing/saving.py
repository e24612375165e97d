"""What of a pipeline is written down and passed on: its index, its model card, its repository on the hub."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from diffusers.configuration_utils import ConfigMixin
from diffusers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFETENSORS_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    PushToHubMixin,
)
from diffusers.utils.hub_utils import _add_variant
from huggingface_hub import create_repo

from pipelines.labels import labels_by_name


class SharingMixin(ConfigMixin, PushToHubMixin):
    """For a `DiffusionPipeline` with class names: it loads from the hub, and brings a model card with it."""

    def to_json_string(self) -> str:
        """The index, with the label of each class name in place of the list of names.

        On the hub diffusers takes every list in a model_index.json for a component, (library, class), whose
        code it then misses. Models whose code came with an export are named as this package's, as it is not
        saved with them.
        """
        index = json.loads(super().to_json_string())
        for value in index.values():
            if isinstance(value, list) and str(value[0]).startswith("diffusers_modules."):
                value[0] = "vidtwin_gen"
        index["class_names"] = labels_by_name(index.get("class_names"))
        return json.dumps(index, indent=2, sort_keys=True) + "\n"

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """As `DiffusionPipeline.save_pretrained`, and writes the model card, README.md, where the pipeline
        has all its models.

        Args:
            save_directory: folder to write. safe_serialization: safetensors, or else pickles.
            variant: part of the weights' file names, such as "fp16". max_shard_size: of a file of weights.
            push_to_hub: also push to the hub; `repo_id` (by default the folder's name), `private`, `token`,
                `commit_message` and `create_pr` go with it.
        """
        from pipelines.sharing.model_card import write_card

        options = ("repo_id", "commit_message", "private", "token", "create_pr") if push_to_hub else ()
        hub = {name: kwargs.pop(name, None) for name in options}
        # which an earlier save of another form left, and which would be loaded in place of this one's
        stale = [SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME]
        stale += [] if safe_serialization else [SAFETENSORS_WEIGHTS_NAME]
        for name in ("vae", "transformer"):
            if getattr(self, name) is not None:
                for path in (Path(save_directory, name, _add_variant(file, variant)) for file in stale):
                    if path.is_file():
                        path.unlink()
        super().save_pretrained(  # type: ignore[misc]
            save_directory,
            safe_serialization=safe_serialization,
            variant=variant,
            max_shard_size=max_shard_size,
            **kwargs,
        )
        write_card(save_directory)
        if push_to_hub:
            repo_id = hub.pop("repo_id") or Path(save_directory).name
            self._push(save_directory, repo_id, **hub)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        subfolder: str | None = None,
    ) -> str:
        """As `DiffusionPipeline.push_to_hub`, but with this pipeline's model card and not an empty one."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, safe_serialization=safe_serialization, variant=variant)
            upload = {"commit_message": commit_message, "create_pr": create_pr, "subfolder": subfolder}
            return self._push(folder, repo_id, private, token, **upload)

    def _push(
        self, folder: str | os.PathLike[str], repo_id: str, private: Any, token: Any, **upload: Any
    ) -> str:
        from pipelines.sharing.model_card import give_way, write_card

        repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        write_card(folder, repo_id)
        give_way(folder, repo_id, subfolder=upload.get("subfolder"), token=token)
        return self._upload_folder(folder, repo_id, token, **upload)
