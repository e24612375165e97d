"""A Space of the studio, see README.md beside this file."""

import os

from pipelines.__main__ import main

if __name__ == "__main__":  # processes that read videos import this file, too
    main(["app", "--host", "0.0.0.0", "--port", os.environ.get("GRADIO_SERVER_PORT", "7860")])
