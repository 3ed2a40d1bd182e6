// Requests to the server: errors in words, and the API key where one is asked for.

/** An error of the server, with its HTTP status; `retryAfter` in seconds where the server says it. */
export class ApiError extends Error {
  constructor(message, status = 0, retryAfter = null) {
    super(message);
    Object.assign(this, { status, retryAfter });
  }
}

const KEY = "small-doge.api-key";
let base = new URL("/", location.href);
/** Asks the user for a key; resolves to null where they refuse. The page replaces it. */
let askForKey = async () => null;
let asking = null;

export function configureApi(settings) {
  if (settings.base) base = settings.base;
  if (settings.askForKey) askForKey = settings.askForKey;
}

/**
 * Fetch a path of the server.
 * @param {string} path such as "v1/models"
 * @param {{method?: string, body?: object, signal?: AbortSignal, keepalive?: boolean}} options a body makes it a POST
 * @returns {Promise<Response>} an answer whose status is good
 */
export async function request(path, { method, body, signal, keepalive } = {}) {
  for (;;) {
    const headers = {};
    const key = sessionStorage.getItem(KEY);
    if (key) headers.Authorization = `Bearer ${key}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(new URL(path, base), {
        method: method ?? (body === undefined ? "GET" : "POST"),
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
        keepalive,
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server does not answer. Is it still running? Nothing that you wrote is lost.");
    }
    if (response.ok) return response;
    if (response.status === 401 && (await getKey(key))) continue;
    throw await describe(response);
  }
}

/** Fetch a path of the server and read the JSON of its answer. */
export async function requestJson(path, options) {
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

/** Ask for a key once, however many requests were refused; true if there is another one than before. */
async function getKey(refused) {
  if (sessionStorage.getItem(KEY) !== refused) return true;
  asking ??= askForKey(refused !== null).finally(() => (asking = null));
  const key = await asking;
  if (!key) return false;
  sessionStorage.setItem(KEY, key);
  return true;
}

async function describe(response) {
  const body = await response.json().catch(() => null);
  const said = body?.error?.message ?? (typeof body?.detail === "string" ? body.detail : null) ?? response.statusText;
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  let message = said || `The server answered with the status ${response.status}.`;
  if (response.status === 401) message = "This server needs an API key.";
  if (response.status === 429) {
    message = `The server is busy: its queue is full. Try again${retryAfter ? ` in ${retryAfter} s` : " in a moment"}.`;
  }
  return new ApiError(message, response.status, retryAfter);
}

/**
 * Events of a stream, each parsed as JSON, until `data: [DONE]`.
 * @param {Response} response
 */
export async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      let part;
      try {
        part = await reader.read();
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new ApiError("The connection to the server broke off.");
      }
      if (part.done) throw new ApiError("The server ended the answer before it was finished.");
      rest += part.value;
      const lines = rest.split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(event.error.message ?? String(event.error));
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
