// node node.mjs FOLDER PROMPT [--chat] [--max-new-tokens N] [--temperature T] [--threads N]

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Doge } from "./doge.mjs";

// Read when ONNX Runtime is loaded, which otherwise reports to its maker.
process.env.ORT_DISABLE_TELEMETRY ??= "1";
const { default: ort } = await import("onnxruntime-node");

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    chat: { type: "boolean", default: false },
    "max-new-tokens": { type: "string", default: "64" },
    temperature: { type: "string", default: "0" },
    threads: { type: "string", default: "1" },
  },
});
const [folder, prompt] = positionals;
if (!folder || prompt === undefined) {
  console.error("Usage: node node.mjs FOLDER PROMPT [--chat] [--max-new-tokens N] [--temperature T] [--threads N]");
  process.exit(2);
}

try {
  const doge = await Doge.load(ort, (name) => readFile(join(folder, name)), {
    inPlace: true,
    intraOpNumThreads: Number(values.threads),
  });
  const ids = values.chat ? doge.render([{ role: "user", content: prompt }]) : doge.encode(prompt);
  const start = performance.now();
  let count = 0;
  let first;
  const options = { maxNewTokens: Number(values["max-new-tokens"]), temperature: Number(values.temperature) };
  for await (const piece of doge.streamText(ids, options)) {
    first ??= performance.now();
    count++;
    process.stdout.write(piece);
  }
  const seconds = (performance.now() - first) / 1000;
  console.log();
  console.error(`${count} pieces, ${Math.round((count - 1) / seconds)} tok/s, first after ${Math.round(first - start)} ms`);
} catch (error) {
  console.error(`Error: ${error.message}`);
  process.exit(1);
}
