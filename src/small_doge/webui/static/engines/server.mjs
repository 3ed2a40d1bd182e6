// The engine that asks the server; what its methods take and give stands in engine.mjs.

import { ApiError, hintAtServer, readEvents, request, requestJson, serverName } from "../core/api.mjs";

/** Sampling settings without those that are left to the server. */
function given(sampling) {
  return Object.fromEntries(Object.entries(sampling ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== ""));
}

function toUsage(usage) {
  return {
    prompt_tokens: usage.prompt_tokens,
    completion_tokens: usage.completion_tokens,
    cached_tokens: usage.prompt_tokens_details?.cached_tokens ?? 0,
  };
}

/** Yield the choices of a stream, and return why and with how many tokens it ended; a stopped one returns "aborted". */
async function* follow(path, body, signal) {
  const end = { finishReason: "stop", usage: null };
  try {
    const options = { stream: true, stream_options: { include_usage: true }, return_token_ids: true };
    const response = await request(path, { body: { ...body, ...options }, signal });
    for await (const event of readEvents(response)) {
      if (event.usage) end.usage = toUsage(event.usage);
      const choice = event.choices?.[0];
      if (!choice) continue;
      if (choice.finish_reason) end.finishReason = choice.finish_reason;
      yield choice;
    }
  } catch (error) {
    if (!signal?.aborted) throw error;
    end.finishReason = "aborted";
  }
  return end;
}

class ServerEngine {
  noModels = "There is no model yet. Make one with small-doge demo, or name one: small-doge serve MODEL";
  addModels = "Name a second one for the server: small-doge serve MODEL MODEL";

  async models() {
    const answer = await requestJson("v1/models").catch((error) => {
      if (error.status !== 404) throw error;
    });
    if (!Array.isArray(answer?.data)) throw new ApiError(`${serverName()} answers, but it offers no models. ${hintAtServer()}`);
    return answer.data.map(({ id, meta }) => ({ id, ...meta }));
  }

  async *chat({ model, messages, sampling, signal, continueFinal = false }) {
    const body = { model, messages, ...given(sampling), continue_final_message: continueFinal || undefined };
    const stream = follow("v1/chat/completions", body, signal);
    for (;;) {
      const { value, done } = await stream.next();
      if (done) return value;
      const text = value.delta?.content ?? "";
      if (text || value.token_ids?.length) yield { text, tokenIds: value.token_ids };
    }
  }

  async *complete({ model, prompt, promptIds, sampling, top = 10, signal }) {
    const body = { model, prompt: promptIds ?? prompt, ...given(sampling), logprobs: top };
    const stream = follow("v1/completions", body, signal);
    for (;;) {
      const { value, done } = await stream.next();
      if (done) return value;
      const tokens = toTokens(value);
      if (tokens.length) yield tokens;
    }
  }

  tokenize(body) {
    return requestJson("tokenize", { body });
  }

  inspect({ model, tokens, top = 10 }) {
    return requestJson("api/v1/inspect", { body: { model, tokens, top } });
  }
}

/** Tokens of a chunk. The chunk's text is shared out by `text_offset`, as several tokens may make up one character. */
function toTokens({ text = "", token_ids: ids = [], logprobs }) {
  const characters = Array.from(text); // offsets count characters, not halves of those beyond the basic plane
  const offsets = logprobs?.text_offset ?? [];
  const start = offsets[0] ?? 0;
  return ids.map((id, index) => {
    const from = index === 0 ? 0 : offsets[index] - start;
    const to = index + 1 < ids.length ? offsets[index + 1] - start : characters.length;
    return {
      id,
      text: characters.slice(from, to).join(""),
      logprob: logprobs?.token_logprobs?.[index] ?? null,
      top: logprobs?.top_tokens?.[index] ?? [],
    };
  });
}

export function createEngine() {
  return new ServerEngine();
}
