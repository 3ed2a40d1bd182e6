"""Processes of Python that need not load the libraries: one process has loaded them, and is forked for each call.

Loading `torch` and `transformers` takes several times as long as the few steps that most tests train. A fork is a process of
its own all the same, with its own memory, arguments, output and exit status, and begins where a new process of Python
would be after its imports. What libraries read while they are loaded, such as `HF_HOME`, is that of the first process.
"""

import gc
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import types
from pathlib import Path


ROOT = Path(__file__).parents[1]
# A fork keeps locks of threads that it doesn't have; Linux is where our libraries start none while they are loaded.
CAN_FORK = sys.platform == "linux"


class WarmPython:
    """Runs Python as `subprocess.run` does, and captures what it prints.

    Args:
        variables: of the environment, beside those of this process, when libraries are loaded and in every call.
    """

    def __init__(self, **variables):
        paths = [str(ROOT), os.environ.get("PYTHONPATH")]
        threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self.environment = {**os.environ, **threads, **variables}
        self.server = None

    def run(self, *words, cwd=None, timeout=900):
        """Run `python *words`, and return the finished process, whose output is text."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            if CAN_FORK:
                code = self._fork(words, cwd, timeout, out, err)
            else:
                command = [sys.executable, *words]
                settings = {"env": self.environment, "cwd": cwd, "timeout": timeout}
                code = subprocess.run(command, stdout=out, stderr=err, **settings).returncode
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(words, code, out.read(), err.read())

    def _fork(self, words, cwd, timeout, out, err):
        if self.server is None:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "tests.warm_python"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self.environment,
                text=True,
            )
        outputs = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, err)]
        folder = str(cwd or os.getcwd())
        print(json.dumps([list(words), folder, timeout, outputs]), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())

    def close(self):
        """End the first process."""
        if self.server is not None:
            self.server.communicate()


def serve():
    """Fork for every line of the input, and return what is asked for in the fork; the first process leaves at the end."""
    import datasets
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
    import trl  # noqa: F401

    import small_doge.trainer.runner  # noqa: F401

    # A collection in a fork would look at all that the libraries hold, and copy its pages.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        words, folder, timeout, outputs = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.alarm(timeout)
            os.chdir(folder)
            for descriptor, name in enumerate([os.devnull, *outputs]):
                file = os.open(name, os.O_RDWR)
                os.dup2(file, descriptor)
                os.close(file)
            random.seed()
            # Names of cached files are drawn from it; forks would all draw the same.
            datasets.fingerprint.fingerprint_rng.seed()
            return words
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os._exit(0)


def run(kind, *words):
    """What Python does with `-m module`, `-c code` or the name of a script, and with the words after it."""
    if kind == "-m":
        sys.argv = list(words)
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *words[1:]]
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.argv = [kind, *words]
        sys.path[0] = str(Path(kind).parent)
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    run(*serve())
