// Requests to the server: errors in words, and the API key where one is asked for.

/** An error of the server, with its HTTP status, 0 where there was no answer. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

const KEY = "small-doge.api-key";
const PROBE_MS = 5000;
const MOST_AT_CLOSE = 20_000; // letters of a request that browsers finish after its page was closed: they take 64 kB
let base = new URL("/", location.href);
/** Asks the user for a key; resolves to null where they refuse. The page replaces it. */
let askForKey = async () => null;
let asking = null;

const BROKEN = "The connection to the server broke off. What was written is kept; start the server again if it has stopped, and try again.";

/** Where the server is, in words; its address where the page came from another one. */
export function serverName() {
  return isElsewhere() ? `The server at ${base.origin}` : "The server";
}

const isElsewhere = () => base.origin !== location.origin;

export function configureApi(settings) {
  if (settings.base) base = settings.base;
  if (settings.askForKey) askForKey = settings.askForKey;
}

/**
 * Fetch a path of the server.
 * @param {string} path such as "v1/models"
 * @param {{method?: string, body?: object, signal?: AbortSignal, outlives?: boolean}} options a body makes it a POST; one that
 *   `outlives` the page is sent though the page is closed meanwhile
 * @returns {Promise<Response>} an answer whose status is good
 */
export async function request(path, { method, body, signal, outlives = false } = {}) {
  const text = body === undefined ? undefined : JSON.stringify(body);
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
        body: text,
        signal,
        keepalive: outlives && text.length <= MOST_AT_CLOSE,
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw await explainSilence();
    }
    if (response.ok) return response;
    if (response.status === 401 && (await getKey(key))) continue;
    throw await describe(response);
  }
}

/** Fetch a path of the server and read the JSON of its answer. */
export async function requestJson(path, options) {
  const response = await request(path, options);
  if (response.status === 204) return null;
  return response.json().catch(() => {
    throw new ApiError(`${serverName()} answered with something else than JSON. ${hintAtServer()}`);
  });
}

/** What helps where another program answers. */
export function hintAtServer() {
  if (!isElsewhere()) return "Is it small-doge serve, or does something stand before it?";
  return `If small-doge serve is elsewhere, correct --backend where this page is served.`;
}

/** Why a request got no answer that the page may read. Browsers do not say it; what else is reached tells. */
async function explainSilence() {
  const page = location.origin;
  if (!isElsewhere()) {
    return new ApiError("The server does not answer. Start it again with small-doge serve, and try again. Nothing that you wrote is lost.");
  }
  if (location.protocol === "https:" && base.protocol === "http:" && !isLoopback(base.hostname)) {
    return new ApiError(`Browsers let a page of https ask no http address such as ${base.origin}. Give --backend an https address where this page is served.`);
  }
  const probe = (mode) => {
    const signal = AbortSignal.timeout(PROBE_MS);
    return fetch(new URL("health", base), { mode, cache: "no-store", credentials: "omit", signal }).catch(() => null);
  };
  const read = await probe("cors");
  if (read && !read.ok) return describe(read);
  if (read) return new ApiError(`${serverName()} broke off the request. Try again.`);
  if (await probe("no-cors")) {
    return new ApiError(`${serverName()} is there, but refuses pages of ${page}. Start it with --cors-origins ${page} to allow this one.`);
  }
  const isOwn = isLoopback(base.hostname) && !isLoopback(location.hostname);
  const hint = isOwn ? ` ${base.hostname} is the machine that you sit at: --backend must name an address that browsers reach.` : "";
  return new ApiError(
    `No server answers at ${base.origin}. Start it there with: small-doge serve --cors-origins ${page}. If it is elsewhere, correct --backend where this page is served.${hint}`,
  );
}

const isLoopback = (name) => /^(localhost|127\.[\d.]+|\[::1\])$/.test(name);

/** Ask for a key once, however many requests were refused; true if there is another one than before. */
async function getKey(refused) {
  if (sessionStorage.getItem(KEY) !== refused) return true;
  asking ??= askForKey(refused !== null).finally(() => (asking = null));
  const key = await asking;
  if (!key) return false;
  sessionStorage.setItem(KEY, key);
  return true;
}

// What the page adds to errors of these codes: the remedy that is at hand here.
const REMEDIES = {
  context_length_exceeded: "Begin a new conversation, or edit an earlier message to a shorter one.",
};

/** The message of an error, with what helps. */
function toMessage({ message, code }) {
  return REMEDIES[code] ? `${message.replace(/\.$/, "")}. ${REMEDIES[code]}` : message;
}

async function describe(response) {
  const { status } = response;
  const body = await response.json().catch(() => null);
  const said = body?.error?.message ? toMessage(body.error) : response.statusText;
  let message = said || `${serverName()} answered with the status ${status}.`;
  if (body?.error?.code === "origin_not_allowed") message = `${serverName()} refuses pages of ${location.origin}. Start it with --cors-origins ${location.origin} to allow this one.`;
  if (status === 401) message = `${serverName()} needs an API key: the one of its --api-key or SMALLDOGE_API_KEY.`;
  if (status === 429) {
    const seconds = Number(response.headers.get("Retry-After"));
    message = `${serverName()} is busy: its queue is full. Try again${seconds ? ` in ${seconds} s` : " in a moment"}.`;
  }
  return new ApiError(message, status);
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
        throw new ApiError(BROKEN);
      }
      if (part.done) throw new ApiError(BROKEN);
      rest += part.value;
      const lines = rest.split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(toMessage(event.error));
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
