"""Write the data of the task files demo_*: what no document of the embedded corpus tells.

    python tools/embedded_tasks.py

They are data of a version: change them, and the versions in the task files, only when the corpus changes.
"""

import json
from pathlib import Path

from small_doge.processor.corpus import held_out_preferences, held_out_problems, held_out_questions
from small_doge.utils.files import write_text


FOLDER = Path(__file__).parents[1] / "src" / "small_doge" / "evaluation" / "tasks" / "demo"
QUESTIONS, PROBLEMS, PREFERENCES = 100, 200, 100


def make_rows() -> dict[str, list[dict]]:
    """Make the rows of each file."""
    questions = [
        {
            "id": f"question-{i}",
            "kind": q.kind,
            "question": q.question,
            "answer": q.answer,
            "short_answer": q.short_answer,
        }
        for i, q in enumerate(held_out_questions(QUESTIONS))
    ]
    problems = [
        {"id": f"problem-{i}", "question": p["question"], "final": p["final"]}
        for i, p in enumerate(held_out_problems(PROBLEMS))
    ]
    preferences = [
        {
            "id": f"preference-{i}",
            "question": pair["prompt"][0]["content"],
            "choices": [pair[name][0]["content"] for name in ("chosen", "rejected")],
            "answer": 0,
        }
        for i, pair in enumerate(held_out_preferences(PREFERENCES))
    ]
    return {"questions": questions, "problems": problems, "preferences": preferences}


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, rows in make_rows().items():
        write_text(FOLDER / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    main()
