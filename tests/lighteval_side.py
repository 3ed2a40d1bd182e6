"""What lighteval asks, told by its own environment: run by that environment's Python, with PROMPTS_DIR set.

Writes a JSON line an item: the prompt as lighteval's models get it (of a conversation, the message), the choices, the place
of the right one, and what limits a generated answer.
"""

import json
import os
import sys
from pathlib import Path

from lighteval.tasks.prompt_manager import PromptManager
from lighteval.tasks.registry import Registry


TASKS = Path(__file__).parents[1] / "evaluation" / "lighteval_tasks.py"


def main() -> None:
    registry = Registry(tasks=os.path.join(os.environ["PROMPTS_DIR"], "tasks.txt"), custom_tasks=str(TASKS))
    tasks = registry.load_tasks()
    type(next(iter(tasks.values()))).load_datasets(tasks)
    prompts = PromptManager()
    for name, task in tasks.items():
        for doc in task.get_docs():
            told = {
                "task": name.split("|")[0],
                "id": doc.specific["id"],
                "prompt": prompts.prepare_prompt(doc),
                "choices": doc.choices,
                "answer": doc.gold_index,
                "given": doc.specific.get("given"),
                "lengths": doc.specific.get("lengths"),
                "until": doc.stop_sequences,
                "max_new_tokens": doc.generation_size,
                "metrics": sorted(task.aggregation()),
            }
            sys.stdout.write(json.dumps(told) + "\n")


main()
