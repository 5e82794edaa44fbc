import os
import signal
import sys
import threading
import time
from pathlib import Path

START = Path(__file__).with_name("start.txt").read_text(encoding="utf-8").strip()

if __name__ == "__main__":
    # "crash_unless PATH": it starts while there is such a file.
    if START == "crash" or (START[:13] == "crash_unless " and not Path(START[13:]).exists()):
        print("Traceback: no module named nothing", file=sys.stderr, flush=True)
        sys.exit(3)
    if START == "silent":
        print("thinking about it", file=sys.stderr, flush=True)
        time.sleep(3600)
    if START == "out_of_memory":
        print("MemoryError", file=sys.stderr, flush=True)
    if START == "ignore_term":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    from dify_plugin import DifyPluginEnv, Plugin

    plugin = Plugin(DifyPluginEnv())
    if START == "die_soon":
        threading.Timer(0.2, os._exit, [9]).start()
    plugin.run()
