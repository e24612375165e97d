"""Imported, it has SIGINT end the process at once and without a word. To be the first that a server of forked
processes preloads: Ctrl-C reaches it and what it forks, too, and its parent alone has something to say."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)
