"""A warm Python does what a new one does."""

import os

from tests.warm_python import CAN_FORK


CODE = """
import os, sys
print(sys.argv, __name__, os.getcwd(), os.getpid(), sys.stdin.read())
print("aside", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


def test_a_call_has_its_own_process_words_folder_output_and_status(warm_python, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(CODE)
    for words, name in (("-c", CODE), "-c"), ((str(script),), str(script)):
        done = [warm_python.run(*words, status, cwd=tmp_path) for status in ("0", "3")]
        assert [one.returncode for one in done] == [0, 3] and {one.stderr for one in done} == {"aside\n"}
        assert all(
            one.stdout.startswith(f"{[name, s]} __main__ {tmp_path} ") for one, s in zip(done, "03", strict=True)
        )
        assert len({one.stdout.split()[-1] for one in done} | {str(os.getpid())}) == 3


def test_what_a_call_changes_does_not_reach_the_next(warm_python):
    warm_python.run("-c", "import os, torch; os.environ['NEW'] = '1'; torch.set_default_dtype(torch.float64)")
    done = warm_python.run("-c", "import os, torch; print('NEW' in os.environ, torch.get_default_dtype())")
    assert done.stdout == "False torch.float32\n"


def test_an_error_ends_a_call_with_its_traceback_and_a_long_one_is_stopped(warm_python):
    done = warm_python.run("-c", "1 / 0")
    assert done.returncode == 1 and done.stderr.endswith("ZeroDivisionError: division by zero\n")
    if CAN_FORK:
        assert warm_python.run("-c", "import time; time.sleep(60)", timeout=1).returncode < 0
