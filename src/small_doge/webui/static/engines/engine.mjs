// What every engine does. `openEngine` gives the one that config.json names.

/**
 * @typedef {object} Model
 * @property {string} id
 * @property {boolean | null} can_chat whether it has a chat template
 * @property {number | null} max_length tokens of prompt and answer together; null: no limit
 * @property {number | null} trained_length tokens of the longest text that it was trained on
 *
 * @typedef {object} Message
 * @property {"system" | "user" | "assistant"} role
 * @property {string} content
 *
 * @typedef {object} Sampling fields of the OpenAI API: temperature, top_p, top_k, min_p, repetition_penalty, max_tokens,
 *   seed; one that is null is left to the engine
 *
 * @typedef {object} Usage
 * @property {number} prompt_tokens
 * @property {number} completion_tokens
 * @property {number} cached_tokens
 *
 * @typedef {object} Finish what a generation returns at its end
 * @property {"stop" | "length" | "aborted"} finishReason
 * @property {Usage | null} usage
 *
 * @typedef {object} Token
 * @property {number} id
 * @property {string} text
 * @property {number | null} logprob
 * @property {{id: number, text: string, logprob: number}[]} [top] the likeliest in its place
 *
 * @typedef {object} Engine errors are thrown as `Error` with a message for people; `onWait` hears why a request waits, and null
 *   when it begins
 * @property {string} noModels what to do where there is no model
 * @property {string} addModels how to get a second one
 * @property {() => Promise<Model[]>} models
 * @property {(request: {model: string, messages: Message[], sampling: Sampling, signal?: AbortSignal,
 *   onWait?: (reason: string | null) => void, continueFinal?: boolean}) => AsyncGenerator<{text: string, tokenIds?: number[]}, Finish>} chat the next message, piece by
 *   piece; with `continueFinal`, what follows the text of the last one
 * @property {(request: {model: string, prompt?: string, promptIds?: number[], sampling: Sampling, top?: number,
 *   signal?: AbortSignal, onWait?: (reason: string | null) => void}) => AsyncGenerator<Token[], Finish>} complete what follows a text
 * @property {(request: {model: string, content?: string, messages?: Message[]}) =>
 *   Promise<{tokens: {id: number, piece: string}[], count: number, max_length: number | null}>} tokenize
 * @property {(request: {model: string, tokens: number[], top?: number}) => Promise<object>} inspect the answer of
 *   /api/v1/inspect: the probability of each token, and what each head keeps
 */

/**
 * @param {{engine?: "server" | "browser", model?: string}} config
 * @returns {Promise<Engine>}
 */
export async function openEngine(config) {
  const name = config.engine === "browser" ? "browser" : "server";
  const { createEngine } = await import(`./${name}.mjs`);
  return createEngine(config);
}
