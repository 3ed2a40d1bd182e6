// node node.mjs FOLDER PROMPT [--chat] [--max-new-tokens N] [--temperature T] [--threads N]

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Doge } from "../../src/small_doge/webui/static/doge/doge.mjs";

// Read when ONNX Runtime is loaded, which otherwise reports to its maker.
process.env.ORT_DISABLE_TELEMETRY ??= "1";
const { default: ort } = await import("onnxruntime-node");

const usage = "Usage: node node.mjs FOLDER PROMPT [--chat] [--max-new-tokens N] [--temperature T] [--threads N]";

function readWords() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        chat: { type: "boolean", default: false },
        "max-new-tokens": { type: "string", default: "64" },
        temperature: { type: "string", default: "0" },
        threads: { type: "string", default: "1" },
      },
    });
  } catch (error) {
    console.error(`${error.message}\n${usage}`);
    process.exit(2);
  }
}

process.stdout.on("error", () => process.exit(1)); // whoever reads has gone
const { values, positionals } = readWords();
const [folder, prompt] = positionals;
if (!folder || prompt === undefined) {
  console.error(usage);
  process.exit(2);
}

try {
  const threads = Number(values.threads);
  if (!(Number.isInteger(threads) && threads >= 1)) throw new Error("--threads must be a whole number from 1 on");
  const doge = await Doge.load(ort, (name) => readFile(join(folder, name)), {
    inPlace: true,
    intraOpNumThreads: threads,
  });
  const ids = values.chat ? doge.render([{ role: "user", content: prompt }]) : doge.encode(prompt);
  const start = performance.now();
  let first;
  const options = { maxNewTokens: Number(values["max-new-tokens"]), temperature: Number(values.temperature) };
  const answer = doge.generate(ids, options);
  let next = await answer.next();
  for (; !next.done; next = await answer.next()) {
    first ??= performance.now();
    process.stdout.write(next.value.text);
  }
  const { usage, explanation } = next.value; // what a generator returns, which `for await` drops
  const count = usage.completion_tokens;
  const seconds = (performance.now() - first) / 1000;
  console.log();
  const speed = count > 1 ? `, ${Math.round((count - 1) / seconds)} tok/s` : "";
  const reason = explanation ? `, ${explanation}` : "";
  console.error(`${count} tokens${speed}, first after ${Math.round((first ?? performance.now()) - start)} ms${reason}`);
} catch (error) {
  console.error(`Error: ${error.message}`);
  process.exit(1);
}
