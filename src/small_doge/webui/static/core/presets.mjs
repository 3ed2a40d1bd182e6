// Sampling settings, and named presets of them with a system prompt.

import { cut } from "./letters.mjs";

/** What may be set: name, label, range and step of each, and a word of help. An empty field is left to the engine. */
export const FIELDS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, help: "0 always takes the likeliest token" },
  { name: "top_p", label: "Top p", min: 0.05, max: 1, step: 0.05, help: "share of the probability that is drawn from" },
  { name: "top_k", label: "Top k", min: 0, max: 200, step: 1, help: "how many tokens are drawn from; 0: all" },
  { name: "min_p", label: "Min p", min: 0, max: 0.5, step: 0.01, help: "least probability, as a share of the likeliest's" },
  { name: "repetition_penalty", label: "Repetition penalty", min: 1, max: 2, step: 0.05, help: "1: none" },
  { name: "max_tokens", label: "Longest answer", min: 1, max: 4096, step: 1, help: "tokens" },
  { name: "seed", label: "Seed", min: 0, max: 2147483647, step: 1, help: "the same seed gives the same answer" },
];

const base = { temperature: 0.7, top_p: 0.95, top_k: 0, min_p: 0, repetition_penalty: 1, max_tokens: 256, seed: null };

export const BUILT_IN = [
  { name: "Balanced", system_prompt: "", sampling: { ...base } },
  { name: "Precise", system_prompt: "", sampling: { ...base, temperature: 0, top_p: 1 } },
  { name: "Creative", system_prompt: "", sampling: { ...base, temperature: 1.1, top_p: 1, min_p: 0.05 } },
];

/** Whether a conversation's settings are other than those of a preset. */
export function isChanged(preset, { system_prompt: prompt, settings }) {
  const sampling = cleanSampling(preset.sampling);
  return prompt !== (preset.system_prompt ?? "") || FIELDS.some(({ name }) => sampling[name] !== settings.sampling[name]);
}

/** A copy of sampling settings in which every field has a number in its range, or null. */
export function cleanSampling(sampling) {
  const clean = { ...base };
  for (const { name, min, max } of FIELDS) {
    const value = sampling?.[name];
    if (value === null || value === "") clean[name] = null;
    else if (Number.isFinite(value)) clean[name] = Math.min(max, Math.max(min, value));
  }
  return clean;
}

export const MAX_PRESET_NAME = 300; // as the server allows

/** A name as the server takes it: spaces of any kind become plain ones, and what is not printed goes. */
function cleanName(name) {
  const printed = name.replace(/[\p{Z}\s]+/gu, " ").replace(/\p{C}/gu, "").trim();
  return cut(printed, MAX_PRESET_NAME).trimEnd();
}

/** A preset of a file, of which nothing else is kept; null if it has no name, or that of a built-in one. */
export function readPreset(preset) {
  const name = typeof preset?.name === "string" ? cleanName(preset.name) : "";
  if (["", ".", ".."].includes(name) || isBuiltIn(name)) return null;
  const prompt = typeof preset.system_prompt === "string" ? cut(preset.system_prompt, 100_000) : "";
  return { name, system_prompt: prompt, sampling: cleanSampling(preset.sampling) };
}

/** Whether two presets set the same. */
export function isSame(one, other) {
  const content = ({ system_prompt: prompt, sampling }) => JSON.stringify([prompt ?? "", cleanSampling(sampling)]);
  return content(one) === content(other);
}

export function isBuiltIn(name) {
  return BUILT_IN.some((preset) => preset.name === name);
}
