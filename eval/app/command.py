"""python -m pipelines app: the studio in a browser."""

from __future__ import annotations

import importlib.util
import os
import socket
from multiprocessing import forkserver
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from pipelines.flags import AppFlags
from vidtwin_gen.demo import PRETRAINED
from vidtwin_gen.files import read_json

INSTALL = "pip install 'gradio>=6.28,<7'"
MOST_UPLOADED = "100mb"
MOST_KNOWN = 200  # visitors of whom gradio remembers what it showed them last
WANTED = "name with --pipeline the folder of a saved pipeline"


def run(flags: AppFlags) -> None:
    """Serves until it is stopped. What visitors send lies in a temporary folder, which ends with it.

    Raises:
        ValueError: gradio is not installed, there is no such pipeline, or the port is taken.
    """
    folder = Path(flags.pipeline or PRETRAINED)
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())  # visitors see it
    read_json(folder / "model_index.json", WANTED)
    if importlib.util.find_spec("gradio") is None:
        raise ValueError(f"the studio is made with gradio, which is not installed: {INSTALL}")
    try:
        socket.create_server((flags.host, flags.port or 0)).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"--host {flags.host} --port {flags.port}: {error}; name another") from None
    with TemporaryDirectory(prefix="vidtwin-gen-app-") as uploads:
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False"}
        from eval.app.page import LOOK, make_page
        from eval.app.studio import Studio

        forkserver.ensure_running()  # so that no visitor waits for its imports
        page = make_page(Studio(folder, flags.device))
        _, url, public = page.launch(
            server_name=flags.host,
            server_port=flags.port,
            share=flags.share,
            max_file_size=MOST_UPLOADED,
            state_session_capacity=MOST_KNOWN,
            prevent_thread_lock=True,
            ssr_mode=False,
            quiet=True,
            footer_links=[],
            **LOOK,
        )
        try:
            print(f"the studio is at {public or url}; Ctrl-C ends it", flush=True)
            Event().wait()
        finally:
            page.close(verbose=False)
